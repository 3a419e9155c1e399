"""What a network says of single images of which each has a set of labels, and the worst of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

LabelScore: TypeAlias = tuple[int, float]  # the number of a label, and its probability


@dataclass(frozen=True)
class SetScore:
    """One image of a split.

    Attributes:
        index: its place in the split, for `loader.pick`.
        file: its file, or `test/17` where it comes from none.
        labels, prediction: those that it has, and those that it is given, by their numbers.
        missed: labels that it has and is not given, the least probable first.
        extra: labels that it is given and has not, the most probable first.
        loss: the summed binary cross-entropy.
    """

    index: int
    file: str
    labels: tuple[int, ...]
    prediction: tuple[int, ...]
    missed: tuple[LabelScore, ...]
    extra: tuple[LabelScore, ...]
    loss: float

    @property
    def is_error(self) -> bool:
        """Whether any label is missed or wrongly given."""
        return self.labels != self.prediction


@dataclass(frozen=True)
class ImageSets:
    """All images of a split, on the host, in the order of their indices.

    Attributes:
        indices: int64 (N,).
        labels, given: bool (N, K).
        probabilities: float64 (N, K).
        losses: float64 (N,).
        name: of an image, by its index.
    """

    indices: Tensor
    labels: Tensor
    given: Tensor
    probabilities: Tensor
    losses: Tensor
    name: Callable[[int], str]

    def row(self, place: int) -> SetScore:
        """One of the images."""
        labels, given, probabilities = self.labels[place], self.given[place], self.probabilities[place]
        index = int(self.indices[place])
        return SetScore(
            index,
            self.name(index),
            tuple(labels.nonzero().flatten().tolist()),
            tuple(given.nonzero().flatten().tolist()),
            _sorted(labels & ~given, probabilities, 1),
            _sorted(given & ~labels, probabilities, -1),
            float(self.losses[place]),
        )

    def rows(self) -> Iterator[SetScore]:
        """All of them."""
        return map(self.row, range(len(self.labels)))

    def worst(self, count: int) -> dict[str, list[SetScore]]:
        """The worst images in three respects, at most `count` of each, the earlier one first where two are equal.

        `missed`: labels that they have and are not given, the least probable first; `wrongly_given`: labels that they
        have not and are given, the most probable first; `largest_losses`: of all images, by their loss.
        """
        missed = (1 - self.probabilities).masked_fill(~self.labels | self.given, -1).amax(1)
        extra = self.probabilities.masked_fill(self.labels | ~self.given, -1).amax(1)
        kinds = {"missed": missed, "wrongly_given": extra, "largest_losses": self.losses}
        return {kind: self._highest(values, count) for kind, values in kinds.items()}

    def _highest(self, values: Tensor, count: int) -> list[SetScore]:
        """Those of the highest values from 0 up."""
        order = values.argsort(descending=True, stable=True)[:count]
        return [self.row(place) for place in order[values[order] >= 0].tolist()]


def _sorted(chosen: Tensor, probabilities: Tensor, sign: int) -> tuple[LabelScore, ...]:
    """The chosen labels, by their probability times the sign."""
    numbers = chosen.nonzero().flatten()
    order = (sign * probabilities[numbers]).argsort(stable=True)
    return tuple(zip(numbers[order].tolist(), probabilities[numbers[order]].tolist(), strict=True))
