"""What a network says of single images, and the worst of them: no more than a few are kept."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cnntrain.training.scoring import Answer


@dataclass(frozen=True)
class ImageScore:
    """One image of a split.

    Attributes:
        index: its place in the split, for `loader.pick`.
        file: its file, or `test/17` where it comes from none.
        label, prediction: classes, by their numbers.
        probability, label_probability: of the prediction and of the label, 0..1.
        loss: the cross-entropy.
    """

    index: int
    file: str
    label: int
    prediction: int
    probability: float
    label_probability: float
    loss: float

    @property
    def is_error(self) -> bool:
        """Whether the prediction is not the label."""
        return self.label != self.prediction


@dataclass(frozen=True)
class BatchScores:
    """The images of a micro-batch, all on the host.

    Attributes:
        indices, labels, predictions: int64 (N,).
        probabilities, losses: float64 (N,), of the predictions and of the labels.
        name: of an image, by its index.
    """

    indices: Tensor
    labels: Tensor
    predictions: Tensor
    probabilities: Tensor
    losses: Tensor
    name: Callable[[int], str]

    @classmethod
    def read(cls, logits: Tensor, answer: Answer, name: Callable[[int], str]) -> "BatchScores":
        """Read what the device has found; it is waited for.

        Args:
            logits: float32 (N, K), whose softmax is told.
            answer: to the images of the micro-batch.
            name: of an image, by its index.
        """
        predictions = logits.argmax(1)
        classes = torch.stack([answer.labels, predictions], dim=1)
        log_probabilities = logits.log_softmax(1).gather(1, classes).cpu().double()
        labels, predictions = classes.cpu().unbind(1)
        return cls(answer.indices, labels, predictions, log_probabilities[:, 1].exp(), -log_probabilities[:, 0], name)

    @property
    def hits(self) -> Tensor:
        """Which predictions are right, bool (N,)."""
        return self.predictions == self.labels

    def row(self, place: int) -> ImageScore:
        """One of the images."""
        index, loss = int(self.indices[place]), float(self.losses[place])
        return ImageScore(
            index,
            self.name(index),
            int(self.labels[place]),
            int(self.predictions[place]),
            float(self.probabilities[place]),
            float((-self.losses[place]).exp()),
            loss,
        )

    def rows(self) -> Iterator[ImageScore]:
        """All of them."""
        return map(self.row, range(len(self.labels)))


class Collector(Protocol):
    """What is told of every image of a split, a micro-batch at a time."""

    def add(self, scores: BatchScores) -> None:
        """Take what there is to take of a micro-batch."""


class Worst:
    """The worst images of a split in three respects, at most `count` of each.

    Attributes:
        confident_errors: errors, by the probability of what was predicted.
        largest_losses: of all images, by their loss.
        least_certain: of all images, those whose prediction has the lowest probability.
    """

    def __init__(self, count: int) -> None:
        self._confident, self._lossy, self._uncertain = (_Highest(count) for _ in range(3))

    def add(self, scores: BatchScores) -> None:
        """See Collector."""
        self._confident.add(scores, scores.probabilities.masked_fill(scores.hits, -1.0))
        self._lossy.add(scores, scores.losses)
        self._uncertain.add(scores, 1 - scores.probabilities)

    @property
    def confident_errors(self) -> list[ImageScore]:
        return self._confident.images()

    @property
    def largest_losses(self) -> list[ImageScore]:
        return self._lossy.images()

    @property
    def least_certain(self) -> list[ImageScore]:
        return self._uncertain.images()

    def kinds(self) -> dict[str, list[ImageScore]]:
        """All three by their names."""
        names = ("confident_errors", "largest_losses", "least_certain")
        return {name: getattr(self, name) for name in names}


class _Highest:
    """The images of the highest values from 0 up, the earlier one first where two are equal; no more than `count`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[float, int, ImageScore]] = []  # value, minus index

    def add(self, scores: BatchScores, values: Tensor) -> None:
        least = self._heap[0][0] if len(self._heap) == self.count else 0.0
        for place in (values >= least).nonzero().flatten().tolist():
            key = float(values[place]), -int(scores.indices[place])
            if len(self._heap) < self.count:
                heapq.heappush(self._heap, (*key, scores.row(place)))
            elif key > self._heap[0][:2]:
                heapq.heapreplace(self._heap, (*key, scores.row(place)))

    def images(self) -> list[ImageScore]:
        return [image for _, _, image in sorted(self._heap, reverse=True)]
