"""Seeded choices that keep groups together: all images of a patient or a camera validate, or none of them."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from cnntrain.data.labels import class_counts, entries, is_sets
from cnntrain.runtime.seeds import generator

MOST_PARTS = 20  # that groups are dealt to for a validation part, unless it is smaller than one of them


def group_folds(labels: Tensor, groups: Tensor, folds: int, *parts: int) -> Tensor:
    """Deal whole groups out, the largest first, each to the fold that lacks its classes and images most.

    Args:
        labels: int64 (N,), or bool (N, K).
        groups: int64 (N,).
        folds: how many, from 2 up.
        parts: whole numbers that seed the order of groups of one size.

    Returns:
        The fold of each image, 0 to folds - 1, int64 (N,). A group that holds all images of a class is in none (-1): it
        is always trained on, as is one more where a fold would else hold all of a class.
    """
    members: np.ndarray = groups.unique(return_inverse=True)[1].numpy()
    sizes = np.bincount(members)
    rows, kinds = (values.numpy() for values in entries(labels))
    pairs, counts = np.unique(np.stack([members[rows], kinds]), axis=1, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(pairs[0], minlength=len(sizes)))])
    totals = class_counts(labels, 0).numpy()
    load: np.ndarray = np.zeros((folds, len(totals)), dtype=np.int64)
    size: np.ndarray = np.zeros(folds, dtype=np.int64)
    numbers: np.ndarray = np.full(len(sizes), -1, dtype=np.int64)
    order: np.ndarray = torch.randperm(len(sizes), generator=generator(torch.device("cpu"), *parts)).numpy()
    for group in order[np.argsort(-sizes[order], kind="stable")].tolist():
        here = slice(starts[group], starts[group + 1])
        classes, own = pairs[1, here], counts[here]
        if (own == totals[classes]).any():
            continue
        fills = ((load[:, classes] + own) == totals[classes]).any(1)  # the rest would have none of a class
        if fills.all():
            continue
        # What the sum of squares grows by, in parts of each class and of all images.
        cost = (load[:, classes] * (own / totals[classes])).sum(1) + size * (sizes[group] / sizes.sum())
        cost[fills] = np.inf
        numbers[group] = fold = int(cost.argmin())
        load[fold, classes] += own
        size[fold] += sizes[group]
    return torch.from_numpy(numbers)[torch.from_numpy(members)]


def group_split(labels: Tensor, groups: Tensor, count: int, *parts: int) -> tuple[Tensor, Tensor]:
    """Choose whole groups of about `count` images, with about its share of each class.

    The groups are dealt out to equal parts, of which some are chosen: large and small ones alike.

    Args:
        labels: int64 (N,), or bool (N, K).
        groups: int64 (N,).
        count: images to choose, 1 to N - 1.
        parts: see group_folds.

    Returns:
        Indices of the chosen images and of the rest, int64, each in rising order; every class is in the rest. None are
        chosen where no group can go.
    """
    share = Fraction(count, len(labels))
    if share * MOST_PARTS < 1:
        share = Fraction(1, round(1 / share))
    else:
        share = min(share.limit_denominator(MOST_PARTS), Fraction(MOST_PARTS - 1, MOST_PARTS))
    folds = min(share.denominator, len(groups.unique()))
    if folds < 2:
        return torch.arange(0), torch.arange(len(labels))
    numbers = group_folds(labels, groups, folds, *parts)
    chosen = (numbers >= 0) & (numbers < max(1, round(share * folds)))
    for label in class_counts(labels, 0).nonzero().flatten().tolist():
        of_class = labels[:, label] if is_sets(labels) else labels == label
        if bool((chosen | ~of_class).all()):  # of several parts together
            chosen &= groups != groups[of_class][0]
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)
