"""The kernels in one form, as `apply_per_image` calls them: with images and a row of numbers for each of them."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from cnntrain.augment.affine import affine
from cnntrain.augment.geometry import shift
from cnntrain.config.schema.pieces import Resampling

# What may be done to an image, in the order in which a round does it. Neighbours in it are one kernel on a GPU.
KINDS = (
    "Identity",
    "Posterize",
    "Solarize",
    "Invert",
    "Equalize",
    "AutoContrast",
    "Shift",
    "Affine",
    "Brightness",
    "Contrast",
    "Color",
    "Sharpness",
    "Hue",
)

# uint8 images (n, C, H, W) and numbers, float (n, P), to new uint8 images of the same shape and memory layout.
ImageOperation: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def without_numbers(function: Callable[[Tensor], Tensor]) -> ImageOperation:
    """A kernel that needs no numbers."""
    return lambda images, _: function(images)


def with_number(function: Callable[[Tensor, Tensor], Tensor]) -> ImageOperation:
    """A kernel that needs one number an image: the last of the row."""
    return lambda images, numbers: function(images, numbers[:, -1])


def affine_kernel(interpolation: Resampling, fill: float) -> ImageOperation:
    """An affine gather; the first six numbers are those of an inverse matrix, row by row."""
    return lambda images, numbers: affine(
        images, numbers[:, :6].float().reshape(-1, 2, 3), interpolation=interpolation, fill=fill
    )


def shift_kernel(fill: float, *, most_right: int, most_down: int) -> ImageOperation:
    """What `affine_kernel` does with matrices that only translate: by whole pixels, at most as many as are given."""

    def kernel(images: Tensor, numbers: Tensor) -> Tensor:
        right, down = -numbers[:, 2].long(), -numbers[:, 5].long()
        return shift(images, right, down, most_right=most_right, most_down=most_down, fill=round(fill))

    return kernel
