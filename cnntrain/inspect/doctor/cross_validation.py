"""What linear heads say of images that they have not seen: each fold is judged by the one that learned from the others.

A head is the least-squares fit of the classes, shrunk (ridge regression), which has a closed form; its scores become
probabilities by a temperature. How much to shrink, and the temperature, are those under which the labels of images that
were not seen are most probable.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnntrain.data.labels import is_sets
from cnntrain.data.split import fold_numbers

FOLDS = 5
SHRINKAGES = (0.1, 0.3, 1.0, 3.0, 10.0)  # times the number of features
EVEN = 0.5  # the score of a class of its own that is as probable as not
TEMPERATURES = tuple(np.geomspace(1, 1 / 64, 13).tolist())


def judge(features: Tensor, labels: Tensor, classes: int, seed: int) -> Tensor:
    """The probabilities of all classes, float32 (N, K), each row by a head that has not seen its image.

    Args:
        features: float32 (N, D); standardized in place.
        labels: int64 (N,), or bool (N, K): then each class has a probability of its own.
        seed: of the folds. The only image of its class is judged to be of it.
    """
    spread, mean = torch.std_mean(features, 0, correction=0)
    features.sub_(mean).div_(spread.clamp_min(1e-3))
    width = features.shape[1]
    if len(features) < width:  # turned so that all of them lie in the first N directions, heads stay what they are
        values, vectors = torch.linalg.eigh(features @ features.T)
        features = vectors * values.clamp_min(0).sqrt()
    folds = fold_numbers(labels, FOLDS, seed)
    members = [(folds == fold).nonzero().flatten() for fold in range(-1, FOLDS)]
    targets = (labels if is_sets(labels) else functional.one_hot(labels, classes)).float()
    shares = targets.mean(0)
    products = [_products(features[rows], targets[rows] - shares) for rows in members]
    gram, target = (torch.stack(part).sum(0) for part in zip(*products, strict=True))
    seen = torch.cat(members[1:])
    best = math.inf, targets, 1.0
    for shrinkage in SHRINKAGES:
        scores = targets.clone()
        for rows, (own_gram, own_target) in zip(members[1:], products[1:], strict=True):
            rest = gram - own_gram
            rest.diagonal().add_(shrinkage * width)
            weights = torch.cholesky_solve(target - own_target, torch.linalg.cholesky(rest))
            scores[rows] = features[rows] @ weights + shares
        for temperature in TEMPERATURES:
            loss = _loss(scores[seen] / temperature, labels[seen], temperature) if len(seen) else 0.0
            if loss < best[0]:
                best = loss, scores, temperature
    _, scores, temperature = best
    if is_sets(labels):
        return ((scores - EVEN) / temperature).sigmoid()
    return (scores / temperature).softmax(1)


def _loss(logits: Tensor, labels: Tensor, temperature: float) -> float:
    if is_sets(labels):
        return functional.binary_cross_entropy_with_logits(logits - EVEN / temperature, labels.float()).item()
    return functional.cross_entropy(logits, labels).item()


def _products(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(D, D) and (D, K): of features with themselves, and with the classes less their shares."""
    return features.T @ features, features.T @ targets
