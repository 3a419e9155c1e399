"""Images as rows of numbers, whatever their layout in memory: windows cut out of them, and boxes masked in them."""

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


def windows(rows: Tensor, top: Tensor, left: Tensor, height: int, length: int) -> Tensor:
    """Cut one window out of each image.

    Args:
        rows: contiguous (N, B, H, L).
        top, left: int64 (N,), its first row and its first number in a row, on the device of the images.

    Returns:
        (N, B, height, length).
    """
    count, planes, tall, long = rows.shape
    firsts = torch.arange(0, count * planes * tall, tall, device=rows.device).view(count, planes, 1)
    starts = firsts + top.view(-1, 1, 1) + torch.arange(height, device=rows.device)
    starts = starts * long + left.view(-1, 1, 1)
    # Every run of this length is a row of this view; a gather copies each one at once.
    runs = rows.view(-1).unfold(0, length, 1)
    return runs.index_select(0, starts.flatten()).view(count, planes, height, length)


def box_masks(boxes: NDArray[np.int64], rows: Tensor, width: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows and which columns a box covers; a number lies in the box where both hold.

    (A mask of single pixels, spread over the channels by torch, takes ten times as long on a CPU.)

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
