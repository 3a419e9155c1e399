"""A round of operations on a whole batch in about forty launches, for devices where a launch costs more than the work.

The images stand sorted by operation. What is a function of an image's levels is looked up in a table for each image and
channel, all in one gather; what moves pixels is one sampling; what blends an image with a greyer or softer one shares a
chain of arithmetic. Each pixel gets, bit for bit on a CPU, what the kernels of color.py and affine.py give it; only hue
may differ by a level in one of thousands of pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.color import grey_floats
from cnntrain.augment.kernels import KINDS
from cnntrain.augment.per_image import Floats, Integers, take, visits
from cnntrain.augment.rows import as_rows
from cnntrain.config.schema.pieces import Resampling

POSTERIZE, SOLARIZE, INVERT, EQUALIZE, AUTOCONTRAST = map(KINDS.index, KINDS[1:6])
SHIFT, _, BRIGHTNESS, CONTRAST, COLOR, SHARPNESS, HUE = map(KINDS.index, KINDS[6:])
STRIDE = 257  # of the tables: counts of levels begin one place later, so that their sums count what lies below a level
# What counting begins with: nothing, or one of each level, whose sums are the levels themselves.
_COUNTS: NDArray[np.int32] = np.zeros((2, STRIDE), np.int32)
_COUNTS[1, 1:] = 1
_LEVELS: NDArray[np.float32] = np.arange(256, dtype=np.float32)

Lines: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
# Of a round, and of some images in it, int64 (g,): their inverse matrices, float64 (g, 2, 3).
Matrices: TypeAlias = Callable[[int, Integers], Floats]


class Numbers(NamedTuple):
    """What the images of a round need, sorted as they are: arrays on the host, then tensors on the device."""

    tables: Any  # uint8 (D + h, 257): rows to fill for D channels, then one of each image whose table is known
    offsets: Any  # int32 (t, C), where the table of a channel begins
    counts: Any  # int32 (D,), which of _COUNTS a channel begins with
    columns: Any  # float32 (g, 2, 1, W), what a column adds to the place that a pixel comes from
    rows: Any  # float32 (g, 2, H, 1), what a row adds to it
    shifts: Any  # float32 (g, 2, 1, 1), what all pixels add to it
    factors: Any  # float32 (b, 1, 1, 1)
    rests: Any  # float32 (b, 1, 1, 1), 1 - factor, taken in float64


def perform_rounds(
    images: Tensor,
    kinds: Integers,
    values: Floats,
    context: BatchContext,
    *,
    matrices: Matrices | None = None,
    interpolation: Resampling = Resampling.nearest,
    fill: float = 0.0,
) -> Tensor:
    """Take each image through its own operations, one a round; the images themselves are never changed.

    Args:
        images: uint8 (N, C, H, W).
        kinds: int64 (R, M), places in KINDS; M is N, or K times as many for K versions of each image, all first ones
            coming first.
        values: float64 (R, M), a factor, bits or a threshold.
        matrices: of the images that are moved, where some are.
    """
    channels, height, width = images.shape[1:]
    if channels == 1:
        kinds = np.where(np.isin(kinds, (COLOR, HUE)), 0, kinds)
    order, moves = visits(kinds, len(images))
    edges, numbers = [], []
    for turn, places in enumerate(order):
        edge = edges_of(kinds[turn, places])
        moved = places[edge[SHIFT] : edge[BRIGHTNESS]]
        inverse = matrices(turn, moved) if matrices else np.zeros((0, 2, 3))
        lines = _lines(inverse, height, width)
        edges.append(edge)
        numbers.append(_numbers(edge, kinds[turn, places], values[turn, places], lines, channels))
    rows, counts, levels, *sent = context.send_all(
        [moves, _COUNTS, _LEVELS, *(array for each in numbers for array in each)]
    )
    fields = len(Numbers._fields)
    for turn, edge in enumerate(edges):
        images = take(images, rows[turn])  # new memory, which a round may write into
        parts = Numbers(*sent[turn * fields : (turn + 1) * fields])
        _perform(images, edge, parts, counts, levels, interpolation, fill)
    return take(images, rows[-1])


def edges_of(kinds: Integers) -> list[int]:
    """Where the images of each of KINDS begin among the sorted `kinds` (N,), and at last N."""
    edges: Integers = np.searchsorted(kinds, np.arange(len(KINDS) + 1))
    return edges.tolist()


# --- on the host -----------------------------------------------------------------------------------------------------


def _numbers(edges: list[int], kinds: Integers, values: Floats, lines: Lines, channels: int) -> Numbers:
    """Of a round: `edges` of its kinds, the sorted kinds and values (N,), `lines` of those that are moved."""
    known = slice(edges[POSTERIZE], edges[EQUALIZE])
    equalized, stretched = (edges[kind + 1] - edges[kind] for kind in (EQUALIZE, AUTOCONTRAST))
    fitted = (equalized + stretched) * channels
    tables: NDArray[np.uint8] = np.zeros((fitted + known.stop - known.start, STRIDE), np.uint8)
    tables[fitted:, :256] = known_tables(kinds[known], values[known])
    offsets = np.concatenate(
        [
            np.arange(fitted, len(tables))[:, None].repeat(channels, axis=1),
            np.arange(fitted).reshape(-1, channels),
        ]
    )
    counts: NDArray[np.int32] = np.repeat(np.array([0, 1], np.int32), [equalized * channels, stretched * channels])
    factors = values[edges[BRIGHTNESS] :].reshape(-1, 1, 1, 1)
    return Numbers(
        tables,
        (offsets * STRIDE).astype(np.int32),
        counts,
        *lines,
        factors.astype(np.float32),
        (1 - factors).astype(np.float32),
    )


def known_tables(kinds: Integers, values: Floats) -> NDArray[np.uint8]:
    """What posterize, solarize and invert make of each level: uint8 (n, 256).

    Args:
        kinds: int64 (n,), places in KINDS.
        values: float64 (n,), bits to keep, or the threshold from which levels are inverted.
    """
    bits = np.where(kinds == POSTERIZE, values, 8).astype(np.int64)
    kept = (255 << (8 - bits)).astype(np.uint8)
    first = np.where(kinds == SOLARIZE, np.ceil(values.astype(np.float32)), np.where(kinds == INVERT, 0, 256))
    inverted = np.arange(256, dtype=np.int16) >= first.astype(np.int16)[:, None]
    tables: NDArray[np.uint8] = np.arange(256, dtype=np.uint8) & kept[:, None]
    return tables ^ np.negative(inverted.view(np.uint8))  # minus one is all bits


def _lines(matrices: Floats, height: int, width: int) -> Lines:
    """The sums of affine._places in parts, of the same bits: by column, by row, and for all pixels."""
    half = np.array([[width / 2], [height / 2]], np.float32)
    by_x, by_y, shift = np.moveaxis(matrices.astype(np.float32) / half, 2, 0)[:, :, :, None, None]
    x = np.linspace((1 - width) / 2, (width - 1) / 2, width, dtype=np.float32)
    y = np.linspace((1 - height) / 2, (height - 1) / 2, height, dtype=np.float32)
    return by_x * x, by_y * y[:, None], shift


# --- on the device ---------------------------------------------------------------------------------------------------


def _perform(
    images: Tensor,
    edges: list[int],
    numbers: Numbers,
    counts: Tensor,
    levels: Tensor,
    interpolation: Resampling,
    fill: float,
) -> None:
    """A round, in place."""
    first = edges[EQUALIZE]
    values = images[first:].float()
    if edges[POSTERIZE] < edges[SHIFT]:
        equalized = edges[AUTOCONTRAST] - first
        index = images[edges[POSTERIZE] : edges[SHIFT]] + numbers.offsets[:, :, None, None]
        if first < edges[SHIFT]:
            fitted = index[first - edges[POSTERIZE] :]
            _fit_tables(fitted, values[: edges[SHIFT] - first], equalized, numbers, counts, levels)
        target = as_rows(images[edges[POSTERIZE] : edges[SHIFT]]).view(-1)
        torch.index_select(numbers.tables.view(-1), 0, as_rows(index).view(-1), out=target)
    if edges[SHIFT] < edges[BRIGHTNESS]:
        moved = slice(edges[SHIFT] - first, edges[BRIGHTNESS] - first)
        images[edges[SHIFT] : edges[BRIGHTNESS]].copy_(_sample(values[moved], numbers, interpolation, fill))
    if edges[BRIGHTNESS] < edges[HUE]:
        blended = values[edges[BRIGHTNESS] - first : edges[HUE] - first]
        _blend(blended, [edge - edges[BRIGHTNESS] for edge in edges[BRIGHTNESS : HUE + 1]], numbers)
        images[edges[BRIGHTNESS] : edges[HUE]].copy_(blended)
    if edges[HUE] < len(images):
        turned = numbers.factors[edges[HUE] - edges[BRIGHTNESS] :]
        images[edges[HUE] :].copy_(turn_hues(values[edges[HUE] - first :], turned))


def _fit_tables(
    index: Tensor, values: Tensor, equalized: int, numbers: Numbers, counts: Tensor, levels: Tensor
) -> None:
    """Fill the tables of images to equalize, and behind them of those whose contrast is to be stretched.

    Both are (x - low) / scale. To equalize, x is the number of pixels below a level, low half a step and scale a step;
    to stretch, x is the level itself. Where the scale is 0, every level that occurs stays as it is.

    Args:
        index: int32 (n, C, H, W), the places of the levels in the tables.
        values: float32 (n, C, H, W), the levels.
        equalized: how many images are to be equalized.
    """
    count, channels = values.shape[:2]
    rows = as_rows(values)
    pixels = rows.view(count, -1, channels) if rows.shape[1] != channels else rows.flatten(2)
    low, high = pixels.aminmax(dim=1 if rows.shape[1] != channels else 2)
    tables = counts.index_select(0, numbers.counts)
    if equalized:
        seen = as_rows(index[:equalized]).view(-1)
        tables.view(-1)[1:].index_add_(0, seen, counts[1, 1:2].expand_as(seen))
    # Whole numbers: CUDA's sums of floats differ from time to time, and are refused by deterministic=true.
    below = tables.cumsum(1, dtype=torch.int32)[:, :256].float().view(count, channels, 256)
    scale = below.gather(2, high.long().unsqueeze(2)).squeeze(2)
    scale[equalized:].sub_(low[equalized:]).mul_(1 / 255)
    if equalized:
        scale[:equalized].div_(255, rounding_mode="floor")
        torch.mul(scale[:equalized], -0.5, out=low[:equalized])
    fitted = (below - low.unsqueeze(2)).div_(scale.unsqueeze(2)).clamp_max_(255)
    fitted = torch.where(scale.unsqueeze(2) > 0, fitted, levels)
    numbers.tables[: count * channels, :256].copy_(fitted.view(-1, 256))


def _sample(values: Tensor, numbers: Numbers, interpolation: Resampling, fill: float) -> Tensor:
    """`affine.affine` of float32 levels."""
    places = (numbers.columns + numbers.rows).add_(numbers.shifts).permute(0, 2, 3, 1)

    def sample(what: Tensor) -> Tensor:
        return F.grid_sample(what, places, mode=interpolation.value, padding_mode="zeros", align_corners=False)

    if interpolation is Resampling.nearest:
        outside = round(fill)
        return sample(values - outside).add_(outside) if outside else sample(values)
    inside = sample(values.new_ones(1, 1, 1, 1).expand(len(values), 1, *values.shape[2:]))
    return sample(values).sub_(fill).mul_(inside).add_(fill).round_()


def _blend(values: Tensor, edges: list[int], numbers: Numbers) -> None:
    """Brightness, contrast, saturation and sharpness of float32 levels (n, C, H, W), in place, kept within 0..255.

    Args:
        edges: where the images of each of the four begin, and the end of the last.
    """
    _, contrast, color, sharp, end = edges
    factors, rests = numbers.factors[:end], numbers.rests[:end]
    if contrast < sharp:
        greyed = values[contrast:sharp]
        grey = grey_floats(greyed).floor_() if values.shape[1] == 3 else greyed
        means = grey[: color - contrast].mean((1, 2, 3), keepdim=True)
    values[:sharp].mul_(factors[:sharp])
    if contrast < color:
        values[contrast:color].addcmul_(means, rests[contrast:color])
    if color < sharp:
        values[color:sharp].addcmul_(grey[color - contrast :], rests[color:sharp])
    if sharp < end and min(values.shape[2:]) > 2:
        inner = values[sharp:end, :, 1:-1, 1:-1]
        softer = F.avg_pool2d(values[sharp:end], 3, 1, divisor_override=13).add_(inner, alpha=4 / 13).round_()
        inner.addcmul_(softer.sub_(inner), rests[sharp:end])
    values.clamp_(0, 255)


def turn_hues(values: Tensor, turns: Tensor) -> Tensor:
    """`color.hue` of float32 levels (n, 3, H, W), by turns (n, 1, 1, 1): float32 levels, fractions not cut off.

    The channel n has value - spread * clamp(2 - |k - 2|, 0, 1), where k is 5, 3 or 1 for red, green and blue, plus the
    hue in sixths of a turn, modulo 6.
    """
    value, strongest = values.max(1, keepdim=True)
    spread = value - values.amin(1, keepdim=True)
    sixths = (values.roll(-1, 1) - values.roll(-2, 1)).div_(spread.clamp_min(1e-3))
    first = torch.arange(0, 6, 2, device=values.device).view(3, 1, 1)
    hue = (sixths + first).gather(1, strongest).add_(turns, alpha=6)
    falls = (hue + (5 - first)).remainder_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
    return value.sub(falls.mul_(spread)).mul_(255.999 / 255)
