"""Files in the formats of public data sets, a few images of random pixels each, and what is to be read out of them."""

import bz2
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # of a split the pixels (N, C, H, W) and the labels (N,)
COUNTS = {"train": 40, "test": 20}


def draw(channels: int, size: int, classes: int = 10) -> Parts:
    """Images of each class, in turn."""
    random = np.random.default_rng(0)
    return {
        split: (random.integers(0, 256, (count, channels, size, size), dtype=np.uint8), np.arange(count) % classes)
        for split, count in COUNTS.items()
    }


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def write_idx(file: Path, values: np.ndarray) -> None:
    """The format of MNIST: bytes, or whole numbers of four of them."""
    kind = 8 if values.dtype == np.uint8 else 12
    header = struct.pack(f">{1 + values.ndim}i", 256 * kind + values.ndim, *values.shape)
    file.write_bytes(header + (values if kind == 8 else values.astype(">i4")).tobytes())


def lay_out_mnist(folder: Path, parts: Parts, name: Callable[[str], str]) -> None:
    for split, (images, labels) in parts.items():
        write_idx(folder / f"{name(split)}-images-idx3-ubyte", images[:, 0])
        write_idx(folder / f"{name(split)}-labels-idx1-ubyte", labels.astype(np.uint8))


def mnist(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    parts = draw(1, 28)
    lay_out_mnist(folder, parts, {"train": "train", "test": "t10k"}.__getitem__)
    return parts


def qmnist(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    parts = draw(1, 28)
    for split, (images, labels) in parts.items():
        write_idx(folder / f"qmnist-{split}-images-idx3-ubyte", images[:, 0])
        more = np.column_stack([labels, *[np.arange(len(labels)) + 300] * 7])  # writer, and where it comes from
        write_idx(folder / f"qmnist-{split}-labels-idx2-int", more.astype(np.int32))
    return parts


def emnist(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    """Each image lies on its side, and letters count from 1."""
    parts = draw(1, 28, 26 if variant == "letters" else 10)
    kept = {
        split: (images.swapaxes(2, 3), labels + (variant == "letters")) for split, (images, labels) in parts.items()
    }
    lay_out_mnist(folder, kept, lambda split: f"emnist-{variant or 'balanced'}-{split}")
    return parts


def usps(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    from torchvision.datasets import USPS

    parts, places = draw(1, 16), {}
    for split, file in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        images, labels = parts[split]
        lines = [
            f"{label + 1} " + " ".join(f"{place}:{level:.7f}" for place, level in enumerate(levels, 1))
            for label, levels in zip(labels, (images.reshape(len(images), -1) + 0.5) / 255 * 2 - 1, strict=True)
        ]
        (folder / file).write_bytes(bz2.compress("\n".join(lines).encode()))
        places[split] = ["", file, md5(folder / file)]
    patch.setattr(USPS, "split_list", places)
    return parts


def svhn(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    """The digit 0 has the label 10."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    parts, places = draw(3, 32), {}
    for split, (images, labels) in parts.items():
        file = folder / f"{split}_32x32.mat"
        savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        places[split] = ["", file.name, md5(file)]
    patch.setattr(SVHN, "split_list", places)
    return parts


def stl10(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    """Pixels go down the columns."""
    from torchvision.datasets import STL10

    parts = draw(3, 96)
    for split, (images, labels) in parts.items():
        (folder / f"{split}_X.bin").write_bytes(images.swapaxes(2, 3).tobytes())
        (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    files = {
        split: [[file.name, md5(file)] for file in sorted(folder.glob(f"{split}_*.bin"))] for split in ("train", "test")
    }
    patch.setattr(STL10, "train_list", [*files["train"], ["unlabeled_X.bin", md5(folder / "unlabeled_X.bin")]])
    patch.setattr(STL10, "test_list", files["test"])
    return parts


TENSORS = {
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), mnist),
    "qmnist": qmnist,
    "emnist": emnist,
    "usps": usps,
    "svhn": svhn,
    "stl10": stl10,
}
