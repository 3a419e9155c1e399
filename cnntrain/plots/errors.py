"""Images that a network is wrong about, as a sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from cnntrain.plots.drawing import WRONG
from cnntrain.plots.sheet import Rgb, Row, Sheet, Tile
from cnntrain.text import percent, shorten

SIDE, COLUMNS = 144, 6  # pixels of a tile, tiles in a row
LONGEST = 20  # columns, of the name of a file


@dataclass(frozen=True)
class WrongImage:
    """An image with its file, its class, and what the network takes it for with which probability (0..1)."""

    pixels: Rgb
    file: str
    label: str
    prediction: str
    probability: float


def draw_errors(images: Sequence[WrongImage], title: str, footer: str) -> Sheet:
    """The images in the order given, a few in a row."""
    tiles = [
        Tile(
            image.pixels,
            (f"{image.prediction} {percent(image.probability)}", f"is {image.label}", _short_name(image.file)),
            WRONG,
        )
        for image in images
    ]
    rows = [Row((), tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    notes = ["Below each image: what the network takes it for and how sure it is, what it is, and its file."]
    return Sheet(title, notes, footer, rows, SIDE)


def _short_name(file: str) -> str:
    return shorten(file if len(file) <= LONGEST else PurePath(file).name, LONGEST)
