"""A folder of photos in one file, as `cnntrain pack` writes it, read in place of the folder (docs/pack.md).

The file: MAGIC; the images, one behind the other; the index; its length, its sha256 and MAGIC again. The index is one
line of JSON, and then for each split of it arrays in little-endian order: the ends of the names in their block (int64),
bytes and crc32 of each image (uint32), the block of names. Images stand in the order in which a folder is listed.
"""

import hashlib
import json
import os
import struct
import weakref
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnntrain.config.paths import is_archive
from cnntrain.data import listing
from cnntrain.data.archive import unpacked
from cnntrain.data.decode import BadImage
from cnntrain.data.folder import FolderSplit
from cnntrain.data.layout import Layout, find_splits
from cnntrain.data.paths import Paths
from cnntrain.errors import DataError
from cnntrain.text import printable

FILE = "images.pack"
MAGIC = b"cnnpack1"
TAIL = struct.Struct("<Q32s8s")  # bytes of the index, its sha256, MAGIC
SPLITS = ("train", "val", "test")
LONGEST = 65_500  # pixels of a side that a JPEG may have
NUMBERS = 8 + 4 + 4  # bytes of an image's numbers in the index


class PackFile:
    """The file, open while anybody reads it; it may be sent to another process.

    Args:
        whole: all of it will be read soon, and the system may begin.
    """

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)
        if whole and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_WILLNEED)

    def __reduce__(self) -> tuple[type["PackFile"], tuple[Path]]:
        return PackFile, (self.path,)

    def read(self, start: int, size: int) -> bytes:
        """Some bytes of it, fewer where it is shorter; any thread may ask."""
        return os.pread(self._handle, size, start)

    @property
    def size(self) -> int:
        """Bytes of it."""
        return os.fstat(self._handle).st_size


class PackedPaths(Paths):
    """The names that the images had before they were packed, and their content out of the pack.

    Args:
        root, block, ends: see Paths.
        file: the pack.
        starts, sizes, checks: where each image begins in it, int64 (N,); its bytes and its crc32, uint32 (N,).
    """

    cure = cure_of_many = "pack the photos anew"
    columns = ("_starts", "_sizes", "_checks")

    def __init__(
        self,
        root: Path,
        block: bytes,
        ends: np.ndarray,
        *,
        file: PackFile,
        starts: np.ndarray,
        sizes: np.ndarray,
        checks: np.ndarray,
    ) -> None:
        super().__init__(root, block, ends)
        self._file, self._starts, self._sizes, self._checks = file, starts, sizes, checks

    def digest(self) -> bytes:
        """See Paths; sha256 of the checksums too: another picture of as many bytes gives another."""
        return hashlib.sha256(super().digest() + self._checks.tobytes()).digest()

    def read(self, index: int) -> bytes:
        """The content of an image; BadImage where it is not what was packed."""
        try:
            content = self._file.read(int(self._starts[index]), int(self._sizes[index]))
        except OSError as error:
            raise BadImage(f"cannot be read in {printable(self._file.path)} ({error.strerror or error})") from None
        if len(content) != self._sizes[index] or zlib.crc32(content) != self._checks[index]:
            raise BadImage(f"damaged in {printable(self._file.path)}, by its checksum")
        return content


@dataclass(frozen=True)
class Pack:
    """What a pack holds: its splits, and how they were made.

    `source` is the folder that was packed, `size` the short side of the images in pixels, `quality` of JPEG.
    """

    source: Path
    layout: Layout
    parts: dict[str, FolderSplit]
    size: int
    quality: int

    @property
    def note(self) -> str:
        """How the images were made, in one line."""
        return f"packed from {printable(self.source)}, short side {self.size} pixels, JPEG quality {self.quality}"

    def scan(self, split: str, names: Collection[str] | None = None) -> FolderSplit:
        """What `folder.scan` lists in the split's folder: of all classes, or of those in `names`."""
        part = self.parts[split]
        return part if names is None else part.select_classes(names)


@dataclass(frozen=True)
class Found:
    """The images below a `data.root`, or in the pack that lies there.

    `source` is the folder that holds the folders of the splits, or has held them; `note` says of a pack what it is, and
    `size` is the short side of its images in pixels. Where a table says more than the folders do, `places` tells what
    it calls each split and `table` its name; `in_shards` tells that they lie in tar files; `notes` and `warnings` are
    what there is to say of it.
    """

    source: Path
    layout: Layout
    scans: dict[str, FolderSplit]
    note: str = ""
    size: int = 0
    places: dict[str, str] = field(default_factory=dict)
    table: str = ""
    in_shards: bool = False
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def no_test(self) -> str:
        """Why there are no test images."""
        if self.table:
            return f"no row of {self.table} is of test"
        return "no shard is of test" if self.in_shards else "there is no test/ folder"


def find_images(
    root: Path, names: Collection[str] | None, classes: Collection[str] | None, say: Callable[[str], object] = print
) -> Found:
    """Find the images of all splits.

    Args:
        root: the folder, or an archive of it.
        say: takes lines of progress.
        names, classes: see `folder.scan`, and `layout.find_splits`.

    Raises:
        DataError, UnsafeError, FileSystemError: see there, `open_pack` and `archive.unpacked`.
    """
    root = unpacked(root, say) if is_archive(root) else root
    if pack := open_pack(root):
        parts = {split: pack.scan(split, names) for split in pack.parts}
        return Found(pack.source, pack.layout, parts, pack.note, pack.size)
    if kept := listing.load(root, names, is_root=True):  # its layout was looked at when it was listed
        return Found(root, Layout({"train": root}), {"train": kept.part}, notes=[f"train: {kept.note}"])
    layout = find_splits(root, classes)
    is_root = not classes and layout.folders == {"train": root}
    scans, notes = {}, []
    for split, folder in layout.folders.items():
        kept = None if is_root else listing.load(folder, names)
        scans[split] = kept.part if kept else listing.scan(folder, split, names, say, is_root=is_root)
        notes += [f"{split}: {kept.note}"] if kept else []
    return Found(root, layout, scans, notes=notes)


def open_pack(root: Path) -> Pack | None:
    """The pack in a folder; None where there is none.

    Raises:
        DataError: it cannot be read, is damaged or none of ours.
    """
    path = root / FILE
    if not os.path.isfile(path):
        return None
    try:
        return _read(path)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror or error}); mend that") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        reason = str(error) if isinstance(error, _DamageError) else "its index makes no sense"
        raise DataError(f"{printable(path)}: {reason}; pack the photos anew") from None


class _DamageError(ValueError):
    """What is wrong with a file, in words of ours."""


def _read(path: Path) -> Pack:
    file = PackFile(path)
    if file.read(0, len(MAGIC)) != MAGIC:
        raise _DamageError("is no file of cnntrain pack")
    end = file.size - TAIL.size
    tail = file.read(end, TAIL.size) if end > len(MAGIC) else b""
    if len(tail) < TAIL.size or tail[-len(MAGIC) :] != MAGIC:
        raise _DamageError("is cut short")
    length, digest, _ = TAIL.unpack(tail)
    if not 0 < length <= end - len(MAGIC):
        raise _DamageError("its index is damaged")
    index = _read_whole(file, end - length, length)
    if hashlib.sha256(index).digest() != digest:
        raise _DamageError("its index is damaged")
    return _parse(index, file, end - length)


def _read_whole(file: PackFile, start: int, size: int) -> bytes:
    """Bytes that one call of the system need not give at once."""
    content = file.read(start, size)
    while len(content) < size and (more := file.read(start + len(content), size - len(content))):
        content += more
    return content


def _parse(index: bytes, file: PackFile, end: int) -> Pack:
    """What an index says of the images before `end`; errors of many classes where it was made by no pack of ours."""
    at = index.index(b"\n") + 1
    plain: dict[str, Any] = json.loads(index[:at])
    source = Path(_text(plain["source"]))
    layout, parts, start = Layout({}), {}, len(MAGIC)
    for split, entry in plain["splits"].items():
        classes = [printable(_text(name)) for name in _list(entry["classes"])]
        counts = [_number(count, len(index)) for count in _list(entry["counts"])]
        count, names = sum(counts), _number(entry["names"], len(index))
        is_sound = split in SPLITS and all(classes) and len(set(classes)) == len(classes) == len(counts)
        if not is_sound or count * NUMBERS > len(index):
            raise ValueError
        ends = np.frombuffer(index, "<i8", count, at)
        sizes, checks = (np.frombuffer(index, "<u4", count, at + count * skip) for skip in (8, 12))
        at += count * NUMBERS
        lengths, starts = np.diff(ends, prepend=0), start + np.cumsum(sizes, dtype=np.int64)
        if lengths.min() < 1 or ends[-1] != names:
            raise ValueError
        layout.folders[split] = source / _text(entry["folder"])
        begins = np.concatenate([[start], starts[:-1]])
        block, start = index[at : at + names], int(starts[-1])
        at += names
        paths = PackedPaths(layout.folders[split], block, ends, file=file, starts=begins, sizes=sizes, checks=checks)
        labels = torch.repeat_interleave(torch.tensor(counts))
        parts[split] = FolderSplit(classes, paths, labels, torch.from_numpy(sizes.astype(np.int64)))
    if not parts or at != len(index) or start != end:
        raise ValueError
    return Pack(source, layout, parts, _number(plain["size"], LONGEST), _number(plain["quality"], 100))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return os.fsdecode(os.fsencode(value))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:  # a bool is none
        raise ValueError
    return value
