"""What the answers of a network are worth where each image has a set of labels: average precision, and thresholds."""

import torch
from torch import Tensor
from torch.nn import functional

from cnntrain.runtime.world import ALONE, World

USUAL_THRESHOLD = 0.5


def plain_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, summed over classes and images, () of float32 logits (N, K) and labels, bool (N, K)."""
    return functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean precision of each class over the images that have it, ranked by their scores; equal scores rank alike.

    Args:
        scores: (N, K), logits or probabilities.
        labels: bool (N, K).

    Returns:
        float64 (K,) in 0..1, as `average_precision_score` of scikit-learn gives it; NaN for a class without images.
    """
    result = torch.full((scores.shape[1],), torch.nan, dtype=torch.float64)
    for place, (values, own) in enumerate(zip(scores.T.cpu(), labels.T.cpu(), strict=True)):
        if own.any():
            result[place] = _average_precision(values, own)
    return result


def _average_precision(values: Tensor, own: Tensor) -> Tensor:
    hits, called = _counts(values, own)[1:]
    gained = hits.diff(prepend=hits.new_zeros(1))
    return (gained * hits / called).sum() / own.sum()


def _counts(values: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different scores from the highest down, and of the images that reach each the true ones and all, float64."""
    order = values.argsort(descending=True, stable=True)
    values, hits = values[order], own[order].double().cumsum(0)
    is_last = torch.ones(len(values), dtype=torch.bool)
    is_last[:-1] = values[1:] != values[:-1]
    return values[is_last], hits[is_last], is_last.nonzero().squeeze(1).double() + 1


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """mAP: the mean of `average_precision` over the classes that have images; 0 where none has."""
    values = average_precision(scores, labels)
    return float(values.nanmean().nan_to_num())


def fit_thresholds(probabilities: Tensor, labels: Tensor) -> list[float]:
    """The probability of each class from which on calling it gives the highest F1 on these images.

    It lies in the middle between the lowest probability that is called and the highest that is not; of several with
    the same F1 it is the highest one. A class without images, or that all images have, keeps 0.5.

    Args:
        probabilities: (N, K) in 0..1.
        labels: bool (N, K).
    """
    result = []
    for values, own in zip(probabilities.T.cpu().double(), labels.T.cpu(), strict=True):
        if not own.any() or own.all():
            result.append(USUAL_THRESHOLD)
            continue
        steps, hits, called = _counts(values, own)
        best = int((2 * hits / (called + own.sum())).argmax())
        below = float(steps[best + 1]) if best + 1 < len(steps) else 0.0
        result.append((float(steps[best]) + below) / 2)
    return result


def move_thresholds(thresholds: list[float], temperature: float) -> list[float]:
    """Those that decide the same where logits are divided by a temperature: sigmoid(logit(t) / temperature)."""
    if temperature == 1:
        return thresholds
    moved: list[float] = (torch.tensor(thresholds, dtype=torch.float64).logit() / temperature).sigmoid().tolist()
    return moved


class SetAnswers:
    """The answers to all images of a split, on the host: what ranks them needs all of them."""

    def __init__(self, world: World = ALONE) -> None:
        self._world = world
        self._whole: tuple[Tensor, Tensor] | None = None
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take those of a micro-batch: float32 logits (N, K) and labels, bool (N, K)."""
        self._logits.append(logits.cpu())
        self._labels.append(labels.cpu())

    def read(self) -> tuple[Tensor, Tensor]:
        """The logits (N, K) and labels, bool (N, K), that all processes have; all must call it."""
        if self._whole is None:
            own = (torch.cat(values).numpy() if values else None for values in (self._logits, self._labels))
            parts = [part for part in self._world.gather(tuple(own)) if part[0] is not None]
            logits, labels = (torch.cat([torch.from_numpy(part) for part in side]) for side in zip(*parts, strict=True))
            self._whole = logits, labels
        return self._whole

    def fit_thresholds(self, temperature: float = 1.0) -> list[float]:
        """See fit_thresholds."""
        logits, labels = self.read()
        return fit_thresholds((logits / temperature).sigmoid(), labels)
