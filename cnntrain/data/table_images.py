"""A table of files and labels as the splits that a folder of class folders would give."""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cnntrain.config.paths import expand_path
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.columns import USUAL, find_columns
from cnntrain.data.folder import FolderSplit
from cnntrain.data.label_cells import find_flags, odd_names, read_labels
from cnntrain.data.labels import class_counts, sort_classes
from cnntrain.data.layout import Layout, split_of
from cnntrain.data.left_columns import left_alone
from cnntrain.data.pack import SPLITS, Found
from cnntrain.data.paths import Paths
from cnntrain.data.table import Faults, Table, is_utf8, other_letters, read_table, refuse_lists, refuse_other_letters
from cnntrain.data.table_files import MISSING, Finder, find_folder
from cnntrain.data.table_folds import NONE, read_folds
from cnntrain.errors import DataError
from cnntrain.text import counted, few, hint, nearest, printable, utf8

MOST_WEIGHT = 1e12  # of an image: the sums of a million are exact enough
WORDS = ("train", "val", "test")  # that a column of splits holds, in these or similar words


class Row(NamedTuple):
    """What a table says of an image.

    Attributes:
        row: in the table.
        path, size: of the file.
        labels: of one class, or of data.multi_label of any number of them.
        split, group: the last one is empty where the table has none.
    """

    row: int
    path: bytes
    size: int
    labels: tuple[str, ...]
    split: str
    group: str
    weight: float
    fold: int


class TablePaths(Paths):
    """The files that a table names."""

    cure, cure_of_many = "mend the file, or take its row out of the table", "mend the files"


def find_in_table(settings: DataSettings, known: Collection[str] | None) -> Found:
    """The images that a table names, by splits; all are of `train` where it has no column of splits.

    The order of the rows does not matter: the images of a split are sorted by class and path, as those of folders are.

    Args:
        settings: data.root is the table.
        known: the classes of a trained network, which alone may be there; None: any.

    Raises:
        ConfigError: a column that is named is not there.
        DataErrors: all faults of its rows.
        DataError: the table cannot be read, or has but one class.
    """
    path = Path(os.path.abspath(expand_path(settings.root)))
    faults, columns = Faults(path), dict[str, str]()
    flags = settings.columns.label if isinstance(settings.columns.label, list) else None

    def choose(names: list[str]) -> Collection[str]:
        columns.update(find_columns(path, names, settings.columns, flags=partial(find_flags, path)))
        if settings.split_file:
            columns.pop("split", None)  # which that decides
        return [*columns.values(), *(flags or ())]

    table = read_table(path, choose, faults)
    refuse_other_letters(table, [name for name in table.cells if name != columns["file"]])
    folder = find_folder(path, table.cells[columns["file"]], settings.images)
    sets, how = read_labels(table, columns, settings, faults)
    folds = {}
    if split_column := columns.get("split"):
        folds = read_folds(path, split_column, table.cells[split_column], settings)
    rows, learnt, left_out = _rows(table, columns, folder, sets, folds, settings, faults)
    rows, repeats = _without_repeats(rows, faults)
    _check_groups(rows, faults)
    classes = sort_classes({label for row in rows for label in row.labels})
    _check_classes(rows, learnt if known is None else set(known), known is not None, faults)
    faults.raise_all()
    if not rows:
        raise DataError(f"{printable(path)}: no row is of {few(settings.classes or [])}; leave data.classes out")
    if len(classes) + len(left_out) < 2 and known is None:
        what = f"{classes[0]!r} is the only class" if classes else "no row has a label"
        raise DataError(f"{printable(path)}: {what}; it takes two classes or more")
    scans = _splits(rows, classes, folder, columns, settings.multi_label)
    for part in scans.values():
        part.left_out = sort_classes(left_out)
    name = printable(path.name)
    is_asked = known is None and settings.columns.group is None
    alone = left_alone(path, table.names, columns, flags or ()) if is_asked else []
    places = {"train": name}
    if "split" in columns and not folds:
        words = {split_of(word): word.strip() for word in reversed(table.cells[columns["split"]])}
        places = {split: f"{printable(word)!r} in {name}" for split, word in words.items()}
    warnings = [f"{name}: {counted(repeats, 'row')} said again what another one says"] if repeats else []
    return Found(
        folder,
        Layout(dict.fromkeys(scans, folder)),
        scans,
        places=places,
        table=name,
        notes=[*_notes(table, columns, folder, settings), *alone, *_note_sets(rows, classes, how)],
        warnings=[*warnings, *(_odd_names(rows, classes, name) if known is None else ()), *_gaps(scans, known)],
    )


def _rows(
    table: Table,
    columns: dict[str, str],
    folder: Path,
    sets: Sequence[tuple[str, ...]],
    folds: Mapping[str, int],
    settings: DataSettings,
    faults: Faults,
) -> tuple[list[Row], set[str], set[str]]:
    """The rows without a fault; the classes of all rows of train; and those that are not wanted."""
    empty = [""] * len(table.rows)
    names, splits, groups, weights = (
        table.cells[columns[role]] if role in columns else empty for role in USUAL if role != "label"
    )
    for role, name in columns.items():
        if role == "label":  # read already
            continue
        refuse_lists(table, name, "give it one", faults)
        for row, cell in zip(table.rows, table.cells[name], strict=True):
            if not cell.strip():
                faults.add("empty cells", row, f"no {role}, as {name!r} is empty; give it one, or take the row out")
    has_splits = "split" in columns and not folds
    known_splits = {word: split_of(word) if has_splits else "train" for word in set(splits)}
    finder, wanted = Finder(folder), settings.classes
    rows, learnt, left_out = [], set[str](), set[str]()
    for row, name, labels, word, group, number in zip(table.rows, names, sets, splits, groups, weights, strict=True):
        if wanted is not None:
            left_out.update(label for label in labels if label not in wanted)
            labels = tuple(label for label in labels if label in wanted)
        if not name.strip() or not (labels or settings.multi_label):
            continue
        if not (split := known_splits[word]) and word.strip():
            faults.add("splits of other names", row, _unknown_split(word, columns["split"]))
        if split in ("train", ""):  # what is misspelt may be train
            learnt.update(labels)
        weight = _weight(number) if "weight" in columns and number.strip() else 1.0
        if weight is None:
            text = f"{number.strip()!r} is no weight; give a number from 0 to {MOST_WEIGHT:g}"
            faults.add("weights that are no numbers", row, printable(text))
        place = finder.find(name)
        if place == MISSING:
            where = "" if os.path.isabs(name) else f" in {printable(folder)}"
            advice = "mend the row, or give the folder with data.images=DIR"
            if padded := finder.padded(name):
                advice = f"{printable(padded)} is: keep the zeros, in a column of text"
            place += f"{where}; {advice if is_utf8(name) else other_letters(table.path)}"
        if isinstance(place, str):
            faults.add("files that are not found", row, f"{printable(name)} {place}")
        elif split and weight is not None:
            rows.append(Row(row, *place, labels, split, sys.intern(group.strip()), weight, folds.get(word, NONE)))
    return rows, learnt, left_out


def _unknown_split(word: str, column: str) -> str:
    text = printable(word.strip())
    if re.fullmatch(r"\d+(\.0)?", text):
        advice = "write train, val or test, or leave the column out with data.columns.split= (nothing behind it)"
        return f"{column!r} holds the number {text}, which names no split; {advice}"
    advice = "write train, val or test, or take the row out"
    return f"{text!r} in {column!r} names no split{hint(nearest(text.lower(), WORDS, cutoff=0.5), advice)}"


def _weight(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MOST_WEIGHT else None


def _without_repeats(rows: list[Row], faults: Faults) -> tuple[list[Row], int]:
    """Each file once, and how many rows said the same again; rows that say other things of a file are faults."""
    first: dict[bytes, Row] = {}
    for row in rows:
        other = first.setdefault(row.path, row)
        if other[3:] != row[3:]:
            what = next(name for name in Row._fields[3:] if getattr(other, name) != getattr(row, name))
            here, there = (repr(_told(getattr(one, what))) for one in (row, other))
            what = what.removesuffix("s")
            text = f"{printable(row.path)} has the {what} {here} here and {there} in row {other.row}; leave one of them"
            faults.add("files that another row says other things of", row.row, text)
    return list(first.values()), len(rows) - len(first)


def _check_groups(rows: Iterable[Row], faults: Faults) -> None:
    """A group in two splits would be trained on and tested."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.group, row) if row.group else row
        here, there = _part_of(row), _part_of(other)
        if here != there:
            text = f"group {printable(row.group)!r} is in {here} here and in {there} in row {other.row}"
            kind = "split" if row.fold == NONE else "fold"
            faults.add(f"groups in several {kind}s", row.row, f"{text}; keep it in one {kind}")


def _part_of(row: Row) -> str:
    return row.split if row.fold == NONE else f"fold {row.fold}"


def _check_classes(rows: Iterable[Row], classes: Collection[str], is_trained: bool, faults: Faults) -> None:
    """What is scored must be of a class that is learnt."""
    if not classes:  # nothing is there to train on, which is told as that
        return
    for row in rows:
        strangers = [label for label in row.labels if label not in classes]
        if not strangers:
            continue
        where = "among those of the network" if is_trained else "in train"
        text = f"class {strangers[0]!r} is in {row.split} and not {where}; "
        advice = "take the row out" if is_trained else "put images of it into train, or take the row out"
        faults.add("classes that are not learnt", row.row, text + advice)


def _splits(
    rows: Sequence[Row], classes: list[str], folder: Path, columns: Collection[str], has_sets: bool
) -> dict[str, FolderSplit]:
    """The splits that have images, of all classes each."""
    places = {name: place for place, name in enumerate(classes)}
    scans = {}
    for split in SPLITS:
        chosen = (row for row in rows if row.split == split)
        part = sorted(chosen, key=lambda row: (0 if has_sets else places[row.labels[0]], row.path))
        if not part:
            continue
        scans[split] = FolderSplit(
            classes,
            TablePaths.join(folder, [row.path for row in part]),
            _label_tensor([[places[name] for name in row.labels] for row in part], len(classes), has_sets),
            torch.tensor([row.size for row in part], dtype=torch.int64),
            by_table=True,
            groups=torch.tensor([_group_number(row.group) for row in part]) if "group" in columns else None,
            weights=torch.tensor([row.weight for row in part], dtype=torch.float64) if "weight" in columns else None,
            folds=torch.tensor([row.fold for row in part]) if part[0].fold != NONE else None,
        )
    return scans


def _label_tensor(numbers: Sequence[Sequence[int]], classes: int, has_sets: bool) -> Tensor:
    """The label of each image, int64 (N,), or its labels, bool (N, K)."""
    if not has_sets:
        return torch.tensor([own[0] for own in numbers], dtype=torch.int64)
    result = torch.zeros(len(numbers), classes, dtype=torch.bool)
    rows = [row for row, own in enumerate(numbers) for _ in own]
    result[rows, [number for own in numbers for number in own]] = True
    return result


def _told(value: object) -> object:
    return "|".join(value) if isinstance(value, tuple) else value


def _group_number(name: str) -> int:
    """A number for a group, int64, whatever other groups there are: the marks of a split are its own."""
    digest = hashlib.blake2b(utf8(name), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _notes(table: Table, columns: dict[str, str], folder: Path, settings: DataSettings) -> list[str]:
    """Which column was taken for what, and where the images were found."""
    words, table_name = [f"{role} is {printable(name)!r}" for role, name in columns.items()], printable(table.path.name)
    if isinstance(labels := settings.columns.label, list):
        words.append(f"labels are {few(repr(printable(name)) for name in labels)}")
    notes = [f"columns of {table_name}: {', '.join(words)}"]
    if folder != table.path.parent and not settings.images:
        notes.append(f"images: those of {printable(folder.name)}/, which has files of the names in {table_name}")
    return notes


def _note_sets(rows: Sequence[Row], classes: Sequence[str], how: str) -> list[str]:
    """How many labels images have, where they have several."""
    if not how:
        return []
    mean, without = sum(len(row.labels) for row in rows) / len(rows), sum(not row.labels for row in rows)
    return [f"labels: of {len(classes):,} classes, {mean:.3g} an image, {without:,} images without any, {how}"]


def _odd_names(rows: Sequence[Row], classes: Sequence[str], table: str) -> list[str]:
    """What there is to say of the names of classes."""
    counts = Counter(label for row in rows for label in row.labels)
    first = {label: row.row for row in sorted(rows, reverse=True) for label in row.labels}
    return [f"{table}: {line}" for line in odd_names(classes, counts, first)]


def _gaps(scans: dict[str, FolderSplit], known: Collection[str] | None) -> list[str]:
    """Of each split that is scored, the classes that it lacks."""
    warnings = []
    for split, part in scans.items():
        counts = class_counts(part.labels, len(part.classes)).tolist()
        missing = [repr(name) for name, count in zip(part.classes, counts, strict=True) if not count]
        if missing and split != "train" and known is None:
            warnings.append(f"{split}: no image of {few(missing)}")
    return warnings
