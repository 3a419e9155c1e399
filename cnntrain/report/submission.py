"""A contest's table of answers, in the form of the sample that comes with it: its columns, and its rows in order."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnntrain.data.label_cells import find_separator
from cnntrain.data.table import Faults, read_table
from cnntrain.errors import DataError
from cnntrain.evaluation.prediction import Prediction
from cnntrain.storage import spreadsheet
from cnntrain.text import few, hint, nearest, printable

TWICE = -1  # in place of an image, of a name that several have


class Submission:
    """The rows of a sample, and the image that each asks for.

    The first column names the images, with or without folder and suffix. Others that are called as classes are take
    their probabilities. One by another name takes the class, or of sets the labels, parted as those of the sample are;
    where these do not tell, by spaces, or by `|` where a label holds one.

    Args:
        sample: the table.
        images: the paths of all images.
        classes: those of the network.

    Raises:
        DataErrors: rows that name no image, or several.
        DataError: no table, or a column that is no class.
    """

    def __init__(self, sample: Path, images: Sequence[str], classes: Sequence[str]) -> None:
        faults = Faults(sample)
        table = read_table(sample, lambda names: names, faults)
        self.names = table.names
        if len(self.names) < 2:
            raise DataError(f"{printable(sample)}: has one column; give a sample with one of images and one of classes")
        self.has_probabilities = len(self.names) > 2 or self.names[1] in classes
        has_spaces = any(" " in name for name in classes)
        self._sign = find_separator(table.cells[self.names[1]]) or ("|" if has_spaces else " ")
        for name in self.names[1:] if self.has_probabilities else ():
            if name not in classes:
                known = hint(nearest(name, classes), f"there are {few(map(printable, classes))}")
                raise DataError(
                    f"{printable(sample)}: the column {printable(name)!r} is no class of the network{known}"
                )
        self._ids = table.cells[self.names[0]]
        places = _by_name(images)
        self._places = []
        for row, name in zip(table.rows, self._ids, strict=True):
            place = _find(name.strip(), places, images)
            self._places.append(place or 0)
            if place in (None, TWICE):
                what = "is none of the images" if place is None else "is the name of several images"
                faults.add("names of no image", row, f"{printable(name)} {what}; give those of the sample, images=DIR")
        faults.raise_all()

    def content(self, predictions: Mapping[int, Prediction]) -> str:
        """The table as CSV; the cells of an image that cannot be decoded are empty.

        Args:
            predictions: by the places of the images; with probabilities of all classes, where these are wanted.
        """
        rows: list[list[Any]] = [self.names]
        for name, place in zip(self._ids, self._places, strict=True):
            found = predictions.get(place)
            if found is None:
                cells: list[Any] = [None] * (len(self.names) - 1)
            elif self.has_probabilities:
                values = dict(found.classes)
                cells = [f"{values[one]:.6f}" for one in self.names[1:]]
            else:
                cells = [self._sign.join(found.labels)]
            rows.append([name, *cells])
        return spreadsheet.as_csv(rows)


def _by_name(images: Sequence[str]) -> dict[str, int]:
    """The places of images by their paths, names, and names without suffix."""
    places: dict[str, int] = {}
    for place, path in enumerate(images):
        name = os.path.basename(path)
        for short in {path, name, os.path.splitext(name)[0]}:
            if places.setdefault(short, place) != place:
                places[short] = TWICE
    return places


def _find(name: str, places: Mapping[str, int], images: Sequence[str]) -> int | None:
    """The place of an image; None where there is none, TWICE where there are several."""
    if (place := places.get(name)) is not None or "/" not in name:
        return place
    ends = (f"/{name}", f"/{name}.")  # folders and a name
    found = [place for place, path in enumerate(images) if f"/{path}".endswith(ends[0]) or ends[1] in f"/{path}"]
    return found[0] if len(found) == 1 else TWICE if found else None
