"""A plain JPEG is decoded without Pillow, to the pixels or the refusal that Pillow's road ends in."""

import io
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cnntrain.data import decode
from cnntrain.data.decode import BadImage, decode_image, read_image

ROWS, COLUMNS = np.mgrid[0:48, 0:64]
PHOTO = Image.fromarray(np.stack([4 * ROWS, 3 * COLUMNS, ROWS + COLUMNS], axis=2).astype(np.uint8))


def jpeg(image: Image.Image = PHOTO, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def with_segment(marker: int, body: bytes) -> bytes:
    content = jpeg()
    return content[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + content[2:]


def with_xmp(text: bytes) -> bytes:
    return with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text)


def with_frame(**changed: int) -> bytes:
    """The header of the frame with other numbers."""
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0")
    for name, value in changed.items():
        place, form = {"bits": (4, ">B"), "height": (5, ">H"), "width": (7, ">H"), "parts": (9, ">B")}[name]
        struct.pack_into(form, content, at + place, value)
    return bytes(content)


FRAME = jpeg()[jpeg().index(b"\xff\xc0") : jpeg().index(b"\xff\xc4")]
PLAIN = {
    "colour": jpeg(),
    "grey": jpeg(PHOTO.convert("L")),
    "progressive": jpeg(progressive=True),
    "subsampled": jpeg(subsampling=0),
    "restarts": jpeg(restart_marker_blocks=2),
    "comment": jpeg(comment=b"A comment"),
    "icc": jpeg(icc_profile=bytes(70_000)),  # of two segments
    "xmp": with_xmp(b'<x tiff:Orientation="1"/>'),
    "several pictures": jpeg(PHOTO, "MPO", save_all=True, append_images=[PHOTO]),
    "rgb by adobe": with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "truncated": jpeg()[:-200],
    "no end mark": jpeg()[:-2],
    "too many pixels in the header": with_frame(height=900, width=900),
}
ODD = {
    "turned": jpeg(exif=turned()),
    "exif behind a comment": with_segment(0xFE, b"first")[:11] + jpeg(exif=turned())[2:],
    "turned by xmp": with_xmp(b'<x tiff:Orientation="6"/>'),
    "turned by an element of xmp": with_xmp(b"<tiff:Orientation>3</tiff:Orientation>"),
    "cmyk": jpeg(PHOTO.convert("CMYK")),
    "filled": jpeg().replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
    "arithmetic": jpeg().replace(b"\xff\xc0", b"\xff\xc9"),
    "lossless": jpeg().replace(b"\xff\xc0", b"\xff\xc3"),
    "12 bits": with_frame(bits=12),
    "no height": with_frame(height=0),
    "no width": with_frame(width=0),
    "huge": with_frame(height=65_535, width=65_535),
    "two parts": with_frame(parts=2),
    "two frames": jpeg().replace(b"\xff\xc4", FRAME + b"\xff\xc4", 1),
    "segment without a length": with_segment(0xE0, b"")[:4] + b"\0\0" + jpeg()[2:],
    "segment past the end": jpeg()[:2] + b"\xff\xe0\xff\xff" + jpeg()[2:],
    "no scan": jpeg()[: jpeg().index(b"\xff\xda")],
    "no frame": jpeg().replace(b"\xff\xc0", b"\xff\xfe"),
    "png": jpeg(PHOTO, "PNG"),
    "three bytes": b"\xff\xd8\xff",
}


def outcome(content: bytes, channels: int) -> torch.Tensor | str:
    try:
        return decode_image(content, channels)
    except BadImage as error:
        return str(error)


@pytest.fixture
def by_pillow(monkeypatch):
    """What comes of a file where none is plain."""

    def answer(content: bytes, channels: int) -> torch.Tensor | str:
        with monkeypatch.context() as patch:
            patch.setattr(decode, "_is_plain_jpeg", lambda content: False)
            return outcome(content, channels)

    return answer


def same(one: torch.Tensor | str, other: torch.Tensor | str) -> bool:
    return one == other if isinstance(one, str) or isinstance(other, str) else torch.equal(one, other)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [*PLAIN, *ODD])
def test_both_roads_end_in_the_same_pixels_or_the_same_words(name, channels, by_pillow):
    content = (PLAIN | ODD)[name]
    assert same(outcome(content, channels), by_pillow(content, channels))


@pytest.mark.parametrize("name", ["xmp", *(name for name in ODD if name.startswith("turned"))])
def test_a_picture_stands_as_pillow_turns_it_by_exif_or_xmp(name):
    content = (PLAIN | ODD)[name]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert (upright.size != PHOTO.size) == (name in ("turned", "turned by xmp"))
    assert torch.equal(decode_image(content, 3), torch.from_numpy(np.array(upright)))


@pytest.mark.parametrize("name", list(PLAIN))
def test_whole_plain_files_are_never_opened_by_pillow(name, monkeypatch):
    assert decode._is_plain_jpeg(PLAIN[name])
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("opened"))
    if (pixels := decode._decode_jpeg(PLAIN[name], 3)) is not None:
        assert torch.equal(decode_image(PLAIN[name], 3), pixels)


@pytest.mark.parametrize("name", list(ODD))
def test_whatever_is_odd_is_left_to_pillow(name):
    assert not decode._is_plain_jpeg(ODD[name])


def test_random_bytes_in_the_header_end_as_they_do_by_pillow(by_pillow):
    random = np.random.default_rng(0)
    whole = 0
    for content in [PLAIN[name] for name in ("colour", "grey", "progressive", "comment")] * 60:
        damaged = bytearray(content)
        for place in random.integers(0, content.index(b"\xff\xda") + 14, random.integers(1, 4)):
            damaged[place] = random.choice([random.integers(0, 256), 0, 0xFF, 0xC0, 0xDA, 0xE1])
        result = outcome(bytes(damaged), 3)
        assert same(result, by_pillow(bytes(damaged), 3))
        whole += not isinstance(result, str)
    assert 40 < whole < 200  # both kinds were there


@pytest.mark.parametrize(
    ("marker", "body"),
    [(0xE0, b"JFIF\0"), (0xEE, b"Adobe"), (0xE2, b"ICC_PROFILE\0"), (0xED, b"Photoshop 3.0\08BIM\4")],
)
def test_damaged_notes_of_a_program_do_not_spoil_the_picture(marker, body):
    assert torch.equal(decode_image(with_segment(marker, body), 3), decode_image(jpeg(), 3))


def test_a_file_is_read_to_its_end_where_the_system_gives_it_in_parts(tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    whole, read = read_image(tmp_path / "photo.jpg", 3), os.read
    monkeypatch.setattr(os, "read", lambda handle, size: read(handle, min(size, 100)))
    assert torch.equal(read_image(tmp_path / "photo.jpg", 3), whole)
