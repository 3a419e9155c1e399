"""What all charts share: one style, letters of any language, and the files that a chart becomes.

Importing this imports matplotlib, which costs a second: import it where a chart is drawn.
"""

import functools
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

from cnntrain.plots.drawing import FAINT_INK, INK, Color, ascii_letter
from cnntrain.text import printable, shorten

Size: TypeAlias = tuple[float, float]  # pixels: width, height

TITLE, TEXT, SMALL = 20, 14, 12  # heights of letters, pixels
LONGEST_TITLE = 70  # columns
MARGIN, GAP = 16, 12  # pixels: around a chart, and below its title and its notes
GRID = (228, 228, 228)
PIXELS = 72  # per inch: a point, in which matplotlib and SVG count, is a pixel then
# Matplotlib brings the first one. The others, where the system has them, know what it does not.
FONTS = (
    *("DejaVu Sans", "Noto Sans", "Arial Unicode MS", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
)
# Neither the day nor the version: the same chart is the same file.
METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


class Chart:
    """A finished figure, to be written in any format."""

    def __init__(self, figure: Figure) -> None:
        self._figure, self._box = figure, _whole_pixels(figure, MARGIN)

    def content(self, kind: str) -> bytes:
        """The chart as a file: png, svg (whose letters stay letters) or pdf."""
        file = io.BytesIO()
        with style():
            self._figure.savefig(file, format=kind, bbox_inches=self._box, metadata=METADATA[kind])
        return file.getvalue()

    def pixels(self) -> NDArray[np.uint8]:
        """The chart as RGB (H, W, 3)."""
        with Image.open(io.BytesIO(self.content("png"))) as picture:
            return np.asarray(picture.convert("RGB"))


@contextmanager
def style() -> Iterator[None]:
    """Draw in our style, whatever the user's matplotlibrc says. What is drawn of text is the text: no formulas."""
    faint = fractions(FAINT_INK)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": [*_fonts(), "sans-serif"],
                "font.sans-serif": _fonts(),
                "font.size": SMALL,
                "text.parse_math": False,
                **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), fractions(INK)),
                **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), faint),
                **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left", "ytick.left"), False),
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": fractions(GRID),
                "grid.linewidth": 1,
                "axes.titlesize": TEXT,
                "legend.frameon": False,
                "legend.fontsize": SMALL,
                "svg.fonttype": "none",
                "svg.hashsalt": "cnntrain",
                "pdf.fonttype": 42,  # letters that can be searched and copied
            }
        )
        yield


def new_figure(size: Size) -> Figure:
    """A figure whose axes fill so many pixels; what is drawn around them makes it larger."""
    figure = Figure(figsize=(size[0] / PIXELS, size[1] / PIXELS), dpi=PIXELS)
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, corner: tuple[float, float], size: Size) -> Axes:
    """Axes whose upper left corner lies so many pixels right of that of the figure, and below it."""
    width, height = figure.bbox.size
    return figure.add_axes((corner[0] / width, 1 - (corner[1] + size[1]) / height, size[0] / width, size[1] / height))


def finish(figure: Figure, title: str, notes: Sequence[str] = ()) -> Chart:
    """The chart, with its title and notes on how to read it above all that has been drawn."""
    left, _, _, top = _whole_pixels(figure, GAP).extents * PIXELS
    width, height = figure.bbox.size
    for lines, size, color in ((notes, TEXT, FAINT_INK), ([shorten(title, LONGEST_TITLE)], TITLE, INK)):
        if lines:
            words = "\n".join(map(escape_unknown, lines))
            place = ((left + GAP) / width, top / height)
            above = figure.text(*place, words, size=size, color=fractions(color), ha="left", va="bottom")
            top = above.get_window_extent().y1 + GAP / 2
    return Chart(figure)


def set_scale(axis: Any, low: float, high: float, most: int, form: str = "g", *, whole: bool = False) -> list[float]:
    """Round ticks at 1, 2 or 5 times a power of ten, at most `most` distances of them from `low` to `high`.

    Args:
        form: how a tick is written.
        whole: at whole numbers only.

    Returns:
        The ticks; the first lies at `low` or below, the last at `high` or above.
    """
    locator = MaxNLocator(most, steps=[1, 2, 5, 10], integer=whole)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: format(value, form)))
    return [float(tick) for tick in locator.tick_values(low, high)]


def fractions(color: Color) -> tuple[float, ...]:
    """A colour as matplotlib wants it."""
    return tuple(part / 255 for part in color)


def escape_unknown(text: str) -> str:
    """A text of one line in letters that our fonts have; others lose their accents or are escaped."""
    available = _letters()
    return "".join(letter if ord(letter) in available else ascii_letter(letter) for letter in printable(text))


def _whole_pixels(figure: Figure, margin: int) -> Bbox:
    """The box around all that is drawn, in inches; axes in whole pixels stay there, so that cells are sharp."""
    left, bottom, right, top = figure.get_tightbbox().extents * PIXELS
    low, high = (
        (math.floor(edge) - margin for edge in (left, bottom)),
        (math.ceil(edge) + margin for edge in (right, top)),
    )
    return Bbox([[edge / PIXELS for edge in low], [edge / PIXELS for edge in high]])


@functools.cache
def _fonts() -> list[str]:
    available = set(font_manager.get_font_names())
    return [name for name in FONTS if name in available]


@functools.cache
def _letters() -> frozenset[int]:
    """The code points that our fonts have."""
    files = (font_manager.findfont(font_manager.FontProperties(family=name)) for name in _fonts())
    return frozenset().union(*(font_manager.get_font(file).get_charmap() for file in files))
