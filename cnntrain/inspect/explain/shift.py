"""What a shift of the image by a few pixels does to the answer: the lectures' argument for convolution.

A convolution answers a moved image with moved maps, so a network of convolutions and a pooling over the whole map
gives the same answer; strides, borders and fully connected layers spoil that (arXiv 1904.11486).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cnntrain.plots.drawing import BACKGROUND, FAINT_INK, INK, RIGHT, wrap, write
from cnntrain.plots.sheet import GAP, MARGIN, SMALL, TEXT, TITLE

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
SMALL_IMAGE, SHORT, LONG = 64, (1, 2, 3, 4), (1, 2, 4, 8)  # pixels


@dataclass(frozen=True)
class Row:
    """The answers to images moved by `pixels`, the mean over four directions.

    Attributes:
        changed: share of images with another predicted class, 0..1.
        moved: mean change (without its sign) of the probability of the true class, 0..1.
        top1: share of images with the right class.
    """

    pixels: int
    changed: float
    moved: float
    top1: float


def shifted(images: Tensor, down: int, right: int, *, circular: bool = False) -> Tensor:
    """Images (N, C, H, W) moved by whole pixels; the border is repeated into the gap, or the image comes round."""
    rows = torch.arange(images.shape[2], device=images.device) - down
    columns = torch.arange(images.shape[3], device=images.device) - right
    if circular:
        rows, columns = rows % len(rows), columns % len(columns)
    else:
        rows, columns = rows.clamp(0, len(rows) - 1), columns.clamp(0, len(columns) - 1)
    return images.index_select(2, rows).index_select(3, columns)


@torch.no_grad()
def measure(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    normalise: Callable[[Tensor], Tensor],
    pixels: Iterable[int],
    *,
    circular: bool = False,
) -> list[Row]:
    """The effect of shifts on a network, one row for each length; the first one (0) is of the images as they are.

    Args:
        batches: uint8 (N, C, S, S) and int64 labels (N,).
    """
    totals: dict[int, Tensor] = {}
    lengths = [0, *pixels]
    images_seen = 0
    for images, labels in batches:
        images_seen += len(images)
        before = model(normalise(images)).float().softmax(1)
        for length in lengths:
            for down, right in DIRECTIONS if length else DIRECTIONS[:1]:
                moved = shifted(images, down * length, right * length, circular=circular)
                after = model(normalise(moved)).float().softmax(1) if length else before
                true = labels[:, None]
                sums = torch.stack(
                    [
                        (after.argmax(1) != before.argmax(1)).sum().float(),
                        (after.gather(1, true) - before.gather(1, true)).abs().sum(),
                        (after.argmax(1) == labels).sum().float(),
                    ]
                )
                totals[length] = totals.get(length, 0) + sums.cpu().double()
    return [
        Row(length, *(totals[length] / images_seen / (len(DIRECTIONS) if length else 1)).tolist()) for length in lengths
    ]


def table(rows: list[Row]) -> list[list[str]]:
    """The rows as words, below their heads."""
    heads = ["shift", "other prediction", "true class's probability", "top-1"]
    return [heads] + [
        [f"{row.pixels} px", f"{100 * row.changed:.2f}%", f"{100 * row.moved:.2f} points", f"{100 * row.top1:.2f}%"]
        for row in rows
    ]


def csv(rows: list[Row]) -> str:
    """The rows as numbers, for a comparison with other networks: shares of 1, `moved` and `top1` as in Row."""
    lines = [f"{row.pixels},{row.changed:.6f},{row.moved:.6f},{row.top1:.6f}" for row in rows]
    return "\n".join(["pixels,changed,moved,top1", *lines]) + "\n"


# ---- the sheet ----

PANEL, CHART = (300, 250), (230, 170)  # pixels: a chart with its words, and its axes alone


def picture(rows: list[Row], images: int, split: str, about: str) -> Image.Image:
    """Three bar charts on fixed scales of 0 to 100 %, so that the sheets of two networks can be laid side by side."""
    notes = [
        f"{images:,} {split} images are moved left, right, up and down by a few pixels (the border is "
        "repeated into the gap), which changes nothing that a person would call the answer.",
        "Convolution moves its maps with the image, so a convolutional network should hardly care; a fully connected "
        "one has a weight of its own for each pixel. Strides and poolings keep the invariance from being perfect.",
    ]
    width = 2 * MARGIN + 3 * PANEL[0]
    lines = [line for note in notes for line in wrap(note, width - 2 * MARGIN, TEXT)]
    top = MARGIN + TITLE + GAP + len(lines) * (TEXT + 6) + 2 * GAP
    picture = Image.new("RGB", (width, top + PANEL[1] + 2 * MARGIN), BACKGROUND)
    write(picture, (MARGIN, picture.height - MARGIN), about, SMALL, FAINT_INK, "ls")
    write(picture, (MARGIN, MARGIN), "A shift by a few pixels: does the answer stay?", TITLE)
    for number, line in enumerate(lines):
        write(picture, (MARGIN, MARGIN + TITLE + GAP + number * (TEXT + 6)), line, TEXT, FAINT_INK)
    charts = (
        ("predictions that change", [(row.pixels, row.changed) for row in rows[1:]]),
        ("change of the true class's probability", [(row.pixels, row.moved) for row in rows[1:]]),
        ("accuracy (top-1); 0: not moved", [(row.pixels, row.top1) for row in rows]),
    )
    for index, (title, bars) in enumerate(charts):
        _draw_chart(picture, (MARGIN + index * PANEL[0], top), title, bars)
    return picture


def _draw_chart(picture: Image.Image, corner: tuple[int, int], title: str, bars: list[tuple[int, float]]) -> None:
    pen = ImageDraw.Draw(picture)
    left, top = corner[0] + 44, corner[1] + 36
    bottom = top + CHART[1]
    write(picture, (corner[0], corner[1]), title, TEXT)
    for share in (0, 0.25, 0.5, 0.75, 1):
        height = bottom - round(share * CHART[1])
        pen.line((left, height, left + CHART[0], height), fill=INK if share == 0 else (225, 225, 225))
        write(picture, (left - 6, height), f"{100 * share:.0f} %", SMALL, FAINT_INK, "rm")
    step = CHART[0] / len(bars)
    for index, (pixels, share) in enumerate(bars):
        middle, height = left + round((index + 0.5) * step), bottom - round(share * CHART[1])
        half = min(16, round(step * 0.3))
        if height < bottom:
            pen.rectangle((middle - half, height, middle + half, bottom - 1), fill=RIGHT)
        inside = share > 0.9
        at = (middle, height + 4 if inside else height - 3)
        write(picture, at, f"{100 * share:.1f}", SMALL, BACKGROUND if inside else INK, "mt" if inside else "mb")
        write(picture, (middle, bottom + 6), str(pixels), SMALL, INK, "mt")
    write(picture, (left + CHART[0] // 2, bottom + 24), "shift in pixels", SMALL, FAINT_INK, "mt")
