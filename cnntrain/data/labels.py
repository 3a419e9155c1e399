"""Labels of images, int64 (N,), or with data.multi_label a set of them each, bool (N, K); and the order of classes."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

LONGEST_LABEL = 200  # letters: what is longer describes an image


def is_sets(labels: Tensor) -> bool:
    """Whether the labels are sets: bool (N, K) in place of int64 (N,)."""
    return labels.ndim == 2


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """The images of each class, int64 (K,), on the device of the labels."""
    return labels.sum(0) if is_sets(labels) else labels.bincount(minlength=classes)


def entries(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each label that an image has, as the places of images and of classes, int64 (n,) both, by image."""
    if is_sets(labels):
        rows, classes = labels.nonzero().unbind(1)
        return rows, classes
    return torch.arange(len(labels)), labels


def renumber(labels: Tensor, places: Tensor, classes: int) -> Tensor:
    """The same labels among other classes.

    Args:
        labels: int64 (N,) or bool (N, K).
        places: int64 (K,), the new place of each class; -1: it is none of them.
        classes: how many there are then.

    Returns:
        int64 (N,), -1 where the class is gone; or bool (N, classes).
    """
    if not is_sets(labels):
        return places[labels]
    result = torch.zeros(len(labels), classes, dtype=torch.bool)
    stay = places >= 0
    result[:, places[stay]] = labels[:, stay]
    return result


def sort_classes(names: Iterable[str]) -> list[str]:
    """Names in their order: numbers by their value, any other by letters."""
    every = sorted(names)
    with_value = [_number(name) for name in every]
    if None in with_value:
        return every
    return [name for _, name in sorted(zip(with_value, every, strict=True))]


def _number(name: str) -> float | None:
    return float(name) if re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", name) else None
