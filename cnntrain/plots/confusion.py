"""A confusion matrix as a heat map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnntrain.plots.drawing import BACKGROUND, INK, RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnntrain.plots.charts import Chart

LARGEST_MAP, LARGEST_CELL, SMALLEST_LABELLED = 1000, 48, 12  # pixels; narrower cells share a name between them
LONGEST_NAME = 20  # characters
DIGIT = 0.64  # the width of a digit by the height of letters


def draw_confusion(matrix: NDArray[np.int64], classes: Sequence[str], what: str = "images") -> "Chart":
    """A heat map of counts (K, K): true classes down, predicted classes across, coloured by share of the row.

    Right answers, on the diagonal, are blue, and mistakes red. Counts are written where they fit; where there are many
    classes, every n-th has its name.

    Args:
        what: these are counts of, for the title.
    """
    from cnntrain.plots import charts

    count, images = len(matrix), int(matrix.sum())
    cell = max(1, min(LARGEST_CELL, LARGEST_MAP // count))
    letters = max(10, min(14, cell // 3))
    labelled = range(0, count, -(-SMALLEST_LABELLED // cell))
    names = [charts.escape_unknown(classes[index]) for index in labelled]
    names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names]
    with charts.style():
        figure = charts.new_figure((count * cell, count * cell))
        axes = charts.add_axes(figure, (0, 0), (count * cell, count * cell))
        axes.imshow(_colors(matrix), interpolation="none", aspect="auto")
        axes.grid(False)
        axes.spines[:].set_visible(True)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0, labelsize=letters, labelcolor=charts.fractions(INK))
        axes.set_xticks(labelled, names, rotation=90)
        axes.set_yticks(labelled, names)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if DIGIT * letters * len(str(matrix.max())) <= cell - 4:
            _write_counts(axes, matrix, letters)
        share = f", {100 * int(matrix.trace()) / images:.2f} % of them right" if images else ""
        return charts.finish(figure, f"{images:,} {what}{share}", ["coloured by share of the true class"])


def _shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row divided by its sum; a class without images has zeros."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def _colors(matrix: NDArray[np.int64]) -> NDArray[np.uint8]:
    """RGB (K, K, 3): white at 0, full colour at 1; the square root lets a few mistakes be seen."""
    strength = np.sqrt(_shares(matrix))[..., None]
    right: NDArray[np.bool_] = np.eye(len(matrix), dtype=bool)[..., None]
    full = np.where(right, RIGHT, WRONG)
    return (255 + strength * (full - 255)).round().astype(np.uint8)


def _write_counts(axes: "Axes", matrix: NDArray[np.int64], letters: int) -> None:
    from cnntrain.plots.charts import fractions

    shares = _shares(matrix)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = fractions(BACKGROUND if shares[row, column] > 0.3 else INK)
        words = axes.text(column, row, str(matrix[row, column]), size=letters, color=color, ha="center", va="center")
        words.set_in_layout(False)  # it lies within the axes: its size need not be known
