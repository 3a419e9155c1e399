"""What a network says of one image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnntrain.training.job import Job
from cnntrain.training.multi_label import USUAL_THRESHOLD


@dataclass(frozen=True)
class Prediction:
    """The classes of one image with their probabilities, the most probable first.

    Attributes:
        file: the image's, as it was named; empty where it came from memory.
        classes: pairs of a name and a probability (0..1), as many as were asked for.
        threshold: the probability below which no class is given, where an image has one class.
        given: the same pairs for the labels of an image that may have several, or none; None where an image has one.
    """

    file: str
    classes: tuple[tuple[str, float], ...]
    threshold: float = 0.0
    given: tuple[tuple[str, float], ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes whose probability reaches their threshold, the most probable first; else the one of `label`."""
        if self.given is not None:
            return tuple(name for name, _ in self.given)
        return (self.classes[0][0],) if self.probability >= self.threshold else ()

    @property
    def label(self) -> str | None:
        """The most probable class; None where its probability is below the threshold, or no label's reaches its own."""
        return self.labels[0] if self.labels else None

    @property
    def probability(self) -> float:
        """That of the most probable class, given or not."""
        return self.classes[0][1]


@dataclass(frozen=True)
class Reading:
    """How the logits of a network are read.

    Attributes:
        temperature: by which they are divided.
        threshold: of one class each, the probability below which none is given.
        thresholds: of sets of labels, float32 (K,) on the host, the probabilities from which on a class is given; None:
            each image has one class.
    """

    temperature: float = 1.0
    threshold: float = 0.0
    thresholds: Tensor | None = None

    @classmethod
    def of(cls, job: Job, threshold: float | None = None) -> "Reading":
        """That of a trained network.

        Args:
            threshold: takes the place of those that were fitted.
        """
        if not job.data.multi_label:
            return cls(job.temperature, threshold or 0.0)
        usual = [USUAL_THRESHOLD if threshold is None else threshold] * len(job.data.classes)
        fitted = job.thresholds if threshold is None else None
        return cls(job.temperature, thresholds=torch.tensor(fitted or usual, dtype=torch.float32))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Those (N, K) that float32 logits (N, K) stand for: of sets each class has one of its own."""
        logits = logits / self.temperature
        return logits.softmax(1) if self.thresholds is None else logits.sigmoid()

    def decide(self, probabilities: Tensor) -> Tensor:
        """What is said by (N, K) probabilities: the best class, int64 (N,), or of sets the labels, bool (N, K)."""
        if self.thresholds is None:
            return probabilities.argmax(1)
        return probabilities >= self.thresholds.to(probabilities.device)


@dataclass(frozen=True)
class Ranks:
    """What is kept of the answers to N images.

    Attributes:
        values, places: float32 (N, count), the highest probabilities, the highest first, and int64, their classes.
        counts: int64 (N,), how many labels each image is given; of one class each all 0, as `values` tell it.
        label_values, label_places: (n,), the same for all these labels, image by image.
    """

    values: Tensor
    places: Tensor
    counts: Tensor
    label_values: Tensor
    label_places: Tensor

    @classmethod
    def join(cls, parts: Sequence["Ranks"]) -> "Ranks":
        """Those of several micro-batches, on the host."""
        return cls(*(torch.cat(part).cpu() for part in zip(*(vars(one).values() for one in parts), strict=True)))


def rank(logits: Tensor, reading: Reading, count: int) -> Ranks:
    """The `count` most probable classes of each image, and of sets its labels, by float32 logits (N, K)."""
    probabilities = reading.probabilities(logits)
    if reading.thresholds is None:
        top = probabilities.topk(count, dim=1)
        none = top.indices.new_zeros(len(logits))
        return Ranks(top.values, top.indices, none, top.values[:0, 0], none[:0])
    values, places = probabilities.sort(dim=1, descending=True, stable=True)
    is_given = reading.decide(probabilities).gather(1, places)
    return Ranks(values[:, :count], places[:, :count], is_given.sum(1), values[is_given], places[is_given])


def predictions(
    files: Iterable[str], found: Ranks, names: Sequence[str], reading: Reading, *, rows: Tensor, count: int
) -> Iterator[Prediction]:
    """What `rank` found, image by image, with the names of files and classes.

    Args:
        found: on the host.
        rows: int64 (n,), of which images.
        count: the classes of each, at most those that were ranked.
    """

    def pairs(places: Sequence[int], values: Sequence[float]) -> tuple[tuple[str, float], ...]:
        return tuple((names[place], value) for place, value in zip(places, values, strict=True))

    best = zip(found.places[rows, :count].tolist(), found.values[rows, :count].tolist(), strict=True)
    ends = found.counts.cumsum(0)
    labels = zip((ends - found.counts)[rows].tolist(), ends[rows].tolist(), strict=True)
    places, values = found.label_places.tolist(), found.label_values.tolist()
    is_set = reading.thresholds is not None
    for file, classes, (start, end) in zip(files, best, labels, strict=True):
        given = pairs(places[start:end], values[start:end]) if is_set else None
        yield Prediction(file, pairs(*classes), reading.threshold, given)
