"""Images that several tests learn from."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional


def digits(count: int, size: int) -> tuple[Tensor, Tensor]:
    """The first of scikit-learn's digits: float (count, 1, size, size) in -1..1 and their labels."""
    found = load_digits()
    images = torch.tensor(found.images[:count], dtype=torch.float32)[:, None] / 8 - 1
    return functional.interpolate(images, size=size), torch.tensor(found.target[:count])
