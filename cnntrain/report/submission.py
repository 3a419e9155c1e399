"""A contest's table of answers, in the form of the sample that comes with it: its columns, and its rows in order."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnntrain.data.label_cells import find_separator
from cnntrain.data.table import Faults, Table, read_table
from cnntrain.errors import DataError
from cnntrain.evaluation.prediction import Prediction
from cnntrain.storage import spreadsheet
from cnntrain.text import WIDEST_NAME, counted, few, hint, nearest, printable, short_path, shorten, shorten_apart

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
TWICE = -1  # in place of an image, of a name that several have


class Submission:
    """The rows of a sample, and the image that each asks for.

    The first column names the images, with or without folder and suffix. Others that are called as classes are take
    their probabilities. One by another name takes the class, or of sets the labels, parted as those of the sample are;
    where these do not tell, by spaces, or by `|` where a label holds one. One of fractions takes the probability of
    class 1, where the classes are 0 and 1.

    Attributes:
        has_probabilities: the probabilities of all classes are needed.

    Args:
        sample: the table.
        images: the paths of all images.
        classes: those of the network.
        multi_label: images have sets of labels.

    Raises:
        DataErrors: rows that name no image, or several.
        DataError: no table, a column that is no class, or one of numbers that no class has for its name.
    """

    def __init__(
        self, sample: Path, images: Sequence[str], classes: Sequence[str], *, multi_label: bool = False
    ) -> None:
        self._sample, self._images, self._multi_label = sample, len(images), multi_label
        faults = Faults(sample)
        table = read_table(sample, lambda names: names, faults)
        self.names = table.names
        if len(self.names) < 2:
            raise DataError(f"{printable(sample)}: has one column; give a sample with one of images and one of classes")
        has_spaces = any(" " in name for name in classes)
        self._sign = find_separator(table.cells[self.names[1]]) or ("|" if has_spaces else " ")
        self._asked = _classes_of(table, classes)
        self.has_probabilities = bool(self._asked)
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
                cells = [f"{values[one]:.6f}" for one in self._asked]
            else:
                cells = [self._sign.join(found.labels)]
            rows.append([name, *cells])
        return spreadsheet.as_csv(rows)

    def lines(self) -> list[str]:
        """What the file holds, for a terminal: its rows, how its columns were read, and images that it leaves out."""
        first, name = self._asked[:1], shorten(printable(self.names[1]), WIDEST_NAME)
        if not first:
            words = f"{name}: {'labels' if self._multi_label else 'its class'}"
        elif len(self._asked) > 1:
            words = f"{few(shorten_apart([*map(printable, self._asked)], WIDEST_NAME), 3)}: their probabilities"
        else:
            words = f"{name}: {'its probability' if first[0] == self.names[1] else 'the probability of class 1'}"
        lines = [f"{counted(len(self._ids), 'row')} as in {printable(short_path(self._sample))}; {words}"]
        if others := self._images - len(set(self._places)):
            lines.append(f"{counted(others, 'image')} that it does not name {'is' if others == 1 else 'are'} left out")
        return lines


def _classes_of(table: Table, classes: Sequence[str]) -> list[str]:
    """The classes whose probabilities the columns take; none where the only one takes the class itself."""
    sample, names = printable(table.path), table.names[1:]
    if len(names) == 1 and names[0] not in classes:
        name, cells = names[0], [cell.strip() for cell in table.cells[names[0]] if cell.strip()]
        values = [cell for cell in cells if NUMBER.fullmatch(cell)]
        if not cells or len(values) < len(cells) or all(cell in classes for cell in cells):
            return []
        if set(classes) == {"0", "1"} and any("." in cell for cell in cells):
            return ["1"]
        if all(NUMBER.fullmatch(one) for one in classes) and all(float(cell).is_integer() for cell in cells):
            return []
        known = few(map(printable, classes))
        raise DataError(
            f"{sample}: the column {printable(name)!r} holds numbers, such as {printable(cells[0])}, and is no class "
            f"of the network; call it as the class whose probability it is to hold, {known}, or leave its cells "
            "empty for the class itself"
        )
    for name in names:
        if name not in classes:
            known = hint(nearest(name, classes), f"there are {few(map(printable, classes))}")
            raise DataError(f"{sample}: the column {printable(name)!r} is no class of the network{known}")
    return names


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
