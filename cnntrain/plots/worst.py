"""A sheet of the worst images of a split: the most confident errors, the largest losses, the least certain."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cnntrain.evaluation.image_scores import ImageScore
from cnntrain.plots.drawing import RIGHT, WRONG
from cnntrain.plots.sheet import Row, Sheet, Tile, rgb
from cnntrain.text import number, percent, printable, shorten_apart

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SIDE, COLUMNS = 128, 8  # pixels of an image, images in a row
LETTERS = 16  # of a file's name below its image
NOTES = (
    "Below each image: what the network says and how sure it is, the label and its probability, the file, the loss.",
    "A red frame: wrong, a blue one: right.",
)


def draw_worst(
    groups: Mapping[str, Sequence[ImageScore]],
    pick: Callable[[list[int]], "Tensor"],
    classes: Sequence[str],
    title: str,
    footer: str,
) -> "Image.Image":
    """Rows of images with what the network says of them.

    Args:
        groups: images by the name of their rows.
        pick: gives images, uint8 (N, C, S, S), by their indices in the split.
    """
    rows: list[Row] = []
    for name, images in groups.items():
        for start in range(0, len(images), COLUMNS):
            part = images[start : start + COLUMNS]
            pixels = pick([image.index for image in part])
            files = shorten_apart([printable(_short_name(image.file)) for image in part], LETTERS)
            tiles = [_tile(*each, classes) for each in zip(part, pixels, files, strict=True)]
            rows.append(Row(name.split("\n") if start == 0 else [""], tiles, apart=start == 0 and bool(rows)))
    return Sheet(printable(title), NOTES, printable(footer), rows, SIDE).draw()


def _short_name(file: str) -> str:
    """The file without its folders; what comes from none, such as `test/17`, as it is."""
    return os.path.basename(file) if file.count("/") > 1 else file


def _tile(image: ImageScore, pixels: "Tensor", file: str, classes: Sequence[str]) -> Tile:
    said = f"{percent(image.probability)} {printable(classes[image.prediction])}"
    label = f"{percent(image.label_probability)} {printable(classes[image.label])}"
    return Tile(rgb(pixels), (said, label, file, f"loss {number(image.loss)}"), WRONG if image.is_error else RIGHT)
