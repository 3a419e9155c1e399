"""Images as rows of numbers, and boxes in them as products of one mask of rows and one of columns.

A mask of single pixels, spread over the channels by torch, takes ten times as long on a CPU.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_rows(images: Tensor) -> Tensor:
    """The images as contiguous rows: (N, C, H, W), or (N, 1, H, W * C) where they are channels_last.

    Without a copy, but for images that are neither contiguous nor channels_last.
    """
    if images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return images.contiguous()
    return images.permute(0, 2, 3, 1).flatten(2).unsqueeze(1)


def as_images(rows: Tensor, images: Tensor) -> Tensor:
    """The way back: `rows` in the shape and layout that `images` had when `as_rows` took them."""
    if rows.shape[1:] == images.shape[1:]:
        return rows
    return rows.view(len(rows), images.shape[2], images.shape[3], images.shape[1]).permute(0, 3, 1, 2)


def box_masks(boxes: NDArray[np.int64], rows: Tensor, width: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows and which columns a box covers; a number lies in the box where both hold.

    Args:
        boxes: (n, 4): top, bottom, left, right in pixels, bottom and right excluded; they may hang over the edge.
        rows: (N, B, H, L), what `as_rows` made of images of `width` pixels; only the shape matters.

    Returns:
        (n, 1, H, 1) and (n, 1, 1, L).
    """
    height, length = rows.shape[2:]
    top, bottom, left, right = boxes.T[:, :, None]
    y, x = np.arange(height), np.arange(width).repeat(length // width)
    tall, wide = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return tall[:, None, :, None], wide[:, None, None, :]
