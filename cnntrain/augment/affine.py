"""Rotation, translation, shear and scale of a whole batch as one gather, each image by its own matrix."""

from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.augment.layout import floats, in_parts, laid_out_like, levels
from cnntrain.augment.pixels import are_numbers, as_numbers, as_pixels
from cnntrain.config.schema.pieces import Resampling

Floats: TypeAlias = NDArray[np.float64]


def inverse_matrices(
    *, angle: Floats, translate_x: Floats, translate_y: Floats, scale: Floats, shear_x: Floats, shear_y: Floats
) -> Floats:
    """Where the pixels of the result come from: (x, y) of a source = matrix @ (x, y, 1), from the centre of the image.

    The conventions are those of torchvision's functional.affine: the image is sheared along y, then x, scaled, rotated
    about its centre, and moved.

    Args:
        angle: degrees, clockwise, (N,); functional.rotate counts them the other way.
        translate_x, translate_y: pixels to the right and down, (N,).
        scale: above 0, (N,).
        shear_x, shear_y: degrees, (N,).

    Returns:
        float64 (N, 2, 3).
    """
    rotation, shear_x, shear_y = np.radians(angle), np.radians(shear_x), np.radians(shear_y)
    a = np.cos(rotation - shear_y) / np.cos(shear_y)
    b = -(a * np.tan(shear_x) + np.sin(rotation))
    c = np.sin(rotation - shear_y) / np.cos(shear_y)
    d = np.cos(rotation) - c * np.tan(shear_x)
    a, b, c, d = a / scale, -b / scale, -c / scale, d / scale  # of the inverse: the determinant is 1
    rows = [d, b, -d * translate_x - b * translate_y, c, a, -c * translate_x - a * translate_y]
    return np.stack(np.broadcast_arrays(*rows), axis=-1).reshape(-1, 2, 3)


@in_parts
def affine(images: Tensor, matrices: Tensor, /, *, interpolation: Resampling, fill: float) -> Tensor:
    """Each image moved by its matrix.

    Args:
        images: uint8 (N, C, H, W).
        matrices: float (N, 2, 3), of `inverse_matrices`, on the device of the images.
        fill: level of what comes from outside, 0 to 255; bilinear, it is also blended into the pixels at the edge, as
            torchvision does it with that number. With its default, None, those are up to 63 levels brighter than with
            0 (2 to 4 % of an image of 64 pixels).

    Returns:
        uint8 (N, C, H, W) in the same memory layout.
    """
    places = _places(matrices, *images.shape[2:])
    if interpolation is Resampling.nearest:
        return _nearest(images, places, round(fill))
    values = _sample(floats(images), places, interpolation)
    inside = _sample(values.new_ones(1, 1, 1, 1).expand(len(images), 1, *images.shape[2:]), places, interpolation)
    return laid_out_like(images, levels(values.sub_(fill).mul_(inside).add_(fill).round_()))


def _places(matrices: Tensor, height: int, width: int) -> Tensor:
    """The sources of all pixels in grid_sample's -1..1, (N, H, W, 2)."""
    x = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=matrices.device)
    y = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=matrices.device).unsqueeze(1)
    half = torch.cat([x.new_full((1, 1), width / 2), x.new_full((1, 1), height / 2)])
    by_x, by_y, shift = (matrices.float() / half).view(-1, 2, 3, 1, 1).unbind(2)
    # Sums, where torchvision multiplies matrices: the same bits where its product does not fuse them, and no TF32.
    return (by_x * x + by_y * y).add_(shift).permute(0, 2, 3, 1)


def _sample(values: Tensor, places: Tensor, interpolation: Resampling) -> Tensor:
    return F.grid_sample(values, places, mode=interpolation.value, padding_mode="zeros", align_corners=False)


def _nearest(images: Tensor, places: Tensor, fill: int) -> Tensor:
    """Sample the numbers of the pixels (exact in float32 up to 2**24), then move bytes: no image is made float."""
    count, channels, height, width = images.shape
    pixels = height * width
    numbers = torch.arange(1, pixels + 1, dtype=torch.float32, device=images.device).view(1, 1, height, width)
    index = _sample(numbers.expand(count, -1, -1, -1), places, Resampling.nearest).to(torch.int32)  # 0: outside
    if images.is_contiguous():
        source = F.pad(images.view(count, channels, pixels), (1, 0), value=fill)
        return source.gather(2, index.view(count, 1, pixels).expand(-1, channels, -1).long()).view(images.shape)
    index += torch.arange(0, count * (pixels + 1), pixels + 1, dtype=torch.int32, device=images.device).view(
        -1, 1, 1, 1
    )
    if are_numbers(images):
        colors = F.pad(as_numbers(images).flatten(1), (1, 0), value=fill * 0x010101)
        return as_pixels(colors.view(-1).index_select(0, index.view(-1)).view(count, height, width))
    source = F.pad(images.permute(0, 2, 3, 1).reshape(count, pixels, channels), (0, 0, 1, 0), value=fill)
    moved = source.view(-1, channels).index_select(0, index.view(-1))
    return moved.view(count, height, width, channels).permute(0, 3, 1, 2)
