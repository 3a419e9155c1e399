"""Colours of a whole batch, each image by its own strength.

Every kernel takes uint8 images (N, C, H, W), C being 1 or 3, on any device, leaves them untouched, gives uint8 images
of the same shape and memory layout, and never waits for the device. What it does to an image is, bit for bit on a CPU,
what torchvision.transforms.v2.functional does: rounding and the order of sums are part of that. A factor is float32 or
float64; torchvision takes 1 - factor in float64.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cnntrain.augment.layout import column, floats, in_parts, laid_out_like, launching_costs, levels
from cnntrain.augment.rows import as_images, as_rows


@in_parts
def brightness(images: Tensor, factors: Tensor, /) -> Tensor:
    """Levels times `factors`, float (N,) from 0: 0 is black, 1 the image."""
    return levels(images.mul(column(factors).float()).clamp_max_(255))


@in_parts
def contrast(images: Tensor, factors: Tensor, /) -> Tensor:
    """Away from the mean grey of the image by `factors`, float (N,) from 0: 0 is that grey, 1 the image."""
    values = images.float()
    grey = grey_floats(images).floor_() if images.shape[1] == 3 else values
    # Written out: with two arguments of one number per image addcmul is eight times as slow on a CPU.
    origin = torch.empty_like(values).copy_(grey.mean((1, 2, 3), keepdim=True))
    return levels(_away(values, origin, factors))


@in_parts
def saturation(images: Tensor, factors: Tensor, /) -> Tensor:
    """Away from the grey of each pixel by `factors`, float (N,) from 0: 0 is grey, 1 the image."""
    if images.shape[1] == 1:
        return images
    values = floats(images)
    return laid_out_like(images, levels(_away(values, grey_floats(values).floor_(), factors)))


@in_parts
def hue(images: Tensor, factors: Tensor, /) -> Tensor:
    """Turn the colour circle by `factors`, float (N,) within -0.5..0.5 turns."""
    if images.shape[1] == 1:
        return images
    values = floats(images).mul_(1 / 255)
    value = values.amax(1)
    spread = value - values.amin(1)
    purity = spread / value.clamp_min(1e-3)  # where it is black 0 / 0 is 0; no other value lies below 1 / 255
    turns = _sixths(values, value, spread).mul_(1 / 6).add_(1).frac_().add_(factors.float().view(-1, 1, 1))
    turns.sub_(turns.floor())
    return laid_out_like(images, levels(_colors(turns.mul_(6), purity, value).mul_(255.999)))


def _sixths(values: Tensor, value: Tensor, spread: Tensor) -> Tensor:
    """Places (N, H, W) on the colour circle in sixths of a turn from red on, -1 to 5; 0 for greys."""
    red, green, blue = ((value.unsqueeze(1) - values) / spread.clamp_min(1e-3).unsqueeze(1)).unbind(1)
    is_red, is_green = (value.clone().eq_(values[:, channel]) for channel in (0, 1))
    from_red = (blue - green).mul_(is_red)
    from_green = (red + 2).sub_(blue).mul_(is_green)
    from_blue = (green + 4).sub_(red).mul_(1 - is_green)
    return from_green.add_(from_blue).mul_(1 - is_red).add_(from_red)


def _colors(sixths: Tensor, purity: Tensor, value: Tensor) -> Tensor:
    """Hue, saturation and value, (N, H, W) each, to red, green and blue, (N, 3, H, W) in 0..1."""
    sector = sixths.floor()
    odd = sector.remainder(2)
    rest = 1 - purity
    low = rest * value
    # Of the three channels one has the value, one is the lowest, and one rises (even sectors) or falls (odd ones).
    middle = (sixths - sector).mul_(purity).mul_(1 - 2 * odd).add_(torch.maximum(rest, odd)).mul_(value)
    red = (sector - 2.5).abs_().sub_(1.5)  # 1 or more where red has the value, -1 or less where it is the lowest
    green, blue = (1.5 - (sector - peak).abs_() for peak in (1.5, 3.5))
    # 2 lies beyond all levels: clamped, the sum is the channel. where() and gather() are several times as slow.
    # An orange (sector 0): red = |0 - 2.5| - 1.5 = 1, green = 1.5 - 1.5 = 0, blue = 1.5 - 3.5 = -2; twice that plus the
    # middle, 0.5 say, is 2.5, 0.5 and -3.5, and clamped to low..value = 0.2..0.9: red 0.9, green 0.5, blue 0.2.
    colors = torch.stack([red, green, blue], dim=1).mul_(2).add_(middle.unsqueeze(1))
    return torch.maximum(torch.minimum(colors, value.unsqueeze(1)), low.unsqueeze(1))


@in_parts
def sharpness(images: Tensor, factors: Tensor, /) -> Tensor:
    """Away from a 3 x 3 blur by `factors`, float (N,) from 0: 0 is blurred, 1 the image; the border stays."""
    height, width = images.shape[2:]
    if min(height, width) <= 2:
        return images
    # The whole batch as one line of bytes, whatever its layout: neighbours lie `right` and `down` apart, and what wraps
    # around ends up in the border, which is restored.
    rows = as_rows(images)
    right, down = rows.shape[3] // width, rows.shape[3]
    line = rows.view(-1).to(torch.int16)
    across = (line[: -2 * right] + line[right:-right]).add_(line[2 * right :])
    boxes = torch.empty_like(line)
    inner = slice(right + down, -right - down)
    torch.add(across[: -2 * down], across[down:-down], out=boxes[inner]).add_(across[2 * down :])
    boxes[inner].add_(line[inner], alpha=4)
    values = line.to(torch.float32).view(len(images), -1)
    blurred = boxes.to(torch.float32).mul_(1 / 13).round_().view_as(values)  # no thirteenth is a tie
    values.addcmul_(blurred.sub_(values), (1 - factors).float().view(-1, 1)).clamp_(0, 255)
    sharpened = as_images(levels(values).view_as(rows), images)
    sharpened[:, :, :: height - 1] = images[:, :, :: height - 1]
    sharpened[:, :, :, :: width - 1] = images[:, :, :, :: width - 1]
    return sharpened


def posterize(images: Tensor, bits: Tensor, /) -> Tensor:
    """Keep the upper `bits`, integers (N,) from 0 to 8, of each level."""
    return images & column((255 << (8 - bits.to(torch.int32))).to(torch.uint8))


def solarize(images: Tensor, thresholds: Tensor, /) -> Tensor:
    """Invert the levels from `thresholds` up, (N,) from 0 to 255."""
    first = column(thresholds.ceil().clamp(0, 255).to(torch.uint8))
    # All bits of the levels to invert; where() takes 50 times as long on a CPU.
    return images.clone().ge_(first).neg_().bitwise_xor_(images)


def invert(images: Tensor, /) -> Tensor:
    """255 minus each level."""
    return ~images


@in_parts
def equalize(images: Tensor, /) -> Tensor:
    """Spread the levels of each channel so that all are about equally frequent."""
    count, channels, height, width = images.shape
    rows, pixels = as_rows(images), height * width
    # Each channel of each image has a table of its own, all in one line; this is where the levels stand in it.
    tables = torch.arange(0, count * channels * 256, 256, dtype=torch.int32, device=images.device)
    index = (rows.to(torch.int32) + _along_rows(tables, rows, width)).flatten()
    if launching_costs(images.device) or not images.is_cpu:
        counts = torch.zeros(len(tables) * 256, dtype=torch.int32, device=images.device)
        counts.index_add_(0, index, counts.new_ones(1).expand_as(index))
    else:  # twice as fast, but it looks for the largest number first: a device would be waited for
        counts = torch.bincount(index, minlength=len(tables) * 256).to(torch.int32)
    counts = counts.view(-1, 256)
    below = counts.cumsum(1, dtype=torch.int32) - counts
    step = (below * (below < pixels)).amax(1, keepdim=True) // 255  # the highest level that occurs does not count
    # Floats divide 20 times as fast as integers on a CPU, and exactly up to 2**24 pixels.
    table = (below + step // 2).div(step.clamp_min(1)).clamp_max_(255).to(torch.int16)
    same = torch.arange(256, dtype=torch.int16, device=images.device)
    table = torch.where(step > 0, table, same).to(torch.uint8)
    return as_images(table.flatten().index_select(0, index).view(rows.shape), images)


@in_parts
def autocontrast(images: Tensor, /) -> Tensor:
    """Stretch the levels of each channel to 0..255."""
    width = images.shape[3]
    rows = as_rows(images)
    values = rows.to(torch.float32)
    # Down the columns first, which is as fast in either layout; then along what is left of each channel.
    low, high = values.amin(2).unflatten(2, (width, -1)).amin(2), values.amax(2).unflatten(2, (width, -1)).amax(2)
    flat = low == high
    scale = torch.where(flat, 1, (high - low).mul_(1 / 255))
    low, scale = (_along_rows(each, rows, width) for each in (torch.where(flat, 0, low), scale))
    return as_images(levels(values.sub_(low).div_(scale)), images)


def _along_rows(values: Tensor, rows: Tensor, width: int) -> Tensor:
    """One value for each channel of each image, in their order, to be broadcast over what `as_rows` gave."""
    count, planes, _, length = rows.shape
    return values.view(count, planes, 1, 1, length // width).expand(-1, -1, -1, width, -1).flatten(3)


@in_parts
def grayscale(images: Tensor, /) -> Tensor:
    """All channels the luma of the image (ITU-R BT.601)."""
    if images.shape[1] == 1:
        return images
    return laid_out_like(images, levels(grey_floats(images)).expand_as(images).contiguous())


@in_parts
def blur(images: Tensor, sigmas: Tensor, kernel_size: int, /) -> Tensor:
    """Gaussian blur, the border mirrored.

    Args:
        sigmas: float (N,) above 0, spread in pixels.
        kernel_size: odd, of all images; half of it below H and W.
    """
    count, channels = images.shape[:2]
    end = (kernel_size - 1) / (2 * math.sqrt(2))
    places = torch.linspace(-end, end, kernel_size, device=images.device)
    line = (places / sigmas.float().view(-1, 1)).pow_(2).neg_().softmax(1)
    kernels = (
        (line.unsqueeze(2) * line.unsqueeze(1)).unsqueeze(1).expand(-1, channels, -1, -1).flatten(0, 1).unsqueeze(1)
    )
    padded = F.pad(floats(images), [kernel_size // 2] * 4, mode="reflect").flatten(0, 1).unsqueeze(0)
    blurred = F.conv2d(padded, kernels, groups=count * channels).view(images.shape)
    return laid_out_like(images, levels(blurred.round_()))


def grey_floats(images: Tensor) -> Tensor:
    """Luma of (N, 3, H, W) as float32 (N, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _away(values: Tensor, origin: Tensor, factors: Tensor) -> Tensor:
    """`values`, in place, moved away from `origin` by `factors` and kept within 0..255."""
    share = column(factors)
    # addcmul rounds once, as torchvision's add with alpha does.
    return values.mul_(share.float()).addcmul_(origin, (1 - share).float()).clamp_(0, 255)
