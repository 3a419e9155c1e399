"""The curves of a learning-rate range test."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnntrain.plots.comparison import COLORS, DASHES
from cnntrain.text import shorten
from cnntrain.training.lr_range import RangeCurve

if TYPE_CHECKING:
    from cnntrain.plots.charts import Chart

PLOT = (720, 320)  # pixels
THICK, THIN, PALE, DOT = 2.5, 1, 0.3, 9  # pixels: smooth and plain losses; the opacity of these; a suggestion
ABOVE, BELOW = 0.6, 0.1  # how much more of the fall is shown above the first loss and below the lowest
LONGEST_NAME = 40  # columns of the legend


def draw_lr_range(curves: Sequence[RangeCurve], title: str, notes: Sequence[str]) -> "Chart":
    """The loss against the rate of each curve, as it is and smooth, with a dot at the suggestion."""
    from matplotlib.ticker import NullLocator

    from cnntrain.plots import charts

    with charts.style():
        figure = charts.new_figure(PLOT)
        axes = charts.add_axes(figure, (0, 0), PLOT)
        for number, curve in enumerate(curves):
            color = charts.fractions(COLORS[number % len(COLORS)])
            dashes = DASHES[number // len(COLORS) % len(DASHES)]
            axes.plot(curve.rates, curve.losses, color=color, linewidth=THIN, alpha=PALE)
            name = shorten(charts.escape_unknown(curve.name), LONGEST_NAME)
            label = f"{name}: {curve.suggestion:g}" if curve.suggestion else f"{name}: none"
            style = (0, dashes) if dashes else "solid"
            axes.plot(curve.rates, curve.smooth, color=color, linewidth=THICK, linestyle=style, label=label)
            if rate := curve.suggestion:
                loss = np.interp(rate, curve.rates, curve.smooth)
                axes.plot([rate], [loss], "o", color=color, markersize=DOT)
        top, low = max(curve.start for curve in curves), min(float(curve.smooth.min()) for curve in curves)
        fall = max(top - low, 0.05 * abs(top), 1e-6)
        axes.set_ylim(max(0.0, low - BELOW * fall), top + ABOVE * fall)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("training loss")
        axes.set_xlabel("optimizer.lr", loc="right")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.04), handlelength=3, title="suggestion")
        return charts.finish(figure, title, notes)
