"""The kernels in one form, as `rounds.in_rounds` calls them: with images and a row of numbers for each of them."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from cnntrain.augment.affine import affine
from cnntrain.augment.geometry import shift
from cnntrain.config.schema.pieces import Interpolation

# uint8 images (n, C, H, W) and numbers, float (n, P), to new uint8 images of the same shape and memory layout.
Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def plain(function: Callable[[Tensor], Tensor]) -> Kernel:
    """A kernel that needs no numbers."""
    return lambda images, _: function(images)


def valued(function: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    """A kernel that needs one number an image: the last of the row."""
    return lambda images, numbers: function(images, numbers[:, -1])


def moved(interpolation: Interpolation, fill: float) -> Kernel:
    """An affine gather; the first six numbers are those of an inverse matrix, row by row."""
    return lambda images, numbers: affine(
        images, numbers[:, :6].float().reshape(-1, 2, 3), interpolation=interpolation, fill=fill
    )


def shifted(fill: float, *, most_right: int, most_down: int) -> Kernel:
    """What `moved` does with matrices that only translate, by whole pixels and no further than the given ones."""

    def kernel(images: Tensor, numbers: Tensor) -> Tensor:
        right, down = -numbers[:, 2].long(), -numbers[:, 5].long()
        return shift(images, right, down, most_right=most_right, most_down=most_down, fill=round(fill))

    return kernel
