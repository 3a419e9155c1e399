"""Crops, flips and shifts of a whole batch at once, each image by its own numbers.

Every operation takes uint8 images (N, C, H, W) on any device, leaves its input untouched and never waits for the
device.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.layout import floats, laid_out_like
from cnntrain.augment.rows import as_images, as_rows, windows
from cnntrain.runtime.device import send
from cnntrain.runtime.seeds import mix_seed

ROOM = 0.875  # the part of images that validation sees, and that crops of the full size can count on
ALTERNATE = -7  # part of the seed that keeps these draws apart from all others


def crop_places(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """Where `count` crops out of padded images begin: int64 (2, count), rows from the top and columns from the left."""
    return torch.randint(2 * padding + 1, (2, count), generator=generator, device=generator.device)


def pad_crop(images: Tensor, padding: int, mode: str, places: Tensor) -> Tensor:
    """Pad each side by `padding` pixels, then cut (H, W) out at a random place (arXiv 1512.03385, section 4.2).

    Args:
        images: uint8 (N, C, H, W).
        padding: pixels on each side, below H and W where `mode` is reflect.
        mode: `zeros` pads with black, `reflect` mirrors without repeating the edge.
        places: of `crop_places`, on the device of the images.

    Returns:
        uint8 (N, C, H, W).
    """
    height, width = images.shape[2:]
    top, left = places
    rows = as_rows(images)
    step = rows.shape[3] // width  # numbers of a pixel that lie side by side
    padded = F.pad(rows.unflatten(3, (width, step)), (0, 0, *[padding] * 4))
    if mode == "reflect":
        _mirror_border(padded, padding)
    return as_images(windows(padded.flatten(3), top, left * step, height, width * step), images)


def _mirror_border(padded: Tensor, border: int) -> None:
    """Fill the border of (N, B, H, W, step), so many pixels on each side, with what lies inside it, mirrored."""
    for side in (3, 2):
        last = padded.shape[side] - border
        padded.narrow(side, 0, border).copy_(padded.narrow(side, border + 1, border).flip(side))
        padded.narrow(side, last, border).copy_(padded.narrow(side, last - 1 - border, border).flip(side))


def shift(images: Tensor, right: Tensor, down: Tensor, *, most_right: int, most_down: int, fill: int) -> Tensor:
    """Each image moved by its own numbers of pixels: rows of bytes are copied, no pixel is computed.

    Measured on a CPU at 224 pixels: 10 to 15 us an image, where an affine gather takes 120 to 190.

    Args:
        images: uint8 (N, C, H, W).
        right, down: int64 (N,), of either sign, on the device of the images.
        most_right, most_down: no smaller than any of them, whatever its sign.
        fill: level of what comes from outside, 0 to 255.

    Returns:
        uint8 (N, C, H, W) in the same memory layout.
    """
    height, width = images.shape[2:]
    rows = as_rows(images)
    step = rows.shape[3] // width
    wide = most_right * step
    padded = F.pad(rows, (wide, wide, most_down, most_down), value=fill)
    return as_images(windows(padded, most_down - down, wide - right * step, height, width * step), images)


def alternating_flips(p: float, context: BatchContext) -> Tensor:
    """Which images are mirrored when each is in every other epoch: a share `p` of all at first (arXiv 2404.00498).

    An image and its mirror image are then met equally often, where chance would repeat one of them half of the time.

    Returns:
        bool (N,), on the host.
    """
    first = _fractions(context.indices.numpy(), mix_seed(context.seed, ALTERNATE)) < p
    return torch.from_numpy(first ^ bool(context.epoch % 2))


def _fractions(indices: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A number in 0..1 for each index that depends on it and the seed alone (the finisher of SplitMix64)."""
    bits = indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) / 2.0**53


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear with antialias, uint8 (N, C, H, W) to uint8 (N, C, size, size)."""
    if images.shape[2:] == (size, size):
        return images
    if images.device.type == "cpu":  # the one device with a kernel for uint8
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.round_().to(torch.uint8)


def flips(count: int, p: float, generator: torch.Generator) -> Tensor:
    """Which of `count` images are mirrored by chance, each with probability `p`: bool (count,)."""
    return torch.rand(count, generator=generator, device=generator.device) < p


def mirror(images: Tensor, mask: Tensor, dimension: int) -> Tensor:
    """The images of which those in the mask, bool (N,), are mirrored.

    Dimension 3 swaps left and right, 2 top and bottom. Args and result: uint8 (N, C, H, W).
    """
    # With masks of bits: torch.where takes several times as long for bytes on a CPU.
    bits = (mask * 255).to(torch.uint8).view(-1, 1, 1, 1)
    return images.flip(dimension).bitwise_xor_(images).bitwise_and_(bits).bitwise_xor_(images)


def crop_boxes(
    count: int, height: int, width: int, scale: list[float], ratio: list[float], generator: torch.Generator
) -> Tensor:
    """Random boxes inside an image of (height, width): ten tries for area and shape, else the largest central box.

    The distribution is the one of torchvision's RandomResizedCrop (after arXiv 1409.4842, section 6).

    Returns:
        int64 (count, 4): top, left, height, width in pixels, on the generator's device.
    """
    draws = torch.rand(4, count, 10, generator=generator, device=generator.device)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * draws[1])
    wide, tall = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    top, left = (draws[2] * (height - tall + 1)).floor(), (draws[3] * (width - wide + 1)).floor()
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    boxes = torch.stack([top, left, tall, wide], dim=2).gather(1, first.unsqueeze(2).expand(-1, -1, 4)).squeeze(1)
    # Filled on the device: a tensor made of numbers of the host would wait for it.
    fallback = torch.stack([boxes.new_full((), edge) for edge in central_box(height, width, ratio)])
    return torch.where(fits.any(1, keepdim=True), boxes, fallback).long()


def central_box(height: int, width: int, ratio: list[float]) -> tuple[int, int, int, int]:
    """The largest central box (top, left, height, width) whose width / height lies within `ratio`."""
    tall, wide = height, width
    if width / height < ratio[0]:
        tall = round(width / ratio[0])
    elif width / height > ratio[1]:
        wide = round(height * ratio[1])
    tall, wide = max(1, min(tall, height)), max(1, min(wide, width))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def resized_crop(
    images: Tensor, size: int, scale: list[float], ratio: list[float], generator: torch.Generator
) -> Tensor:
    """Cut a random box out of each image and resize it to (size, size), bilinear (arXiv 1409.4842, section 6).

    With antialias in the epochs of smaller images, where their size grows over time. Without it else: a box is then at
    most 1 / 0.875 times as large as the result, and the filter would change photos by 0.1 levels on average, by 16 at
    most (measured from 146 to 128 pixels and from 256 to 224).

    Args:
        images: uint8 (N, C, H, W).
        size: pixels a side of the result.
        scale: smallest and largest part of the area; ratio: smallest and largest width / height.
        generator: on the host, or on the device of the images.

    Returns:
        uint8 (N, C, size, size).
    """
    boxes = crop_boxes(len(images), images.shape[2], images.shape[3], scale, ratio, generator)
    if ROOM * max(images.shape[2:]) > size + 0.5:
        return shrink_boxes(images, send(boxes, images.device), size)
    return resize_boxes(images, boxes, size)


def resize_boxes(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resize the part of each image under its box to (N, C, size, size).

    The boxes, int64 (N, 4): top, left, height, width, may lie on the host: where launching costs, it is better at this.
    """
    top, left, tall, wide = boxes.float().unbind(1)
    rows = _grid_line(top, tall, size, images.shape[2])
    columns = _grid_line(left, wide, size, images.shape[3])
    rows, columns = send(torch.stack([rows, columns]), images.device)
    grid = torch.stack([columns.unsqueeze(1).expand(-1, size, -1), rows.unsqueeze(2).expand(-1, -1, size)], dim=3)
    resized = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return resized.round_().to(torch.uint8)


def shrink_boxes(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`resize_boxes` with antialias, within one level of torchvision's resized_crop.

    Measured on one core: 65 us an image from 256 to 112 pixels (resize_boxes: 530, the products 1,670), and 20 to 50 us
    from 32 to 16 (resize_boxes: 3).
    """
    if images.device.type == "cpu":  # the one device with a kernel for uint8, and where reading the boxes costs nothing
        layout = torch.contiguous_format if images.is_contiguous() else torch.channels_last
        result = images.new_empty((*images.shape[:2], size, size)).contiguous(memory_format=layout)
        for index, (top, left, tall, wide) in enumerate(boxes.tolist()):
            part = images[index : index + 1, :, top : top + tall, left : left + wide]
            result[index : index + 1] = resize(part, size)
        return result
    return shrink_by_products(images, boxes, size)


def shrink_by_products(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`shrink_boxes` without waiting for the device: two products of matrices for each image, for rows and columns."""
    top, left, tall, wide = boxes.float().unbind(1)
    rows = _shares(top, tall, size, images.shape[2])
    columns = _shares(left, wide, size, images.shape[3])
    half = floats(images).flatten(1, 2).bmm(columns.transpose(1, 2)).unflatten(1, images.shape[1:3])
    return laid_out_like(images, (rows.unsqueeze(1) @ half).round_().to(torch.uint8))


def _shares(first: Tensor, length: Tensor, size: int, pixels: int) -> Tensor:
    """How much each pixel along one side gives to each of the result's, (N, size, pixels): a triangle."""
    scale = (length / size).view(-1, 1, 1)
    first, length = first.view(-1, 1, 1), length.view(-1, 1, 1)
    places = torch.arange(pixels, device=first.device) + 0.5
    centres = first + (torch.arange(size, device=first.device).unsqueeze(1) + 0.5) * scale
    inside = (places > first) & (places < first + length)
    shares = (1 - (places - centres).abs() / scale.clamp_min(1)).clamp_min(0) * inside
    return shares / shares.sum(2, keepdim=True)


def _grid_line(first: Tensor, length: Tensor, size: int, pixels: int) -> Tensor:
    """Where the result's `size` pixels lie along one side, in grid_sample's -1..1, (N, size)."""
    centres = (torch.arange(size, device=first.device) + 0.5) / size
    places = length.unsqueeze(1) * centres - 0.5
    # Within the box only: a resize of the cut-out part knows nothing of the pixels around it.
    places = places.clamp_min(0).minimum(length.unsqueeze(1) - 1) + first.unsqueeze(1)
    return (2 * places + 1) / pixels - 1
