"""The file of a pack: whatever is wrong with it is one line, and nothing in it is trusted."""

import hashlib
import json
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain.config.schema.data import OnBadImage
from cnntrain.data.decode import BadImage
from cnntrain.data.folder import FolderSplit, fingerprint
from cnntrain.data.pack import FILE, MAGIC, TAIL, find_images, open_pack
from cnntrain.data.pack_writer import Shrinker, write_pack
from cnntrain.errors import DataError


@pytest.fixture
def packed(tmp_path):
    """A folder with a pack of two classes of three images."""
    for number, name in enumerate(("a", "b")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (8 + index, 8), (9 * index, 40 * number, 0)).save(tmp_path / f"photos/{name}/{index}.png")
    (tmp_path / "packed").mkdir()
    write_pack(
        tmp_path / "packed",
        find_images(tmp_path / "photos", None, None),
        Shrinker(8, 90),
        workers=0,
        on_bad_image=OnBadImage.error,
        advance=lambda count: None,
    )
    return tmp_path / "packed"


def parts_in(folder) -> dict[str, FolderSplit]:
    pack = open_pack(folder)
    assert pack
    return pack.parts


def parts_of(content: bytes) -> tuple[bytes, bytes]:
    """What lies before the index, and the index."""
    length, _, _ = TAIL.unpack(content[-TAIL.size :])
    end = len(content) - TAIL.size
    return content[: end - length], content[end - length : end]


def sealed(images: bytes, index: bytes) -> bytes:
    """A file whose checksums are right."""
    return images + index + TAIL.pack(len(index), hashlib.sha256(index).digest(), MAGIC)


def fault_of(folder, content: bytes) -> str:
    (folder / FILE).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_pack(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder / FILE}: ")
    assert text.endswith("; pack the photos anew")
    assert "\n" not in text
    return text


def test_a_file_that_is_cut_anywhere_is_refused(packed):
    content = (packed / FILE).read_bytes()
    for length in {0, 1, 7, 8, 9, 60, len(content) // 2, *range(len(content) - TAIL.size - 2, len(content))}:
        fault_of(packed, content[:length])
    fault_of(packed, content + b"\0")


def test_a_changed_byte_of_the_index_is_noticed(packed):
    content = (packed / FILE).read_bytes()
    images, _ = parts_of(content)
    for place in range(len(images), len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 4
        fault_of(packed, bytes(damaged))


def test_a_changed_image_is_a_bad_image_by_its_old_name_and_the_others_are_whole(packed, tmp_path):
    content = bytearray((packed / FILE).read_bytes())
    content[len(MAGIC) + 20] ^= 1
    (packed / FILE).write_bytes(content)
    pack = open_pack(packed)
    assert pack
    paths = pack.parts["train"].paths
    with pytest.raises(BadImage, match=r"damaged in .*images\.pack, by its checksum$"):
        paths.read(0)
    assert str(paths[0]) == str(tmp_path / "photos" / "a" / "0.png")
    for index in range(1, 6):
        assert paths.read(index) == paths[index].read_bytes()


def test_another_picture_of_as_many_bytes_gives_another_fingerprint(packed):
    before = parts_in(packed)
    images, index = parts_of((packed / FILE).read_bytes())
    old = before["train"].paths.read(2)
    new = old[:-3] + bytes([old[-3] ^ 1]) + old[-2:]
    check, new_check = (struct.pack("<I", zlib.crc32(content)) for content in (old, new))
    (packed / FILE).write_bytes(sealed(images.replace(old, new), index.replace(check, new_check)))
    after = parts_in(packed)
    assert after["train"].paths.read(2) == new
    assert after["train"].sizes.equal(before["train"].sizes)
    assert fingerprint(after) != fingerprint(before)


def test_a_file_that_shrinks_while_it_is_read_gives_bad_images(packed):
    pack = open_pack(packed)
    assert pack
    with open(packed / FILE, "r+b") as file:
        file.truncate(20)
    with pytest.raises(BadImage, match="damaged"):
        pack.parts["train"].paths.read(0)


def test_an_index_that_a_stranger_made_is_one_line(packed):
    images, index = parts_of((packed / FILE).read_bytes())
    line, _, arrays = index.partition(b"\n")
    plain = json.loads(line)
    split = plain["splits"]["train"]
    changes = [
        *({"splits": value} for value in ({}, [], None, 3, {"train": {}}, {"other": split})),
        *({"source": value} for value in (None, 3, [])),
        *({"size": value} for value in (None, "x", "64", [], 1e400, 8.5, 0, -8, True, 10**4000)),
        *({"quality": value} for value in (None, "90", 0, 101, 90.0)),
        *(
            {"splits": {"train": split | {key: value}}}
            for key, values in {
                "classes": ([], ["a"], ["a", "a"], ["", "b"], [1, 2], "ab", {"a": 0, "b": 1}, None, 3),
                "counts": (
                    [],
                    [3],
                    [6, 0],
                    [-3, 9],
                    [1, 2, 3],
                    [10**18, 3],
                    [2.5, 3.5],
                    ["3", "3"],
                    [3.0, 3.0],
                    {"3": 3, "4": 3},
                    None,
                ),
                "names": (-1, 10**30, 0, "x", None, 5.0, float(split["names"])),
                "folder": (None, 3),
            }.items()
            for value in values
        ),
    ]
    for change in changes:
        fault_of(packed, sealed(images, json.dumps(plain | change).encode() + b"\n" + arrays))
    for odd in (b"", b"\n", b"null\n", b"[1]\n", b"[" * 100_000 + b"\n", b"\xff\n", line):
        fault_of(packed, sealed(images, odd + arrays if odd != line else odd))
    for place in range(0, 6 * 8, 8):  # the ends of the names
        for value in (-1, 0, 2**62):
            damaged = bytearray(arrays)
            damaged[place : place + 8] = int(value).to_bytes(8, "little", signed=True)
            fault_of(packed, sealed(images, line + b"\n" + bytes(damaged)))
    damaged = bytearray(arrays)
    damaged[48:52] = b"\xff\xff\xff\xff"  # bytes of the first image
    fault_of(packed, sealed(images, line + b"\n" + bytes(damaged)))


def test_foreign_names_are_printed_safely(packed):
    images, index = parts_of((packed / FILE).read_bytes())
    line, _, arrays = index.partition(b"\n")
    plain = json.loads(line)
    plain["source"] = "/x\n\x1b[31m\udcff"
    plain["splits"]["train"]["classes"] = ["a\x1b[2J", "b\n"]
    (packed / FILE).write_bytes(sealed(images, json.dumps(plain).encode() + b"\n" + arrays))
    pack = open_pack(packed)
    assert pack
    for text in (pack.note, *pack.parts["train"].classes):
        assert text.isprintable()


def test_other_kinds_of_files_are_not_read_as_packs(tmp_path):
    assert open_pack(tmp_path) is None
    (tmp_path / FILE).mkdir()
    assert open_pack(tmp_path) is None


def test_a_pack_that_may_not_be_read_says_so(packed, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(DataError, match=r"images\.pack: cannot be read \(Permission denied\)"):
        open_pack(packed)


def test_paths_of_a_pack_go_to_other_processes_and_parts_of_them_are_read(packed):
    pack = open_pack(packed)
    assert pack
    paths = pickle.loads(pickle.dumps(pack.parts["train"].paths)).take(torch.tensor([4, 1]))
    assert [paths.read(index) for index in (0, 1)] == [paths[index].read_bytes() for index in (0, 1)]
    assert len(paths) == 2


def test_the_file_is_laid_out_as_its_page_says(packed):
    content = (packed / FILE).read_bytes()
    assert content[:8] == content[-8:] == b"cnnpack1"
    images, index = parts_of(content)
    line, _, arrays = index.partition(b"\n")
    entry = json.loads(line)["splits"]["train"]
    assert entry == {"folder": "", "classes": ["a", "b"], "counts": [3, 3], "names": 6 * len("a/0.png")}
    assert np.frombuffer(arrays, "<i8", 6).tolist() == [7, 14, 21, 28, 35, 42]
    assert np.frombuffer(arrays, "<u4", 6, 48).sum() == len(images) - 8
    assert arrays[48 + 2 * 24 :] == b"a/0.pnga/1.pnga/2.pngb/0.pngb/1.pngb/2.png"
