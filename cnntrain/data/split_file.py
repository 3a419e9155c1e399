"""A table of names and splits: written by each run, and read in place of what the folders or another table say."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from cnntrain.config.paths import expand_path
from cnntrain.data.columns import find_columns
from cnntrain.data.common import TrainData
from cnntrain.data.folder import FolderSplit
from cnntrain.data.labels import entries, is_sets, renumber
from cnntrain.data.layout import Layout, split_of
from cnntrain.data.loaders import Loader
from cnntrain.data.pack import SPLITS, Found
from cnntrain.data.paths import Paths
from cnntrain.data.table import Faults, read_table
from cnntrain.errors import DataError
from cnntrain.storage.spreadsheet import as_csv, cell
from cnntrain.text import counted, hint, nearest, printable

COLUMNS = ("name", "split")
ROWS = 10_000  # that are made into text at once
TWICE = -1  # in place of an image, of a short name that several have


# --- writing ---------------------------------------------------------------------------------------------------------


def split_rows(data: TrainData) -> Iterator[str]:
    """The parts of a CSV file of all images that train, validate and test, by name."""
    yield as_csv([COLUMNS])
    for split, loader in {"train": data.train, **data.scored_splits}.items():
        names = map(name_of(loader, data.home), range(len(loader.labels)))
        while rows := [(name, split) for name in islice(names, ROWS)]:
            yield as_csv(rows)


def name_of(loader: Loader, home: Path | None) -> Callable[[int], str]:
    """What tells the name of an image of a whole split by its index, as `splits.csv` has it.

    Args:
        home: see Data.home.
    """
    if not (loader.decoder and home):
        return loader.name
    path = loader.decoder.paths.name_from(home)
    return lambda index: os.fsdecode(path(index))


# --- reading ---------------------------------------------------------------------------------------------------------


def apply_split_file(found: Found, file: str) -> Found:
    """The images in the splits that a table gives them; those that it does not name are left out.

    Args:
        file: a table with a column of names, as `splits.csv` of a run has them, and one of splits. A name may also lack
            its suffix or its folders, where that is no other's.

    Raises:
        DataErrors: all faults of its rows.
        DataError: the table cannot be read.
    """
    path = Path(os.path.abspath(expand_path(file)))
    faults, images = Faults(path), _Images(found)
    chosen, words = _read(path, images, faults)
    _check_classes(images, chosen, faults)
    _check_groups(images, chosen, faults)
    faults.raise_all()
    learnt = chosen["train"] or {image: row for rows in chosen.values() for image, row in rows.items()}
    there = {label for image in learnt for label in images.labels[image]}
    classes = [place for place in range(len(images.classes)) if place in there]
    scans = {split: images.part(rows, classes) for split, rows in chosen.items() if rows}
    table, rest = printable(path.name), len(images.labels) - sum(map(len, chosen.values()))
    note = f"splits: as {table} says" + (f"; {counted(rest, 'image')} not named there, and left out" if rest else "")
    return replace(
        found,
        layout=Layout(dict.fromkeys(scans, found.source), found.layout.other_names),
        scans=scans,
        places={split: f"{printable(words[split])!r} in {table}" for split in scans},
        table=table,
        notes=[*found.notes, note],
    )


def splits_of_run(found: Found, path: Path) -> Found | None:
    """The images in the splits that a run has written down, whatever has changed since; those that it did not use go.

    Args:
        path: the `splits.csv` of the run.

    Returns:
        None where the file cannot be read, or names none of the images.
    """
    images = _Images(found)
    try:
        chosen, _ = _read(path, images, Faults(path))
    except DataError:
        return None
    scans = {split: images.part(rows, range(len(images.classes))) for split, rows in chosen.items() if rows}
    return replace(found, scans=scans) if scans else None


class _Images:
    """The images of all splits as one list, with their names, labels and groups.

    Attributes:
        classes: names that the labels stand for.
        labels: those of each image, one or with data.multi_label any number of them.
        groups: empty where there are none.
    """

    def __init__(self, found: Found) -> None:
        self._root, self._parts = found.source, list(found.scans.values())
        self.classes = list(dict.fromkeys(chain.from_iterable(part.classes for part in self._parts)))
        self.names = [os.fsdecode(name) for part in self._parts for name in part.paths.names(found.source)]
        places = {name: place for place, name in enumerate(self.classes)}
        new_places = (torch.tensor([places[name] for name in part.classes]) for part in self._parts)
        pairs = zip(self._parts, new_places, strict=True)
        self._labels = torch.cat([renumber(part.labels, numbers, len(places)) for part, numbers in pairs])
        self.labels: list[list[int]] = [[] for _ in self.names]
        for image, label in zip(*(values.tolist() for values in entries(self._labels)), strict=True):
            self.labels[image].append(label)
        self.groups = [number for part in self._parts if part.groups is not None for number in part.groups.tolist()]
        self._places = {name: place for place, name in enumerate(self.names)}
        self._short_names: dict[str, int] = {}

    def find(self, name: str) -> int | str:
        """The place of an image by a name; or what is wrong with the name."""
        candidates = [name, name.strip()]
        if cell(name[1:]) == name:  # as a table for spreadsheets has it
            candidates.append(name[1:])
        if os.path.isabs(name):
            candidates.append(os.path.relpath(name, self._root))
        for candidate in candidates:
            if (place := self._places.get(candidate)) is not None:
                return place
        if not self._short_names:
            self._shorten()
        place = self._short_names.get(candidates[-1])
        if place == TWICE:
            return "is the name of several images"
        return "is no image of the data" if place is None else place

    def _shorten(self) -> None:
        """Names without their suffix, without their folders, and without both."""
        for place, name in enumerate(self.names):
            stem, base = os.path.splitext(name)[0], os.path.basename(name)
            for short in {stem, base, os.path.basename(stem)}:
                if self._short_names.setdefault(short, place) != place:
                    self._short_names[short] = TWICE

    def part(self, places: Collection[int], classes: Sequence[int]) -> FolderSplit:
        """A split of some of the images, by class and in the order of the list, and of some of the classes."""
        has_sets = is_sets(self._labels)
        order = torch.tensor(sorted(places, key=lambda place: (0 if has_sets else self.labels[place][0], place)))
        numbers = torch.full((len(self.classes),), -1)
        numbers[list(classes)] = torch.arange(len(classes))
        first = self._parts[0]

        def chosen(name: str) -> Any:
            values = [getattr(part, name) for part in self._parts]
            return None if values[0] is None else torch.cat(values)[order]

        return FolderSplit(
            [self.classes[place] for place in classes],
            Paths.collect(self._root, [part.paths for part in self._parts], order),
            renumber(self._labels[order], numbers, len(classes)),
            chosen("sizes"),
            skip_counts=sum((part.skip_counts for part in self._parts), Counter()),
            loss_counts=sum((part.loss_counts for part in self._parts), Counter()),
            left_out=list(dict.fromkeys(chain.from_iterable(part.left_out for part in self._parts))),
            by_table=first.by_table,
            groups=chosen("groups"),
            weights=chosen("weights"),
        )


Chosen = dict[str, dict[int, int]]  # of each split its images, and the row that names each


def _read(path: Path, images: _Images, faults: Faults) -> tuple[Chosen, dict[str, str]]:
    """The images that the rows name, by splits; and the word that the table has for each split."""
    columns: dict[str, str] = {}

    def choose(heads: list[str]) -> Collection[str]:
        columns.update(find_columns(path, heads, None, ("file", "split")))
        return columns["file"], columns["split"]

    table = read_table(path, choose, faults)
    chosen: Chosen = {split: {} for split in SPLITS}
    words: dict[str, str] = {}
    rows_of: dict[int, tuple[int, str]] = {}
    cells = (table.cells[columns[role]] for role in ("file", "split"))
    for row, name, word in zip(table.rows, *cells, strict=True):
        split, image = split_of(word), images.find(name)
        if not name.strip() or not word.strip():
            what = "name" if word.strip() else "split"
            faults.add("empty cells", row, f"no {what}; give it one, or take the row out")
        elif not split:
            advice = "write train, val or test, or take the row out"
            near = hint(nearest(word.strip().lower(), SPLITS, cutoff=0.5), advice)
            faults.add("splits of other names", row, f"{printable(word.strip())!r} names no split{near}")
        elif isinstance(image, str):
            advice = "write its folders and suffix too" if "several" in image else "take the row out, or mend the name"
            faults.add("names of no image", row, f"{printable(name)} {image}; {advice}")
        else:
            other = rows_of.setdefault(image, (row, split))
            if other[1] != split:
                text = f"{printable(name)} is {split} here and {other[1]} in row {other[0]}; leave one of them"
                faults.add("images that another row puts elsewhere", row, text)
            words.setdefault(split, word.strip())
            chosen[split].setdefault(image, row)
    return chosen, words


def _check_classes(images: _Images, chosen: Chosen, faults: Faults) -> None:
    """What is scored must be of a class that is learnt."""
    learnt = {label for image in chosen["train"] for label in images.labels[image]}
    for split in ("val", "test") if learnt else ():
        for image, row in chosen[split].items():
            if strangers := [label for label in images.labels[image] if label not in learnt]:
                what = f"class {images.classes[strangers[0]]!r} is in {split} and not in train"
                advice = "put images of it into train, or take the row out"
                faults.add("classes that are not learnt", row, f"{what}; {advice}")


def _check_groups(images: _Images, chosen: Chosen, faults: Faults) -> None:
    """A group in two splits would be trained on and tested."""
    first: dict[int, tuple[str, int]] = {}
    for split, rows in chosen.items() if images.groups else ():
        for image, row in rows.items():
            other, other_row = first.setdefault(images.groups[image], (split, row))
            if other != split:
                text = f"{printable(images.names[image])} is in {split}, and its group in {other} in row {other_row}"
                faults.add("groups in several splits", row, f"{text}; keep the group in one split")
