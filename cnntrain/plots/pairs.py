"""A sheet of images that are the same, or nearly so, side by side, and of others to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cnntrain.plots.drawing import WRONG
from cnntrain.plots.sheet import Row, Sheet, Tile, rgb
from cnntrain.text import printable, shorten_apart

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SIDE, COLUMNS = 112, 8  # pixels of an image, images in a row
LETTERS = 14  # of a file's name below its image
OF_PAIRS = (
    "Pairs from left to right, the most alike first. Below each image its class, its split and its file, beside the"
    " first split the likeness. A red frame: of two classes."
)
OF_LABELS = "Below an image whose label looks wrong: its label, the class that is seen in it, and its file."


@dataclass(frozen=True)
class Portrait:
    """An image, uint8 (1 or 3, H, W), its class, what else there is to say of it, and the last part of its file."""

    pixels: "Tensor"
    label: str
    note: str
    file: str


Group: TypeAlias = Sequence[tuple[Portrait, ...]]  # single images, or pairs


def draw_pairs(groups: Mapping[str, Group], title: str, footer: str) -> "Image.Image":
    """Rows of images or of pairs.

    Args:
        groups: by the name of their rows, in lines.
    """
    rows: list[Row] = []
    for name, group in groups.items():
        each = COLUMNS // len(group[0])
        for start in range(0, len(group), each):
            part = group[start : start + each]
            marks = [WRONG if len({one.label for one in images}) > 1 else None for images in part for _ in images]
            portraits = [one for images in part for one in images]
            files = shorten_apart([printable(one.file) for one in portraits], LETTERS)
            tiles = [
                Tile(rgb(one.pixels), (printable(one.label), printable(one.note), file), mark)
                for one, file, mark in zip(portraits, files, marks, strict=True)
            ]
            rows.append(Row(name.split("\n") if start == 0 else [""], tiles, apart=start == 0 and bool(rows)))
    sizes = {len(images) for group in groups.values() for images in group}
    notes = [words for size, words in ((2, OF_PAIRS), (1, OF_LABELS)) if size in sizes]
    return Sheet(printable(title), notes, printable(footer), rows, SIDE).draw()
