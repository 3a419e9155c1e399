"""Noise, and boxes wiped out: Gaussian noise, Cutout, random erasing.

Every operation takes uint8 images (N, C, H, W) in either memory layout and gives the like; its input stays untouched.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.augment.batch_context import BatchContext, Operation
from cnntrain.augment.rows import as_images, as_rows, box_masks
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.pieces import CutoutSettings, Fill, NoiseSettings, RandomErasingSettings

TRIES = 10  # for a box that fits, as in torchvision


def build_noise(settings: AugmentSettings, mean: list[float]) -> list[tuple[str, Operation]]:
    """The chosen operations with their names, in the order of the stage: noise, cutout, random erasing.

    Args:
        mean: of each channel of the data, on the 0..1 scale: the colour of what is wiped out.
    """
    color = np.rint(255 * np.array(mean)).astype(np.uint8)
    operations: list[tuple[str, Operation]] = []
    if (noise := settings.noise) is not None:
        operations.append(("noise", lambda images, context: add_noise(images, noise, context)))
    if (cutout := settings.cutout) is not None:
        operations.append(("cutout", lambda images, context: cut_out(images, cutout, color, context)))
    if (erasing := settings.random_erasing) is not None:
        operations.append(("random_erasing", lambda images, context: erase(images, erasing, color, context)))
    return operations


def add_noise(images: Tensor, settings: NoiseSettings, context: BatchContext) -> Tensor:
    """Add Gaussian noise to every number of the chosen images, round, and clip at black and white."""

    def change(rows: Tensor) -> Tensor:
        noise = torch.empty(rows.shape, device=rows.device)
        noise.normal_(0, 255 * settings.sigma, generator=context.generator)
        return noise.add_(rows).round_().clamp_(0, 255).to(torch.uint8)

    return _change_rows(images, settings.p, context, change)


def cut_out(images: Tensor, settings: CutoutSettings, color: NDArray[np.uint8], context: BatchContext) -> Tensor:
    """Wipe squares out of the chosen images (arXiv 1708.04552).

    A centre is any pixel, so that a square may hang over the edge: the paper found that this matters.
    """
    height, width = images.shape[2:]
    side = max(1, round(settings.size * min(height, width)))

    def change(rows: Tensor) -> Tensor:
        fill = _fill(rows, color, context)
        for _ in range(settings.holes):
            top = context.host.integers(height, size=len(rows)) - side // 2
            left = context.host.integers(width, size=len(rows)) - side // 2
            rows = _fill_boxes(rows, np.stack([top, top + side, left, left + side], axis=1), fill, width, context)
        return rows

    return _change_rows(images, settings.p, context, change)


def erase(images: Tensor, settings: RandomErasingSettings, color: NDArray[np.uint8], context: BatchContext) -> Tensor:
    """Wipe one box of random area and shape out of each chosen image (arXiv 1708.04896).

    `random` fills it with a random byte for every pixel and channel, the paper's best; `zeros` is black.
    """
    height, width = images.shape[2:]

    def change(rows: Tensor) -> Tensor:
        if settings.value is Fill.random:
            fill = torch.randint(256, rows.shape, dtype=torch.uint8, device=rows.device, generator=context.generator)
        else:
            fill = _fill(rows, color if settings.value is Fill.mean else np.zeros_like(color), context)
        boxes = erasing_boxes(len(rows), height, width, settings.scale, settings.ratio, context.host)
        return _fill_boxes(rows, boxes, fill, width, context)

    return _change_rows(images, settings.p, context, change)


def erasing_boxes(
    count: int, height: int, width: int, scale: list[float], ratio: list[float], host: np.random.Generator
) -> NDArray[np.int64]:
    """Random boxes smaller than (height, width): ten tries for area and shape, else an empty box.

    The distribution is the one of torchvision's RandomErasing.

    Args:
        scale: smallest and largest part of the area; ratio: smallest and largest height / width.

    Returns:
        (count, 4): top, bottom, left, right in pixels, bottom and right excluded.
    """
    area, shape, top, left = host.random((4, count, TRIES))
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    shape = np.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * shape)
    tall, wide = np.rint(np.sqrt(area * shape)), np.rint(np.sqrt(area / shape))
    fits = (tall < height) & (wide < width)
    top, left = np.floor(top * (height - tall + 1)), np.floor(left * (width - wide + 1))
    boxes = np.stack([top, top + tall, left, left + wide], axis=2) * fits[:, :, None]
    return boxes[np.arange(count), fits.argmax(axis=1)].astype(np.int64)


def _change_rows(images: Tensor, p: float, context: BatchContext, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images with `change` made to the rows (`as_rows`) of those that are chosen with probability `p`."""
    chosen = context.chosen(len(images), p)
    if len(chosen) == 0:
        return images
    rows = as_rows(images)
    if len(chosen) == len(rows):
        return as_images(change(rows), images)
    order = np.arange(len(rows))
    order[chosen] = len(rows) + np.arange(len(chosen))
    picked, back = context.send_all([chosen, order])
    changed = change(rows.index_select(0, picked))
    # Whole images are copied here; index_copy goes number by number and takes three times as long on a CPU.
    return as_images(torch.cat([rows, changed]).index_select(0, back), images)


def _fill(rows: Tensor, color: NDArray[np.uint8], context: BatchContext) -> Tensor:
    """A colour (C,) in a form that spreads over the rows."""
    if rows.shape[1] == len(color):
        return context.send(color).view(1, -1, 1, 1)
    return context.send(np.tile(color, rows.shape[3] // len(color)))


def _fill_boxes(rows: Tensor, boxes: NDArray[np.int64], fill: Tensor, width: int, context: BatchContext) -> Tensor:
    """A copy of uint8 rows, those of images of `width` pixels, with the boxes (n, 4) filled."""
    tall, wide = context.send_all([mask * np.uint8(255) for mask in box_masks(boxes, rows, width)])
    # The bits in which a number differs from the fill, kept inside the box only, turn it into the fill. torch.where
    # takes ten times as long on a CPU.
    return (rows ^ fill).bitwise_and_(tall).bitwise_and_(wide).bitwise_xor_(rows)
