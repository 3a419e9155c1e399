"""What a shift of the image by a few pixels does to the answer: the lectures' argument for convolution.

A convolution answers a moved image with moved maps, so a network of convolutions and a pooling over the whole map
gives the same answer; strides, borders and fully connected layers spoil that (arXiv 1904.11486).
"""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cnntrain.data.labels import is_sets
from cnntrain.evaluation.intervals import Interval, of_ratio, of_shares
from cnntrain.evaluation.prediction import Reading
from cnntrain.plots.drawing import INK, RIGHT

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
        intervals: of 95 %, of `changed` and `top1`: what other images of the same kind would do to them.
    """

    pixels: int
    changed: float
    moved: float
    top1: float
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class SetShiftRow:
    """The same where images have sets of labels.

    Attributes:
        changed: share of images that are given other labels, 0..1.
        moved: mean change (without its sign) of the probabilities of the labels that images have, 0..1.
        micro_f1: of all labels together, 0..1.
        intervals: of 95 %, of `changed`, and of `micro_f1` where some images are worth more than others.
    """

    pixels: int
    changed: float
    moved: float
    micro_f1: float
    intervals: dict[str, Interval]


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
    for images, labels in batches:
        before = reading.probabilities(model(normalize(images)).float())
        count = _count_sets if is_sets(labels) else _count
        for length in lengths:
            found = []
            for down, right in DIRECTIONS if length else DIRECTIONS[:1]:
                moved = shift(images, down * length, right * length, circular=circular)
                after = reading.probabilities(model(normalize(moved)).float()) if length else before
                found.append(torch.stack(count(before, after, labels, reading), 1))
            values = torch.stack(found).mean(0).cpu().double()
            totals[length] = totals.get(length, 0) + values.T @ values
    row = _row if reading.thresholds is None else _set_row
    return [row(length, totals[length].tolist()) for length in lengths]  # type: ignore[return-value]


def _count(before: Tensor, after: Tensor, labels: Tensor, _: Reading) -> list[Tensor]:
    """Of each image (N,) what is behind the fields of ShiftRow: 1, and whether, how far, and whether right.

    Args:
        before, after: (N, K) probabilities of images as they are, and moved.
    """
    true = labels[:, None]
    return [
        torch.ones_like(after[:, 0]),
        (after.argmax(1) != before.argmax(1)).float(),
        (after.gather(1, true) - before.gather(1, true)).abs()[:, 0],
        (after.argmax(1) == labels).float(),
    ]


def _count_sets(before: Tensor, after: Tensor, labels: Tensor, reading: Reading) -> list[Tensor]:
    """Of each image (N,) what is behind SetShiftRow: 1, another set, changes and labels, hits and calls both twice."""
    given = reading.decide(after)
    hits, calls, own = (part.sum(1).float() for part in (given & labels, given, labels))
    return [
        torch.ones_like(after[:, 0]),
        (given != reading.decide(before)).any(1).float(),
        ((after - before).abs() * labels).sum(1),
        own,
        2 * hits,
        own + calls,
    ]


def _row(length: int, products: list[list[float]]) -> ShiftRow:
    """Of the sums over images of the products of what _count gives, each by each."""
    images, changed, moved, right = products[0]
    shares = {"changed": _interval(length, products, 1), "top1": _interval(length, products, 3)}
    return ShiftRow(length, changed / images, moved / images, right / images, shares)


def _set_row(length: int, products: list[list[float]]) -> SetShiftRow:
    """The same of what _count_sets gives."""
    images, changed, moved, labels, hits, both = products[0]
    score = hits / max(both, 1)
    squares = products[4][4] - 2 * score * products[4][5] + score * score * products[5][5]
    shares = {"changed": _interval(length, products, 1)}
    if interval := of_ratio(score, squares, both, round(images)):
        shares["micro_f1"] = interval
    return SetShiftRow(length, changed / images, moved / max(labels, 1), score, shares)


def _interval(length: int, products: list[list[float]], place: int) -> Interval:
    """Of a mean over images; those that are not moved keep their answers."""
    images = round(products[0][0])
    if not length and place == 1:
        return Interval(0.0, 0.0)
    mean, square = products[0][place] / images, products[place][place] / images
    return of_shares(mean, square, images, len(DIRECTIONS) if length else 1)


def table(rows: Rows) -> list[list[str]]:
    """The rows as words, below their heads."""
    heads = ["shift", "other prediction", "95 % interval", "probability", "top-1", "95 % interval"]
    if isinstance(rows[0], SetShiftRow):
        heads[1], heads[4] = "other labels", "micro F1"
    return [heads] + [
        [
            f"{row.pixels} px",
            f"{100 * row.changed:.2f}%",
            _ends(row, "changed") if row.pixels else "",
            f"{100 * row.moved:.2f} points",
            f"{100 * _score(row):.2f}%",
            _ends(row, _name(row)),
        ]
        for row in rows
    ]


def _ends(row: ShiftRow | SetShiftRow, key: str) -> str:
    interval = row.intervals.get(key)
    return " to ".join(f"{100 * end:.2f}" for end in interval) + "%" if interval else ""


def _name(row: ShiftRow | SetShiftRow) -> str:
    return "top1" if isinstance(row, ShiftRow) else "micro_f1"


def _score(row: ShiftRow | SetShiftRow) -> float:
    return row.top1 if isinstance(row, ShiftRow) else row.micro_f1


def csv(rows: Rows) -> str:
    """The rows as numbers, for a comparison with other networks: shares of 1, each as its field, and intervals."""
    score = _name(rows[0])
    heads = ["pixels", "changed", "moved", score]
    heads += [f"{key}_{end}" for key in ("changed", score) for end in Interval._fields]
    lines = []
    for row in rows:
        ends = [row.intervals.get(key, (None, None)) for key in ("changed", score)]
        numbers = [row.changed, row.moved, _score(row), *ends[0], *ends[1]]
        lines.append([str(row.pixels), *("" if value is None else f"{value:.6f}" for value in numbers)])
    return "\n".join(map(",".join, [heads, *lines])) + "\n"


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
        "Whiskers: intervals of 95 %, what other images of the same kind would do to the share.",
    ]
    titles = "predictions that change", "change of the true class's probability", "accuracy (top-1); 0: not moved"
    if isinstance(rows[0], SetShiftRow):
        titles = "sets of labels that change", "change of true labels' probability", "micro F1; 0: not moved"
    moved: Rows = rows[1:]
    panels = (
        (moved, [row.changed for row in moved], "changed"),
        (moved, [row.moved for row in moved], ""),
        (rows, [_score(row) for row in rows], _name(rows[0])),
    )
    with charts.style():
        figure = charts.new_figure((3 * (AXES[0] + APART) - APART, AXES[1]))
        for number, (title, (shown, values, key)) in enumerate(zip(titles, panels, strict=True)):
            axes = charts.add_axes(figure, (number * (AXES[0] + APART), 0), AXES)
            bars = axes.bar(
                [str(row.pixels) for row in shown],
                [100 * value for value in values],
                yerr=_whiskers(shown, values, key),
                width=0.6,
                color=charts.fractions(RIGHT),
                ecolor=charts.fractions(INK),
                capsize=3,
            )
            axes.bar_label(bars, fmt="%.1f", padding=1)
            axes.grid(False, axis="x")
            axes.tick_params("x", length=0)
            axes.set_ylim(0, charts.set_scale(axes.yaxis, 0, 100, 5)[-1])
            axes.set_title(title, pad=18)
            axes.set_xlabel("shift in pixels")
            axes.set_ylabel("%")
        lines = [line for note in notes for line in textwrap.wrap(note, WIDEST_NOTE)]
        return charts.finish(figure, "A shift by a few pixels: does the answer stay?", lines)


def _whiskers(rows: Sequence[ShiftRow | SetShiftRow], values: Sequence[float], key: str) -> list[list[float]] | None:
    """How far the intervals reach below the bars and above them, percent; None where no row has one."""
    if not any(key in row.intervals for row in rows):
        return None
    ends = [row.intervals.get(key, Interval(value, value)) for row, value in zip(rows, values, strict=True)]
    below = [100 * max(0.0, value - end.low) for value, end in zip(values, ends, strict=True)]
    return [below, [100 * max(0.0, end.high - value) for value, end in zip(values, ends, strict=True)]]
