"""Images that several tests learn from."""

import struct
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional


def digits(count: int, size: int) -> tuple[Tensor, Tensor]:
    """The first of scikit-learn's digits: float (count, 1, size, size) in -1..1 and their labels."""
    found = load_digits()
    images = torch.tensor(found.images[:count], dtype=torch.float32)[:, None] / 8 - 1
    return functional.interpolate(images, size=size), torch.tensor(found.target[:count])


def fake_mnist(root: Path, train: int = 60, test: int = 20, kind: str = "MNIST") -> Path:
    """Files in MNIST's format with random pixels; the folder that they lie in."""
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + pixels)
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels)
    return folder
