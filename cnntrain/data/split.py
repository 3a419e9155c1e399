"""Seeded stratified choices: the validation part, folds, and a limited training part."""

import numpy as np
import torch
from torch import Tensor

from cnntrain.data.labels import is_sets
from cnntrain.data.set_split import set_folds, split_sets
from cnntrain.errors import DataError
from cnntrain.runtime.seeds import generator


def stratified_split(labels: Tensor, count: int, *parts: int, leave: bool = False) -> tuple[Tensor, Tensor]:
    """Choose `count` images so that each class keeps its share, and none vanishes where `count` suffices for all.

    Args:
        labels: int64 (N,), or bool (N, K), whose part is of about that size: see split_sets.
        count: images to choose, 1 to N.
        parts: whole numbers that seed the choice.
        leave: the rest is in use too (a validation part is taken out of train): a class of two or more images is
            in both, even if that takes more than `count` images; a class of one image stays in the rest.

    Returns:
        Indices of the chosen images and of the rest, int64, each in rising order.
    """
    if is_sets(labels):
        return split_sets(labels, count, *parts, leave=leave)
    sizes = np.bincount(labels.numpy())
    high = np.maximum(sizes - leave, 0)
    low = np.minimum(high, 1 if leave or count >= (sizes > 0).sum() else 0)
    shares = _shares(sizes * (count / sizes.sum()), count, low, high)
    is_in = torch.zeros(len(labels), dtype=torch.bool)
    for members, share in zip(_by_class(labels, *parts), shares.tolist(), strict=True):
        is_in[members[:share]] = True
    return is_in.nonzero().squeeze(1), (~is_in).nonzero().squeeze(1)


def take_per_class(labels: Tensor, count: int, *parts: int) -> Tensor:
    """Indices of `count` images of each class, or of all where it has no more; int64, in rising order.

    With the same seed, those of fewer images are among those of more.
    """
    return torch.cat([members[:count] for members in _by_class(labels, *parts)]).sort().values


def fold_numbers(labels: Tensor, folds: int, *parts: int) -> Tensor:
    """Deal the images out, class by class: the folds are of equal size, and so is what each has of a class.

    Args:
        labels: int64 (N,), or bool (N, K): see set_folds.
        folds: how many, from 2 up.
        parts: whole numbers that seed the shuffling.

    Returns:
        The fold of each image, 0 to folds - 1, int64 (N,); sizes differ by one at most, of each class and in all. The
        only image of its class is in none (-1): it is always trained on.
    """
    if is_sets(labels):
        return set_folds(labels, folds, *parts)
    numbers = torch.full_like(labels, -1)
    count = 0  # the next class goes on where the last one ended, or the first folds would get all the odd images
    for members in _by_class(labels, *parts):
        if len(members) > 1:
            numbers[members] = torch.arange(count, count + len(members)) % folds
            count += len(members)
    return numbers


def _by_class(labels: Tensor, *parts: int) -> tuple[Tensor, ...]:
    """The indices of each class 0, 1, ... in an order that `parts` seed."""
    order = torch.randperm(len(labels), generator=generator(torch.device("cpu"), *parts))
    sizes = labels.bincount().tolist()
    narrow = labels.to(torch.int16) if len(sizes) <= 1 << 15 else labels  # of a million, 4 MB in place of 16
    return order[narrow[order].argsort(stable=True)].split(sizes)


def _shares(quotas: np.ndarray, count: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers within low..high, close to `quotas`, that add up to `count` if they can (largest remainders)."""
    shares = np.clip(np.floor(quotas).astype(np.int64), low, high)
    while gap := count - int(shares.sum()):
        step, bound = (1, high) if gap > 0 else (-1, low)
        movable = np.flatnonzero(shares != bound)
        if not len(movable):
            break
        need = step * (quotas - shares)[movable]
        shares[movable[np.argsort(-need, kind="stable")[: abs(gap)]]] += step
    return shares


def count_of(key: str, value: int | float, images: int) -> int:
    """The number of images that a setting asks for: a whole number is a count, a float a fraction of `images`.

    Raises:
        DataError: more images than there are.
    """
    count = value if isinstance(value, int) else max(1, round(value * images))
    if count > images:
        raise DataError(f"{key}: {count} images are more than the {images} of the training data; choose fewer")
    return count
