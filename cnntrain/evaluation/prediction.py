"""What a network says of one image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """The classes of one image with their probabilities, the most probable first.

    Attributes:
        file: the image's, as it was named; empty where it came from memory.
        classes: pairs of a name and a probability (0..1), as many as were asked for.
        threshold: the probability below which no class is given.
    """

    file: str
    classes: tuple[tuple[str, float], ...]
    threshold: float = 0.0

    @property
    def label(self) -> str | None:
        """The most probable class; None where its probability is below the threshold."""
        return self.classes[0][0] if self.probability >= self.threshold else None

    @property
    def probability(self) -> float:
        """That of the most probable class, given or not."""
        return self.classes[0][1]


def rank(logits: Tensor, temperature: float, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest probabilities (N, count) that float32 logits (N, K) stand for, and their classes, int64."""
    top = (logits / temperature).softmax(1).topk(count, dim=1)
    return top.values, top.indices


def predictions(
    files: Iterable[str], probabilities: Tensor, labels: Tensor, names: Sequence[str], threshold: float = 0.0
) -> Iterator[Prediction]:
    """What `rank` found, image by image, with the names of files and classes."""
    for file, values, places in zip(files, probabilities.tolist(), labels.tolist(), strict=True):
        yield Prediction(
            file, tuple((names[place], value) for place, value in zip(places, values, strict=True)), threshold
        )
