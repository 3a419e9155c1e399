"""Every image read and decoded once, by threads; of each stay its checksum, a few numbers and a thumbnail."""

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnntrain.config.schema.data import Interpolation
from cnntrain.data.decode import FORMATS, BadImage, decode_image
from cnntrain.data.view import resize, resize_planes
from cnntrain.inspect.doctor.subject import Subject
from cnntrain.runtime.threads import work_ahead

SIDE = 32  # pixels of a thumbnail
CHUNK = 32  # images of one task
FLAT = 2  # levels between the darkest and the brightest pixel of an image that shows nothing
KINDS = ("colour", "grey", "CMYK", "palette", "transparent", "16 bits", "black and white")
_KINDS = {"L": "grey", "LA": "grey", "CMYK": "CMYK", "P": "palette", "1": "black and white"}
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass
class Looks:
    """What was seen of the images at `rows`, int64 (N,), numbers of the subject; all arrays are as long.

    Attributes:
        checks: of their bytes, S16 (N,); the same in exact copies, empty of what cannot be read.
        heights, widths: pixels, int32 (N,); 0 of what cannot be decoded.
        kinds: uint8 (N,), places in KINDS.
        is_flat: bool (N,): all pixels are alike.
        thumbs: uint8 (N, SIDE, SIDE), grey.
        faults: why an image cannot be decoded, by its place.
    """

    rows: NDArray[np.int64]
    checks: NDArray[np.bytes_]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    is_flat: NDArray[np.bool_]
    thumbs: NDArray[np.uint8]
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def is_comparable(self) -> NDArray[np.bool_]:
        """Whether a thumbnail shows enough to tell what is nearly the same from what is like it: digits are not."""
        enough: NDArray[np.bool_] = np.minimum(self.heights, self.widths) >= SIDE
        return enough


def look_at(subject: Subject, rows: Sequence[int], *, workers: int, advance: Callable[[int], object]) -> Looks:
    """Look at the images at `rows`.

    Args:
        workers: threads; 0 works in the calling one.
        advance: takes the number of images of each task that is done; there are `tasks_of(rows)`.
    """
    count, has_files = len(rows), subject.has_files
    looks = Looks(
        np.asarray(rows, np.int64),
        np.zeros(count, "S16"),
        np.zeros(count, np.int32),
        np.zeros(count, np.int32),
        np.zeros(count, np.uint8),
        np.zeros(count, np.bool_),
        np.zeros((count, SIDE, SIDE), np.uint8),
    )

    def work(start: int) -> int:
        places = range(start, min(start + CHUNK, count))
        if not has_files:
            _look_at_pixels(subject, np.array(places), looks)
            return len(places)
        for place in places:
            try:
                _look_at_file(subject, place, looks)
            except BadImage as error:
                looks.faults[place] = str(error)
        return len(places)

    with closing(work_ahead(work, range(0, count, CHUNK), workers, "look")) as done:
        for images in done:
            advance(images)
    looks.faults = dict(sorted(looks.faults.items()))
    return looks


def tasks_of(rows: Sequence[int]) -> int:
    """How often `look_at` tells how far it is."""
    return -(-len(rows) // CHUNK)


def _look_at_file(subject: Subject, place: int, looks: Looks) -> None:
    content = subject.content(int(looks.rows[place]))
    looks.checks[place] = _check(content)
    pixels = decode_image(content, 3)
    looks.heights[place], looks.widths[place] = pixels.shape[:2]
    looks.kinds[place] = KINDS.index(_kind(content))
    thumb = resize(pixels, SIDE, SIDE, Interpolation.bilinear)
    looks.is_flat[place] = _is_flat(thumb) and _is_flat(pixels)
    looks.thumbs[place] = _grey(thumb)


def _look_at_pixels(subject: Subject, places: NDArray[np.int64], looks: Looks) -> None:
    for number, part in enumerate(subject.parts):
        here = places[subject.splits[looks.rows[places]] == number]
        if not len(here):
            continue
        assert part.pixels is not None
        pixels = part.pixels[torch.from_numpy(looks.rows[here] - subject.start(number))]
        looks.checks[here] = [_check(row.tobytes()) for row in pixels.numpy()]
        looks.heights[here], looks.widths[here] = pixels.shape[2:]
        looks.kinds[here] = KINDS.index("grey" if pixels.shape[1] == 1 else "colour")
        thumbs = resize_planes(pixels, SIDE, SIDE, Interpolation.bilinear).movedim(1, 3)
        looks.thumbs[here] = thumbs[..., 0] if pixels.shape[1] == 1 else _grey(thumbs)
        levels = pixels.flatten(2)
        looks.is_flat[here] = (levels.amax(2).int() - levels.amin(2).int() <= FLAT).all(1).numpy()


def _grey(pixels: Tensor) -> NDArray[np.uint8]:
    """uint8 (..., H, W) of colours, uint8 (..., H, W, 3)."""
    return (pixels.float() @ _LUMA).round().numpy().astype(np.uint8)


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _is_flat(pixels: Tensor) -> bool:
    """Whether the levels of each channel lie close together; uint8 (H, W, C)."""
    levels = pixels.reshape(-1, pixels.shape[2])
    return bool((levels.amax(0).int() - levels.amin(0).int() <= FLAT).all())


def _kind(content: bytes) -> str:
    """How a file keeps its pixels, by its header."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.has_transparency_data:
                return "transparent"
            return "16 bits" if image.mode.startswith("I") else _KINDS.get(image.mode, "colour")
    except Exception:  # Pillow knows no more of it than that it is a JPEG
        return "colour"
