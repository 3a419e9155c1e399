"""Which part of a picture the network sees, and at what size: one resize for every kind of source."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cnntrain.augment.geometry import central_box
from cnntrain.config.schema.data import CropMode, Interpolation
from cnntrain.config.schema.pieces import ResizedCropSettings

_WITH_ANTIALIAS = {
    Interpolation.bilinear: torch.ops.aten._upsample_bilinear2d_aa.out,
    Interpolation.bicubic: torch.ops.aten._upsample_bicubic2d_aa.out,
}
EVAL_SHARE = 0.875  # the central part of the resized picture that is kept, 224 of 256


@dataclass(frozen=True)
class View:
    """The fixed view: resize the short side to `short_side`, then cut the central square of `size` pixels.

    With mode=squash both sides get `short_side` pixels, with mode=border the long one, and what the picture leaves of
    the square is filled. With the `share` of the settings, it is what validation and test use, and training without
    a random resized crop. The pixels are those of timm's and torchvision's pipelines, up to rounding in the resize.
    """

    size: int
    share: float = EVAL_SHARE  # size / short
    interpolation: Interpolation = Interpolation.bilinear
    mode: CropMode = CropMode.center
    fill: tuple[int, ...] = ()  # level of each channel around the picture; without them black

    @property
    def short_side(self) -> int:
        return round(self.size / self.share)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (H, W, C) to uint8 (size, size, C)."""
        picture = self._resize(pixels)
        top, left = self._start(picture.shape[0]), self._start(picture.shape[1])
        window = picture[max(0, top) : top + self.size, max(0, left) : left + self.size]
        height, width, channels = window.shape
        if height == width == self.size:
            return window
        canvas = torch.tensor(self.fill or [0] * channels, dtype=torch.uint8).repeat(self.size, self.size, 1)
        canvas[max(0, -top) :, max(0, -left) :][:height, :width] = window
        return canvas

    def _resize(self, pixels: Tensor) -> Tensor:
        if self.mode is CropMode.squash:
            return _squash(pixels, self.short_side, self.interpolation)
        if self.mode is CropMode.border:
            ratio = max(pixels.shape[:2]) / self.short_side
            height, width = (max(1, round(length / ratio)) for length in pixels.shape[:2])
            return resize(pixels, height, width, self.interpolation)
        pixels = _without_far_ends(pixels)
        height, width, _ = pixels.shape
        if height <= width:
            return resize(pixels, self.short_side, int(self.short_side * width / height), self.interpolation)
        return resize(pixels, int(self.short_side * height / width), self.short_side, self.interpolation)

    def _start(self, length: int) -> int:
        """Where the view begins on a side of `length` pixels; below 0, so much is filled before it."""
        return _before(length, self.size)

    @property
    def wide_view(self) -> "View":
        """This view and what the resize leaves around it on the short side, the same on the long one."""
        if self.short_side <= self.size:
            return self
        return _WideView(self.short_side, 1.0, self.interpolation, self.mode, self.fill, middle=self.size)

    @property
    def plain_view(self) -> "View":
        """This view as it is of a picture that is square, with nothing around it."""
        mode = CropMode.squash if self.mode is CropMode.squash else CropMode.center
        return View(self.size, min(self.share, 1.0), self.interpolation, mode)


@dataclass(frozen=True)
class _WideView(View):
    """The `middle` of it is, to the pixel, what `View(middle)` sees."""

    middle: int = 0

    def _start(self, length: int) -> int:
        return _before(length, self.middle) - _before(self.size, self.middle)


def _squash(pixels: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """uint8 (H, W, C) to uint8 (size, size, C), by Pillow itself: which side it resizes first depends on its version.

    Where the one is made smaller and the other larger, that changes bicubic by up to 8 levels.
    """
    image = Image.fromarray(pixels.squeeze(2).numpy()).resize(
        (size, size), Image.Resampling[interpolation.name.upper()]
    )
    return torch.from_numpy(np.array(image)).view(size, size, -1)


def border(mode: CropMode, mean: Sequence[float]) -> tuple[int, ...]:
    """The `fill` of a view for images of this mean, per channel in 0..1."""
    return tuple(round(255 * value) for value in mean) if mode is CropMode.border else ()


def _before(length: int, size: int) -> int:
    """What lies before the middle `size` pixels of `length`; of a length that is shorter, less than 0."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _without_far_ends(pixels: Tensor) -> Tensor:
    """Cut the ends of a strip more than four times as long as wide: resized whole, 1 x 5000 pixels fill gigabytes."""
    height, width, _ = pixels.shape
    longest = 4 * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return pixels[top : top + longest, left : left + longest]


@dataclass(frozen=True)
class RandomView:
    """A random box of random shape, resized to `size` (arXiv 1409.4842, section 6)."""

    size: int
    settings: ResizedCropSettings
    interpolation: Interpolation = Interpolation.bilinear

    def __call__(self, pixels: Tensor, draw: random.Random, out: Tensor | None = None) -> Tensor:
        """uint8 (H, W, C) to uint8 (size, size, C), into `out` where it is given; `draw` alone decides the box."""
        top, left, height, width = self.box(pixels.shape[0], pixels.shape[1], draw)
        box = pixels[top : top + height, left : left + width]
        return resize(box, self.size, self.size, self.interpolation, out)

    def box(self, height: int, width: int, draw: random.Random) -> tuple[int, int, int, int]:
        """Top, left, height and width of the box; the distribution of torchvision's RandomResizedCrop."""
        (small, large), (slim, broad) = self.settings.scale, self.settings.ratio
        for _ in range(10):
            area = height * width * draw.uniform(small, large)
            shape = math.exp(draw.uniform(math.log(slim), math.log(broad)))
            columns, rows = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < columns <= width and 0 < rows <= height:
                return draw.randrange(height - rows + 1), draw.randrange(width - columns + 1), rows, columns
        return central_box(height, width, self.settings.ratio)


def resize(pixels: Tensor, height: int, width: int, interpolation: Interpolation, out: Tensor | None = None) -> Tensor:
    """uint8 (H, W, C) to uint8 (height, width, C), into `out` where it is given; see resize_planes."""
    if tuple(pixels.shape[:2]) == (height, width):
        return pixels if out is None else out.copy_(pixels)
    planes = pixels.permute(2, 0, 1).unsqueeze(0)  # a channels_last view, for which torch has its fastest kernel
    if out is None:
        return resize_planes(planes, height, width, interpolation).squeeze(0).permute(1, 2, 0)
    # What F.interpolate calls, which has no `out` and takes half as long again before it does.
    _WITH_ANTIALIAS[interpolation](planes, [height, width], False, None, None, out=out.permute(2, 0, 1).unsqueeze(0))
    return out


def resize_planes(images: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """uint8 (N, C, H, W) on the host to uint8 (N, C, height, width), with antialias: Pillow's, within two levels."""
    return F.interpolate(images, (height, width), mode=interpolation.value, antialias=True, align_corners=False)
