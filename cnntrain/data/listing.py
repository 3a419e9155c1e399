"""The list of a large folder's images, kept in the user's cache: a million files are listed once, not for each command.

It is trusted as long as no folder has another time of change than when it was listed: a file that comes, goes or gets
another name changes that of its folder. One that is written over in place does not, and nor do its bytes count then.

The file: MAGIC; one line of JSON; where each name ends in the block of names (uint32, little-endian, as all numbers
here), the bytes of each image (int64), that block; the sha256 of all before it. Images stand class by class.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from cnntrain.config.paths import cache_dir
from cnntrain.data import folder as image_folder
from cnntrain.data.folder import FolderSplit
from cnntrain.data.layout import CLUTTER, SUFFIXES
from cnntrain.data.paths import Paths
from cnntrain.errors import CnntrainError
from cnntrain.storage.atomic import StreamedFile, open_own
from cnntrain.text import printable

MAGIC = b"cnnlist1"
LEAST = 10_000  # images of a list that is kept: fewer are listed in no time
MOST_FOLDERS = 100_000  # of a list that is kept: to ask for the time of more takes as long as to list them
LONGEST = 64 << 20  # bytes of the line
NUMBERS = 4 + 8  # bytes of an image's numbers
DIGEST = 32  # bytes
SETTLED = 2_000_000_000  # ns for which a folder must be unchanged: some file systems count time in steps of 2 seconds


@dataclass(frozen=True)
class Kept:
    """A split as it was listed earlier, and the file that tells so."""

    part: FolderSplit
    file: Path

    @property
    def note(self) -> str:
        """Where it comes from, in one line."""
        return f"listed earlier, kept in {printable(self.file)}"


def scan(
    folder: Path,
    split: str,
    names: Collection[str] | None,
    say: Callable[[str], object] = lambda line: None,
    *,
    is_root: bool = False,
) -> FolderSplit:
    """See folder.scan; a long list is kept, and one that cannot be written only costs the next command its time.

    Args:
        is_root: the folder was found to hold classes and no splits without knowing any name of a class.
    """
    times: dict[str, int] = {}
    begun = time.time_ns()
    part = image_folder.scan(folder, split, names, say, times)
    is_settled = max(times.values()) < begun - SETTLED  # else it may change once more at what is the same time
    if len(part.labels) >= LEAST and is_settled and len(times) <= MOST_FOLDERS:
        with suppress(OSError, CnntrainError):
            _save(cache_file(folder, names, is_root=is_root), part, times)
    return part


def cache_file(folder: Path, names: Collection[str] | None, *, is_root: bool = False) -> Path:
    """The file that a list has, by what decides it."""
    chosen = None if names is None else sorted(names)
    parts = (os.fsencode(os.path.abspath(folder)), chosen, is_root, SUFFIXES, CLUTTER)
    return cache_dir() / "lists" / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.list"


def load(folder: Path, names: Collection[str] | None, *, is_root: bool = False) -> Kept | None:
    """The images of a folder as they were listed earlier; None where that is not kept, not whole, or no longer true."""
    path = cache_file(folder, names, is_root=is_root)
    try:
        with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            return Kept(_read(file, folder), path)
    except OSError:
        return None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, MemoryError):
        return None


def _save(path: Path, part: FolderSplit, times: dict[str, int]) -> None:
    block, ends = part.paths.block
    if len(block) >= 1 << 32:
        return
    plain = {
        "classes": part.classes,
        "counts": part.labels.bincount(minlength=len(part.classes)).tolist(),
        "names": len(block),
        "skipped": part.skip_counts,
        "lost": part.loss_counts,
        "left_out": part.left_out,
        "times": times,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with StreamedFile(path) as file:
        numbers = ends.astype("<u4").tobytes(), part.sizes.numpy().astype("<i8", copy=False).tobytes()
        for content in (MAGIC, json.dumps(plain).encode() + b"\n", *numbers, block):
            file.write(content)
            digest.update(content)
        file.write(digest.digest())


def _read(file: BinaryIO, folder: Path) -> FolderSplit:
    """What a file tells; an error of one of many classes where it is damaged, none of ours, or no longer true."""
    head, line = file.read(len(MAGIC)), file.readline(LONGEST)
    if head != MAGIC:
        raise ValueError
    plain: dict[str, Any] = json.loads(line)
    times = {_text(name): int(value) for name, value in plain["times"].items()}
    for name, value in times.items():
        if os.stat(folder / name).st_mtime_ns != value:
            raise ValueError
    classes, left_out = ([_text(name) for name in plain[key]] for key in ("classes", "left_out"))
    counts = torch.tensor(plain["counts"], dtype=torch.int64)
    images, names = int(counts.sum()), int(plain["names"])
    size = len(MAGIC) + len(line) + images * NUMBERS + names + DIGEST
    if min(images, names) < 1 or os.fstat(file.fileno()).st_size != size:  # before memory is taken for it
        raise ValueError
    if int(counts.min()) < 1 or len(set(classes)) != len(classes) or len(classes) != len(counts):
        raise ValueError
    numbers = bytearray(images * 4), bytearray(images * 8)
    for part in numbers:
        file.readinto(part)  # type: ignore[attr-defined]
    block = file.read(names)
    digest = hashlib.sha256(head)
    for content in (line, *numbers, block):
        digest.update(content)
    if file.read() != digest.digest():
        raise ValueError
    ends, sizes = np.frombuffer(numbers[0], "<u4"), torch.from_numpy(np.frombuffer(numbers[1], "<i8"))
    if ends[-1] != names or ends[0] < 1 or not (ends[1:] > ends[:-1]).all() or int(sizes.min()) < 0:
        raise ValueError
    return FolderSplit(
        classes,
        Paths(folder, block, ends),
        torch.repeat_interleave(counts),
        sizes,
        _counter(plain["skipped"]),
        _counter(plain["lost"]),
        left_out,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _counter(value: dict[str, Any]) -> Counter[str]:
    return Counter({_text(name): int(count) for name, count in value.items()})
