"""Curves over the steps of a run, one panel for each quantity below the other, drawn with Pillow."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from cnntrain.report.letters import BACKGROUND, FAINT_INK, INK, RIGHT, Colour, fit, length, wrap, write

MARGIN, GAP = 16, 8  # pixels
TITLE, TEXT, SMALL = 20, 14, 12  # heights of letters, pixels
PLOT = (900, 110)  # pixels of a panel's axes
HEAD, FOOT = 26, 64  # pixels: a panel's own words above it, and the two axes below the last
SPACE = 18  # pixels between two panels
FINER = 4  # curves are drawn this much larger and reduced, so that they have no stairs
WIDTH, MANY = 2, 4  # pixels of a curve; from so many curves on, they are half as wide
GRID, SHADE = (228, 228, 228), (226, 235, 246)
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

    def points(self, line: Sequence[float], last: int) -> list[tuple[float, float]]:
        """Places (step, value) that the curve runs through, up to the step `last`."""
        points: list[tuple[float, float]] = []
        for step, value in zip(self.steps, line, strict=True):
            if self.stairs and points:
                points.append((step, points[-1][1]))
            points.append((step, value))
        return [*points, (last, points[-1][1])]


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
    left: int = field(init=False, default=0)

    def draw(self) -> Image.Image:
        """The picture in RGB."""
        ticks = {panel.name: nice(panel.highest, MOST_TICKS["y"], beyond=True) for panel in self.panels}
        words = ["epoch  0", *(f"{tick:g}" for values in ticks.values() for tick in values)]
        self.left = MARGIN + GAP + int(max(length(word, SMALL) for word in words))
        width = self.left + PLOT[0] + 3 * MARGIN
        notes = [line for note in self.notes for line in wrap(note, width - 2 * MARGIN, TEXT)]
        top = MARGIN + TITLE + GAP + len(notes) * (TEXT + 6) + GAP
        each = HEAD + PLOT[1] + SPACE
        picture = Image.new("RGB", (width, top + len(self.panels) * each - SPACE + FOOT), BACKGROUND)
        write(picture, (MARGIN, MARGIN), fit(self.title, width - 2 * MARGIN, TITLE), TITLE)
        for number, line in enumerate(notes):
            write(picture, (MARGIN, MARGIN + TITLE + GAP + number * (TEXT + 6)), line, TEXT, FAINT_INK)
        for number, panel in enumerate(self.panels):
            self._draw_panel(picture, panel, ticks[panel.name], top + number * each)
        self._draw_axes(picture, top + len(self.panels) * each - SPACE)
        return picture

    def _x(self, step: float) -> int:
        return self.left + round(PLOT[0] * step / self.steps)

    def _draw_panel(self, picture: Image.Image, panel: Panel, ticks: Sequence[float], top: int) -> None:
        pen, upper, bottom = ImageDraw.Draw(picture), top + HEAD, top + HEAD + PLOT[1]
        most = ticks[-1] or 1.0
        write(picture, (self.left, top), panel.name, TEXT)
        room = PLOT[0] - length(panel.name, TEXT) - 2 * GAP
        write(picture, (self.left + PLOT[0], top + 1), fit(panel.words(), room, SMALL), SMALL, FAINT_INK, "ra")
        outlines = [
            [
                (PLOT[0] * step / self.steps, PLOT[1] * (1 - value / most))
                for step, value in panel.points(line, self.steps)
            ]
            for line in panel.lines
        ]
        if len(outlines) == 1:
            below = [*outlines[0], (PLOT[0], PLOT[1]), (0, PLOT[1])]
            _print(picture, (self.left, upper), SHADE, [below], filled=True)
        for tick in ticks:
            height = bottom - round(PLOT[1] * tick / most)
            pen.line((self.left, height, self.left + PLOT[0], height), fill=GRID)
            write(picture, (self.left - 6, height), f"{tick:g}", SMALL, FAINT_INK, "rm")
        for step in counts(self.steps):
            pen.line((self._x(step), upper, self._x(step), bottom), fill=GRID)
        _print(picture, (self.left, upper), RIGHT, outlines, filled=False)
        pen.line((self.left, bottom, self.left + PLOT[0], bottom), fill=INK)

    def _draw_axes(self, picture: Image.Image, bottom: int) -> None:
        pen = ImageDraw.Draw(picture)
        for step in counts(self.steps):
            pen.line((self._x(step), bottom, self._x(step), bottom + 4), fill=INK)
            write(picture, (self._x(step), bottom + 7), f"{step:,}", SMALL, FAINT_INK, "mt")
        write(picture, (MARGIN, bottom + 7), "step", SMALL, INK, "lt")
        line = bottom + 32
        write(picture, (MARGIN, line + 7), "epoch", SMALL, INK, "lt")
        pen.line((self.left, line, self.left + PLOT[0], line), fill=INK)
        done = bisect_right(self.epochs, self.steps) - 1  # epochs that end within the run
        for epoch in counts(done):
            place = self._x(self.epochs[epoch])
            pen.line((place, line, place, line + 4), fill=INK)
            write(picture, (place, line + 7), f"{epoch:,}", SMALL, FAINT_INK, "mt")


def counts(largest: int) -> list[int]:
    """Round whole numbers from 0 to `largest`."""
    return [round(tick) for tick in nice(largest, MOST_TICKS["x"]) if math.isclose(tick, round(tick), abs_tol=1e-9)]


def nice(largest: float, most: int, *, beyond: bool = False) -> list[float]:
    """Round numbers from 0 to `largest`, at most `most` steps of 1, 2 or 5 times a power of ten; [0] where it is 0.

    Args:
        beyond: the last one is `largest` or more; else `largest` or less.
    """
    if largest <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(largest / most))
    distance = next(power * factor for factor in (1, 2, 5, 10) if largest / (power * factor) <= most * (1 + 1e-9))
    steps = largest / distance
    last = math.ceil(steps * (1 - 1e-9)) if beyond else math.floor(steps * (1 + 1e-9))
    return [distance * number for number in range(last + 1)]


def _print(
    picture: Image.Image,
    corner: tuple[int, int],
    ink: Colour,
    outlines: Sequence[Sequence[tuple[float, float]]],
    *,
    filled: bool,
) -> None:
    """Lines, or areas, through places in pixels of the axes whose upper left corner is given."""
    border = 2 * WIDTH  # a curve along the edge of the axes keeps its width
    size = (PLOT[0] + 2 * border, PLOT[1] + 2 * border)
    mask = Image.new("L", (size[0] * FINER, size[1] * FINER))
    pen = ImageDraw.Draw(mask)
    for outline in outlines:
        places = [((x + border) * FINER, (y + border) * FINER) for x, y in outline]
        if filled:
            pen.polygon(places, fill=255)
        else:
            width = WIDTH * FINER if len(outlines) < MANY else WIDTH * FINER // 2
            pen.line(places, fill=255, width=width, joint="curve")
    picture.paste(Image.new("RGB", size, ink), (corner[0] - border, corner[1] - border), mask.reduce(FINER))
