"""Whether a network is as sure as it is right, and the temperature that makes it so (arXiv 1706.04599)."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import nll_loss

from cnntrain.evaluation.classes import Counts
from cnntrain.evaluation.image_scores import BatchScores

BINS = 15  # of equal width, as in the paper
STEPS = 1000  # of the histogram from which coverage is read
THRESHOLDS = (*range(0, 990, 10), *range(990, STEPS))  # in these steps


class Reliability:
    """How often the predictions are right, by their probability, in bins of equal width."""

    def __init__(self) -> None:
        self._sums = np.zeros((3, BINS))  # images, right ones, probabilities

    def add(self, scores: BatchScores) -> None:
        """See Collector."""
        self.count(scores.probabilities, scores.hits)

    def count(self, probabilities: Tensor, hits: Tensor) -> None:
        """Count predictions: their probabilities, float64 (N,), and which are right, bool (N,), on the host."""
        bins = (probabilities * BINS).ceil().long().clamp(1, BINS).numpy() - 1  # a bin holds its upper edge
        for sums, weights in zip(self._sums, (None, hits.double().numpy(), probabilities.numpy()), strict=True):
            sums += np.bincount(bins, weights, BINS)

    def error(self) -> float:
        """The expected calibration error (ECE): how far probability and accuracy of a bin are apart, on average."""
        images, hits, probabilities = self._sums
        return float(np.abs(hits - probabilities).sum() / max(1.0, images.sum()))

    def bins(self) -> list[dict[str, Any]]:
        """`low`, `high`, `images`, and where there are some `accuracy` and mean `probability`; None where not."""
        return [
            {
                "low": place / BINS,
                "high": (place + 1) / BINS,
                "images": int(images),
                "accuracy": float(hits / images) if images else None,
                "probability": float(probabilities / images) if images else None,
            }
            for place, (images, hits, probabilities) in enumerate(self._sums.T)
        ]


class Coverage:
    """What is left, and how much of it right, where only predictions from some probability on count.

    Probabilities are counted in steps of a thousandth.
    """

    def __init__(self) -> None:
        self._counts: Counts = np.zeros((2, STEPS), dtype=np.int64)  # images, right ones

    def add(self, scores: BatchScores) -> None:
        """See Collector."""
        steps = (scores.probabilities * STEPS).long().clamp(0, STEPS - 1)
        self._counts[0] += np.bincount(steps.numpy(), minlength=STEPS)
        self._counts[1] += np.bincount(steps[scores.hits].numpy(), minlength=STEPS)

    def rows(self) -> list[dict[str, Any]]:
        """`threshold` (0 to 0.999), `coverage` (the share of images that it keeps) and `accuracy` (None: of none)."""
        images, hits = self._counts[:, ::-1].cumsum(1)[:, ::-1]
        total = max(1, int(images[0]))
        return [
            {
                "threshold": step / STEPS,
                "coverage": int(images[step]) / total,
                "accuracy": int(hits[step]) / int(images[step]) if images[step] else None,
            }
            for step in THRESHOLDS
        ]


# ---- temperature ----

GRID = 2.0 ** np.arange(-4, 4.25, 0.25)  # of 1 / T
LARGEST = 1 << 21  # numbers of a tensor
Sums: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """The temperature of the lowest loss on some images.

    Attributes:
        temperature: by which logits are divided before the softmax.
        loss: the mean cross-entropy with it.
        helps: whether the temperature of either half of the images lowers the loss of the other half, both together.
    """

    temperature: float
    loss: float
    helps: bool


class TemperatureFit:
    """Finds the temperature in one pass: the loss and its slopes by 1 / T are summed at fixed places.

    The loss is convex in 1 / T. Between the two places around its lowest point, a cubic through slopes and curvatures
    tells where that lies. The images of even and of odd numbers are summed apart: what few images tell of a temperature
    may be chance, and then it does not help the other half.
    """

    def __init__(self) -> None:
        self._sums = np.zeros((2, 3, len(GRID)))  # by half: loss, its first derivative by 1 / T, and its second

    def add(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Take a micro-batch: float32 (N, K) as the network gives them, int64 (N,), and int64 (N,) on the host."""
        logits = logits - logits.amax(1, keepdim=True)
        of_label = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        inverses = torch.tensor(GRID, dtype=logits.dtype, device=logits.device)
        odd = (indices % 2).to(logits)
        halves = torch.stack([1 - odd, odd], dim=1)
        parts = []
        for part in inverses.split(max(1, LARGEST // logits.numel())):
            weights = (part.view(-1, 1, 1) * logits).exp_()  # (n, N, K), the largest of each image is 1
            total = weights.sum(2)
            mean = weights.mul_(logits).sum(2) / total
            variance = weights.mul_(logits).sum(2) / total - mean.square()
            loss = total.log() - part.unsqueeze(1) * of_label
            sums = torch.stack([loss, mean - of_label, variance])  # (3, n, N)
            parts.append((sums.unsqueeze(3) * halves).sum(2))  # no matrix product, which TF32 would round
        self._sums += torch.cat(parts, dim=1).cpu().double().permute(2, 0, 1).numpy()

    def fit(self, images: int) -> Fit | None:
        """The temperature; None where the loss falls to the end of 1/16 to 16, as where all images are right.

        Args:
            images: how many there were.
        """
        sums = self._sums.sum(0)
        inverse = _lowest(sums)
        if inverse is None:
            return None
        inverses = [_lowest(half) for half in self._sums]
        crossed = sum(_loss(half, other) for half, other in zip(self._sums, reversed(inverses), strict=True) if other)
        helps = None not in inverses and crossed < _loss(sums, 1.0)
        return Fit(1 / inverse, _loss(sums, inverse) / images, helps)


class Trial:
    """What another temperature would do.

    Attributes:
        temperature: by which logits are divided before the softmax.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._loss, self._images, self._reliability = 0.0, 0, Reliability()

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take a micro-batch: float32 (N, K) as the network gives them, and int64 (N,)."""
        log_probabilities = (logits / self.temperature).log_softmax(1)
        best, predictions = log_probabilities.max(1)
        self._reliability.count(best.cpu().double().exp(), (predictions == labels).cpu())
        self._loss += float(nll_loss(log_probabilities, labels, reduction="sum"))
        self._images += len(labels)

    def read(self) -> dict[str, float]:
        """`loss` and `ece`."""
        return {"loss": self._loss / max(1, self._images), "ece": self._reliability.error()}


def _lowest(sums: Sums) -> float | None:
    """The inverse temperature of the lowest loss, by the sums (3, places); None where it is not between two places."""
    _, slopes, curvatures = sums
    above = int(np.argmax(slopes > 0))  # slopes rise
    if not above:
        return None
    ends = slice(above - 1, above + 1)
    low, high = GRID[ends]
    start, end = 0.0, 1.0
    for _ in range(50):
        middle = (start + end) / 2
        rises = _hermite(middle, slopes[ends], curvatures[ends] * (high - low)) > 0
        start, end = (start, middle) if rises else (middle, end)
    return float(low + start * (high - low))


def _loss(sums: Sums, inverse: float) -> float:
    """The summed loss at an inverse temperature between the first and the last place."""
    place = min(int(np.searchsorted(GRID, inverse, side="right")), len(GRID) - 1)
    ends = slice(place - 1, place + 1)
    low, high = GRID[ends]
    return _hermite((inverse - low) / (high - low), sums[0, ends], sums[1, ends] * (high - low))


def _hermite(place: float, values: Any, slopes: Any) -> float:
    """The cubic with these two values and slopes at 0 and 1, at a place between them."""
    square, cube = place**2, place**3
    return float(
        values[0] * (2 * cube - 3 * square + 1)
        + slopes[0] * (cube - 2 * square + place)
        + values[1] * (3 * square - 2 * cube)
        + slopes[1] * (cube - square)
    )
