"""Every kind of image file comes out right, and every damaged one says why."""

import contextlib
import io
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain.data import decode
from cnntrain.data.decode import BadImage, decode_image, hush_pillow, read_image

RAMP = np.arange(256, dtype=np.uint8).repeat(4).reshape(16, 64)  # grey 0..255 in 16 x 64 pixels
COLOR = np.stack([RAMP, RAMP[::-1], RAMP.T.reshape(16, 64)], axis=2)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo() -> Image.Image:
    """A smooth colour picture, as JPEG likes it."""
    rows, columns = np.mgrid[0:96, 0:128]
    return Image.fromarray(np.stack([2 * rows, 2 * columns, rows + columns], axis=2).astype(np.uint8).clip(0, 255))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_color_keeps_every_pixel(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert torch.equal(decode_image(encoded(Image.fromarray(COLOR), kind, **options), 3), torch.from_numpy(COLOR))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_grey_is_repeated_over_three_channels(kind):
    pixels = decode_image(encoded(Image.fromarray(RAMP), kind), 3)
    assert torch.equal(pixels, torch.from_numpy(RAMP).unsqueeze(2).repeat(1, 1, 3))


def test_color_becomes_grey_by_luma_weights():
    grey = decode_image(encoded(Image.fromarray(COLOR), "PNG"), 1)
    luma = COLOR @ np.array([0.299, 0.587, 0.114])
    assert grey.shape == (16, 64, 1)
    assert np.abs(grey[..., 0].numpy() - luma).max() <= 0.51


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    pixels = decode_image(encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), kind), 3)
    assert torch.equal(pixels[..., 1], torch.from_numpy(RAMP))


def test_16_bit_pgm_is_scaled_not_clipped():
    content = b"P5 64 16 65535\n" + (RAMP.astype(">u2") * 257).tobytes()
    assert torch.equal(decode_image(content, 1)[..., 0], torch.from_numpy(RAMP))


def test_16_bit_color_png_is_scaled_not_clipped():
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOR.astype(np.uint16) * 257)
    header = struct.pack(">IIBBBBB", 64, 16, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert torch.equal(decode_image(content, 3), torch.from_numpy(COLOR))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_palette_becomes_its_colors(kind):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50] + [0, 0, 0] * 254)
    assert decode_image(encoded(image, kind), 3)[3, 3].tolist() == [200, 100, 50]


def test_transparent_parts_lie_on_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (200, 100, 50, 255)
    rgba[2:] = (0, 0, 0, 0)
    pixels = decode_image(encoded(Image.fromarray(rgba, "RGBA"), "PNG"), 3)
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[3, 3].tolist() == [255, 255, 255]
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert decode_image(encoded(palette, "PNG", transparency=0), 3)[0, 0].tolist() == [255, 255, 255]


def test_grey_with_transparency_and_one_bit_images_come_out_right():
    pair = Image.merge("LA", [Image.new("L", (4, 4), 90), Image.new("L", (4, 4), 255)])
    assert decode_image(encoded(pair, "PNG"), 1).unique().tolist() == [90]
    assert decode_image(encoded(Image.new("1", (4, 4), 1), "PNG"), 3).unique().tolist() == [255]


def test_cmyk_jpeg_comes_out_in_its_colors():
    red = Image.new("RGB", (32, 32), (220, 30, 40))
    pixels = decode_image(encoded(red.convert("CMYK"), "JPEG", quality=95), 3)
    assert (pixels[16, 16].int() - torch.tensor([220, 30, 40])).abs().max() <= 4


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_equals_pillows_decoder(options):
    content = encoded(photo(), "JPEG", **options)
    reference = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert np.array_equal(decode_image(content, 3).numpy(), reference)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = photo()
    # What a camera held that way has stored: the inverse of what the tag asks for.
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = upright if turn is None else upright.transpose(turn)
    pixels = decode_image(encoded(stored, kind, exif=exif), 3)
    assert pixels.shape == (96, 128, 3)
    assert (pixels.int() - torch.from_numpy(np.array(upright)).int()).abs().float().mean() < 3


def test_damaged_exif_does_not_spoil_the_picture():
    content = encoded(photo(), "JPEG", exif=b"Exif\0\0" + bytes(range(40)))
    assert decode_image(content, 3).shape == (96, 128, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_one_pixel_is_an_image(kind):
    assert decode_image(encoded(Image.new("RGB", (1, 1), (255, 255, 255)), kind), 3).shape == (1, 1, 3)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("L", (8, 8), grey) for grey in (50, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content, 1).unique().tolist() == [50]


def test_content_counts_not_the_file_name(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(Image.fromarray(COLOR), "PNG"))
    assert torch.equal(read_image(path, 3), torch.from_numpy(COLOR))


@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_a_truncated_file_is_a_bad_image_never_half_a_picture(kind, part):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, kind)
    with pytest.raises(BadImage):
        decode_image(content[: int(len(content) * part)], 3)


def test_a_jpeg_without_its_end_mark_is_a_bad_image():
    content = encoded(photo(), "JPEG")
    with pytest.raises(BadImage, match="truncated"):
        decode_image(content[:-2], 3)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"<html>404</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_garbage_is_a_bad_image(content):
    with pytest.raises(BadImage, match=r"empty|known kind|truncated|broken|cannot"):
        decode_image(content, 3)


def test_a_png_with_a_wrong_checksum_is_a_bad_image():
    content = bytearray(encoded(Image.fromarray(COLOR), "PNG"))
    content[60] ^= 255
    with pytest.raises(BadImage):
        decode_image(bytes(content), 3)


def test_a_decompression_bomb_is_refused_from_its_header(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(BadImage, match=r"128 x 96 pixels are more than the limit of 1,000"):
        decode_image(encoded(photo(), "JPEG"), 3)
    with pytest.raises(BadImage, match="limit"):
        decode_image(encoded(photo(), "PNG"), 3)


def test_pixels_without_a_fixed_range_are_refused():
    with pytest.raises(BadImage, match="floating-point"):
        decode_image(encoded(Image.new("F", (4, 4), 0.5), "TIFF"), 3)
    with pytest.raises(BadImage, match="32-bit"):
        decode_image(encoded(Image.new("I", (4, 4), 10**6), "TIFF"), 3)


def test_a_file_that_vanished_says_so(tmp_path):
    with pytest.raises(BadImage, match="No such file"):
        read_image(tmp_path / "gone.png", 3)


def test_random_damage_never_ends_in_anything_but_pixels_or_a_bad_image():
    random = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "GIF", "WEBP"):
        clean = encoded(photo().resize((32, 24)), kind)
        for _ in range(40):
            content = bytearray(clean)
            for place in random.integers(0, len(content), 4):
                content[place] = random.integers(0, 256)
            with contextlib.suppress(BadImage):
                assert decode_image(bytes(content), 3).dtype == torch.uint8


def tiff(**changed: int) -> bytes:
    """A grey one of 8 x 8 pixels whose zlib data is broken."""
    tags = {"width": 256, "height": 257, "bits": 258, "kind": 259, "white": 262, "strip": 273, "samples": 277}
    tags |= {"rows": 278, "size": 279, "unit": 296}
    values = {"width": 8, "height": 8, "bits": 8, "kind": 8, "white": 1, "strip": 200, "samples": 1}
    values |= {"rows": 8, "size": 8, "unit": 2} | changed
    entries = [
        struct.pack("<HHII", tags[name], 4, 1 if value < 10**6 else value, value) for name, value in values.items()
    ]
    return (struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries) + bytes(4)).ljust(200) + b"no zlib!"


def test_pillow_and_libtiff_print_nothing(capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        hush_pillow()
        for content in (tiff(), tiff(unit=10**9), tiff(samples=2000)):  # libtiff prints, Pillow warns, Pillow logs
            with pytest.raises(BadImage):
                decode_image(content, 3)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
