"""Labels of images, int64 (N,), or with data.multi_label a set of them each, bool (N, K); and the order of classes."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from cnntrain.text import counted, printable

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


def near_names(names: Iterable[str]) -> list[list[str]]:
    """Names of classes that look the same, together: they differ in case, blanks or the form of their letters alone.

    A name of one letter says by its case what it is.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        word = _folded(name)
        groups.setdefault(word if len(word) > 1 else name, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def near_words(names: Sequence[str], counts: Mapping[str, int], rows: Mapping[str, int] | None = None) -> str:
    """`'Ants' (1 image, row 17) and 'ants' (121) differ only in case`.

    Args:
        names: of near_names.
        counts: the images of each class.
        rows: where each stands first in a table; told of the class of the fewest images.
    """
    order = sorted(names, key=lambda name: (counts[name], name))
    told: list[str] = []
    for name in order:
        count = f"{counts[name]:,}" if told else counted(counts[name], "image")
        told.append(f"{printable(name)!r} ({count}{f', row {rows[name]}' if rows and not told else ''})")
    how = "case, blanks or how letters are composed"
    if len({name.casefold() for name in names}) == 1:
        how = "case"
    elif len({" ".join(name.split()) for name in names}) == 1:
        how = "blanks"
    elif len({unicodedata.normalize("NFC", name) for name in names}) == 1:
        how = "how letters are composed"
    return f"{' and '.join(told)} differ only in {how}"


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).split())


def _number(name: str) -> float | None:
    return float(name) if re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", name) else None
