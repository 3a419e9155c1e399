"""What the kernels share: how a batch lies in memory, floats back to bytes, and parts that fit a cache."""

from collections.abc import Callable
from functools import wraps
from itertools import repeat
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cnntrain.runtime.device import launching_costs

__all__ = ["PART", "column", "floats", "in_parts", "laid_out_like", "launching_costs", "levels", "part_size"]

PART = 1 << 20  # levels of a part: as float32 4 MiB, which a CPU's cache holds (measured: 1.6 times as fast as 150 MiB)

Function = TypeVar("Function", bound=Callable[..., Tensor])


def part_size(images: Tensor) -> int:
    """How many of the images (N, ...) to work on at a time: as many as fit a CPU's cache, elsewhere all of them."""
    if not images.is_cpu or launching_costs(images.device):
        return max(1, len(images))
    return max(1, PART // max(1, images[:1].numel()))


def in_parts(kernel: Function) -> Function:
    """The same kernel, working on a CPU through as many images at a time as fit its cache.

    Args:
        kernel: takes uint8 images (N, C, H, W), then positional arguments, of which each tensor has a row per image.
    """

    @wraps(kernel)
    def whole(images: Tensor, *arguments: Any, **options: Any) -> Tensor:
        size = part_size(images)
        if len(images) <= size:
            return kernel(images, *arguments, **options)
        result = torch.empty_like(images)
        columns = [value.split(size) if isinstance(value, Tensor) else repeat(value) for value in arguments]
        for part, target, *values in zip(images.split(size), result.split(size), *columns, strict=False):
            target.copy_(kernel(part, *values, **options))
        return result

    return cast(Function, whole)


def floats(images: Tensor) -> Tensor:
    """A new float32 tensor (N, C, H, W) whose planes lie one after the other, whatever the layout of the images."""
    return images.to(torch.float32, memory_format=torch.contiguous_format)


def levels(values: Tensor) -> Tensor:
    """float32 within 0..255 to uint8, fractions cut off."""
    return values.to(torch.int16).to(torch.uint8)  # four times as fast on a CPU as straight to uint8


def laid_out_like(images: Tensor, planes: Tensor) -> Tensor:
    """The contiguous `planes` in the memory layout of `images`: both (N, C, H, W)."""
    if images.is_contiguous():
        return planes
    return torch.stack(planes.unbind(1), dim=3).permute(0, 3, 1, 2)


def column(values: Tensor) -> Tensor:
    """One value per image, (N,), as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
