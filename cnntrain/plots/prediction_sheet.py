"""A sheet of images as a network sees them, each with what it says of them."""

import io
import os
from collections.abc import Sequence

from torch import Tensor

from cnntrain.evaluation.prediction import Prediction
from cnntrain.plots.sheet import Row, Sheet, Tile, rgb
from cnntrain.text import percent, printable, shorten_apart

MOST = 160  # images of a sheet
COLUMNS, SIDE = 10, 128  # images of a row, and pixels of each
LETTERS = 16  # of a name below its image: so many of them fit, whatever they are


def draw_predictions(
    title: str, footer: str, images: Tensor, predictions: Sequence[Prediction], *, total: int, classes: Sequence[str]
) -> bytes:
    """The sheet as a PNG file: sorted by class, the surest first, and those without a class at the end.

    Args:
        images: uint8 (N, C, S, S), on the host.
        predictions: of each of them.
        total: how many images there are, of which these are some.
        classes: in their order.
    """
    notes = [f"As the network sees them, sorted by class, the surest first{_absent(predictions)}."]
    if total > len(predictions):
        notes.append(f"{len(predictions):,} of {total:,} images, at even distances in the list of files.")
    places = {name: place for place, name in enumerate(classes)}
    order = sorted(
        range(len(predictions)),
        key=lambda index: (places.get(predictions[index].label or "", len(places)), -predictions[index].probability),
    )
    names = [os.path.basename(found.file) for found in predictions]
    files = _short(names if len(set(names)) == len(names) else [found.file for found in predictions])
    best = _short([found.classes[0][0] for found in predictions])
    captions = [(*_captions(found, name), file) for found, name, file in zip(predictions, best, files, strict=True)]
    tiles = [Tile(rgb(images[index]), captions[index]) for index in order]
    rows = [Row((), tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    content = io.BytesIO()
    Sheet(title, notes, footer, rows, SIDE).draw().save(content, "PNG")
    return content.getvalue()


def _absent(predictions: Sequence[Prediction]) -> str:
    count = sum(found.label is None for found in predictions)
    return f"; {count:,} without a class (below {predictions[0].threshold:g}) at the end" if count else ""


def _short(names: Sequence[str]) -> list[str]:
    return shorten_apart([*map(printable, names)], LETTERS)


def _captions(found: Prediction, best: str) -> tuple[str, str]:
    """The class and its probability; of an image without a class that, and what is the most probable."""
    if found.label is None:
        return "no class", f"{percent(found.probability)} {best}"
    return best, percent(found.probability)
