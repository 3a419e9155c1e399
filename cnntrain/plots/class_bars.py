"""How well each class is recognized, as bars."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnntrain.plots.drawing import INK, RIGHT, WRONG

if TYPE_CHECKING:
    from cnntrain.plots.charts import Chart

MARKS = (("recall", "o", RIGHT), ("precision", "D", WRONG), ("average_precision", "s", INK))
MOST_BARS, BAR, WIDTH = 40, 22, 420  # how many, and pixels: their distance, and the length of 100 %
LONGEST_NAME = 30  # columns


def draw_classes(classes: Mapping[str, Mapping[str, Any]], what: str = "images") -> "Chart":
    """A bar of the F1 of each class with its recall and precision; of many classes, those with the lowest F1.

    A class without images has none.

    Args:
        classes: by name, with `images`, `precision`, `recall` and `f1`, and where it is known `average_precision`.
        what: was scored, for the title.
    """
    from cnntrain.plots import charts
    from cnntrain.text import shorten

    names = [name for name in sorted(classes, key=lambda name: classes[name]["f1"]) if classes[name]["images"]]
    title = f"{what}: F1 by class"
    if len(names) > MOST_BARS:
        title = f"{what}: F1 of the {MOST_BARS} hardest of {len(classes):,} classes"
    names = names[:MOST_BARS]
    places = range(len(names))
    with charts.style():
        size = (WIDTH, len(names) * BAR)
        figure = charts.new_figure(size)
        axes = charts.add_axes(figure, (0, 0), size)
        blue = charts.fractions(RIGHT)
        axes.barh(places, [classes[name]["f1"] for name in names], 0.7, color=blue, alpha=0.35)
        for key, mark, color in MARKS:
            if not all(key in classes[name] for name in names):
                continue
            values, label = [classes[name][key] for name in names], key.replace("_", " ")
            axes.plot(values, places, mark, color=charts.fractions(color), markersize=5, label=label, clip_on=False)
        words = [f"{charts.escape_unknown(shorten(name, LONGEST_NAME))}  {classes[name]['images']:,}" for name in names]
        axes.set_yticks(places, words)
        axes.tick_params("y", labelcolor=charts.fractions(INK), length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        charts.set_scale(axes.xaxis, 0, 1, 5, ".0%")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return charts.finish(figure, title, ["behind each name: its images; bars: F1"])
