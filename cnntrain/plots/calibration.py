"""Whether probabilities can be believed: a reliability diagram, and accuracy against coverage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnntrain.plots.drawing import FAINT_INK, INK, RIGHT, WRONG
from cnntrain.text import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnntrain.plots.charts import Chart

PLOT, BELOW, SPACE = (420, 420), (420, 90), 22  # pixels: the diagram, the histogram below it, and between them
WIDE = (560, 320)  # pixels, of accuracy against coverage
NAMED = (0.5, 0.7, 0.9, 0.99)  # thresholds whose points are named
APART = 0.04  # of the width, between two such names


@dataclass(frozen=True)
class Words:
    """What the axes and notes of a reliability diagram say."""

    rate: str = "accuracy"
    share: str = "of images"
    probability: str = "probability of the prediction"
    notes: tuple[str, str] = (
        "blue: how many are right; red: how far that is from",
        "what the network says; dashed: as sure as right",
    )


OF_CLASSES = Words()
OF_LABELS = Words(
    "labels that are there",
    "of all labels",
    "probability of a label",
    ("blue: how many are there; red: how far that is from", "what the network says; dashed: as sure as right"),
)


def draw_reliability(calibration: Mapping[str, Any], what: str = "images", words: Words = OF_CLASSES) -> "Chart":
    """Accuracy by the probability of the prediction (arXiv 1706.04599), and below it how many images have which.

    Args:
        calibration: `ece` and `bins`, as evaluation/split_scores.py tells them, or of labels evaluation/label_sets.py.
        what: was scored, for the title.
        words: what is counted.
    """
    from cnntrain.plots import charts

    bins = calibration["bins"]
    full = [each for each in bins if each["images"]]
    places, width = [(each["low"] + each["high"]) / 2 for each in full], 0.94 / len(bins)
    blue, red = charts.fractions(RIGHT), charts.fractions(WRONG)
    with charts.style():
        figure = charts.new_figure((PLOT[0], PLOT[1] + SPACE + BELOW[1]))
        above = charts.add_axes(figure, (0, 0), PLOT)
        above.bar(places, [each["accuracy"] for each in full], width, color=blue, alpha=0.85)
        gaps = [each["probability"] - each["accuracy"] for each in full]
        starts = [each["accuracy"] for each in full]
        fills = [(*red, 0.2 if gap > 0 else 0.0) for gap in gaps]
        above.bar(places, gaps, width, bottom=starts, color=fills, edgecolor=red, linewidth=1.5)
        above.plot([0, 1], [0, 1], color=charts.fractions(FAINT_INK), linewidth=1, linestyle=(0, (4, 3)))
        _in_percent(above.yaxis, 0, 1)
        above.set_ylabel(words.rate)
        above.tick_params("x", length=0, labelbottom=False)
        below = charts.add_axes(figure, (0, PLOT[1] + SPACE), BELOW)
        total = max(1, sum(each["images"] for each in bins))
        shares = [each["images"] / total for each in full]
        below.bar(places, shares, width, color=charts.fractions(FAINT_INK))
        ticks = _in_percent(below.yaxis, 0, max(shares, default=1.0), 2)
        below.set_ylim(0, ticks[-1])
        below.set_ylabel(words.share)
        for axes in (above, below):
            _in_percent(axes.xaxis, 0, 1)
            axes.set_xlim(0, 1)
        above.set_ylim(0, 1)
        below.set_xlabel(words.probability)
        return charts.finish(figure, f"{what}: calibration error {percent(calibration['ece'])}", words.notes)


def draw_coverage(coverage: Sequence[Mapping[str, Any]], what: str = "images") -> "Chart":
    """Accuracy of the images that a threshold on the probability keeps, against how many these are.

    Args:
        coverage: rows of `threshold`, `coverage` and `accuracy`, as evaluation/split_scores.py tells them.
        what: was scored, for the title.
    """
    from cnntrain.plots import charts

    rows = [row for row in coverage if row["accuracy"] is not None]
    blue = charts.fractions(RIGHT)
    with charts.style():
        figure = charts.new_figure(WIDE)
        axes = charts.add_axes(figure, (0, 0), WIDE)
        axes.plot([row["coverage"] for row in rows], [row["accuracy"] for row in rows], color=blue, linewidth=2)
        low = min([0.99, *(row["accuracy"] for row in rows)])  # an axis has a length also where all is right
        ticks = _in_percent(axes.yaxis, low, 1.0)
        axes.set_ylim(ticks[0], 1 + (1 - ticks[0]) / 40)
        axes.set_xlim(0, 1)
        _in_percent(axes.xaxis, 0, 1)
        _name_thresholds(axes, rows)
        axes.set_xlabel("images that are kept")
        axes.set_ylabel("accuracy of these")
        notes = ["only predictions of at least the probability at the points are kept"]
        return charts.finish(figure, f"{what}: accuracy against coverage", notes)


def draw_thresholds(rows: Sequence[Mapping[str, Any]], what: str = "images") -> "Chart":
    """Precision, recall and F1 of labels that are given from one threshold on, whichever label it is.

    Args:
        rows: of `threshold`, `precision` (None where none is given), `recall` and `f1`, see evaluation/label_sets.py.
        what: was scored, for the title.
    """
    from cnntrain.plots import charts

    with charts.style():
        figure = charts.new_figure(WIDE)
        axes = charts.add_axes(figure, (0, 0), WIDE)
        for key, name, color in (("precision", "precision", WRONG), ("recall", "recall", RIGHT), ("f1", "F1", INK)):
            known = [(row["threshold"], row[key]) for row in rows if row[key] is not None]
            axes.plot(*zip(*known, strict=True), color=charts.fractions(color), linewidth=2, label=name)
        best = max(rows, key=lambda row: row["f1"])
        axes.plot(best["threshold"], best["f1"], "o", color=charts.fractions(INK), markersize=6, clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        charts.set_scale(axes.xaxis, 0, 1, 6)
        _in_percent(axes.yaxis, 0, 1)
        axes.set_xlabel("one threshold for all labels")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        notes = [
            "over all labels of all images (micro)",
            f"the dot: the highest F1, {percent(best['f1'])}, at {best['threshold']:g}",
        ]
        return charts.finish(figure, f"{what}: precision and recall by threshold", notes)


def _name_thresholds(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    """A point with its threshold, from the highest down, where there is room beside the one before."""
    from cnntrain.plots.charts import SMALL, fractions

    last = -1.0
    for row in reversed([row for row in rows if row["threshold"] in NAMED]):
        if row["coverage"] - last < APART:
            continue
        last = row["coverage"]
        place = last, row["accuracy"]
        axes.plot(*place, "o", color=fractions(RIGHT), markersize=6, clip_on=False)
        axes.annotate(
            f"{row['threshold']:g}", place, (0, -10), textcoords="offset points", size=SMALL, ha="right", va="top"
        )


def _in_percent(axis: Any, low: float, high: float, most: int = 6) -> list[float]:
    from cnntrain.plots.charts import set_scale

    return set_scale(axis, low, high, most, ".0%" if high - low > 0.05 else ".1%")
