"""Data sets that are decoded already, and the one that comes with us: the handwritten digits."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnntrain.data.common import Request
from cnntrain.data.labels import is_sets, renumber
from cnntrain.data.split import stratified_split

DIGITS = Path(__file__).parent / "digits" / "digits.gz"  # 64 pixels and a label each
DIGITS_TEST = (1797, 360)  # seed and size of the digits' test part, the same for every run


Part = tuple[Tensor, Tensor]  # images uint8 (N, C, H, W) and labels, int64 (N,) or bool (N, K)


@dataclass
class TensorSet:
    """The parts of a data set. One of the user's may have no test part; few have a val part of their own."""

    classes: list[str]
    train: Part
    test: Part | None
    val: Part | None = None

    def select_classes(self, classes: list[str]) -> "TensorSet":
        """The images of some of the classes, whose labels count in `classes`."""
        places = torch.full((len(self.classes),), -1)
        places[[self.classes.index(name) for name in classes]] = torch.arange(len(classes))

        def chosen(part: Part) -> Part:
            images, labels = part
            labels = renumber(labels, places, len(classes))
            mask = slice(None) if is_sets(labels) else labels >= 0
            return images[mask], labels[mask]

        parts = (part and chosen(part) for part in (self.test, self.val))
        return TensorSet(classes, chosen(self.train), *parts)

    def fingerprint(self) -> str:
        """sha256 over all pixels and labels."""
        digest = hashlib.sha256()
        for tensor in (*self.train, *(self.test or ()), *(self.val or ())):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def digits(request: Request) -> TensorSet:
    """Handwritten digits."""
    images, labels = read_digits()
    seed, count = DIGITS_TEST
    test, train = stratified_split(labels, count, seed, leave=True)
    return TensorSet([str(digit) for digit in range(10)], (images[train], labels[train]), (images[test], labels[test]))


def read_digits() -> tuple[Tensor, Tensor]:
    """All of them, uint8 (1797, 1, 8, 8) of 17 levels, and int64 (1797,); their licence lies beside them."""
    rows = np.frombuffer(gzip.decompress(DIGITS.read_bytes()), dtype=np.uint8).reshape(-1, 65)
    images = np.rint(rows[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return torch.from_numpy(images), torch.from_numpy(rows[:, 64].astype(np.int64))
