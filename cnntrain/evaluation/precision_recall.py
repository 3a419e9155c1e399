"""Precision and recall of each class at many thresholds, from counts that stay on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.data.labels import is_sets
from cnntrain.runtime.world import World

THRESHOLDS = 127  # at even distances from 0 to 1, as many as TensorBoard takes


@dataclass(frozen=True)
class Curve:
    """One class against all others, or several of these together.

    Attributes:
        counts: float64 (4, THRESHOLDS): true positives, false positives, true negatives, false negatives of calling an
            image of the class from each threshold on.
        precision, recall: float64 (THRESHOLDS,); the precision is 0 where no image is called so.
    """

    name: str
    counts: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def average_precision(self) -> float:
        """The mean of the precision over the recall, 0..1."""
        gained = self.recall - np.append(self.recall[1:], 0.0)
        return float((gained * self.precision).sum())


class ThresholdCounts:
    """How many images were given each class with each probability, in all and of the class itself.

    Attributes:
        images, own: int64 (K, THRESHOLDS): by the highest threshold that the probability of the class reaches.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.images, self.own = (torch.zeros(classes, THRESHOLDS, dtype=torch.int64, device=device) for _ in range(2))

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a micro-batch: logits (N, K), labels int64 (N,), or sets of them, bool (N, K)."""
        probabilities = logits.sigmoid() if is_sets(labels) else logits.softmax(1)
        places = (probabilities.nan_to_num() * (THRESHOLDS - 1)).long().clamp(0, THRESHOLDS - 1)
        places += torch.arange(0, self.images.numel(), THRESHOLDS, device=places.device)
        own = places[labels] if is_sets(labels) else places.gather(1, labels.unsqueeze(1))
        for counts, found in ((self.images, places), (self.own, own)):
            counts += torch.bincount(found.flatten(), minlength=counts.numel()).view_as(counts)

    def sum(self, world: World) -> None:
        """Count what all processes have counted; all must call it."""
        world.sum_([self.images, self.own])

    def curves(self, names: Sequence[str], most: int) -> list[Curve]:
        """The mean over classes (macro), that over all decisions (micro), then the hardest classes in their order.

        Of the classes that have images, those of the lowest average precision, `most` at most. The macro mean is over
        those of them that any image is called by.
        """
        images, own = (counts.cpu().flip(1).cumsum(1).flip(1).double().numpy() for counts in (self.images, self.own))
        every = [_curve(name, *pair) for name, *pair in zip(names, images, own, strict=True) if pair[1][0]]
        if not every:
            return []
        micro = _curve("(all, micro mean)", images.sum(0), own.sum(0))
        called = np.stack([one.counts[:2].sum(0) > 0 for one in every])
        precision = np.stack([one.precision for one in every]).sum(0) / np.maximum(called.sum(0), 1)
        recall = np.stack([one.recall for one in every]).mean(0)
        hardest = sorted(range(len(every)), key=lambda place: every[place].average_precision)[:most]
        chosen = [every[place] for place in sorted(hardest)]
        return [Curve("(all, macro mean)", micro.counts, precision, recall), micro, *chosen]


def _curve(name: str, images: NDArray[np.float64], own: NDArray[np.float64]) -> Curve:
    """Of the images that are called so from each threshold on, and of those among them that are so, (THRESHOLDS,)."""
    false = images - own
    counts = np.stack([own, false, false[0] - false, own[0] - own])
    return Curve(name, counts, own / np.maximum(images, 1), own / own[0])
