"""A folder of class folders as a list of files and labels."""

import hashlib
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnntrain.data.decode import looks_like_image
from cnntrain.data.labels import class_counts, is_sets, renumber
from cnntrain.data.layout import SORT, SUFFIXES, entries, folder_error, is_clutter, is_dir
from cnntrain.data.paths import Paths
from cnntrain.errors import DataError
from cnntrain.text import counted, printable

# Photos, but not for Pillow.
UNREADABLE = (".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2")
MOST_KINDS = 8  # of ignored entries that are told
SECONDS = 5  # between two lines of progress
LOOKED_INTO = 1000  # files of each unknown suffix, before the others are taken to be what all of these are


@dataclass
class FolderSplit:
    """The images of one split, sorted by class and path; those in shards as they lie there.

    Attributes:
        by_table: a table gives them labels, groups and weights, which the paths do not tell.
    """

    classes: list[str]
    paths: Paths
    labels: Tensor  # int64 (N,), indices into `classes`; or bool (N, K), see data/labels.py
    sizes: Tensor  # int64 (N,), bytes of each file
    skip_counts: Counter[str] = field(default_factory=Counter)  # kinds of skipped entries
    loss_counts: Counter[str] = field(default_factory=Counter)  # files of each class that are skipped for what they are
    left_out: list[str] = field(default_factory=list)  # classes that are there and not wanted
    by_table: bool = False
    groups: Tensor | None = None  # int64 (N,), numbers of what must not be parted
    weights: Tensor | None = None  # float64 (N,), how often each is to be shown, as parts of their sum
    folds: Tensor | None = None  # int64 (N,), the fold of each, where a table has folds

    def take(self, indices: Tensor) -> "FolderSplit":
        """A part of the images, int64 indices."""
        return FolderSplit(
            self.classes,
            self.paths.take(indices),
            self.labels[indices],
            self.sizes[indices],
            by_table=self.by_table,
            groups=None if self.groups is None else self.groups[indices],
            weights=None if self.weights is None else self.weights[indices],
            folds=None if self.folds is None else self.folds[indices],
        )

    def without_gaps(self) -> "FolderSplit":
        """The same images without the classes that none of them is of, which a table may have for other splits."""
        there = class_counts(self.labels, len(self.classes)).nonzero().flatten()
        if len(there) == len(self.classes):
            return self
        return self.select_classes([self.classes[place] for place in there.tolist()])

    def content(self) -> Iterator[bytes | memoryview]:
        """What makes these images these: paths, sizes, and what a table says of them. Not of a taken part."""
        yield self.paths.digest()
        yield self.sizes.numpy().data
        if self.by_table:
            yield repr(self.classes).encode()
            told = (self.labels, self.groups, self.weights, self.folds)
            yield from (np.ascontiguousarray(values.numpy()).data for values in told if values is not None)

    def select_classes(self, names: Collection[str]) -> "FolderSplit":
        """The images of the classes among `names`; the others are left out."""
        places = [place for place, name in enumerate(self.classes) if name in names]
        numbers = torch.full((len(self.classes),), -1)
        numbers[places] = torch.arange(len(places))
        labels = renumber(self.labels, numbers, len(places))
        rows = torch.arange(len(labels)) if is_sets(labels) else (labels >= 0).nonzero().squeeze(1)
        classes = [self.classes[place] for place in places]
        left_out = [name for name in self.classes if name not in names]
        return replace(self.take(rows), classes=classes, labels=labels[rows], left_out=left_out)


def scan(
    folder: Path,
    split: str,
    names: Collection[str] | None = None,
    say: Callable[[str], object] = lambda line: None,
    times: dict[str, int] | None = None,
) -> FolderSplit:
    """List the images of one split: a sub folder is a class, folders inside it are part of it.

    Args:
        names: names of classes, the others are passed over; None: all.
        say: takes a line of progress every few seconds.
        times: takes the folders that are listed, told from `folder`, with when each was changed last (st_mtime_ns).

    Raises:
        DataError: no class folders, or one without images.
    """
    images = Images()
    skip_counts, loss_counts = images.skip_counts, Counter[str]()
    classes: list[str] = []
    left_out: list[str] = []
    block, ends, sizes, counts = bytearray(), array("q"), array("q"), array("q")  # an object for each would be large
    line_time, start = time.monotonic() + SECONDS, len(str(folder)) + 1
    changed = _time_of(folder)
    for entry in entries(folder):
        name = printable(os.fsencode(entry.name))
        if is_clutter(entry.name):
            skip_counts["hidden or system entry"] += 1
        elif not is_dir(entry):
            kind = "image" if _suffix(entry.name) in SUFFIXES else "file"
            skip_counts[f"{kind} outside the class folders"] += 1
        elif names is not None and name not in names:
            left_out.append(name)
        else:
            before, drops_before, skips_before = len(ends), images.drop_count, skip_counts.copy()
            for path, size in images.below(entry.path):
                block += os.fsencode(path[start:])
                ends.append(len(block))
                sizes.append(size)
                if time.monotonic() > line_time:
                    line_time += SECONDS
                    say(f"{split}: {counted(len(ends), 'image')} listed")
            loss_counts[name] = images.drop_count - drops_before
            if len(ends) == before:
                there = kinds(skip_counts - skips_before) or "no other files"
                raise DataError(
                    f"{printable(entry.path)}: the class folder holds no images ({there}); fill it or remove it"
                )
            counts.append(len(ends) - before)
            classes.append(name)
    if not classes and not left_out:
        raise DataError(f"{printable(folder)}: the {split} split has no class folders; {SORT}")
    if times is not None:
        times.update({"": changed} | {path[start:]: value for path, value in images.times.items()})
    paths = Paths(folder, bytes(block), np.array(ends))
    return FolderSplit(
        classes,
        paths,
        torch.repeat_interleave(torch.tensor(counts, dtype=torch.int64)),
        torch.from_numpy(np.array(sizes)),
        skip_counts,
        loss_counts,
        left_out,
    )


def _time_of(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError as error:
        raise folder_error(folder, error) from None


class Images:
    """Finds image files by their suffix, and by their content where the suffix says nothing.

    Attributes:
        skip_counts: kinds of what was skipped, and how often.
        drop_count: files that were skipped for what they are: no images, dead links.
        times: the folders that were listed, and when each was changed last (st_mtime_ns, asked for before that).
    """

    def __init__(self) -> None:
        self.skip_counts: Counter[str] = Counter()
        self.drop_count = 0
        self.times: dict[str, int] = {}
        self._looks: dict[str, Counter[bool]] = {}  # by suffix, of the files that were looked into

    def below(self, folder: str) -> Iterator[tuple[str, int]]:
        """Image files at any depth, sorted, with their sizes. A folder reached twice (a loop of links) counts once.

        Raises:
            DataError: a folder that cannot be entered.
        """
        visits: set[tuple[int, int]] = set()
        queue = [folder]
        while queue:
            folder = queue.pop()
            try:
                status = os.stat(folder)
            except OSError as error:
                raise folder_error(folder, error) from None
            if (status.st_dev, status.st_ino) in visits:
                self.skip_counts["folder reached twice by a link"] += 1
                continue
            visits.add((status.st_dev, status.st_ino))
            self.times[folder] = status.st_mtime_ns
            inner = []
            groups = entries(folder)[::-1]
            while groups:
                entry = groups.pop()  # what is done with goes: each keeps its status
                if is_clutter(entry.name):
                    self.skip_counts["hidden or system entry"] += 1
                elif is_dir(entry):
                    inner.append(entry.path)
                elif (size := self._size(entry, folder)) is not None:
                    yield entry.path, size
            queue += reversed(inner)

    def _size(self, entry: os.DirEntry[str], folder: str) -> int | None:
        """The bytes of an image file; None for any other, which is counted."""
        kind = ""
        try:
            if not entry.is_file():
                kind = "dead link or special file"
            elif (suffix := _suffix(entry.name)) not in SUFFIXES and not self._is_image(entry.path, suffix):
                kind = f"{suffix} file" if suffix else "file without suffix"
                kind += ", to be converted to JPEG first" if suffix in UNREADABLE else " that is no image"
            else:
                return entry.stat().st_size
        except PermissionError as error:
            raise folder_error(folder, error) from None
        except OSError:  # a link to itself, or gone since it was listed
            kind = "dead link or special file"
        self.skip_counts[kind] += 1
        self.drop_count += 1
        return None

    def _is_image(self, path: str, suffix: str) -> bool:
        looks = self._looks.setdefault(suffix, Counter())
        if looks.total() >= LOOKED_INTO and len(looks) == 1:  # a million of annotations are not opened one by one
            return looks[True] > 0
        answer = looks_like_image(Path(path))
        looks[answer] += 1
        return answer


def kinds(counts: Counter[str]) -> str:
    """`12 x .heic file that is no image, 3 x hidden or system entry`; of many kinds the most frequent ones."""
    words = [f"{count:,} x {kind}" for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([*words[:MOST_KINDS], *([f"{len(words) - MOST_KINDS} more kinds"] if words[MOST_KINDS:] else [])])


def _suffix(name: str) -> str:
    """`.jpg`, in small letters; empty where the last part of the name is none, such as in `image.0001`."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if suffix[1:].isalnum() and not suffix[1:].isdecimal() and len(suffix) <= 16 else ""


def align(split: FolderSplit, classes: list[str], name: str, *, allow_missing: bool) -> FolderSplit:
    """The same images with labels that count in `classes`.

    Args:
        split: as scanned.
        classes: the names that the network's outputs stand for.
        name: of the split, for the message.
        allow_missing: a class without images is allowed.

    Raises:
        DataError: names the classes that are missing or extra.
    """
    if split.classes == classes:
        return split
    strangers = sorted(set(split.classes) - set(classes))
    gaps = sorted(set(classes) - set(split.classes))
    where = f"{printable(split.paths.root)}: the {name} split"
    if not split.classes:
        raise DataError(f"{where} has none of {_class_names(classes)}; add images of them")
    if strangers:
        raise DataError(
            f"{where} has {_class_names(strangers)}, not among the known {_class_names(classes)}; "
            "rename or remove the folder, or choose other data"
        )
    if gaps and not allow_missing:
        raise DataError(f"{where} lacks {_class_names(gaps)}; add images of it, or remove it from the other splits")
    positions = torch.tensor([classes.index(name) for name in split.classes])
    return replace(split, classes=classes, labels=renumber(split.labels, positions, len(classes)))


def _class_names(names: list[str]) -> str:
    text = ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"class {text}" if len(names) == 1 else f"classes {text}"


def fingerprint(splits: dict[str, FolderSplit]) -> str:
    """sha256 over split names, paths, file sizes and what a table says: another list gives another fingerprint."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        digest.update(name.encode())
        for part in splits[name].content():
            digest.update(part)
    return digest.hexdigest()
