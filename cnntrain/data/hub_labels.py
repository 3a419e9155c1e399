"""The labels of a data set of the hub: numbers or names, one of each image or lists of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnntrain.data.folder import FolderSplit
from cnntrain.data.labels import LONGEST_LABEL, class_counts, sort_classes
from cnntrain.errors import DataError
from cnntrain.text import counted, few, printable


def labels_of(part: Any, column: str) -> list[Any]:
    """The values of a column as Python has them; DataError where it has none such."""
    values = part.select_columns([column]).with_format("arrow")[:].column(0)
    try:
        return list(values.to_pylist())
    except (ValueError, ArithmeticError):
        what = f"{printable(column)!r} holds {printable(str(values.type))}, not names or whole numbers"
        raise DataError(f"data.columns.label: {what}; choose another column") from None


def numbered(feature: Any, labels: Mapping[str, Sequence[Any]], column: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of the classes, and a number for each image, int64 (N,), -1 where it has no label."""
    if (names := getattr(feature, "names", None)) is not None:
        classes = [printable(str(name)) for name in names]
        known = ([-1 if one is None else one for one in part] for part in labels.values())
        numbers = {split: np.array(part, np.int64) for split, part in zip(labels, known, strict=True)}
        _check_range(numbers, len(classes), column)
    else:
        texts = {split: [_text(one, column) for one in part] for split, part in labels.items()}
        classes = sort_classes({text for part in texts.values() for text in part} - {""})
        places = {name: place for place, name in enumerate(classes)} | {"": -1}
        numbers = {split: np.array([places[text] for text in part], np.int64) for split, part in texts.items()}
    _check_names(classes, column)
    return classes, numbers


def sets_of(feature: Any, labels: Mapping[str, Sequence[Any]], column: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of the classes, and a column for each, bool (N, K): lists of labels, of which one may be empty."""
    flat = {split: [one for row in part for one in row or ()] for split, part in labels.items()}
    classes, numbers = numbered(feature, flat, column)
    sets: dict[str, np.ndarray] = {}
    for split, part in labels.items():
        sets[split] = np.zeros((len(part), len(classes)), dtype=np.bool_)
        rows: np.ndarray = np.repeat(np.arange(len(part)), [len(row or ()) for row in part])
        there = numbers[split] >= 0
        sets[split][rows[there], numbers[split][there]] = True
    return classes, sets


def _check_range(numbers: Mapping[str, np.ndarray], count: int, column: str) -> None:
    for split, part in numbers.items():
        if len(wrong := part[(part < -1) | (part >= count)]):
            what = f"{printable(column)!r} holds {wrong[0]} in {split}, and its classes are 0 to {count - 1}"
            raise DataError(f"data.columns.label: {what}; mend the data set, or choose another column")


def _check_names(classes: Sequence[str], column: str) -> None:
    if len(classes) < 2 or len(set(classes)) < len(classes) or "" in classes:
        what = f"has {counted(len(set(classes)), 'class')}" if len(classes) < 2 else "has classes of the same name"
        raise DataError(f"data.columns.label: {printable(column)!r} {what}; choose another column")


def _text(value: Any, column: str) -> str:
    """A label as the name of its class; empty where there is none: null, or -1, as the hub has it."""
    if value is None or value == -1:
        return ""
    what = f"{printable(column)!r} holds {type(value).__name__}, not names or whole numbers"
    if isinstance(value, (str, int)):
        if len(name := printable(str(value).strip())) <= LONGEST_LABEL:
            return name
        what = f"{printable(column)!r} holds a text of {len(name):,} letters, which is no class"
    raise DataError(f"data.columns.label: {what}; choose another column")


def need_learnt(scans: Mapping[str, FolderSplit], root: str) -> None:
    """What is scored must be of a class that is learnt."""
    learnt = set(_there(scans["train"]))
    for split, part in scans.items():
        if strangers := [name for name in _there(part) if name not in learnt]:
            what = f"class {few(map(repr, strangers))} is in {split} and not in train"
            raise DataError(f"data.root: {printable(root)}: {what}; choose those that are, data.classes=[NAME,NAME]")


def _there(part: FolderSplit) -> list[str]:
    """The classes that a split has images of."""
    counts = class_counts(part.labels, len(part.classes)).tolist()
    return [name for name, count in zip(part.classes, counts, strict=True) if count]
