"""Seeded choices among images with sets of labels: each part gets its share of every label."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.runtime.seeds import generator

MOST_PARTS = 20  # that images are dealt out to for a part of them


def deal(labels: Tensor, shares: Sequence[float], *parts: int) -> NDArray[np.int64]:
    """Deal images out by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011).

    The images of the rarest label go first, each to the part that lacks this label most; of several parts to the one
    that lacks images most. Images without a label come last.

    Args:
        labels: bool (N, K).
        shares: of each part, which add up to 1.
        parts: whole numbers that seed the order of the images.

    Returns:
        The part of each image, (N,).
    """
    sets, images = labels.numpy(), len(labels)
    numbers: NDArray[np.int64] = np.full(images, -1, dtype=np.int64)
    order: NDArray[np.int64] = torch.randperm(images, generator=generator(torch.device("cpu"), *parts)).numpy()
    left = sets.sum(0)
    room = np.asarray(shares) * images
    wants = np.outer(left, shares)

    def give(image: int, part: int) -> None:
        numbers[image] = part
        own = sets[image]
        left[own] -= 1
        wants[own, part] -= 1
        room[part] -= 1

    while left.any():
        label = int(np.where(left > 0, left, images + 1).argmin())
        for image in order[sets[order, label] & (numbers[order] < 0)].tolist():
            best = np.flatnonzero(wants[label] == wants[label].max())
            give(image, int(best[room[best].argmax()]))
    for image in order[numbers[order] < 0].tolist():
        give(image, int(room.argmax()))
    return numbers


def split_sets(labels: Tensor, count: int, *parts: int, leave: bool = False) -> tuple[Tensor, Tensor]:
    """Choose about `count` images so that each label keeps its share.

    Args:
        labels: bool (N, K).
        count: images to choose, 1 to N.
        parts: whole numbers that seed the choice.
        leave: the rest is in use too: every label that there is stays in it.

    Returns:
        Indices of the chosen images and of the rest, int64, each in rising order.
    """
    free = ~labels[:, labels.sum(0) == 1].any(1) if leave else torch.ones(len(labels), dtype=torch.bool)
    chosen = free.clone()
    if count < int(free.sum()):
        chosen[free] = _take(labels[free], count, *parts)
    if leave:
        for label in (labels.any(0) & ~labels[~chosen].any(0)).nonzero().flatten().tolist():
            if not bool(labels[~chosen, label].any()):  # an image that came back for another label may have brought it
                chosen[int((chosen & labels[:, label]).nonzero()[0])] = False
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


def _take(labels: Tensor, count: int, *parts: int) -> Tensor:
    """About `count` of the images, bool (N,).

    They are dealt out to equal parts, of which some are chosen: beside one large part a small one would get no image of
    a rare label, as the large one lacks more of it to the end.
    """
    images = len(labels)
    if 2 * count > images:
        return ~_take(labels, images - count, *parts)
    if 0 < count * MOST_PARTS < images:
        numbers = torch.from_numpy(deal(labels, [1 / MOST_PARTS] * MOST_PARTS, *parts))
        rows = (numbers == numbers.bincount().argmax()).nonzero().squeeze(1)
        return torch.zeros(images, dtype=torch.bool).index_copy_(0, rows, _take(labels[rows], count, *parts))
    share = Fraction(count, images).limit_denominator(MOST_PARTS)
    folds = share.denominator
    return torch.from_numpy(deal(labels, [1 / folds] * folds, *parts) < share.numerator)


def set_folds(labels: Tensor, folds: int, *parts: int) -> Tensor:
    """Deal images with sets of labels out to folds.

    Returns:
        The fold of each image, 0 to folds - 1, int64 (N,). An image that alone has one of its labels is in none (-1):
        it is always trained on.
    """
    numbers = torch.from_numpy(deal(labels, [1 / folds] * folds, *parts))
    numbers[labels[:, labels.sum(0) == 1].any(1)] = -1
    return numbers
