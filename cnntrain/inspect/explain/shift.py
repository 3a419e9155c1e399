"""What a shift of the image by a few pixels does to the answer: the lectures' argument for convolution.

A convolution answers a moved image with moved maps, so a network of convolutions and a pooling over the whole map
gives the same answer; strides, borders and fully connected layers spoil that (arXiv 1904.11486).
"""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cnntrain.data.labels import is_sets
from cnntrain.evaluation.prediction import Reading
from cnntrain.plots.drawing import RIGHT

if TYPE_CHECKING:
    from cnntrain.plots.charts import Chart

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
PLAIN = Reading()
SMALL_IMAGE, SHORT, LONG = 64, (1, 2, 3, 4), (1, 2, 4, 8)  # pixels


@dataclass(frozen=True)
class ShiftRow:
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


@dataclass(frozen=True)
class SetShiftRow:
    """The same where images have sets of labels.

    Attributes:
        changed: share of images that are given other labels, 0..1.
        moved: mean change (without its sign) of the probabilities of the labels that images have, 0..1.
        micro_f1: of all labels together, 0..1.
    """

    pixels: int
    changed: float
    moved: float
    micro_f1: float


Rows = Sequence[ShiftRow] | Sequence[SetShiftRow]


def shift(images: Tensor, down: int, right: int, *, circular: bool = False) -> Tensor:
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
    normalize: Callable[[Tensor], Tensor],
    pixels: Iterable[int],
    *,
    circular: bool = False,
    reading: Reading = PLAIN,
) -> Rows:
    """The effect of shifts on a network, one row for each length; the first one (0) is of the images as they are.

    Args:
        batches: uint8 (N, C, S, S) and int64 labels (N,), or sets, bool (N, K).
        reading: how the logits are read.
    """
    totals: dict[int, Tensor] = {}
    lengths = [0, *pixels]
    images_seen = 0
    for images, labels in batches:
        images_seen += len(images)
        before = reading.probabilities(model(normalize(images)).float())
        for length in lengths:
            for down, right in DIRECTIONS if length else DIRECTIONS[:1]:
                moved = shift(images, down * length, right * length, circular=circular)
                after = reading.probabilities(model(normalize(moved)).float()) if length else before
                count = _count_sets if is_sets(labels) else _count
                sums = torch.stack(count(before, after, labels, reading))
                totals[length] = totals.get(length, 0) + sums.cpu().double()
    if reading.thresholds is not None:
        return [_set_row(length, totals[length].tolist()) for length in lengths]
    return [
        ShiftRow(length, *(totals[length] / images_seen / (len(DIRECTIONS) if length else 1)).tolist())
        for length in lengths
    ]


def _count(before: Tensor, after: Tensor, labels: Tensor, _: Reading) -> list[Tensor]:
    """The sums behind the fields of ShiftRow: (N, K) probabilities of images as they are, and moved."""
    true = labels[:, None]
    return [
        (after.argmax(1) != before.argmax(1)).sum().float(),
        (after.gather(1, true) - before.gather(1, true)).abs().sum(),
        (after.argmax(1) == labels).sum().float(),
    ]


def _count_sets(before: Tensor, after: Tensor, labels: Tensor, reading: Reading) -> list[Tensor]:
    """The sums behind the fields of SetShiftRow: images and other sets, labels and their changes, hits and calls."""
    given = reading.decide(after)
    counts = [(given != reading.decide(before)).any(1), labels, given & labels, given]
    return [
        after.new_tensor(len(labels)),
        ((after - before).abs() * labels).sum(),
        *(one.sum().float() for one in counts),
    ]


def _set_row(length: int, sums: list[float]) -> SetShiftRow:
    images, moved, changed, labels, hits, calls = sums
    return SetShiftRow(length, changed / images, moved / max(labels, 1), 2 * hits / max(labels + calls, 1))


def table(rows: Rows) -> list[list[str]]:
    """The rows as words, below their heads."""
    heads = ["shift", "other prediction", "true class's probability", "top-1"]
    if isinstance(rows[0], SetShiftRow):
        heads = ["shift", "other labels", "true labels' probability", "micro F1"]
    return [heads] + [
        [f"{row.pixels} px", f"{100 * row.changed:.2f}%", f"{100 * row.moved:.2f} points", f"{100 * _score(row):.2f}%"]
        for row in rows
    ]


def _score(row: ShiftRow | SetShiftRow) -> float:
    return row.top1 if isinstance(row, ShiftRow) else row.micro_f1


def csv(rows: Rows) -> str:
    """The rows as numbers, for a comparison with other networks: shares of 1, each as its field."""
    lines = [f"{row.pixels},{row.changed:.6f},{row.moved:.6f},{_score(row):.6f}" for row in rows]
    return "\n".join([",".join(item.name for item in fields(rows[0])), *lines]) + "\n"


# ---- the chart ----

AXES, APART, WIDEST_NOTE = (230, 170), 70, 125  # pixels: of a panel, and between two; characters


def draw(rows: Rows, images: int, split: str, about: str) -> "Chart":
    """Three panels of bars on fixed scales of 0 to 100 %, so that those of two networks can be laid side by side."""
    from cnntrain.plots import charts

    notes = [
        f"{images:,} {split} images are moved left, right, up and down by a few pixels (the border is "
        "repeated into the gap), which changes nothing that a person would call the answer.",
        "Convolution moves its maps with the image, so a convolutional network should hardly care; a fully connected "
        "one has a weight of its own for each pixel. Strides and poolings keep the invariance from being perfect.",
        about,
    ]
    titles = "predictions that change", "change of the true class's probability", "accuracy (top-1); 0: not moved"
    if isinstance(rows[0], SetShiftRow):
        titles = "sets of labels that change", "change of true labels' probability", "micro F1; 0: not moved"
    shares = (
        {row.pixels: row.changed for row in rows[1:]},
        {row.pixels: row.moved for row in rows[1:]},
        {row.pixels: _score(row) for row in rows},
    )
    with charts.style():
        figure = charts.new_figure((3 * (AXES[0] + APART) - APART, AXES[1]))
        for number, (title, values) in enumerate(zip(titles, shares, strict=True)):
            axes = charts.add_axes(figure, (number * (AXES[0] + APART), 0), AXES)
            heights = [100 * share for share in values.values()]
            bars = axes.bar([str(pixels) for pixels in values], heights, width=0.6, color=charts.fractions(RIGHT))
            axes.bar_label(bars, fmt="%.1f", padding=1)
            axes.grid(False, axis="x")
            axes.tick_params("x", length=0)
            axes.set_ylim(0, charts.set_scale(axes.yaxis, 0, 100, 5)[-1])
            axes.set_title(title, pad=18)
            axes.set_xlabel("shift in pixels")
            axes.set_ylabel("%")
        lines = [line for note in notes for line in textwrap.wrap(note, WIDEST_NOTE)]
        return charts.finish(figure, "A shift by a few pixels: does the answer stay?", lines)
