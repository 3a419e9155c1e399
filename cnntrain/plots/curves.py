"""Curves over the steps of a run, one panel for each quantity below the other."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnntrain.plots.drawing import FAINT_INK, RIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnntrain.plots.charts import Chart

PLOT, SPACE = (900, 110), 44  # pixels: a panel's axes, and between two panels
WIDTH, MANY = 2, 4  # pixels of a curve; from so many curves on, they are half as wide
SHADE = 0.12  # of the colour of a curve, below it
MOST_TICKS = {"x": 8, "y": 4}


@dataclass
class Panel:
    """One quantity over the steps.

    Attributes:
        name: with its unit, if it has one.
        steps: of each value, rising, counted from 0.
        lines: values, one list for each curve, all of them >= 0.
        stairs: each value holds until the next step; else they are joined by straight lines.
        note: on the right above the axes; by default the first, the highest and the last value.
    """

    name: str
    steps: Sequence[int]
    lines: Sequence[Sequence[float]]
    stairs: bool = False
    note: str = ""

    @property
    def highest(self) -> float:
        return max(max(line) for line in self.lines)

    def words(self) -> str:
        """The note, or what can be read off the curve."""
        if self.note:
            return self.note
        first, last = self.lines[0][0], self.lines[0][-1]
        if first == last == self.highest:
            return f"{first:.4g} throughout"
        return f"from {first:.4g} to {last:.4g}, highest {self.highest:.4g}"


@dataclass
class Curves:
    """Panels that share their x axis, of steps and of epochs.

    Attributes:
        steps: of the whole run.
        epochs: the first step of each epoch, and the end of the last.
    """

    title: str
    notes: Sequence[str]
    panels: Sequence[Panel]
    steps: int
    epochs: Sequence[int]

    def draw(self) -> "Chart":
        """The panels, with steps and epochs below the last one."""
        from cnntrain.plots import charts

        each = PLOT[1] + SPACE
        with charts.style():
            figure = charts.new_figure((PLOT[0], len(self.panels) * each - SPACE))
            for number, panel in enumerate(self.panels):
                axes = charts.add_axes(figure, (0, number * each), PLOT)
                self._draw_panel(axes, panel, last=number == len(self.panels) - 1)
            return charts.finish(figure, self.title, self.notes)

    def _draw_panel(self, axes: "Axes", panel: Panel, *, last: bool) -> None:
        from cnntrain.plots.charts import SMALL, escape_unknown, fractions, set_scale

        blue, single = fractions(RIGHT), len(panel.lines) == 1
        steps = [*panel.steps, self.steps]
        for line in panel.lines:
            values, width = [*line, line[-1]], WIDTH if len(panel.lines) < MANY else WIDTH / 2
            (curve,) = axes.plot(steps, values, color=blue, linewidth=width, clip_on=False)
            if panel.stairs:
                curve.set_drawstyle("steps-post")
            if single:
                axes.fill_between(steps, values, step="post" if panel.stairs else None, color=blue, alpha=SHADE, lw=0)
        axes.set_title(escape_unknown(panel.name), loc="left")
        axes.set_title(escape_unknown(panel.words()), loc="right", size=SMALL, color=fractions(FAINT_INK))
        axes.set_ylim(0, set_scale(axes.yaxis, 0, panel.highest or 1, MOST_TICKS["y"])[-1])
        axes.set_xlim(0, self.steps)
        set_scale(axes.xaxis, 0, self.steps, MOST_TICKS["x"], ",.0f", whole=True)
        axes.tick_params("x", length=4 * last, labelbottom=last)
        if last:
            axes.set_xlabel("step", loc="right", labelpad=0)
            self._add_epochs(axes)

    def _add_epochs(self, axes: "Axes") -> None:
        """A second axis below that of the steps: epochs need not have the same number of them."""
        from cnntrain.plots.charts import set_scale

        below = axes.secondary_xaxis(-45 / PLOT[1])
        done = bisect_right(self.epochs, self.steps) - 1  # epochs that end within the run
        ticks = set_scale(below.xaxis, 0, done, MOST_TICKS["x"], whole=True)
        labels = [round(tick) for tick in ticks if tick <= done]
        below.set_xticks([self.epochs[epoch] for epoch in labels], [f"{epoch:,}" for epoch in labels])
        below.set_xlabel("epoch", loc="right", labelpad=0)
