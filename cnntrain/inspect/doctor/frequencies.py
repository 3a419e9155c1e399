"""The lowest frequencies of thumbnails: a discrete cosine transform of parts of them."""

import math

import torch
from torch import Tensor

STEPS = 64  # an interval of a side begins and ends at a multiple of a step, of so many to a side


def _sampling(begin: int, end: int, count: int, side: int) -> Tensor:
    """float32 (count, side): the means of `count` equal parts of an interval (in steps), of a row of `side` pixels."""
    edges = torch.linspace(begin / STEPS * side, end / STEPS * side, count + 1)
    pixels = torch.arange(side)
    overlap = torch.minimum(edges[1:, None], pixels + 1.0) - torch.maximum(edges[:-1, None], pixels)
    overlap = overlap.clamp_min(0)
    return overlap / overlap.sum(1, keepdim=True)


def transform(begin: int, end: int, frequencies: int, side: int) -> Tensor:
    """float32 (frequencies, side): the lowest frequencies of an interval of a row."""
    count = 2 * frequencies
    angles = torch.arange(frequencies)[:, None] * (torch.arange(count) + 0.5) * (math.pi / count)
    return angles.cos() @ _sampling(begin, end, count, side)


def weights_of(frequencies: int) -> Tensor:
    """float32 (frequencies, frequencies), down and across; 0 of the mean."""
    numbers = torch.arange(frequencies, dtype=torch.float32)
    halves = torch.where(numbers == 0, math.sqrt(0.5), 1.0)  # as the cosine of 0 has twice the power
    return torch.hypot(numbers[:, None], numbers) * halves[:, None] * halves


def describe(thumbs: Tensor, view: tuple[tuple[int, int], tuple[int, int]], frequencies: int) -> Tensor:
    """float32 (N, frequencies, frequencies) of unit length, of uint8 thumbnails (N, S, S)."""
    side = thumbs.shape[2]
    across, down = (transform(*interval, frequencies, side) for interval in view)
    return unit(down @ thumbs.float() @ across.T * weights_of(frequencies))


def unit(values: Tensor) -> Tensor:
    """The same of unit length over the last two dimensions."""
    return values / values.flatten(-2).norm(dim=-1).clamp_min(1e-6)[..., None, None]


def halves_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """The even and the odd frequencies across, each (N, D): a mirror image has the odd ones with the other sign."""
    return values[..., 0::2].flatten(1).contiguous(), values[..., 1::2].flatten(1).contiguous()
