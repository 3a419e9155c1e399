"""What a network says of images, as lines of 80 columns, as CSV and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from rich.cells import cell_len, set_cell_size

from cnntrain.storage import spreadsheet
from cnntrain.text import WIDEST_NAME, WIDTH, align_columns, percent, printable, shorten

WIDEST_CLASS, LEAST_FILE, RUNNERS_UP = 24, 24, 31
LEAST = 0.00005  # a probability below it would be shown as 0.00 %
MOST_CLASSES = 20  # lines of the summary


@dataclass(frozen=True)
class Prediction:
    """The classes of one image with their probabilities (0..1), the most probable first."""

    file: str  # as the user named it
    classes: list[tuple[str, float]]


def table(predictions: Sequence[Prediction]) -> list[str]:
    """A line for each image: file, class, probability, and as many of the runners-up as there is room for."""
    names = [shorten(printable(found.classes[0][0]), WIDEST_CLASS) for found in predictions]
    name_width = max(map(cell_len, ["class", *names]))
    room = WIDTH - name_width - len("  " * 3 + "99.99%")
    others = max(cell_len(_runners_up(found.classes[1:], RUNNERS_UP)) for found in predictions)
    widest_file = max(LEAST_FILE, room - max(others, len("runners-up")))
    files = [shorten(printable(found.file), widest_file) for found in predictions]
    file_width = max(map(cell_len, ["file", *files]))
    room -= file_width
    lines = [f"{set_cell_size('file', file_width)}  {set_cell_size('class', name_width)}   prob.  runners-up"]
    for found, file, name in zip(predictions, files, names, strict=True):
        first = f"{set_cell_size(file, file_width)}  {set_cell_size(name, name_width)}"
        rest = _runners_up(found.classes[1:], room)
        lines.append(f"{first}  {percent(found.classes[0][1]):>6}  {rest}".rstrip())
    return lines


def _runners_up(classes: list[tuple[str, float]], room: int) -> str:
    words = ""
    for name, probability in classes:
        more = f"{', ' if words else ''}{shorten(printable(name), WIDEST_CLASS)} {percent(probability)}"
        if probability < LEAST or cell_len(words + more) > room:
            break
        words += more
    return words


def summary(counts: Sequence[tuple[str, int, float]]) -> list[str]:
    """How often each class was predicted, most often first, from (class, images, mean probability)."""
    found = sorted((row for row in counts if row[1]), key=lambda row: -row[1])
    total = sum(images for _, images, _ in found)
    rows = [["class", "images", "share", "mean prob."]]
    rows += [
        [shorten(printable(name), WIDEST_NAME), f"{images:,}", percent(images / total), percent(mean)]
        for name, images, mean in found[:MOST_CLASSES]
    ]
    more = len(found) - MOST_CLASSES
    return align_columns(rows) + ([f"and {more} class{'es' if more > 1 else ''} more"] if more > 0 else [])


def as_csv(predictions: Iterable[Prediction], most: int) -> str:
    """One row for each image: file, class, probability, class_2, probability_2 and so on up to `most`."""
    heads = [f"{key}_{place}" if place > 1 else key for place in range(1, most + 1) for key in ("class", "probability")]
    rows = (
        [found.file, *(part for name, value in found.classes for part in (name, f"{value:.6f}"))]
        for found in predictions
    )
    return spreadsheet.as_csv(chain([["file", *heads]], rows))


def as_json(predictions: Iterable[Prediction]) -> list[dict[str, object]]:
    """The same as plain containers."""
    return [
        {"file": found.file, "classes": [{"class": name, "probability": value} for name, value in found.classes]}
        for found in predictions
    ]
