"""What is wrong with shards and with the samples in them: told all together, and nothing else happens."""

import io
import pickle
import tarfile
from pathlib import Path

import pytest
from shard_files import build, faults, is_right, labelled, names, picture, samples, write_shards, write_tar

from cnntrain.data import shard_index
from cnntrain.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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
