"""Shards of the webdataset format: what is read of them, how they are shuffled, and the commands that take them."""

import gc
import json
import os
import pickle

import pytest
import torch
from shard_files import build, faults, is_right, labelled, names, picture, samples, write_shards, write_tar

from cnntrain import cli
from cnntrain.config.paths import cache_dir
from cnntrain.data import shard_index
from cnntrain.data.sampler import BatchSampler, shuffle_within
from cnntrain.errors import DataError
from cnntrain.runtime.seeds import generator
from cnntrain.runtime.world import World

QUICK = ["model=softmax", "data.image_size=16", "data.batch_size=4", "trainer.threads=1", "trainer.tensorboard=false"]
QUICK += ["trainer.epochs=2", "schedule=constant", "augment=none", "data.workers=0"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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
