"""Augmentations of a whole batch at once, with one independent draw per image.

Every operation takes uint8 images (N, C, H, W) on any device, draws only from the generator it is given (which lives on
that device), leaves its input untouched and never waits for the device.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_crop(images: Tensor, padding: int, mode: str, generator: torch.Generator) -> Tensor:
    """Pad each side by `padding` pixels, then cut (H, W) out at a random place (arXiv 1512.03385, section 4.2).

    Args:
        images: uint8 (N, C, H, W).
        padding: pixels on each side, below H and W where `mode` is reflect.
        mode: `zeros` pads with black, `reflect` mirrors without repeating the edge.

    Returns:
        uint8 (N, C, H, W).
    """
    count, _, height, width = images.shape
    if mode == "reflect":
        images = images[:, :, _mirrored(height, padding, images.device)]
        padded = images[:, :, :, _mirrored(width, padding, images.device)]
    else:
        padded = F.pad(images, (padding, padding, padding, padding))
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator, device=images.device)
    # All possible crops as a view without a copy; the index then copies one window per image.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _mirrored(size: int, padding: int, device: torch.device) -> Tensor:
    places = torch.arange(-padding, size + padding, device=device).abs()
    return torch.where(places < size, places, 2 * (size - 1) - places)


def flip(images: Tensor, p: float, dimension: int, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability `p`; dimension 3 swaps left and right, 2 top and bottom.

    Args and result: uint8 (N, C, H, W).
    """
    chosen = torch.rand(len(images), generator=generator, device=images.device) < p
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(dimension), images)


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

    There is no antialias filter: a box is at most 1 / 0.875 times as large as the result here, where it would change
    next to nothing.

    Args:
        images: uint8 (N, C, H, W).
        size: pixels a side of the result.
        scale: smallest and largest part of the area; ratio: smallest and largest width / height.

    Returns:
        uint8 (N, C, size, size).
    """
    boxes = crop_boxes(len(images), images.shape[2], images.shape[3], scale, ratio, generator)
    return resize_boxes(images, boxes, size)


def resize_boxes(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resize the part of each image under its box (int64 (N, 4): top, left, height, width) to (N, C, size, size)."""
    top, left, tall, wide = boxes.float().unbind(1)
    rows = _grid_line(top, tall, size, images.shape[2])
    columns = _grid_line(left, wide, size, images.shape[3])
    grid = torch.stack([columns.unsqueeze(1).expand(-1, size, -1), rows.unsqueeze(2).expand(-1, -1, size)], dim=3)
    resized = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return resized.round_().to(torch.uint8)


def _grid_line(first: Tensor, length: Tensor, size: int, pixels: int) -> Tensor:
    """Where the result's `size` pixels lie along one side, in grid_sample's -1..1, (N, size)."""
    centres = (torch.arange(size, device=first.device) + 0.5) / size
    places = length.unsqueeze(1) * centres - 0.5
    # Within the box only: a resize of the cut-out part knows nothing of the pixels around it.
    places = places.clamp_min(0).minimum(length.unsqueeze(1) - 1) + first.unsqueeze(1)
    return (2 * places + 1) / pixels - 1


class Normalise:
    """uint8 images to float32: divided by 255, minus the mean, by the standard deviation, per channel.

    Args:
        mean, std: per channel, on the 0..1 scale.
        channels_last: memory layout of the result.
    """

    def __init__(self, mean: list[float], std: list[float], channels_last: bool) -> None:
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        centre, spread = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.factors = (1 / (255 * spread)).float(), (-centre / spread).float()
        self._ready: tuple[torch.device, int, Tensor, Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 (N, C, H, W) on the same device."""
        # One new tensor, filled and changed in place: large temporaries cost more here than the arithmetic.
        result = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=self.layout)
        scale, shift = self._on(images.device, images.shape[3])
        result.copy_(images)
        if self.layout is torch.channels_last:
            # Whole rows of pixels, three times as fast on a CPU as a broadcast over three channels.
            result.permute(0, 2, 3, 1).view(len(images), images.shape[2], -1).mul_(scale).add_(shift)
        else:
            result.mul_(scale).add_(shift)
        return result

    def _on(self, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
        """Scale and shift on the device: (C, 1, 1), or (W * C,) for channels_last."""
        if self._ready is None or self._ready[:2] != (device, width):
            rows = self.layout is torch.channels_last
            scale, shift = (x.repeat(width) if rows else x.view(-1, 1, 1) for x in self.factors)
            self._ready = device, width, scale.to(device), shift.to(device)
        return self._ready[2:]
