"""Which part of a picture the network sees, and at what size: one resize for every kind of source."""

import math
import random
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from cnntrain.augment.geometry import central_box
from cnntrain.settings.data import Interpolation
from cnntrain.settings.pieces import ResizedCropSettings

EVAL_SHARE = 0.875  # the central part of the resized picture that is kept, 224 of 256


@dataclass(frozen=True)
class View:
    """The fixed view: resize the short side to `short`, then cut the central square of `size` pixels.

    With the `share` of the settings, it is what validation and test use, and training without a random resized crop.
    """

    size: int
    share: float = EVAL_SHARE  # size / short
    interpolation: Interpolation = Interpolation.bilinear

    @property
    def short(self) -> int:
        return round(self.size / self.share)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (H, W, C) to uint8 (size, size, C)."""
        pixels = _without_far_ends(pixels)
        height, width, _ = pixels.shape
        if height <= width:
            resized = resize(pixels, self.short, int(self.short * width / height), self.interpolation)
        else:
            resized = resize(pixels, int(self.short * height / width), self.short, self.interpolation)
        top, left = self._first(resized.shape[0]), self._first(resized.shape[1])
        return resized[top : top + self.size, left : left + self.size]

    def _first(self, length: int) -> int:
        """Where the view begins on a side of `length` pixels."""
        return round((length - self.size) / 2)

    @property
    def wide(self) -> "View":
        """This view and what the resize leaves around it on the short side, the same on the long one."""
        return _WideView(self.short, 1.0, self.interpolation, middle=self.size)


@dataclass(frozen=True)
class _WideView(View):
    """The `middle` of it is, to the pixel, what `View(middle)` sees."""

    middle: int = 0

    def _first(self, length: int) -> int:
        return round((length - self.middle) / 2) - round((self.size - self.middle) / 2)


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

    def __call__(self, pixels: Tensor, draw: random.Random) -> Tensor:
        """uint8 (H, W, C) to uint8 (size, size, C); `draw` alone decides the box."""
        top, left, height, width = self.box(pixels.shape[0], pixels.shape[1], draw)
        return resize(pixels[top : top + height, left : left + width], self.size, self.size, self.interpolation)

    def box(self, height: int, width: int, draw: random.Random) -> tuple[int, int, int, int]:
        """Top, left, height and width of the box; the distribution of torchvision's RandomResizedCrop."""
        (small, large), (slim, broad) = self.settings.scale, self.settings.ratio
        for _ in range(10):
            area = height * width * draw.uniform(small, large)
            shape = math.exp(draw.uniform(math.log(slim), math.log(broad)))
            wide, tall = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < wide <= width and 0 < tall <= height:
                return draw.randrange(height - tall + 1), draw.randrange(width - wide + 1), tall, wide
        return central_box(height, width, self.settings.ratio)


def resize(pixels: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """uint8 (H, W, C) to uint8 (height, width, C); see resize_planes."""
    if tuple(pixels.shape[:2]) == (height, width):
        return pixels
    planes = pixels.permute(2, 0, 1).unsqueeze(0)  # a channels_last view, for which torch has its fastest kernel
    return resize_planes(planes, height, width, interpolation).squeeze(0).permute(1, 2, 0)


def resize_planes(images: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """uint8 (N, C, H, W) on the host to uint8 (N, C, height, width), with antialias: Pillow's, within two levels."""
    return F.interpolate(images, (height, width), mode=interpolation.value, antialias=True, align_corners=False)
