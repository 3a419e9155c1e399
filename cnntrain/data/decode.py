"""From the bytes of one image file to uint8 pixels, the right way up, whatever the kind of file."""

import contextlib
import ctypes
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import ExifTags, Image, ImageOps, features
from torch import Tensor

# Refused by the size in the header, before anything is decoded: a few kilobytes can claim gigabytes of pixels. It is
# Pillow's own limit, which stays: `cnntrain.load` is called in programs that rely on it.
MAX_PIXELS = 178_956_970
# Refused before it is read: so many pixels of three colours and 16 bits take it all.
MAX_BYTES = 2**30
# What Pillow may try. Its other plugins start programs (EPS) or are far from photographs.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))

# Markers of a JPEG file (ITU-T T.81, table B.1): frames of the common kinds, and segments that change no pixel's place.
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; all by Huffman codes
APP1, START_OF_SCAN = 0xE1, 0xDA
_TURNED = re.compile(rb'tiff:Orientation(?:="|>)[02-9]')  # in XMP, read as Pillow reads it; 1 turns nothing
SEGMENTS = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, comments, what applications note


def hush_pillow() -> None:
    """Keep what Pillow and its libtiff print beside their errors off the terminal: it names no file.

    Once for the whole process: `warnings.catch_warnings` is not for threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    with contextlib.suppress(OSError, AttributeError):  # a Pillow without libtiff, or with one that hides its names
        libtiff = ctypes.CDLL(Image.core.__file__)  # finds the names of libraries that it is linked to as well
        libtiff.TIFFSetErrorHandler(None)
        libtiff.TIFFSetWarningHandler(None)


hush_pillow()


class BadImage(Exception):
    """The file cannot be decoded; the message is the reason, without the file's name."""


def read_image(path: Path, channels: int) -> Tensor:
    """Decode an image file.

    EXIF rotation is applied, 16-bit grey is scaled to 8 bits, palettes and CMYK become RGB, transparent parts lie on
    white, and of an animation the first frame is taken.

    Args:
        path: a JPEG, PNG, BMP, WebP, GIF, TIFF, PPM or (where Pillow has it) AVIF file; its content counts, not its
            name.
        channels: 1 (grey, by luma weights) or 3 (RGB).

    Returns:
        uint8 (H, W, channels), contiguous.

    Raises:
        BadImage: unreadable, no file, truncated, of another kind, over 1 GiB or 178,956,970 pixels.
    """
    return decode_image(read_file(path), channels)


def read_file(path: Path | bytes) -> bytes:
    """The content of an image file.

    Raises:
        BadImage: unreadable, no file, over 1 GiB.
    """
    try:
        handle, size = _open(path)
        try:
            if size > MAX_BYTES:
                raise BadImage(f"{size / 1e9:,.1f} GB are more than the limit of {MAX_BYTES / 1e9:.1f} GB for an image")
            content = os.read(handle, size)  # a file object would cost as much again
            while len(content) < size and (more := os.read(handle, size - len(content))):
                content += more
        finally:
            os.close(handle)
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # a NUL in the name
        raise BadImage(f"cannot be read ({error})") from None
    return content


def looks_like_image(path: Path) -> bool:
    """Whether a file begins as an image that can be decoded; no more of it is read."""
    try:
        with open(_open(path)[0], "rb") as file, Image.open(file, formats=FORMATS):
            return True
    except Exception:  # Pillow raises errors of a dozen classes on damaged files
        return False


def _open(path: Path | bytes) -> tuple[int, int]:
    """A file to read, and its bytes; nothing that a read could wait for: a pipe may have been put in its place."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise BadImage("cannot be read (a folder, pipe or device, not a file)")
    return handle, status.st_size


def decode_image(content: bytes, channels: int) -> Tensor:
    """Do what `read_image` does, for a file that has been read already."""
    if not content:
        raise BadImage("the file is empty")
    # Pillow would read this header too, in a tenth of the time that all else around the pixels takes.
    if _is_plain_jpeg(content) and (pixels := _decode_jpeg(content, channels)) is not None:
        return pixels
    with _as_bad_image(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        _need_size(image)
        jpeg = None
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB") and _is_upright(image):
            jpeg = _decode_jpeg(content, channels)
        return _to_pixels(image, channels) if jpeg is None else jpeg


def to_pixels(image: Image.Image, channels: int) -> Tensor:
    """Do what `read_image` does, for an image that Pillow has opened or made."""
    with _as_bad_image():
        _need_size(image)
        return _to_pixels(image, channels)


@contextlib.contextmanager
def _as_bad_image() -> Iterator[None]:
    """Whatever fails inside becomes a BadImage."""
    try:
        yield
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage("not an image of a known kind") from None
    except Exception as error:  # Pillow raises errors of a dozen classes on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(reason[:200]) from None


def _need_size(image: Image.Image) -> None:
    width, height = image.size
    if not width * height:
        raise BadImage(f"no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,}")


def _decode_jpeg(content: bytes, channels: int) -> Tensor | None:
    """The same pixels as Pillow's, bit for bit, but with torch's resize behind it 1.45 times as fast.

    torchvision's decoder is as fast, but deprecated since 0.29 and over a second away. Decoding at a reduced scale
    gains nothing over a full one: down to an eighth was tried on photos.
    """
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB"))
    except ValueError:
        return None  # Pillow decides: it reads some odd files, and says in plain words what is wrong with the others


def _is_plain_jpeg(content: bytes) -> bool:
    """Whether a file is a JPEG of 8 bits, grey or of three colours, that nothing turns and that is not too large.

    What is odd is none: Pillow looks at it more closely, and knows what to say of it.
    """
    if content[:3] != b"\xff\xd8\xff":
        return False
    at, is_known = 2, False
    while len(head := content[at : at + 10]) == 10 and head[0] == 0xFF:
        marker, length = head[1], head[2] << 8 | head[3]
        if marker == START_OF_SCAN:
            return is_known
        if marker in FRAMES:
            pixels = (head[5] << 8 | head[6]) * (head[7] << 8 | head[8])
            if is_known or head[4] != 8 or head[9] not in (1, 3) or not 0 < pixels <= MAX_PIXELS:
                return False
            is_known = True
        elif marker not in SEGMENTS or length < 2 or (marker == APP1 and _may_turn(content[at : at + 2 + length])):
            return False
        at += 2 + length
    return False


def _may_turn(segment: bytes) -> bool:
    """Whether a segment of a JPEG is Exif, or XMP that turns the image, as it does where no Exif says otherwise."""
    return segment[4:10] == b"Exif\0\0" or _TURNED.search(segment) is not None


def _is_upright(image: Image.Image) -> bool:
    is_told = "exif" in image.info or "xmp" in image.info
    return not is_told or image.getexif().get(ExifTags.Base.Orientation, 1) == 1


def _to_pixels(image: Image.Image, channels: int) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise BadImage("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("32-bit pixels have no fixed range")
        grey = ((values.astype(np.int64) + 128) // 257).astype(np.uint8)
        return torch.from_numpy(grey).unsqueeze(2).repeat(1, 1, channels)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).view(image.height, image.width, channels)
