"""Whether a network is as sure as it is right, and the temperature that makes it so (arXiv 1706.04599)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


@dataclass(frozen=True)
class Fit:
    """The temperature of the lowest loss on some images.

    Attributes:
        temperature: by which logits are divided before the softmax.
        loss: the mean cross-entropy with it.
        images: on how many it was fitted.
    """

    temperature: float
    loss: float
    images: int


class TemperatureFit:
    """Finds the temperature in one pass: the loss and its slopes by 1 / T are summed at fixed places.

    The loss is convex in 1 / T. Between the two places around its lowest point, a cubic through slopes and curvatures
    tells where that lies.
    """

    def __init__(self) -> None:
        self._sums = np.zeros((3, len(GRID)))  # loss, its first derivative by 1 / T, and its second
        self._images = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take a micro-batch: float32 (N, K) as the network gives them, and int64 (N,)."""
        logits = logits - logits.amax(1, keepdim=True)
        of_label = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        inverses = torch.tensor(GRID, dtype=logits.dtype, device=logits.device)
        parts = []
        for part in inverses.split(max(1, LARGEST // logits.numel())):
            weights = (part.view(-1, 1, 1) * logits).exp_()  # (n, N, K), the largest of each image is 1
            total = weights.sum(2)
            mean = weights.mul_(logits).sum(2) / total
            variance = weights.mul_(logits).sum(2) / total - mean.square()
            loss = total.log() - part.unsqueeze(1) * of_label
            parts.append(torch.stack([loss.sum(1), (mean - of_label).sum(1), variance.sum(1)]))
        self._sums += torch.cat(parts, dim=1).cpu().double().numpy()
        self._images += len(labels)

    def fit(self) -> Fit | None:
        """The temperature; None where the loss falls to the end of 1/16 to 16, as where all images are right."""
        losses, slopes, curvatures = self._sums / max(1, self._images)
        above = int(np.argmax(slopes > 0))  # slopes rise
        if not above:
            return None
        ends = slice(above - 1, above + 1)
        low, high = GRID[ends]

        def slope(place: float) -> float:
            return _hermite(place, slopes[ends], curvatures[ends] * (high - low))

        start, end = 0.0, 1.0
        for _ in range(50):
            middle = (start + end) / 2
            start, end = (start, middle) if slope(middle) > 0 else (middle, end)
        loss = _hermite(start, losses[ends], slopes[ends] * (high - low))
        return Fit(float(1 / (low + start * (high - low))), float(loss), self._images)


def _hermite(place: float, values: Any, slopes: Any) -> float:
    """The cubic with these two values and slopes at 0 and 1, at a place between them."""
    square, cube = place**2, place**3
    return float(
        values[0] * (2 * cube - 3 * square + 1)
        + slopes[0] * (cube - 2 * square + place)
        + values[1] * (3 * square - 2 * cube)
        + slopes[1] * (cube - square)
    )
