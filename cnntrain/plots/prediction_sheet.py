"""A sheet of images as a network sees them, each with what it says of them."""

import io
import os
from collections.abc import Sequence

from torch import Tensor

from cnntrain.evaluation.prediction import Prediction
from cnntrain.plots.sheet import Row, Sheet, Tile, rgb
from cnntrain.text import percent, printable, shorten, shorten_apart

MOST = 160  # images of a sheet
COLUMNS, SIDE = 10, 128  # images of a row, and pixels of each
LETTERS = 16  # of a name below its image: so many of them fit, whatever they are
LABELS = 4  # of an image that are named below it


def draw_predictions(
    title: str, footer: str, images: Tensor, predictions: Sequence[Prediction], *, total: int, classes: Sequence[str]
) -> bytes:
    """The sheet as a PNG file: sorted by class, the surest first, and those without a class at the end.

    Images with several labels follow those that have the first of them alone, in the order of the classes.

    Args:
        images: uint8 (N, C, S, S), on the host.
        predictions: of each of them.
        total: how many images there are, of which these are some.
        classes: in their order.
    """
    is_set = any(found.given is not None for found in predictions)
    order_words = "sorted by their labels" if is_set else "sorted by class, the surest first"
    notes = [f"As the network sees them, {order_words}{_absent(predictions)}."]
    if total > len(predictions):
        notes.append(f"{len(predictions):,} of {total:,} images, at even distances in the list of files.")
    places = {name: place for place, name in enumerate(classes)}
    order = sorted(
        range(len(predictions)),
        key=lambda index: (
            sorted(places[name] for name in predictions[index].labels) or [len(places)],
            -predictions[index].probability,
        ),
    )
    names = [os.path.basename(found.file) for found in predictions]
    files = _short(names if len(set(names)) == len(names) else [found.file for found in predictions])
    if is_set:
        captions = [(*_label_lines(found), file) for found, file in zip(predictions, files, strict=True)]
    else:
        best = _short([found.classes[0][0] for found in predictions])
        captions = [(*_captions(found, name), file) for found, name, file in zip(predictions, best, files, strict=True)]
    tiles = [Tile(rgb(images[index]), captions[index]) for index in order]
    rows = [Row((), tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    content = io.BytesIO()
    Sheet(title, notes, footer, rows, SIDE).draw().save(content, "PNG")
    return content.getvalue()


def _absent(predictions: Sequence[Prediction]) -> str:
    count = sum(found.label is None for found in predictions)
    if not count:
        return ""
    if predictions[0].given is not None:
        return f"; {count:,} without a label at the end, each with the class that is the most probable"
    return f"; {count:,} without a class (below {predictions[0].threshold:g}) at the end"


def _short(names: Sequence[str]) -> list[str]:
    return shorten_apart([*map(printable, names)], LETTERS)


def _captions(found: Prediction, best: str) -> tuple[str, str]:
    """The class and its probability; of an image without a class that, and what is the most probable."""
    if found.label is None:
        return "no class", f"{percent(found.probability)} {best}"
    return best, percent(found.probability)


def _label_lines(found: Prediction) -> list[str]:
    """A line for each label with its probability; of an image without one, what is the most probable."""
    lines = [_line(name, value) for name, value in found.given or ()]
    if not lines:
        return ["no label", _line(*found.classes[0])]
    return lines if len(lines) <= LABELS else [*lines[: LABELS - 1], f"and {len(lines) - LABELS + 1} more"]


def _line(name: str, value: float) -> str:
    return f"{value:.0%} {shorten(printable(name), LETTERS)}"
