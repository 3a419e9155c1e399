"""A sheet of the worst images of a split: the most confident errors, the largest losses, the least certain."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from cnntrain.evaluation.image_scores import ImageScore
from cnntrain.evaluation.set_images import LabelScore, SetScore
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
NOTES_OF_SETS = (
    "Below each image: how many labels are missed (-) and how many wrongly given (+), with the worst of them and its"
    " probability; the file, the loss.",
    "A red frame: wrong, a blue one: right.",
)
S = TypeVar("S", ImageScore, SetScore)


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

    def captions(image: ImageScore, file: str) -> tuple[str, ...]:
        said = f"{percent(image.probability)} {printable(classes[image.prediction])}"
        label = f"{percent(image.label_probability)} {printable(classes[image.label])}"
        return said, label, file, f"loss {number(image.loss)}"

    return _draw(groups, pick, captions, (title, footer), NOTES)


def draw_worst_sets(
    groups: Mapping[str, Sequence[SetScore]],
    pick: Callable[[list[int]], "Tensor"],
    classes: Sequence[str],
    title: str,
    footer: str,
) -> "Image.Image":
    """The same of images that have a set of labels each."""

    def mistakes(sign: str, labels: Sequence[LabelScore], none: str) -> str:
        if not labels:
            return none
        place, probability = labels[0]
        return f"{sign}{len(labels)}  {percent(probability)} {printable(classes[place])}"

    def captions(image: SetScore, file: str) -> tuple[str, ...]:
        mistaken = mistakes("-", image.missed, "none missed"), mistakes("+", image.extra, "none wrong")
        return *mistaken, file, f"loss {number(image.loss)}"

    return _draw(groups, pick, captions, (title, footer), NOTES_OF_SETS)


def _draw(
    groups: Mapping[str, Sequence[S]],
    pick: Callable[[list[int]], "Tensor"],
    captions: Callable[[S, str], tuple[str, ...]],
    words: tuple[str, str],
    notes: Sequence[str],
) -> "Image.Image":
    """Rows of images with their captions.

    Args:
        words: the title and the footer.
    """
    rows: list[Row] = []
    for name, images in groups.items():
        for start in range(0, len(images), COLUMNS):
            part = images[start : start + COLUMNS]
            pixels = pick([image.index for image in part])
            files = shorten_apart([printable(_short_name(image.file)) for image in part], LETTERS)
            tiles = [
                Tile(rgb(each), captions(image, file), WRONG if image.is_error else RIGHT)
                for image, each, file in zip(part, pixels, files, strict=True)
            ]
            rows.append(Row(name.split("\n") if start == 0 else [""], tiles, apart=start == 0 and bool(rows)))
    title, footer = words
    return Sheet(printable(title), notes, printable(footer), rows, SIDE).draw()


def _short_name(file: str) -> str:
    """The file without its folders; what comes from none, such as `test/17`, as it is."""
    return os.path.basename(file) if file.count("/") > 1 else file
