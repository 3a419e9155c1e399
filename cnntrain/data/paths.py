"""The paths of images, a million of them in one block of bytes, and what is read by them."""

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from torch import Tensor

from cnntrain.data.decode import decode_image, read_file
from cnntrain.errors import CnntrainError, ImageError
from cnntrain.text import printable

CHUNK = 1 << 16  # numbers that are made wider at once
P = TypeVar("P", bound="Paths")


class Paths:
    """File paths below a folder, held as one block of bytes: a million of them cost about 35 MB, not 200.

    Attributes:
        cure, cure_of_many: what to do about a file that is no good image, and about many.
        columns: of a kind of paths, the names of its arrays that have a number for each image.

    Args:
        root: the folder.
        block: all paths, one behind the other.
        ends: where each ends in the block, int64 (N,).
    """

    cure, cure_of_many = "mend or remove the file", "mend the files"
    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: Path, block: bytes, ends: np.ndarray) -> None:
        self._set(root, block, ends)

    def _set(self, root: Path, block: bytes, ends: np.ndarray) -> None:
        self.root, self._block = root, block
        self._raw_root = os.fsencode(root)
        kind = np.uint32 if len(block) < 1 << 32 else np.int64
        self._ends: np.ndarray = ends.astype(kind, copy=False)
        self._begins: np.ndarray = np.roll(self._ends, 1)
        self._begins[:1] = 0

    @classmethod
    def join(cls, root: Path, relative: list[bytes]) -> "Paths":
        """From a list of paths below `root`."""
        return cls(root, b"".join(relative), np.cumsum([len(path) for path in relative], dtype=np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Path:
        return self.root / os.fsdecode(self.relative(index))

    @property
    def place(self) -> str:
        """Where the images are, for people."""
        return f"{self.root.name}/"

    @property
    def block(self) -> tuple[bytes, np.ndarray]:
        """All names of a whole list behind one another, and where each ends."""
        return self._block, self._ends

    def relative(self, index: int) -> bytes:
        """A path below the root, as the system has it."""
        return self._block[self._begins[index] : self._ends[index]]

    def read(self, index: int) -> bytes:
        """The content of a file; BadImage where there is none."""
        return read_file(os.path.join(self._raw_root, self.relative(index)))  # a Path would be ten times the work

    def pixels(self, index: int, channels: int) -> Tensor:
        """An image, uint8 (H, W, channels); BadImage where it cannot be decoded."""
        return decode_image(self.read(index), channels)

    def fault(self, index: int, reason: str) -> CnntrainError:
        """The fault of an image that cannot be decoded and may not be skipped."""
        return ImageError(f"{printable(self[index])}: {reason}; {self.cure}, or set data.on_bad_image=skip")

    def take(self: P, indices: Tensor) -> P:
        """The chosen paths, sharing the block."""
        twin, rows = copy.copy(self), indices.numpy()
        for name in ("_begins", "_ends", *self.columns):
            setattr(twin, name, getattr(self, name)[rows])
        return twin

    def name_from(self, folder: Path) -> Callable[[int], bytes]:
        """What tells a path from another folder, by the index of the image."""
        prefix = os.path.relpath(self._raw_root, os.fsencode(folder))
        start = b"" if prefix == b"." else os.path.join(prefix, b"")

        def name(index: int) -> bytes:
            path = self.relative(index)
            return path if path.startswith(b"/") else start + path

        return name

    def names(self, folder: Path) -> Iterator[bytes]:
        """The paths, told from another folder."""
        return map(self.name_from(folder), range(len(self)))

    @staticmethod
    def collect(root: Path, parts: "Sequence[Paths]", order: Tensor) -> "Paths":
        """Some paths of several lists as one whole list, told from `root`; `order` counts through all of them.

        Args:
            parts: lists of one kind, and of one data set.
        """
        names = [name for paths in parts for name in paths.names(root)]
        chosen = [names[index] for index in order.tolist()]
        whole = copy.copy(parts[0])
        whole._set(root, b"".join(chosen), np.cumsum([len(name) for name in chosen], dtype=np.int64))
        for name in whole.columns:
            setattr(whole, name, np.concatenate([getattr(paths, name) for paths in parts])[order.numpy()])
        return whole

    def digest(self) -> bytes:
        """sha256 of a whole list (not of a taken part)."""
        digest = _digest_of(self._ends)
        digest.update(self._block)
        return digest.digest()

    def selection_digest(self) -> bytes:
        """sha256 of which paths of a whole list these are."""
        return _digest_of(self._begins).digest()


def _digest_of(numbers: np.ndarray) -> "hashlib._Hash":
    """sha256 of numbers as int64, however they are held."""
    digest = hashlib.sha256()
    for start in range(0, len(numbers), CHUNK):
        digest.update(numbers[start : start + CHUNK].astype(np.int64).tobytes())
    return digest
