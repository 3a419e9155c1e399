"""What linear heads say of images that they have not seen: each fold is judged by the one that learned from the others.

A head is the least-squares fit of the classes, shrunk (ridge regression), which has a closed form; its scores become
probabilities by a temperature. How much to shrink, and the temperature, are those under which the labels of images that
were not seen are most probable.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnntrain.data.split import fold_numbers

FOLDS = 5
SHRINKAGES = (0.1, 0.3, 1.0, 3.0, 10.0)  # times the number of features
TEMPERATURES = tuple(np.geomspace(1, 1 / 64, 13).tolist())


def judge(features: Tensor, labels: Tensor, classes: int, seed: int) -> Tensor:
    """The probabilities of all classes, float32 (N, K), each row by a head that has not seen its image.

    Args:
        features: float32 (N, D); standardized in place.
        labels: int64 (N,).
        seed: of the folds. The only image of its class is judged to be of it.
    """
    spread, mean = torch.std_mean(features, 0, correction=0)
    features.sub_(mean).div_(spread.clamp_min(1e-3))
    folds = fold_numbers(labels, FOLDS, seed)
    members = [(folds == fold).nonzero().flatten() for fold in range(-1, FOLDS)]
    shares = labels.bincount(minlength=classes) / len(labels)
    products = [_products(features[rows], labels[rows], shares) for rows in members]
    gram, target = (torch.stack(part).sum(0) for part in zip(*products, strict=True))
    best = None
    for shrinkage in SHRINKAGES:
        scores = functional.one_hot(labels, classes).float()
        for rows, (own_gram, own_target) in zip(members[1:], products[1:], strict=True):
            rest = gram - own_gram
            rest.diagonal().add_(shrinkage * features.shape[1])
            weights = torch.cholesky_solve(target - own_target, torch.linalg.cholesky(rest))
            scores[rows] = features[rows] @ weights + shares
        seen = torch.cat(members[1:])
        for temperature in TEMPERATURES:
            loss = functional.cross_entropy(scores[seen] / temperature, labels[seen]).item() if len(seen) else 0.0
            if best is None or loss < best[0]:
                best = loss, scores, temperature
    assert best is not None
    return (best[1] / best[2]).softmax(1)


def _products(features: Tensor, labels: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """(D, D) and (D, K): of features with themselves, and with the classes less their shares."""
    sums = torch.zeros(features.shape[1], len(shares)).index_add_(1, labels, features.T)
    return features.T @ features, sums - features.sum(0)[:, None] * shares
