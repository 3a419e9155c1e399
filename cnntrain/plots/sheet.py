"""Sheets of captioned tiles, drawn with Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnntrain.plots.drawing import BACKGROUND, FAINT_INK, INK, RIGHT, WRONG, Color, fit, length, wrap, write

if TYPE_CHECKING:
    from torch import Tensor

Rgb: TypeAlias = NDArray[np.uint8]  # (H, W, 3)

MARGIN, GAP, LINE = 16, 8, 17  # pixels
TITLE, TEXT, SMALL = 20, 14, 12  # heights of letters, pixels
LONGEST_LABEL = 150  # pixels, of the names of rows
NARROWEST = 620  # pixels, so that the notes have room
FRAME = 3  # pixels, of a tile that is marked
LINES = (200, 200, 200)  # between rows
BAR = (160, 12)  # pixels, of a legend
HEAT = ((10, 12, 44), (92, 24, 110), (186, 54, 85), (243, 120, 25), (252, 200, 80), (252, 255, 210))
SIGNED = (RIGHT, (255, 255, 255), WRONG)


@dataclass
class Tile:
    """A picture with a caption below; `mark` is the colour of its frame."""

    pixels: Rgb
    captions: tuple[str, ...] = ()
    mark: Color | None = None


@dataclass
class Row:
    """Tiles with a name on their left; `apart` draws a line above them."""

    name: Sequence[str]
    tiles: list[Tile]
    apart: bool = False

    @property
    def lines(self) -> int:
        """Of the longest caption."""
        return max((len(tile.captions) for tile in self.tiles), default=0)


@dataclass
class Legend:
    """What the colours stand for, from the lowest to the highest value."""

    colors: Sequence[Color]
    low: str
    high: str


@dataclass
class Sheet:
    """A title, notes on how to read it, a legend, rows of tiles `side` pixels wide and high, and a footer.

    `heads` are names of the columns, of one or two lines each.
    """

    title: str
    notes: Sequence[str]
    footer: str
    rows: list[Row]
    side: int
    heads: Sequence[Sequence[str]] = ()
    legend: Legend | None = None

    def draw(self) -> Image.Image:
        """The sheet as an RGB image."""
        label = max((int(length(line, SMALL)) + GAP for row in self.rows for line in row.name), default=0)
        label = min(label, LONGEST_LABEL)
        columns = max(len(row.tiles) for row in self.rows)
        step = self.side + GAP
        heights = [step + row.lines * LINE + row.apart * GAP for row in self.rows]
        width = max(2 * MARGIN + label + columns * step, NARROWEST, 2 * MARGIN + int(length(self.title, TITLE)))
        notes = [line for note in self.notes for line in wrap(note, width - 2 * MARGIN, TEXT)]
        top = MARGIN + TITLE + GAP + len(notes) * (LINE + 3) + GAP + (BAR[1] + 2 * GAP if self.legend else 0)
        head = LINE * max(map(len, self.heads), default=0)
        picture = Image.new("RGB", (width, top + head + sum(heights) + LINE + MARGIN), BACKGROUND)
        footer = fit(self.footer, width - 2 * MARGIN, SMALL)
        write(picture, (MARGIN, picture.height - MARGIN), footer, SMALL, FAINT_INK, "ls")
        write(picture, (MARGIN, MARGIN), self.title, TITLE)
        for number, note in enumerate(notes):
            write(picture, (MARGIN, MARGIN + TITLE + GAP + number * (LINE + 3)), note, TEXT, FAINT_INK)
        if self.legend:
            _draw_legend(picture, self.legend, top - BAR[1] - GAP)
        for index, head_lines in enumerate(self.heads):
            for number, line in enumerate(head_lines):
                place = (MARGIN + label + index * step, top + number * LINE)
                write(picture, place, fit(line, self.side, SMALL), SMALL, FAINT_INK)
        top += head
        for row, height in zip(self.rows, heights, strict=True):
            if row.apart:
                ImageDraw.Draw(picture).line((MARGIN, top, width - MARGIN, top), fill=LINES)
            self._draw_row(picture, row, (MARGIN, MARGIN + label), top + row.apart * GAP)
            top += height
        return picture

    def _draw_row(self, picture: Image.Image, row: Row, left: tuple[int, int], top: int) -> None:
        room = left[1] - left[0] - GAP
        for number, line in enumerate(row.name):
            ink = INK if number == 0 else FAINT_INK
            write(picture, (left[0], top + number * LINE), fit(line, room, SMALL), SMALL, ink)
        for index, tile in enumerate(row.tiles):
            place = (left[1] + index * (self.side + GAP), top)
            picture.paste(_place(tile, self.side), place)
            for number, caption in enumerate(tile.captions):
                at = (place[0], top + self.side + 1 + number * LINE)
                write(picture, at, fit(caption, self.side + GAP - 3, SMALL), SMALL, INK if number == 0 else FAINT_INK)


def _place(tile: Tile, side: int) -> Image.Image:
    """The tile enlarged (each pixel a square) or reduced to fit, in the middle of its place."""
    height, width = tile.pixels.shape[:2]
    room = side - 2 * FRAME if tile.mark else side
    scale = room / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    image = Image.fromarray(np.ascontiguousarray(tile.pixels)).resize(size, way)
    place = Image.new("RGB", (side, side), BACKGROUND)
    corner = (side - size[0]) // 2, (side - size[1]) // 2
    if tile.mark:
        box = (corner[0] - FRAME, corner[1] - FRAME, corner[0] + size[0] + FRAME - 1, corner[1] + size[1] + FRAME - 1)
        ImageDraw.Draw(place).rectangle(box, fill=tile.mark)
    place.paste(image, corner)
    return place


def _draw_legend(picture: Image.Image, legend: Legend, top: int) -> None:
    low = int(length(legend.low, SMALL))
    left = MARGIN + low + GAP
    ramp = np.broadcast_to(np.linspace(0, 1, BAR[0])[None], (BAR[1], BAR[0]))
    picture.paste(Image.fromarray(color(ramp, legend.colors)), (left, top))
    ImageDraw.Draw(picture).rectangle((left - 1, top - 1, left + BAR[0], top + BAR[1]), outline=FAINT_INK)
    write(picture, (MARGIN, top - 2), legend.low, SMALL)
    write(picture, (left + BAR[0] + GAP, top - 2), legend.high, SMALL)


# ---- pixels ----


def rgb(image: "Tensor") -> Rgb:
    """uint8 (1 or 3, H, W) as (H, W, 3)."""
    height, width = image.shape[1:]
    return np.ascontiguousarray(image.cpu().expand(3, height, width).permute(1, 2, 0).numpy())


def color(values: NDArray[np.floating], colors: Sequence[Color]) -> Rgb:
    """(H, W) in 0..1 through a scale of colours at even distances."""
    stops = np.linspace(0, 1, len(colors))
    channels = [np.interp(values, stops, [stop[channel] for stop in colors]) for channel in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def at_side(pixels: Rgb, side: int) -> Rgb:
    """A small image enlarged by a whole factor, in the middle of (side, side, 3); a large one resized to fit."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    factor, way = side // longest, Image.Resampling.NEAREST
    size = width * factor, height * factor
    if factor < 2 and longest != side:
        size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
        way = Image.Resampling.LANCZOS
    place = Image.new("RGB", (side, side), BACKGROUND)
    place.paste(Image.fromarray(pixels).resize(size, way), ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(place)
