"""The labels of all shards together: which names of classes they stand for, and what is wrong with them."""

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnntrain.config.schema.data import DataSettings
from cnntrain.data.labels import LONGEST_LABEL, sort_classes
from cnntrain.data.shard_index import Label, index_shard
from cnntrain.errors import DataError, DataErrors
from cnntrain.text import counted, few, printable, shorten

NAMES = "classes.txt"  # beside the shards: the name of each number, one in a line
MOST_OF_A_KIND = 5  # samples that are named of each kind of fault
WIDEST = 1000  # columns of a line about one: names in tar files may be long
SECONDS = 5.0  # between two lines of progress


@dataclass
class Shard:
    """A file, and what is in it.

    Attributes:
        block, ends: the names of its images, one behind the other.
        starts, sizes: of each where it begins, and its bytes, int64 (N,).
        labels: as they stand there.
        classes: their classes, int64 (N,); -1 for one that is not wanted.
    """

    path: Path
    split: str
    block: bytes = b""
    ends: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: list[Label] = field(default_factory=list)
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def name(self, row: int) -> bytes:
        """The name of an image in its shard."""
        return self.block[self.ends[row - 1] if row else 0 : self.ends[row]]


class ShardFaults:
    """What is wrong with the samples, told all together: of each kind the first ones, and how many more."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, shard: Path, key: str, text: str) -> None:
        """Note a fault.

        Args:
            kind: of the samples that are left untold, such as `damaged shards`.
            key: of the sample; empty of the shard as a whole.
        """
        where = f"{printable(shard)}: {key}: " if key else f"{printable(shard)}: "
        self._found[kind].append(where + text)

    def raise_all(self) -> None:
        """Raises DataErrors with all that was noted, if there is something."""
        lines = []
        for kind, found in self._found.items():
            lines += [shorten(line, WIDEST) for line in found[:MOST_OF_A_KIND]]
            if (more := len(found) - MOST_OF_A_KIND) > 0:
                lines.append(f"data.root: and {more:,} more: {kind}")
        if lines:
            raise DataErrors(lines)


@dataclass
class Names:
    """The classes of all shards.

    Attributes:
        classes: those that are there, in their order.
        left_out: those that are not wanted.
        notes: where their names come from.
    """

    classes: list[str]
    left_out: list[str]
    notes: list[str]


def read_indices(shards: Sequence[Shard], faults: ShardFaults, say: Callable[[str], object]) -> str:
    """Find the images of all shards; a line on what was passed over, empty where nothing was."""
    other, last_line = 0, time.monotonic()
    for count, shard in enumerate(shards):
        index = index_shard(shard.path)
        for fault in index.faults:
            faults.add(fault.kind, shard.path, fault.key, fault.text)
        names = list(map(os.fsencode, index.names))
        shard.block, shard.ends = b"".join(names), np.cumsum([len(name) for name in names], dtype=np.int64)
        shard.starts, shard.sizes = np.array(index.starts, np.int64), np.array(index.sizes, np.int64)
        shard.labels = [sys.intern(label) if isinstance(label, str) else label for label in index.labels]
        other += index.other
        if time.monotonic() - last_line > SECONDS:
            last_line = time.monotonic()
            say(f"reading what the shards hold: {count + 1:,} of {len(shards):,}")
    return f"{counted(other, 'sample')} without an image and without a label passed over" if other else ""


def name_labels(
    shards: Sequence[Shard], source: Path, settings: DataSettings, known: Collection[str] | None, faults: ShardFaults
) -> Names:
    """Give each label the class that it stands for.

    Args:
        source: the folder of the shards.
        known: the classes of a trained network, which alone may be there; None: any.
        faults: is told of labels that stand for none.

    Raises:
        DataErrors: all faults, those that were noted before too.
        DataError: there is but one class, or none that is wanted.
    """
    labels = {label for shard in shards for label in shard.labels}
    names, origin = _names_of_numbers(labels, source, settings)
    class_of = {label: _class_of(label, labels, names, origin) for label in labels}
    wanted = settings.classes
    left_out = {name for name, _ in class_of.values() if name and wanted is not None and name not in wanted}
    learnt = {class_of[label][0] for shard in shards if shard.split == "train" for label in shard.labels}
    allowed = learnt - {""} if known is None else set(known)
    for shard in shards:
        for row, label in enumerate(shard.labels):
            name, fault = class_of[label]
            if not fault and allowed and name not in allowed and name not in left_out:
                where = "among those of the network" if known is not None else "in train"
                mended = "take the sample out"
                if known is not None and not names and isinstance(label, int):
                    mended = f"put the {NAMES} of its training beside the shards, or {mended}"
                fault = f"class {name!r} is in {shard.split} and not {where}; {mended}"
            if fault:
                kind = "samples of other classes" if name else "labels that stand for no class"
                faults.add(kind, shard.path, printable(shard.name(row)), fault)
    faults.raise_all()
    there = {name for name, _ in class_of.values()} - left_out
    classes = [name for name in names if name in there] if names else sort_classes(there)
    if not classes:
        raise DataError(f"data.classes: no image is of {few(wanted or [])}; leave it out")
    if len(classes) + len(left_out) < 2 and known is None:
        raise DataError(f"data.root: {classes[0]!r} is the only class in the shards; it takes two classes or more")
    numbers = {name: number for number, name in enumerate(classes)}
    codes = {label: numbers.get(name, -1) for label, (name, _) in class_of.items()}
    for shard in shards:
        shard.classes = np.fromiter((codes[label] for label in shard.labels), np.int64, len(shard.labels))
    return Names(classes, sort_classes(left_out), [f"class names: {origin}"] if names else [])


def _names_of_numbers(labels: Collection[Label], source: Path, settings: DataSettings) -> tuple[list[str], str]:
    """The name of each number, and where they stand; nothing where numbers are their own names."""
    file = source / NAMES
    try:
        content = file.read_text(encoding="utf-8-sig", errors="surrogateescape") if file.is_file() else ""
    except OSError as error:
        raise DataError(f"{printable(file)}: cannot be read ({error.strerror}); mend that") from None
    if names := [printable(line.strip()) for line in content.splitlines() if line.strip()]:
        if (longest := max(map(len, names))) > LONGEST_LABEL:
            raise DataError(f"{printable(file)}: a line of {longest:,} letters is no class; give each class one line")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"{printable(file)}: {few(map(repr, twice))} stand there twice; give each class one line")
        return names, NAMES
    numbers = {str(label) for label in labels if isinstance(label, int)}
    if settings.classes and len(numbers) == len(labels) and not set(settings.classes) <= numbers:
        return list(settings.classes), "data.classes"
    return [], ""


def _class_of(label: Label, labels: Collection[Label], names: Sequence[str], origin: str) -> tuple[str, str]:
    """The class that a label stands for, and what is wrong with it; one of the two is empty."""
    if isinstance(label, int):
        if names and not 0 <= label < len(names):
            return "", f"the label {label} is out of range: {origin} names {len(names)} classes, 0 to {len(names) - 1}"
        if label < 0:
            return "", f"the label {label} is below 0; take the sample out, or give it a class"
        return names[label] if names else str(label), ""
    if names:
        return (label, "") if label in names else ("", f"the label {label!r} is none of the names in {origin}")
    if any(isinstance(other, int) for other in labels):
        return "", f"the label {label!r} is a name, and others are numbers; name the numbers in {NAMES}"
    return label, ""
