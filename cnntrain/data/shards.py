"""Shards of the webdataset format as the splits that folders would give: any image is read where it lies in its file.

As every image can be reached by itself, the order of an epoch is planned before it begins, as it is for files: a run
that is killed goes on at the very sample. The webdataset library reads from the front, and cannot.
"""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnntrain.config.paths import expand_path
from cnntrain.config.schema.data import DataSettings
from cnntrain.config.shards import find_shards, is_url
from cnntrain.data.decode import MAX_BYTES, BadImage
from cnntrain.data.folder import FolderSplit
from cnntrain.data.layout import Layout, split_of
from cnntrain.data.pack import SPLITS, Found, PackFile
from cnntrain.data.paths import Paths
from cnntrain.data.shard_fetch import fetch_shards
from cnntrain.data.shard_labels import Shard, ShardFaults, name_labels, read_indices
from cnntrain.text import counted, printable, short_path

MOST_OPEN = 64  # files


class ShardFiles:
    """The files, of which those read last stay open; they may be sent to another process.

    Args:
        paths: of all shards.
        in_order: they are read from front to end, so that the system may fetch a file whole when its first image is.
    """

    def __init__(self, paths: Sequence[Path], *, in_order: bool = False) -> None:
        self.paths, self.in_order = paths, in_order
        self._open: OrderedDict[int, PackFile] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., "ShardFiles"], tuple[Sequence[Path], bool]]:
        return _shard_files, (self.paths, self.in_order)

    def file(self, number: int) -> PackFile:
        """A shard, open for as long as the caller holds it; OSError where it cannot be opened."""
        with self._lock:
            file = self._open.pop(number, None) or PackFile(self.paths[number], whole=self.in_order)
            self._open[number] = file
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return file


def _shard_files(paths: Sequence[Path], in_order: bool) -> ShardFiles:
    return ShardFiles(paths, in_order=in_order)


class ShardPaths(Paths):
    """The names of images in shards, SHARD.tar/KEY.jpg, and their content out of them.

    Args:
        root, block, ends: see Paths.
        files: the shards.
        shards, starts, sizes: of each image its shard, where it begins there, and its bytes, int64 (N,).
    """

    cure = cure_of_many = "write the shard anew"
    columns = ("_shards", "_starts", "_sizes")

    def __init__(
        self,
        root: Path,
        block: bytes,
        ends: np.ndarray,
        *,
        files: ShardFiles,
        shards: np.ndarray,
        starts: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        super().__init__(root, block, ends)
        self._files, self._shards, self._starts, self._sizes = files, shards, starts, sizes

    def places(self) -> tuple[Tensor, Tensor]:
        """The shard of each image, and its place among all of them as they lie in the shards, int64 (N,) both."""
        places: np.ndarray = np.empty(len(self._shards), np.int64)
        places[np.lexsort((self._starts, self._shards))] = np.arange(len(places))
        return torch.from_numpy(self._shards), torch.from_numpy(places)

    def read(self, index: int) -> bytes:
        """The content of an image; BadImage where it cannot be read."""
        number, size = int(self._shards[index]), int(self._sizes[index])
        if size > MAX_BYTES:
            raise BadImage(f"{size / 1e9:,.1f} GB are more than the limit of {MAX_BYTES / 1e9:.1f} GB for an image")
        try:
            content = self._files.file(number).read(int(self._starts[index]), size)
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror or error})") from None
        if len(content) != size:
            raise BadImage("the shard is shorter than it was")
        return content


def find_in_shards(settings: DataSettings, known: Collection[str] | None, say: Callable[[str], object]) -> Found:
    """The images of all shards, by splits, in the order in which they lie there.

    A shard is of val or test where its name says so, or else that of its folder, and of train where neither does.

    Args:
        settings: data.root names the shards.
        known: the classes of a trained network, which alone may be there; None: any.
        say: takes lines of progress.

    Raises:
        DataErrors: all faults of the shards and their samples.
        DataError: there is one class, or none.
        ConfigError, UnsafeError, FileSystemError: see `find_shards` and `fetch_shards`.
    """
    places = find_shards(settings.root)
    fetched = fetch_shards([place for place in places if is_url(place)], say)
    paths = [Path(os.path.abspath(fetched.get(place) or expand_path(place))) for place in places]
    source = Path(os.path.commonpath([path.parent for path in paths]))
    shards = [Shard(path, split) for path, split in zip(paths, _splits(paths), strict=True)]
    faults = ShardFaults()
    passed_over = read_indices(shards, faults, say)
    names = name_labels(shards, source, settings, known, faults)
    files = ShardFiles(paths, in_order=settings.buffer is not None)
    scans = {split: part for split in SPLITS if (part := _part(split, shards, source, files, names.classes))}
    for part in scans.values():
        part.left_out = names.left_out
    counts = {split: counted(sum(shard.split == split for shard in shards), "shard") for split in scans}
    words = ", ".join(f"{split} {count}" for split, count in counts.items())
    warnings = [f"data.root: {line}" for line in filter(None, (passed_over, _gap(paths)))]
    return Found(
        source,
        Layout(dict.fromkeys(scans, source)),
        scans,
        places=counts,
        in_shards=True,
        notes=[f"shards: {words}, in {printable(short_path(source))}", *names.notes],
        warnings=warnings,
    )


def _splits(paths: Sequence[Path]) -> Iterator[str]:
    """The split of each shard."""
    folders = {path.parent for path in paths}
    for path in paths:
        words = (split_of(word) for word in reversed(re.findall(r"[^\W\d_]+", path.stem)))
        by_folder = split_of(path.parent.name) if len(folders) > 1 else ""
        yield next(filter(None, words), by_folder) or "train"


def _gap(paths: Sequence[Path]) -> str:
    """A line where the numbers of the files jump, empty where none do: a folder does not tell what is missing."""
    numbers: dict[tuple[Path, str], list[int]] = {}
    for path in paths:
        stem = path.stem.rstrip("0123456789")
        if 0 < len(digits := path.stem[len(stem) :]) < 19:
            numbers.setdefault((path.parent, stem), []).append(int(digits))
    for (_, stem), found in numbers.items():
        found.sort()
        for number, follower in pairwise(found):
            if follower > number + 1:
                name = printable(stem or "the shards")
                return f"the numbers of {name} jump from {number} to {follower}; is a shard missing between them?"
    return ""


def _part(
    split: str, shards: Sequence[Shard], source: Path, files: ShardFiles, classes: list[str]
) -> FolderSplit | None:
    """The images of a split, in the order of the shards; None where there are none."""
    blocks, lengths, columns = [], [], []
    for number, shard in enumerate(shards):
        if shard.split != split or not len(rows := np.flatnonzero(shard.classes >= 0)):
            continue
        home = os.fsencode(os.path.relpath(shard.path, source)) + b"/"
        names = [home + shard.name(row) for row in rows.tolist()]
        blocks.append(b"".join(names))
        lengths.append(np.fromiter(map(len, names), np.int64, len(names)))
        columns.append((np.full(len(rows), number), shard.starts[rows], shard.sizes[rows], shard.classes[rows]))
    if not blocks:
        return None
    numbers, starts, sizes, labels = (np.concatenate(arrays) for arrays in zip(*columns, strict=True))
    ends = np.concatenate(lengths).cumsum()
    paths = ShardPaths(source, b"".join(blocks), ends, files=files, shards=numbers, starts=starts, sizes=sizes)
    return FolderSplit(classes, paths, torch.from_numpy(labels), torch.from_numpy(sizes), by_table=True)
