"""Features made by hand: histograms of oriented gradients, and the linear layer that learns from them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.config.schema.network_args import HogArgs
from cnntrain.errors import ConfigError
from cnntrain.models.layers import chain

_EPS = 1e-5  # scikit-image's, in the norm of a block
_CLIP = 0.2  # the largest entry of a block before the second norm of L2-Hys (Lowe 2004)
# Normalised pixels are rounded, so that equal differences across and down differ in the last digits: a gradient this
# little below the border of two bins lies on it.
_ROUNDING = 2e-6


class Gradient(nn.Module):
    """The differences across and down of float (N, C, H, W), as (N, 2, H, W).

    At each pixel they are of the channel in which they are largest, of equal ones the first. Across, that is the pixel
    to the right less the one to the left, and 0 in the first and the last column; down likewise.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (1, 1, 1, 1), "reflect")  # both neighbours of a pixel of the border are the same one
        across, down = x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
        found = torch.stack([across, down], dim=2)
        largest = found[:, 0]
        for channel in range(1, found.shape[1]):
            other = found[:, channel]
            is_larger = other.square().sum(1, keepdim=True) > largest.square().sum(1, keepdim=True)
            largest = torch.where(is_larger, other, largest)
        return largest


class Cells(nn.Module):
    """The histogram of directions in each cell: (N, 2, H, W) of Gradient to (N, orientations, H // size, W // size).

    Each pixel votes with the length of its gradient for the one bin of its direction, from 0 to 180 degrees; the
    histogram is the mean over the pixels of the cell. What lies right and below of the last whole cell is left out.
    """

    def __init__(self, orientations: int, size: int) -> None:
        super().__init__()
        self.orientations = orientations
        self.size = size

    def forward(self, gradient: Tensor) -> Tensor:
        votes = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)  # its own gradient at 0 is 0, a root's NaN
        reached = _reached(gradient[:, :1], gradient[:, 1:], self.orientations)
        number = reached.sum(1, keepdim=True).expand_as(reached)  # of its bin, from 1: bins are reached in their order
        chosen = number == torch.arange(1, self.orientations + 1, device=gradient.device).view(-1, 1, 1)
        return functional.avg_pool2d(votes * chosen, self.size)

    def extra_repr(self) -> str:
        return f"orientations={self.orientations}, size={self.size}"


def _reached(across: Tensor, down: Tensor, bins: int) -> Tensor:
    """Whether each gradient (N, 1, H, W) points to the first border of each bin or beyond, modulo 180 degrees.

    bool (N, bins, H, W), by the side of the border that it lies on; no angle is computed.
    """
    turn = torch.where((down < 0) | ((down == 0) & (across < 0)), -1.0, 1.0)  # into 0 <= angle < 180 degrees
    across, down = across * turn, down * turn
    borders = [math.pi * number / bins for number in range(bins)]
    beyond = torch.cat([math.cos(angle) * down - math.sin(angle) * across for angle in borders], dim=1)
    return beyond >= -_ROUNDING


class Blocks(nn.Module):
    """Each block of size x size neighbouring cells divided by its norm; blocks overlap.

    Histograms (N, K, h, w) become (N, size * size * K, h - size + 1, w - size + 1), cells in rows.

    Args:
        norm: L2, or L2-Hys: L2, then nothing above 0.2, then L2 again.
    """

    def __init__(self, size: int, norm: str) -> None:
        super().__init__()
        self.size = size
        self.norm = norm

    def forward(self, cells: Tensor) -> Tensor:
        rows, columns = (side - self.size + 1 for side in cells.shape[2:])
        places = [(row, column) for row in range(self.size) for column in range(self.size)]
        blocks = torch.cat([cells[:, :, row : row + rows, column : column + columns] for row, column in places], dim=1)
        blocks = _normalised(blocks)
        return _normalised(blocks.clamp_max(_CLIP)) if self.norm == "L2-Hys" else blocks

    def extra_repr(self) -> str:
        return f"size={self.size}, norm={self.norm}"


def _normalised(blocks: Tensor) -> Tensor:
    """x / sqrt(sum x^2 + eps^2) over the channels."""
    blocks = blocks / _EPS  # and 1 for eps^2, as the exporter to ONNX leaves out what adds 1e-10
    return blocks / (blocks.square().sum(1, keepdim=True) + 1).sqrt()


def hog(args: HogArgs, *, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """One linear layer on histograms of oriented gradients (Dalal and Triggs, CVPR 2005): features made by hand.

    What enters the flatten layer equals `skimage.feature.hog` of the input, in its order after permute(0, 2, 3, 1). As
    there, the paper's Gaussian window and its votes shared by neighbouring bins and cells are left out. A scale of the
    input cancels but for the weight of eps = 1e-5 in almost flat blocks; channels that are normalised by different
    numbers are compared as they are then.

    Raises:
        ConfigError: images smaller than a block.
    """
    cell = args.pixels_per_cell or max(1, round(image_size / 8))
    block = args.cells_per_block
    blocks = image_size // cell - block + 1
    if blocks < 1:
        raise ConfigError(
            f"model.args: a block of {block}x{block} cells of {cell}x{cell} pixels is larger than the image (given "
            f"data.image_size={image_size}); make model.args.pixels_per_cell or model.args.cells_per_block smaller"
        )
    return chain(
        {
            "gradient": Gradient(),
            "cells": Cells(args.orientations, cell),
            "blocks": Blocks(block, args.block_norm),
            "flatten": nn.Flatten(),
            "head": nn.Linear(args.orientations * block**2 * blocks**2, classes),
        }
    )
