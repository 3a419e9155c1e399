"""A signal in one dimension and what a kernel makes of it, as two curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnntrain.plots.drawing import FAINT_INK, RIGHT

if TYPE_CHECKING:
    from cnntrain.plots.charts import Chart

PLOT = (720, 320)  # pixels
THICK, THIN, DOT = 2.5, 1, 4  # pixels
FEW = 60  # values, each of which gets a point


def draw_signal(
    values: Sequence[float], places: Sequence[float], result: Sequence[float], title: str, notes: Sequence[str]
) -> "Chart":
    """The signal thin and grey, the result thick; the values of this lie at `places`, counted from 0."""
    from cnntrain.plots import charts

    with charts.style():
        figure = charts.new_figure(PLOT)
        axes = charts.add_axes(figure, (0, 0), PLOT)
        for name, across, curve, color, width in (
            ("signal", range(len(values)), values, FAINT_INK, THIN),
            ("result", places, result, RIGHT, THICK),
        ):
            (line,) = axes.plot(across, curve, color=charts.fractions(color), linewidth=width, label=name)
            if len(curve) <= FEW:
                line.set(marker="o", markersize=DOT)
        axes.set_xlabel("position, from 0", loc="right")
        axes.set_ylabel("value")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.04), handlelength=3)
        return charts.finish(figure, title, notes)
