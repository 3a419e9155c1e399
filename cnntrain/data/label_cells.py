"""What the cells of a table say of an image's labels, where it may have several or none."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cnntrain.config.schema.data import DataSettings
from cnntrain.data.labels import LONGEST_LABEL, near_names, near_words
from cnntrain.data.table import ITEM, Faults, Table, read_table, refuse_lists
from cnntrain.text import counted, few, printable

QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
SEPARATORS = ("|", ";", ",")  # the first that any cell holds parts them all; else a space may
YES, NO = frozenset(("1", "1.0", "true", "yes")), frozenset(("0", "0.0", "-1", "-1.0", "false", "no", ""))


def read_labels(
    table: Table, columns: Mapping[str, str], settings: DataSettings, faults: Faults
) -> tuple[list[tuple[str, ...]], str]:
    """The labels of each row, and words on how several of one row are told apart; empty where each has one.

    A row whose label is missing or at fault has none.

    Args:
        columns: of the table, by what they are.
    """
    sets, how = _read(table, columns, settings, faults)
    for place, (row, labels) in enumerate(zip(table.rows, sets, strict=True)):
        if (letters := max(map(len, labels), default=0)) > LONGEST_LABEL:
            faults.add("labels of many letters", row, f"a label of {letters:,} letters is no class; give it one")
            sets[place] = ()
    return sets, how


def _read(
    table: Table, columns: Mapping[str, str], settings: DataSettings, faults: Faults
) -> tuple[list[tuple[str, ...]], str]:
    if isinstance(settings.columns.label, list):
        flags = _read_flags(table, settings.columns.label, faults, has_sets=settings.multi_label)
        return flags, "in a column each" if settings.multi_label else ""
    if settings.multi_label:
        return _read_sets(table, columns["label"], settings.columns.separator, faults)
    name = columns["label"]
    refuse_lists(table, name, "give it one, or set data.multi_label=true", faults)
    several = any(sign in cell for cell in table.cells[name] for sign in SEPARATORS[:2])
    advice = "set data.multi_label=true for images with several labels or none" if several else "take the row out"
    for row, cell in zip(table.rows, table.cells[name], strict=True):
        if not cell.strip():
            faults.add("empty cells", row, f"no label, as {name!r} is empty; give it one, or {advice}")
    names: dict[str, tuple[str, ...]] = {}  # one object for all rows of a class
    labels = (cell.strip() for cell in table.cells[name])
    return [names.setdefault(text, (printable(text),) if text else ()) for text in labels], ""


def _read_sets(table: Table, column: str, separator: str | None, faults: Faults) -> tuple[list[tuple[str, ...]], str]:
    """The labels of each row out of one column, and words on how they were told apart.

    Args:
        separator: what parts the labels of a cell; None: found.
    """
    cells = [_unlisted(cell) for cell in table.cells[column]]
    parted = find_separator(cells) if separator is None else separator
    sets = []
    for row, cell in zip(table.rows, cells, strict=True):
        mark = ITEM if ITEM in cell else parted
        names = [name.strip() for name in (cell.split(mark) if mark else [cell])]
        if separator is not None and cell.strip() and not all(names):
            text = f"an empty label in {printable(cell.strip())!r}; leave one of the signs {separator!r} out"
            faults.add("empty labels", row, text)
        sets.append(tuple(sorted({printable(name) for name in names if name})))
    return sets, f"parted by {printable(parted)!r} (data.columns.separator)" if parted else "one a cell"


def find_separator(cells: Sequence[str]) -> str:
    """What parts the labels of cells; empty where each holds one label at most.

    A space is it where fewer names come out than there are cells of different content: of `golden retriever` and
    `tabby cat` more would.
    """
    for sign in SEPARATORS:
        if any(sign in cell for cell in cells):
            return sign
    different = {cell.strip() for cell in cells} - {""}
    names = {name for cell in different for name in cell.split()}
    return " " if any(" " in cell for cell in different) and len(names) < len(different) else ""


def _unlisted(cell: str) -> str:
    """A cell without what Python, NumPy and JSON write around a list: `['cat', 'dog']`, `['cat' 'dog']`."""
    if not (found := re.fullmatch(r"\s*\[(.*)\]\s*", cell, re.DOTALL)):
        return cell
    try:
        items = json.loads(cell)
    except (ValueError, RecursionError):
        items = []
    if items and all(isinstance(item, str) for item in items):
        return ITEM.join(items)
    if not QUOTED.sub("", found[1]).strip(" ,\r\n\t"):
        return ITEM.join(item[1:-1] for item in QUOTED.findall(found[1]))
    return ITEM.join(item.strip().strip("'\"") for item in found[1].split(","))


def _read_flags(table: Table, names: Sequence[str], faults: Faults, *, has_sets: bool) -> list[tuple[str, ...]]:
    """The labels of each row out of a column for each label, which holds 1 where an image has it."""
    sets: list[list[str]] = [[] for _ in table.rows]
    unread = 0
    for name in names:
        label = printable(name)
        for row, cell, found in zip(table.rows, table.cells[name], sets, strict=True):
            word = cell.strip().lower()
            if word in YES:
                found.append(label)
            elif word not in NO:
                unread += 1
                text = f"{printable(cell.strip())!r} in {label!r} is neither yes nor no; write 1 or 0"
                faults.add("labels that are neither 1 nor 0", row, text)
    if not has_sets and not unread:
        _need_one(table, sets, faults)
    return [tuple(sorted(found)) for found in sets]


def _need_one(table: Table, sets: Sequence[Sequence[str]], faults: Faults) -> None:
    """Rows that have no label or several, where each is to have one, are one fault, told with the first of them."""
    if not (misfits := [place for place, labels in enumerate(sets) if len(labels) != 1]):
        return
    none, first = sum(not sets[place] for place in misfits), sets[misfits[0]]
    here = f"{counted(len(first), 'label')} ({few(first)})" if first else "no label"
    what = f"{none:,} of {len(sets):,} rows have no label, and {len(misfits) - none:,} several"
    advice = "set data.multi_label=true loss=bce for images with several labels or none"
    faults.add(
        "no label, or several", table.rows[misfits[0]], f"{here}, and each image is to have one; {what}: {advice}"
    )


def odd_names(names: Sequence[str], counts: Mapping[str, int], rows: Mapping[str, int]) -> list[str]:
    """A line on classes that look the same, and one on a class that is made of others.

    Args:
        names: of all classes.
        counts, rows: of each its images, and the row where it stands first.
    """
    told, every = [], set(names)
    if near := near_names(names):
        more = f", and {len(near) - 1:,} more such pairs" if len(near) > 1 else ""
        told.append(f"{near_words(near[0], counts, rows)}{more}; write them alike if they are one class")
    for name in names:
        parts = next(([part.strip() for part in name.split(sign)] for sign in SEPARATORS if sign in name), [])
        if parts and every.issuperset(parts):
            beside = " and ".join(map(repr, parts[:2]))
            advice = "set data.multi_label=true loss=bce if it is several labels"
            told.append(f"{name!r} (row {rows[name]}) is a class of its own beside {beside}; {advice}")
            break
    return told


def find_flags(path: Path, taken: Collection[str]) -> list[str]:
    """The columns of a table, beside those that are `taken`, that hold 1 in some cells and 0 in all others."""
    table = read_table(path, lambda names: [name for name in names if name.strip() and name not in taken], Faults(path))
    words = {name: {cell.strip().lower() for cell in cells} for name, cells in table.cells.items()}
    return [name for name, found in words.items() if found & YES and found <= YES | NO]
