"""The images that a config names, as they lie there: nothing is drawn, aligned or refused."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DATASETS, DataSettings
from cnntrain.data.common import Data, Request, choose_classes
from cnntrain.data.datasets import TensorSet
from cnntrain.data.decode import decode_image
from cnntrain.data.folder import FolderSplit
from cnntrain.data.labels import class_counts, renumber
from cnntrain.data.loaders import Loader
from cnntrain.data.paths import Paths
from cnntrain.data.sources import find_source
from cnntrain.data.split_file import splits_of_run

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """The images of one split: files, or pixels that are decoded already.

    Attributes:
        split: its name.
        labels: int64 (N,), indices into the classes of the subject; or bool (N, K), see data/labels.py.
        paths: the files; None where there are none.
        pixels: uint8 (N, C, H, W); None where there are files.
    """

    split: str
    labels: Tensor
    paths: Paths | None = None
    pixels: Tensor | None = None


class Subject:
    """All images, numbered through: those of train, then those of val and of test.

    Attributes:
        classes: their names; a split need not have images of each.
        parts: by split, in this order.
        counts: images of each class, by split.
        labels: of each image, int64 (N,), or bool (N, K).
        splits: of each image, int64 (N,), a number in `parts`.
    """

    def __init__(self, classes: Sequence[str], parts: Sequence[Part]) -> None:
        self.classes = list(classes)
        self.parts = sorted(parts, key=lambda part: SPLITS.index(part.split))
        sizes = [len(part.labels) for part in self.parts]
        self._starts = np.cumsum([0, *sizes])
        self.labels: NDArray[Any] = torch.cat([part.labels for part in self.parts]).numpy()
        self.splits: NDArray[np.int64] = np.repeat(np.arange(len(sizes)), sizes)
        count = len(self.classes)
        self.counts: dict[str, list[int]] = {
            part.split: class_counts(part.labels, count).tolist() for part in self.parts
        }

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_sets(self) -> bool:
        """Whether each image has a set of classes."""
        return self.labels.ndim == 2

    @property
    def has_files(self) -> bool:
        """Whether the images are files."""
        return self.parts[0].paths is not None

    def start(self, number: int) -> int:
        """The first image of a part, by its number."""
        return int(self._starts[number])

    def place(self, index: int) -> tuple[Part, int]:
        """The part that holds an image, and its number there."""
        split = int(self.splits[index])
        return self.parts[split], index - self.start(split)

    def name(self, index: int) -> str:
        """The file of an image, or `test/17`."""
        part, row = self.place(index)
        return str(part.paths[row]) if part.paths else f"{part.split}/{row}"

    def split(self, index: int) -> str:
        """The split of an image."""
        return self.parts[int(self.splits[index])].split

    def label(self, index: int) -> str:
        """The class of an image, or its classes; empty where it has none."""
        places = np.flatnonzero(self.labels[index]).tolist() if self.has_sets else [int(self.labels[index])]
        return ", ".join(self.classes[place] for place in places)

    def have_same_label(self, one: int, other: int) -> bool:
        """Whether two images are of the same class, or of the same classes."""
        return bool(np.array_equal(self.labels[one], self.labels[other]))

    def content(self, index: int) -> bytes:
        """The file of an image; BadImage where it cannot be read."""
        part, row = self.place(index)
        assert part.paths is not None
        return part.paths.read(row)

    def picture(self, index: int) -> Tensor:
        """An image, uint8 (1 or 3, H, W); BadImage where there is none."""
        part, row = self.place(index)
        if part.pixels is not None:
            return part.pixels[row]
        return decode_image(self.content(index), 3).permute(2, 0, 1)

    def sample(self, most: int | None) -> list[int]:
        """The numbers of at most so many images, evenly spaced, so that classes and splits keep their shares."""
        if most is None or most >= len(self):
            return list(range(len(self)))
        return np.linspace(0, len(self) - 1, most).round().astype(int).tolist()  # type: ignore[no-any-return]

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Each split with its number of images."""
        return ((part.split, len(part.labels)) for part in self.parts)


def find_subject(settings: DataSettings, splits: Path | None = None) -> Subject | None:
    """The images of a config; None of a source that cannot be listed.

    Args:
        splits: the `splits.csv` of a run, by which files are in train, val or test, where it names them.

    Raises:
        DataError: there are none, or what holds them is damaged.
    """
    if settings.has_files and settings.is_users:
        found = find_source(settings, None)
        return _of_scans(((splits and splits_of_run(found, splits)) or found).scans)
    # Statistics would be computed on the images, and only some of these be there.
    settings = replace(settings, mean=[0.5], std=[0.5], limit=None, per_class=None)
    request = Request(settings, AugmentSettings(), 0, torch.device("cpu"), None, SPLITS, 0, lambda line: None)
    found = DATASETS.entry(settings.name).build(request)
    return _of_tensors(found, request) if isinstance(found, TensorSet) else _of_loaders(*found)


def _of_scans(scans: Mapping[str, FolderSplit]) -> Subject:
    classes = list(dict.fromkeys(name for split in SPLITS if split in scans for name in scans[split].classes))
    places, count = {name: place for place, name in enumerate(classes)}, len(classes)
    parts = [
        Part(split, renumber(scan.labels, torch.tensor([places[name] for name in scan.classes]), count), scan.paths)
        for split, scan in scans.items()
        if len(scan.labels)
    ]
    return Subject(classes, parts)


def _of_tensors(found: TensorSet, request: Request) -> Subject:
    if (classes := choose_classes(found.classes, request)) != found.classes:
        found = found.select_classes(classes)
    parts = [Part("train", found.train[1], pixels=found.train[0])]
    others = {"val": found.val, "test": found.test}
    parts += [Part(split, part[1], pixels=part[0]) for split, part in others.items() if part]
    return Subject(found.classes, parts)


def _of_loaders(data: Data, loaders: Mapping[str, Loader]) -> Subject | None:
    decoders = {split: loaders[split].decoder for split in SPLITS if split in loaders}
    parts = [Part(split, decoder.labels, decoder.paths) for split, decoder in decoders.items() if decoder]
    return Subject(data.classes, parts) if parts else None
