"""A folder of class folders as a list of files and labels."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnntrain.errors import DataError
from cnntrain.paths import need_image_folder, shown

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
CLUTTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # beside everything that begins with a dot
VAL_NAMES = ("val", "valid", "validation")
SPLIT_NAMES = ("train", *VAL_NAMES, "test")


class Paths:
    """File paths below a folder, held as one block of bytes: a million of them cost about 50 MB, not 200."""

    def __init__(self, root: Path, block: bytes, ends: np.ndarray, begins: np.ndarray | None = None) -> None:
        self.root, self._block, self._ends = root, block, ends
        self._begins = np.concatenate([[0], ends[:-1]]) if begins is None else begins

    @classmethod
    def join(cls, root: Path, relative: list[bytes]) -> "Paths":
        """From a list of paths below `root`."""
        return cls(root, b"".join(relative), np.cumsum([len(path) for path in relative], dtype=np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Path:
        return self.root / os.fsdecode(self._block[self._begins[index] : self._ends[index]])

    def take(self, indices: Tensor) -> "Paths":
        """The chosen paths, sharing the block."""
        return Paths(self.root, self._block, self._ends[indices.numpy()], self._begins[indices.numpy()])

    def digest(self) -> bytes:
        """sha256 of a whole list (not of a taken part)."""
        return hashlib.sha256(self._ends.tobytes() + self._block).digest()

    def chosen(self) -> bytes:
        """sha256 of which paths of a whole list these are."""
        return hashlib.sha256(self._begins.tobytes()).digest()


@dataclass
class FolderSplit:
    """The images of one split, sorted by class and path."""

    classes: list[str]
    paths: Paths
    labels: Tensor  # int64 (N,), indices into `classes`
    sizes: Tensor  # int64 (N,), bytes of each file
    ignored: Counter[str] = field(default_factory=Counter)  # kinds of skipped entries

    def take(self, indices: Tensor) -> "FolderSplit":
        """A part of the images, int64 indices."""
        return FolderSplit(self.classes, self.paths.take(indices), self.labels[indices], self.sizes[indices])


def find_splits(root: Path) -> dict[str, Path]:
    """The folders of `train`, `val` and `test` below `root`; one folder of class folders is all `train`.

    Raises:
        DataError: no such folder.
    """
    need_image_folder(root)
    names = {entry.name for entry in _entries(root) if _is_dir(entry) and not _is_clutter(entry.name)}
    if not names & set(SPLIT_NAMES) or ("train" not in names and names - set(SPLIT_NAMES)):
        return {"train": root}
    found: dict[str, Path] = {name: root / name for name in ("train", "test") if name in names}
    named_val = [name for name in VAL_NAMES if name in names]
    if len(named_val) > 1:
        raise DataError(f"data.root: {shown(root)} holds both {named_val[0]}/ and {named_val[1]}/; keep one of them")
    if named_val:
        found["val"] = root / named_val[0]
    return found


def scan(folder: Path, split: str) -> FolderSplit:
    """List the images of one split: a sub folder is a class, folders inside it are part of it.

    Raises:
        DataError: no class folders, or one without images.
    """
    ignored: Counter[str] = Counter()
    classes: list[str] = []
    relative: list[bytes] = []
    labels: list[int] = []
    sizes: list[int] = []
    for entry in _entries(folder):
        if _is_clutter(entry.name):
            ignored["hidden or system entry"] += 1
        elif not _is_dir(entry):
            ignored["file outside the class folders"] += 1
        else:
            before = len(relative)
            for path, size in images_below(entry.path, ignored):
                relative.append(os.fsencode(path[len(str(folder)) + 1 :]))
                sizes.append(size)
            if len(relative) == before:
                raise DataError(
                    f"{shown(entry.path)}: the class folder holds no images ({', '.join(SUFFIXES)}); "
                    "fill it or remove it"
                )
            labels += [len(classes)] * (len(relative) - before)
            classes.append(shown(os.fsencode(entry.name)))
    if not classes:
        raise DataError(
            f"{shown(folder)}: the {split} split has no class folders; "
            "put the images of each class into a folder of its name"
        )
    return FolderSplit(classes, Paths.join(folder, relative), torch.tensor(labels), torch.tensor(sizes), ignored)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be read ({error.strerror}); mend its permissions") from None


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in CLUTTER


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def images_below(folder: str, ignored: Counter[str]) -> Iterator[tuple[str, int]]:
    """Image files at any depth, sorted, with their sizes. A folder reached twice (a loop of links) counts once."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            ignored["folder reached twice by a link"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        inner = []
        for entry in _entries(folder):
            if _is_dir(entry) and not _is_clutter(entry.name):
                inner.append(entry.path)
            elif kind := _not_an_image(entry):
                ignored[kind] += 1
            else:
                yield entry.path, entry.stat().st_size
        waiting += reversed(inner)


def _not_an_image(entry: os.DirEntry[str]) -> str:
    """Why an entry is skipped, or an empty string."""
    if _is_clutter(entry.name):
        return "hidden or system entry"
    if not entry.name.lower().endswith(SUFFIXES):
        return "file that is no image"
    try:
        return "" if entry.is_file() else "dead link or special file"
    except OSError:
        return "dead link or special file"


def align(split: FolderSplit, classes: list[str], name: str, *, partial: bool) -> FolderSplit:
    """The same images with labels that count in `classes`.

    Args:
        split: as scanned.
        classes: the names that the network's outputs stand for.
        name: of the split, for the message.
        partial: a class without images is allowed.

    Raises:
        DataError: names the classes that are missing or extra.
    """
    if split.classes == classes:
        return split
    extra = sorted(set(split.classes) - set(classes))
    missing = sorted(set(classes) - set(split.classes))
    where = f"{shown(split.paths.root)}: the {name} split"
    if extra:
        raise DataError(
            f"{where} has {_class_names(extra)}, not among the {len(classes)} classes of the training data; "
            "rename or remove the folder"
        )
    if missing and not partial:
        raise DataError(f"{where} lacks {_class_names(missing)}; add images of it, or remove it from the other splits")
    positions = torch.tensor([classes.index(name) for name in split.classes])
    return FolderSplit(classes, split.paths, positions[split.labels], split.sizes, split.ignored)


def _class_names(names: list[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"class {listed}" if len(names) == 1 else f"classes {listed}"


def fingerprint(splits: dict[str, FolderSplit]) -> str:
    """sha256 over split names, paths and file sizes: another file list gives another fingerprint."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        digest.update(name.encode() + splits[name].paths.digest() + splits[name].sizes.numpy().tobytes())
    return digest.hexdigest()
