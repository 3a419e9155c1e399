"""Shards of the webdataset format: what is read of them, how they are shuffled, and what is wrong with them."""

import gc
import io
import json
import os
import pickle
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from shard_files import build, is_right, names, picture, samples, write_shards, write_tar

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.config.paths import cache_dir
from cnntrain.config.schema.titles import name_of_folder
from cnntrain.config.shards import absolute, find_shards
from cnntrain.data import shard_fetch, shard_index
from cnntrain.data.sampler import BatchSampler, shuffle_within
from cnntrain.errors import ConfigError, DataError, DataErrors, FileSystemError, UnsafeError
from cnntrain.runtime.seeds import generator
from cnntrain.runtime.world import World

QUICK = ["model=softmax", "data.image_size=16", "data.batch_size=4", "trainer.threads=1", "trainer.tensorboard=false"]
QUICK += ["trainer.epochs=2", "schedule=constant", "augment=none", "data.workers=0"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def faults(root: Path | str, **arguments: Any) -> list[str]:
    with pytest.raises(DataErrors) as caught:
        build(root, **arguments)
    return [line.replace(f"{root}/", "") for line in caught.value.lines()]


def labelled(folder: Path, *contents: dict[str, bytes]) -> Path:
    """One shard, whose samples have these members beside their picture."""
    write_tar(folder / "0.tar", samples(range(len(contents)), dict(enumerate(contents))))
    return folder


# ---- which shards ----


def test_braces_are_replaced_by_numbers_of_their_width_and_by_names(tmp_path):
    for split, count in (("train", 12), ("val", 2)):
        write_shards(tmp_path, count, 1, split + "-{:04d}.tar")
    found = find_shards(f"{tmp_path}/{{train-{{0000..0011}},val-{{0000..0001}}}}.tar")
    wanted = [f"train-{number:04d}" for number in range(12)] + ["val-0000", "val-0001"]
    assert found == [f"{tmp_path}/{name}.tar" for name in wanted]
    assert find_shards(f"{tmp_path}/{{train,val}}-0001.tar") == [
        f"{tmp_path}/{name}-0001.tar" for name in ("train", "val")
    ]
    assert find_shards(f"{tmp_path}/val-*.tar") == find_shards(f"{tmp_path}/val-000{{0..1}}.tar")
    assert sorted(found) == find_shards(str(tmp_path))
    assert find_shards(f"{tmp_path}/val-0001.tar::https://a.b/{{9..10}}.tar")[1:] == [
        "https://a.b/9.tar",
        "https://a.b/10.tar",
    ]


def test_the_command_line_takes_a_pattern_as_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for typed in ("s/{000..099}.tar", "s/{train,val}-{00..09}.tar", "s/{train-{0..3},val-{0..1}}.tar"):
        settings = compose_settings(["data=webdataset", f"data.root={typed}"])
        assert settings.data.root == f"{tmp_path}/{typed}"
    assert absolute("a.tar::https://h/b.tar::../c.tar", "/x/y") == "/x/y/a.tar::https://h/b.tar::/x/c.tar"


def test_a_run_is_headed_by_the_name_before_the_numbers():
    patterns = {
        "/data/shards/{000..099}.tar": "shards",
        "/data/imagenet-train-{0000..1023}.tar": "imagenet",
        "/data/food/{train,val}-{00..09}.tar": "food",
        "/data/food/train/*.tar": "food",
        "https://a.b/flowers/v_{0..3}.tar": "v",
        "/data/food": "food",
    }
    assert {root: name_of_folder(root) for root in patterns} == patterns


@pytest.mark.parametrize(
    ("root", "error", "fault"),
    [
        ("pipe:cat x.tar", UnsafeError, "pipe: would run a command of a shell (given pipe:cat x.tar)"),
        ("s3://bucket/{0..1}.tar", ConfigError, "read from files, http and https (given s3://bucket/0.tar)"),
        ("https:///x.tar", ConfigError, "https:///x.tar names no host"),
        ("/none/{0..99999999}.tar", DataError, "names more than 100,000 shards"),
        ("/none/{0..999}/{0..999}.tar", DataError, "names more than 100,000 shards"),
        ("/none/*.tar", DataError, "/none/*.tar is the name of no file"),
    ],
)
def test_what_names_no_shards_is_told_in_one_line(root, error, fault):
    with pytest.raises(error) as caught:
        find_shards(root)
    assert len(caught.value.lines()) == 1
    assert fault in str(caught.value)


def test_shards_missing_from_a_pattern_are_told_together_before_torch_is_needed(tmp_path, capsys):
    write_shards(tmp_path, 2)
    assert cli.main(["data=webdataset", f"data.root={tmp_path}/{{000..009}}.tar"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(
        f"data.root: {tmp_path}/002.tar is not there; fetch the shard, or leave it out of the pattern"
    )
    assert [line.partition("000.tar")[0] for line in lines[1:5]] == lines[1:5]
    assert lines[5].endswith("data.root: and 3 more not there, beside 2 shards that are; mend the pattern")
    assert cli.main(["data=webdataset", f"data.root={tmp_path}/shards"]) == 3
    told = f"{tmp_path}/shards is not there; give the folder of the shards, or DIR/{{000..099}}.tar\n"
    assert capsys.readouterr().err.endswith(f"data.root: {told}")


def test_shards_given_as_a_folder_of_photos_are_told_what_they_are(tmp_path, capsys):
    assert cli.main(["data=imagefolder", f"data.root={write_shards(tmp_path)}/{{000..003}}.tar"]) == 3
    assert "003}.tar is not there; shards of tar files are read with data=webdataset" in capsys.readouterr().err


def test_a_jump_in_the_numbers_of_a_folder_is_warned_of(tmp_path):
    os.remove(write_shards(tmp_path, 5) / "002.tar")
    warnings = build(tmp_path).warnings
    assert "data.root: the numbers of the shards jump from 1 to 3; is a shard missing between them?" in warnings


# ---- what is read ----


def test_the_images_and_labels_of_all_shards_are_read_as_they_stand_there(tmp_path):
    data = build(write_shards(tmp_path))
    assert data.classes == ["0", "1"]
    assert sorted(names(data.train) + names(data.val)) == [f"{n // 6:03d}.tar/{n:04d}.png" for n in range(24)]
    assert is_right(data.train)
    assert is_right(data.val)
    assert "shards: train 4 shards, in " in "\n".join(data.notes)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_that_the_webdataset_library_has_written_are_read(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(f"{tmp_path}/%03d.tar", maxcount=5, verbose=0) as writer:
        for number in range(12):
            writer.write(
                {"__key__": f"{number:04d}", "png": picture(number), "cls": number % 2, "json": {"id": number}}
            )
    data = build(f"{tmp_path}/{{000..002}}.tar")
    loaders = [data.train, data.val]
    assert sorted(names(data.train) + names(data.val)) == [f"{n // 5:03d}.tar/{n:04d}.png" for n in range(12)]
    assert all(map(is_right, loaders))
    told = {}  # what the library itself reads of them
    for sample in wds.WebDataset(f"{tmp_path}/{{000..002}}.tar", shardshuffle=False):
        told[sample["__key__"]] = int(sample["cls"])
    gc.collect()  # the library leaves the files open
    ours = {name[8:12]: int(one) for loader in loaders for name, one in zip(names(loader), loader.labels, strict=True)}
    assert ours == told


@pytest.mark.parametrize(
    ("dark", "bright", "classes"),
    [
        ({"cls": b"7\n"}, {"cls": b"10"}, ["7", "10"]),
        ({"txt": b"cat"}, {"txt": b"dog"}, ["cat", "dog"]),
        ({"cls": b"cat"}, {"cls": b"dog"}, ["cat", "dog"]),
        ({"json": b'{"label": 0}'}, {"json": b'{"label": 1.0}'}, ["0", "1"]),
        ({"json": b'{"id": 5, "class": "cat"}'}, {"json": b'{"Class_Name": "dog"}'}, ["cat", "dog"]),
        ({"json": b"[3]"}, {"json": b'"4"'}, ["3", "4"]),
        ({"cls": b"0", "txt": b"a cat, asleep"}, {"cls": b"1", "json": b'{"category": 9}'}, ["0", "1"]),
    ],
)
def test_a_label_is_found_in_cls_json_or_txt(tmp_path, dark, bright, classes):
    data = build(labelled(tmp_path, *[dark, bright] * 6))
    assert data.classes == classes
    assert is_right(data.train)


def test_what_programs_for_tar_add_is_no_sample(tmp_path):
    members = [("./" + name, content) for name, content in samples(range(8))]
    members += [("./._0000.png", b"x"), ("README", b"x"), ("__meta__.json", b"{}"), ("notes.mp4", b"x")]
    members += [("deep/er.v2/0.PNG", picture(8)), ("deep/er.v2/0.CLS", b"0"), ("0001.seg.png", picture(0))]
    data = build(write_tar(tmp_path / "0.tar", members))
    assert len(data.train.labels) + len(data.val.labels) == 9
    assert is_right(data.train)
    assert data.warnings[:1] == ["data.root: 1 sample without an image and without a label passed over"]


def test_names_of_classes_come_from_classes_txt_or_from_data_classes(tmp_path):
    write_shards(tmp_path)
    named = build(tmp_path, classes=["cat", "dog"])
    assert named.classes == ["cat", "dog"]
    assert is_right(named.train)
    turned = build(tmp_path, classes=["1", "0"])  # a choice of those that are there, in another order
    assert is_right(turned.train, dark=1)
    (tmp_path / "classes.txt").write_text("cat\ndog\nhorse\n")
    data = build(tmp_path)
    assert data.classes == ["cat", "dog"]
    assert "class names: classes.txt" in data.notes
    assert is_right(data.train)
    assert is_right(build(tmp_path, classes=["dog", "cat"]).train, dark=1)


def test_some_classes_alone_are_another_data_set(tmp_path):
    labels = {number: {"cls": str(number % 3).encode()} for number in range(18)}
    write_tar(tmp_path / "0.tar", samples(range(18), labels))
    data = build(tmp_path, classes=["2", "0"])
    assert data.classes == ["2", "0"]
    assert len(data.train.labels) + len(data.val.labels) == 12
    assert data.fingerprint != build(tmp_path).fingerprint


def test_splits_are_those_of_the_names_or_of_the_folders(tmp_path):
    write_shards(tmp_path / "a", 2, 6, "photos-train-{:02d}.tar")
    write_shards(tmp_path / "a", 1, 4, "photos_validation_{:02d}.tar")
    write_shards(tmp_path / "b" / "train", 2, 6)
    write_shards(tmp_path / "b" / "Test", 1, 4)
    by_name, by_folder = build(tmp_path / "a"), build(tmp_path / "b")
    assert [len(loader.labels) for loader in (by_name.train, by_name.val)] == [12, 4]
    assert by_name.test is None
    assert [len(loader.labels) for loader in (by_folder.train, by_folder.val, by_folder.test)] == [10, 2, 4]
    assert "val: 4 images of 1 shard" in by_name.notes
    assert "test: none, as no shard is of test" in by_name.notes
    with pytest.raises(DataError, match="all are of val or test, by their names; give shards to train on"):
        build(f"{tmp_path}/a/photos_validation_00.tar")


def test_an_index_is_read_once_and_again_after_a_change(tmp_path, monkeypatch):
    write_shards(tmp_path)
    before = build(tmp_path)
    read, seen = shard_index._read, []
    monkeypatch.setattr(shard_index, "_read", lambda path: (seen.append(path.name), read(path))[1])
    assert build(tmp_path).fingerprint == before.fingerprint
    assert not seen
    write_tar(tmp_path / "001.tar", samples(range(100, 107)))
    assert build(tmp_path).fingerprint != before.fingerprint
    assert seen == ["001.tar"]


@pytest.mark.parametrize(
    "forged",
    [
        {"names": [7] * 6},
        {"names": ["\ud800.png"] * 6},
        {"starts": [10**30] * 6},
        {"starts": [-512] * 6},
        {"starts": [1.5] * 6},
        {"sizes": [2**63 - 1] * 6},
        {"labels": [[1]] * 6},
        {"labels": [None] * 6},
        {"labels": ["\x1b[31m"] * 6},
        {"other": "many"},
    ],
)
def test_a_forged_index_is_made_anew(tmp_path, forged):
    before = build(write_shards(tmp_path / "shards"))
    for file in (cache_dir() / "shard_indices").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | forged))
    assert build(tmp_path / "shards").fingerprint == before.fingerprint


def test_an_index_that_is_a_pipe_or_of_another_user_is_not_read(tmp_path, monkeypatch):
    before = build(write_shards(tmp_path / "shards"))
    kept = list((cache_dir() / "shard_indices").iterdir())
    for file in kept:
        file.write_text(file.read_text().replace('"labels": [0', '"labels": [1'))
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        assert build(tmp_path / "shards").fingerprint == before.fingerprint
    for file in kept:
        file.unlink()
        os.mkfifo(file)  # which would wait for a writer
    assert build(tmp_path / "shards").fingerprint == before.fingerprint


def test_what_is_called_as_a_shard_and_is_no_file_is_told(tmp_path):
    write_shards(tmp_path)
    os.mkfifo(tmp_path / "004.tar")  # which would wait for a writer
    (tmp_path / "005.tar").mkdir()
    assert faults(tmp_path) == [
        "004.tar: is a folder, pipe or device, not a file; take it away",
        "005.tar: is a folder, pipe or device, not a file; take it away",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [("dark\nlight\ndark\n", "'dark' stand there twice"), ("x" * 10**5, "a line of 100,000 letters is no class")],
)
def test_a_list_of_names_that_are_no_classes_is_told(tmp_path, text, fault):
    (write_shards(tmp_path) / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=f"classes.txt: {fault}; give each class one line"):
        build(tmp_path)


# ---- the order ----


def test_a_buffer_shows_every_image_once_and_none_far_from_its_place():
    shards, places = torch.arange(20).repeat_interleave(50), torch.arange(1000)
    draws = [generator(torch.device("cpu"), 0, epoch) for epoch in (0, 1, 0)]
    orders = [shuffle_within(shards, places, 30, draw) for draw in draws]
    turned = torch.arange(999, -1, -1)  # another order of the list changes nothing
    assert turned[shuffle_within(shards[turned], places[turned], 30, draws[2].manual_seed(1))].equal(
        shuffle_within(shards, places, 30, draws[2].manual_seed(1))
    )
    for order in orders:
        assert order.sort().values.equal(torch.arange(1000))
        rows = shards[order]
        sequence = list(dict.fromkeys(rows.tolist()))
        assert sequence != sorted(sequence)
        first = torch.tensor([sequence.index(int(shard)) for shard in shards]).argsort(stable=True)
        place = torch.empty(1000, dtype=torch.int64)
        place[first] = torch.arange(1000)
        moves = (place[order] - torch.arange(1000)).abs()
        assert moves.float().mean() > 5
        assert moves.max() < 30
    assert orders[0].equal(orders[2])
    assert not orders[0].equal(orders[1])


def test_the_header_states_the_buffer_and_the_order_is_that_of_the_epoch(tmp_path):
    write_shards(tmp_path)
    whole, data = build(tmp_path), build(tmp_path, buffer=5)
    assert "shuffle: all 22 images (data.buffer=null)" in whole.notes
    assert "shuffle: the shards, and images within 5 places (data.buffer)" in data.notes
    assert data.train.sampler.order(1).equal(build(tmp_path, buffer=5).train.sampler.order(1))
    assert not data.train.sampler.order(1).equal(data.train.sampler.order(2))
    assert data.fingerprint == whole.fingerprint
    batches = list(data.train.batches(1, 2))  # as a resumed run asks for them
    assert torch.cat([batch.indices for batch in batches]).equal(data.train.sampler.order(1)[8:])
    assert is_right(data.train)


def test_processes_share_each_micro_batch_and_have_as_many_of_them():
    labels = torch.arange(104) % 2
    shards = torch.arange(104) // 10
    parts = []
    for rank in range(4):
        world = World(rank, 4)
        sampler = BatchSampler(labels, batch_size=4, seed=0, train=True, world=world).within(
            shards, torch.arange(104), 20
        )
        order = sampler.order(3)
        parts.append([order[part] for part, _ in sampler.parts()])
    assert {len(part) for part in parts} == {len(parts[0])}
    shown = torch.cat([index for part in parts for index in part])
    assert len(shown.unique()) == len(shown) == 104


def test_what_is_found_can_be_sent_to_another_process(tmp_path):
    data = build(write_shards(tmp_path), buffer=5)
    paths = data.train.decoder.paths
    assert pickle.loads(pickle.dumps(paths)).read(3) == paths.read(3)


# ---- faults ----


def test_all_that_is_wrong_with_samples_is_told_at_once(tmp_path):
    members = samples(range(4), {2: {}, 3: {"cls": b"1", "json": b'{"label": 0}'}})
    members += [("0005.cls", b"1"), ("0006.jpg", picture(1)), ("0006.png", picture(2)), ("0006.cls", b"1")]
    members += [("0007.png", picture(7)), ("0007.cls", b"1"), ("0007.cls", b"1")]
    members += [("0008.png", picture(7)), ("0008.pyd", pickle.dumps(1)), ("0009.png", picture(9)), ("0009.json", b"{")]
    members += [("0010.png", picture(0)), ("0010.json", b'{"label": [1, 2]}'), ("0011.heic", b"x"), ("0011.cls", b"1")]
    members += [("0012.png", picture(0)), ("0012.json", b'{"width": 3}')]
    write_tar(tmp_path / "0.tar", members)
    write_tar(tmp_path / "1.tar", samples([0, 1], {1: {"cls": b"-1"}}))
    assert faults(tmp_path) == [
        "0.tar: 0002: has no label (png); give it one in .cls, .json or .txt",
        "0.tar: 0003: has the label 1 in .cls and 0 in .json; leave one of them",
        "0.tar: 0008: has no label (png, pyd); give it one in .cls, .json or .txt: a .pyd may run code, and is never "
        "loaded",
        "0.tar: 0009: .json is no JSON; write it anew",
        "0.tar: 0010: .json holds several labels; give the sample one",
        "data.root: and 1 more: samples with no label or several",
        "0.tar: 0005: holds no image that can be read (cls); give it one, such as 0005.jpg",
        "0.tar: 0006: holds 2 images (cls, jpg, png); give it one, such as 0006.jpg",
        "0.tar: 0011: holds no image that can be read (cls, heic); give it one, such as 0011.jpg",
        "0.tar: 0007: holds cls more than once; give each sample a key of its own",
        "1.tar: 0001.png: the label -1 is below 0; take the sample out, or give it a class",
    ]


def test_labels_that_stand_for_no_class_are_told_with_shard_and_key(tmp_path):
    write_tar(tmp_path / "0.tar", samples(range(4), {2: {"cls": b"2"}, 3: {"cls": b"cow"}}))
    assert faults(tmp_path) == [
        "0.tar: 0003.png: the label 'cow' is a name, and others are numbers; name the numbers in classes.txt"
    ]
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert faults(tmp_path) == [
        "0.tar: 0002.png: the label 2 is out of range: classes.txt names 2 classes, 0 to 1",
        "0.tar: 0003.png: the label 'cow' is none of the names in classes.txt",
    ]
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match=r"classes.txt: 'cat' stand there twice"):
        build(tmp_path)


def test_what_is_scored_must_be_of_a_class_that_is_learnt(tmp_path):
    write_shards(tmp_path, 1, 6, "train-{}.tar")
    write_tar(tmp_path / "val-0.tar", samples([0, 1, 2], {2: {"cls": b"5"}}))
    assert faults(tmp_path) == ["val-0.tar: 0002.png: class '5' is in val and not in train; take the sample out"]
    lines = faults(tmp_path, known=["0", "5"], splits=["val"])
    assert lines[0].startswith("train-0.tar: 0001.png: class '1' is in train and not among those of the network; put")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda content: b"", "is damaged (empty file)"),
        (lambda content: content[:700], "is damaged (unexpected end of data)"),
        (lambda content: content[: -(-len(content.rstrip(b"\0")) // 512 * 512)], "is damaged (it is cut short)"),
        (lambda content: content[:512] + b"x" * 4096, "is damaged ("),
        (lambda content: content[:1024] + b"x" * 512 + content[1536:], "is damaged (it is cut short)"),
        (lambda content: b"no tar" * 1000, "is damaged ("),
        (lambda content: bytes(10240), "holds no images; members are called KEY.jpg and KEY.cls there"),
    ],
)
def test_damaged_shards_are_told_all_together(tmp_path, damage, fault):
    write_shards(tmp_path, 3)
    for name in ("000.tar", "002.tar"):
        (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    lines = faults(tmp_path)
    assert [line.partition(":")[0] for line in lines] == ["000.tar", "002.tar"]
    assert all(fault in line for line in lines)


def test_a_member_that_would_lead_back_ends_the_reading(tmp_path):
    info = tarfile.TarInfo("0.png")
    info.size = -512
    (tmp_path / "0.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    (line,) = faults(tmp_path)
    assert line.startswith("0.tar: is damaged (")


def test_an_image_that_cannot_be_decoded_is_told_with_shard_and_key_or_skipped(tmp_path):
    members = samples(range(12))
    members[8] = (members[8][0], b"no picture")
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(DataError, match=r"0\.tar/0004\.png: .*; write the shard anew, or set data\.on_bad_image=skip"):
        list(build(tmp_path, val=0).train.batches())
    data = build(tmp_path, val=0, on_bad_image="skip")
    assert sum(len(batch.images) for batch in data.train.batches()) == 12
    assert [Path(path).name for path, _ in data.train.bad_files] == ["0004.png"]


def test_links_and_names_that_lead_outside_never_matter(tmp_path):
    outside = tmp_path / "secret.png"
    outside.write_bytes(picture(1))
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "0.tar", "w") as tar:
        for number in range(6):
            for suffix, content in (("png", picture(number)), ("cls", str(number % 2).encode())):
                info = tarfile.TarInfo(f"../../{number}.{suffix}" if number else f"/etc/0.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("9.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
    data = build(tmp_path / "in", val=0)
    assert names(data.train) == ["etc/0.png", *(f"0.tar/{number}.png" for number in range(1, 6))]
    assert is_right(data.train)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "in", "secret.png"]


def test_a_label_too_large_to_be_one_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_index, "MOST_LABEL", 100)
    lines = faults(labelled(tmp_path, {"cls": b"0"}, {"json": b" " * 101}, {"cls": b"1"}, {"cls": b""}))
    assert lines == [
        "0.tar: 0001: .json has 101 bytes, and is no label; give it one",
        "0.tar: 0003: .cls is empty; give it a number or the name of a class",
    ]


# ---- over the network ----


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder; `short.tar` breaks off, `gone.tar` is not there."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/short.tar":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
        elif self.path == "/aside.tar":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/x.tar")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(shard_fetch, "TRIES", 1)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "server").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "server"))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_shards_of_an_address_are_fetched_once_and_are_the_data_set_of_the_files(tmp_path, server):
    write_shards(tmp_path / "server")
    data = build(f"{server}/{{000..003}}.tar")
    assert sorted(Handler.asked) == [f"/00{number}.tar" for number in range(4)]
    assert is_right(data.train)
    assert build(f"{server}/{{000..003}}.tar").fingerprint == data.fingerprint == build(tmp_path / "server").fingerprint
    assert len(Handler.asked) == 4


def test_shards_that_cannot_be_had_are_told_together_and_leave_nothing(tmp_path, server):
    write_shards(tmp_path / "server")
    lines = faults(f"{server}/{{000,gone,short,aside}}.tar")
    assert [line.partition("; ")[0].removeprefix(f"data.root: {server}/") for line in lines] == [
        "aside.tar could not be fetched in 1 tries (<urlopen error unknown url type: ftp>)",
        "gone.tar is not to be had (404 File not found)",
        "short.tar could not be fetched in 1 tries (100 of 100,000 bytes came)",
    ]
    kept = [path.name for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file()]
    assert kept == ["000.tar"]


def test_an_address_names_a_file_inside_the_cache_whatever_it_says():
    urls = [
        "https://a.b/../../etc/x.tar",
        "https://a.b/%2e%2e/%2e%2e%2fx.tar",
        "https://a.b/",
        "https://a.b/x.tar?y=../z",
    ]
    places = [shard_fetch._place(url).resolve() for url in urls]
    home = (Path(os.environ["XDG_CACHE_HOME"]) / "cnntrain" / "shards").resolve()
    assert all(place.parent.parent == home and place.suffix == ".tar" for place in places)
    assert len(set(places)) == 4


def test_a_disk_too_small_for_all_shards_is_told_before_the_first_is_there(tmp_path, server, monkeypatch):
    write_shards(tmp_path / "server", 2)
    usage = type("Usage", (), {"free": 15_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(FileSystemError, match=r"has no space for 2 shards \(No space left on device; it needs"):
        build(f"{server}/{{000..001}}.tar")


# ---- commands ----


def test_the_commands_take_shards_and_a_run_on_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "shards", 4, 6, "train-{:03d}.tar")
    write_shards(tmp_path / "shards", 1, 6, "val-{:03d}.tar")
    words = ["data=webdataset", "data.root=shards/{train-{000..003},val-000}.tar", *QUICK]
    assert cli.main([*words, "hydra.run.dir=run"]) == 0
    header = (tmp_path / "run" / "splits.csv").read_text().splitlines()
    assert len(header) == 31
    assert "train-000.tar/0000.png,train" in header
    assert cli.main(["resume", "run", "trainer.epochs=3"]) == 0
    assert cli.main(["eval", "run", "out=scores.json"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["val"]["images"] == 6
    assert cli.main(["check", "run"]) == 0
    assert cli.main(["check", *words]) == 0
    assert "val 6" in capsys.readouterr().out
    assert cli.main([*words, "data.split_file=run/splits.csv", "hydra.run.dir=again"]) == 0
    assert sorted((tmp_path / "again" / "splits.csv").read_text().splitlines()) == sorted(header)
    assert cli.main(["pack", *words[:2], "size=16", "out=packed"]) == 0
    packed = build(tmp_path / "packed", name="imagefolder")
    assert is_right(packed.train)
    assert len(packed.train.labels) == 24
