"""The curves of the runs of a comparison in one chart."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from cnntrain.config.schema.scores import TITLES
from cnntrain.plots.drawing import Color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from cnntrain.plots.charts import Chart

PLOT, SPACE = (640, 240), 64  # pixels: the axes, and between the two
THICK, THIN, DOT, PALE = 3, 1, 6, 0.35  # pixels: the mean of a row, a run, a point; the opacity of a run
FEW = 20  # epochs, each of which gets a point
LEGEND, LONGEST_NAME, MOST_LINES = 16, 40, 3  # rows in a column, characters in a line, lines of a name
AXES = {"epoch": "epoch", "seconds": "seconds of training and validation"}
# The eight colours of Okabe and Ito but black and yellow, told apart by the colour-blind too; then again, dashed.
COLORS: tuple[Color, ...] = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115)),
    *((204, 121, 167), (230, 159, 0), (86, 180, 233)),
)
DASHES = ((), (3, 1), (1, 1), (4, 1, 1, 1), (6, 2), (4, 1, 1, 1, 1, 1), (2, 2))  # drawn, left out, drawn ...


@dataclass(frozen=True)
class Point:
    """The end of an epoch: seconds since the first step, validation score as a fraction."""

    epoch: float
    seconds: float
    score: float


@dataclass
class Curve:
    """A row of the comparison.

    Attributes:
        name: in the legend, with a line of numbers below it.
        runs: the epochs of each run that is done.
    """

    name: str
    note: str
    runs: Sequence[Sequence[Point]]

    @property
    def mean(self) -> list[Point]:
        """Of the epochs that all runs have."""
        return [
            Point(*(fmean(getattr(point, key) for point in points) for key in ("epoch", "seconds", "score")))
            for points in zip(*self.runs, strict=False)
        ]


def draw_comparison(curves: Sequence[Curve], title: str, score: str = TITLES["top1"]) -> "Chart":
    """A validation score over the epochs and over the seconds; a row's mean is thick, its runs are thin."""
    from cnntrain.plots import charts

    repeated = any(len(curve.runs) > 1 for curve in curves)
    notes = ["Thick lines are means over the repeats, thin ones single runs."] if repeated else []
    with charts.style():
        figure = charts.new_figure((PLOT[0], 2 * PLOT[1] + SPACE))
        for number, key in enumerate(AXES):
            axes = charts.add_axes(figure, (0, number * (PLOT[1] + SPACE)), PLOT)
            means = _draw_panel(axes, curves, key)
            axes.set_ylabel(f"validation {score}, %")
            if number == 0:
                words, columns = [_in_lines(curve) for curve in curves], -(-len(curves) // LEGEND)
                axes.legend(means, words, loc="upper left", bbox_to_anchor=(1.02, 1.04), handlelength=3, ncols=columns)
        return charts.finish(figure, title, notes)


def _draw_panel(axes: "Axes", curves: Sequence[Curve], key: str) -> list["Line2D"]:
    """Draw the curves over the epochs or the seconds; the lines of the means."""
    from cnntrain.plots.charts import fractions, set_scale

    means = []
    for number, curve in enumerate(curves):
        color = fractions(COLORS[number % len(COLORS)])
        dashes = DASHES[number // len(COLORS) % len(DASHES)]
        for run in curve.runs if len(curve.runs) > 1 else ():
            axes.plot(*_places(run, key), color=color, linewidth=THIN, alpha=PALE)
        (mean,) = axes.plot(*_places(curve.mean, key), color=color, linewidth=THICK, clip_on=False)
        mean.set_linestyle((0, dashes) if dashes else "solid")
        if len(curve.mean) <= FEW:
            mean.set(marker="o", markersize=DOT)
        means.append(mean)
    (_, last), (low, high) = axes.dataLim.intervalx, axes.dataLim.intervaly
    axes.set_xlim(0, last or 1)
    set_scale(axes.xaxis, 0, last, 8, ",g", whole=key == "epoch")
    ticks = set_scale(axes.yaxis, min(low, 99), max(high, low + 1), 5, ".6g")
    axes.set_ylim(ticks[0], min(ticks[-1], 100))
    axes.set_xlabel(AXES[key], loc="right")
    return means


def _places(points: Sequence[Point], key: str) -> tuple[list[float], list[float]]:
    return [getattr(point, key) for point in points], [100 * point.score for point in points]


def _in_lines(curve: Curve) -> str:
    """The name and the note of a curve, in lines that a legend has room for."""
    from cnntrain.plots.charts import escape_unknown

    name = textwrap.wrap(escape_unknown(curve.name), LONGEST_NAME, max_lines=MOST_LINES, placeholder="…")
    return "\n".join([*name, escape_unknown(curve.note)])
