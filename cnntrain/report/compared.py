"""A comparison of runs: its table for the terminal and for TensorBoard, and the curves of all runs in one picture."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from PIL import Image, ImageDraw

from cnntrain.comparison import Row, Spread
from cnntrain.models.catalogue import short
from cnntrain.report.csvlog import rows_of
from cnntrain.report.curves import counts, nice
from cnntrain.report.letters import BACKGROUND, FAINT_INK, INK, Colour, fit, length, write

# --- the table -------------------------------------------------------------------------------------------------------

WIDTH = 80
NARROWEST_VALUE = 6  # letters that a listed value keeps where the table has no room for it
HEADS = {"test_top1": ("test top-1", "%"), "val_top1": ("val top-1", "%")}
# Of time: from so many seconds on, seconds, name, decimals.
UNITS = ((2 * 3600, 3600, "h", 2), (600, 60, "min", 1), (10, 1, "s", 1), (0, 1, "s", 2))


def table(rows: Sequence[Row], measure: str, best: Row | None) -> list[str]:
    """Lines of 80 columns: two heads, then each row; the star marks the best one.

    Args:
        measure: test_top1 or val_top1, what the rows are compared by.
    """
    lines = _cells(rows, measure, between=" ± ")
    listed = len(_values(rows[0]))
    if _width(lines) > WIDTH - len(" *"):
        lines = _cells(rows, measure, between="±")
    while _width(lines) > WIDTH - len(" *") and (cut := _shorter(lines, listed)) != lines:
        lines = cut
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    found = []
    for number, line in enumerate(lines):
        cells = [f"{cell:<{width}}" for cell, width in zip(line[:listed], widths[:listed], strict=True)]
        cells += [f"{cell:>{width}}" for cell, width in zip(line[listed:], widths[listed:], strict=True)]
        marked = number > 1 and rows[number - 2] is best and len(rows) > 1
        found.append(("  ".join(cells) + (" *" if marked else "")).rstrip())
    return found


def markdown(rows: Sequence[Row], measure: str, best: Row | None) -> str:
    """The same table for TensorBoard; the best row is bold."""
    first, second, *others = _cells(rows, measure, between=" ± ")
    heads = [f"{above} {below}".strip() for above, below in zip(first, second, strict=True)]
    lines = [heads, ["---"] * len(heads)]
    for row, cells in zip(rows, others, strict=True):
        lines.append([f"**{cell}**" for cell in cells] if row is best and len(rows) > 1 else cells)
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _values(row: Row) -> dict[str, str]:
    """What names a row."""
    return row.values or {"model": row.outcomes[0].run.settings.model.name}


def _cells(rows: Sequence[Row], measure: str, between: str) -> list[list[str]]:
    """The two heads, and the cells of each row."""
    times = [row.spread("train_seconds") for row in rows]
    longest = max((time.mean for time in times if time), default=0.0)
    seconds, unit, decimals = next(entry[1:] for entry in UNITS if longest >= entry[0])
    lines = [
        [*_short_keys(list(_values(rows[0]))), "runs", HEADS[measure][0], "time", "peak", "trainable", "best"],
        [*[""] * len(_values(rows[0])), "", HEADS[measure][1], unit, "memory", "parameters", "epoch"],
    ]
    for row, time in zip(rows, times, strict=True):
        memory, learning = row.spread("peak_memory_bytes"), row.spread("trainable_parameters")
        epoch, done, planned = row.spread("best_epoch"), len(row.done), len(row.outcomes)
        cells = [
            str(done) if done == planned else f"{done}/{planned}",
            _pair(row.spread(measure), 0.01, 2, between),
            _pair(time, seconds, decimals, between),
            _bytes(memory.mean) if memory else "-",
            short(round(learning.mean), " ") if learning else "-",
            _pair(epoch, 1, 1 if planned > 1 and epoch and epoch.mean < 100 else 0, between),
        ]
        lines.append([*_values(row).values(), *cells])
    return lines


def _short_keys(keys: Sequence[str]) -> list[str]:
    """Keys by their last word, where that leaves no two alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def _pair(spread: Spread | None, unit: float, decimals: int, between: str) -> str:
    if spread is None:
        return "-"
    mean = f"{spread.mean / unit:.{decimals}f}"
    return mean if spread.std is None else f"{mean}{between}{spread.std / unit:.{decimals}f}"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


def _width(lines: Sequence[Sequence[str]]) -> int:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def _shorter(lines: list[list[str]], listed: int) -> list[list[str]]:
    """One letter less in the widest of the listed values; the same lines where all of them are short already."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:listed]
    widest = max(range(listed), key=lambda column: widths[column])
    most = widths[widest] - 1
    if most < NARROWEST_VALUE:
        return lines
    cut = [list(line) for line in lines]
    for line in cut:
        if len(line[widest]) > most:
            line[widest] = line[widest].removesuffix("..")[: most - 2] + ".."
    return cut


# --- the picture -----------------------------------------------------------------------------------------------------

MARGIN, GAP = 16, 8  # pixels
TITLE, TEXT, SMALL = 20, 14, 12  # heights of letters, pixels
PLOT = (640, 240)  # pixels of a panel's axes
SCALE, FOOT = 60, 64  # pixels left of the axes and below them
LEGEND = 260  # pixels beside them
FINER = 4  # everything inside the axes is drawn this much larger and reduced
THICK, THIN, DOT = 3, 1, 3  # pixels: the mean of a row, a run, half of a point
FEW = 20  # epochs, each of which gets a point
GRID = (228, 228, 228)
# The eight colours of Okabe and Ito but black and yellow, told apart by the colour-blind too.
COLOURS: tuple[Colour, ...] = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115)),
    *((204, 121, 167), (230, 159, 0), (86, 180, 233)),
)


@dataclass(frozen=True)
class Point:
    """The end of an epoch: seconds since the first step, validation accuracy as a fraction."""

    epoch: float
    seconds: float
    top1: float


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
            Point(*(fmean(getattr(point, key) for point in points) for key in ("epoch", "seconds", "top1")))
            for points in zip(*self.runs, strict=False)
        ]


def points(metrics: Path, total: float = 0.0) -> list[Point]:
    """The epochs of a run from its metrics.csv; empty where that is gone.

    Args:
        total: seconds of the whole run; those that no epoch took, such as of encoding features, come first.
    """
    rows = list(rows_of(metrics, "epoch")) if metrics.exists() else []
    rows = [row for row in rows if row.get("seconds") and row.get("val_top1")]
    seconds = max(0.0, total - sum(float(row["seconds"]) for row in rows))
    found: list[Point] = []
    for row in rows:
        seconds += float(row["seconds"])
        if row["val_top1"]:  # empty where nothing validates
            found.append(Point(int(row["epoch"]), seconds, float(row["val_top1"])))
    return found


def curves_of(rows: Sequence[Row], measure: str, runs: Sequence[Sequence[Sequence[Point]]]) -> list[Curve]:
    """The rows that have finished a run, as far as its epochs are known.

    Args:
        runs: for each row, the epochs of its runs that are done.
    """
    found = []
    for row, epochs in zip(rows, runs, strict=True):
        if known := [run for run in epochs if run]:
            name = " ".join(f"{key}={value}" for key, value in _values(row).items())
            score = _pair(row.spread(measure), 0.01, 2, " ± ")
            found.append(Curve(name, f"{HEADS[measure][0]} {score} %", known))
    return found


def chart(curves: Sequence[Curve], title: str) -> Image.Image:
    """Validation accuracy over the epochs and over the seconds, in RGB; a row's mean is thick, its runs are thin."""
    repeated = any(len(curve.runs) > 1 for curve in curves)
    note = "Thick lines are means over the repeats, thin ones single runs." if repeated else ""
    width = MARGIN + SCALE + PLOT[0] + 2 * GAP + LEGEND + MARGIN
    top = MARGIN + TITLE + GAP + TEXT + 3 * GAP + SMALL
    panel = PLOT[1] + FOOT
    entry = 2 * SMALL + 3 * GAP
    picture = Image.new("RGB", (width, max(top + 2 * panel, top + len(curves) * entry + MARGIN)), BACKGROUND)
    write(picture, (MARGIN, MARGIN), fit(title, width - 2 * MARGIN, TITLE), TITLE)
    write(picture, (MARGIN, MARGIN + TITLE + GAP), note, TEXT, FAINT_INK)
    inks = _inks(len(curves))
    for number, key in enumerate(("epoch", "seconds")):
        _draw_panel(picture, curves, inks, key, top + number * panel)
    left = MARGIN + SCALE + PLOT[0] + 2 * GAP
    for number, (curve, ink) in enumerate(zip(curves, inks, strict=True)):
        place = top + number * entry
        ImageDraw.Draw(picture).rectangle((left, place + 4, left + 18, place + 4 + THICK), fill=ink)
        room = LEGEND - 18 - GAP
        write(picture, (left + 18 + GAP, place), fit(curve.name, room, SMALL), SMALL)
        write(picture, (left + 18 + GAP, place + SMALL + 5), fit(curve.note, room, SMALL), SMALL, FAINT_INK)
    return picture


def _draw_panel(picture: Image.Image, curves: Sequence[Curve], inks: Sequence[Colour], key: str, top: int) -> None:
    ends = [point for curve in curves for run in curve.runs for point in run]
    last = max(getattr(point, key) for point in ends)
    across = counts(last) if key == "epoch" else nice(last, 8)
    up = _ticks(min(point.top1 for point in ends), max(point.top1 for point in ends))
    low, high = up[0], up[-1]

    def place(point: Point) -> tuple[float, float]:
        x, y = getattr(point, key) / last, (point.top1 - low) / (high - low)
        return FINER * PLOT[0] * x, FINER * (DOT + PLOT[1] * (1 - y))

    inside = Image.new("RGB", (FINER * (PLOT[0] + DOT), FINER * (PLOT[1] + 2 * DOT)), BACKGROUND)
    pen = ImageDraw.Draw(inside)
    for tick in up:
        y = place(Point(0, 0, tick))[1]
        pen.line((0, y, FINER * PLOT[0], y), fill=GRID, width=FINER)
    for tick in across:
        x = FINER * PLOT[0] * tick / last
        pen.line((x, FINER * DOT, x, inside.height - FINER * DOT), fill=GRID, width=FINER)
    for curve, ink in zip(curves, inks, strict=True):
        for run in curve.runs if len(curve.runs) > 1 else ():
            pen.line([place(point) for point in run], fill=_pale(ink), width=FINER * THIN, joint="curve")
    for curve, ink in zip(curves, inks, strict=True):
        places = [place(point) for point in curve.mean]
        pen.line(places, fill=ink, width=FINER * THICK, joint="curve")
        for x, y in places if len(places) <= FEW else ():
            pen.ellipse((x - FINER * DOT, y - FINER * DOT, x + FINER * DOT, y + FINER * DOT), fill=ink)

    left, bottom = MARGIN + SCALE, top + PLOT[1]
    picture.paste(inside.reduce(FINER), (left, top - DOT))
    write(picture, (left, top - GAP), "validation top-1, %", SMALL, FAINT_INK, "ls")
    for tick in up:
        y = top + PLOT[1] * (high - tick) / (high - low)
        write(picture, (left - 6, y), f"{100 * tick:.6g}", SMALL, FAINT_INK, "rm")
    for tick in across:
        write(picture, (left + PLOT[0] * tick / last, bottom + 7), f"{tick:,g}", SMALL, FAINT_INK, "mt")
    ImageDraw.Draw(picture).line((left, bottom, left + PLOT[0], bottom), fill=INK)
    word = "epoch" if key == "epoch" else "seconds of training and validation"
    write(picture, (left + PLOT[0] - length(word, SMALL), bottom + 10 + SMALL), word, SMALL, INK)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers below, between and above two fractions, none above 1."""
    step = nice(max(high - low, 0.01), 5)[1]
    first, last = math.floor(low / step + 1e-9), math.ceil(min(high, 1.0) / step - 1e-9)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def _inks(count: int) -> list[Colour]:
    """A colour for each curve; of many, hues at even distances."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    hues = [colorsys.hls_to_rgb(number / count, 0.42, 0.75) for number in range(count)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in hues]


def _pale(ink: Colour) -> Colour:
    red, green, blue = ((part + 2 * 255) // 3 for part in ink)
    return red, green, blue
