"""All scores of images that have a set of labels each: what is worth what, split by split.

An average precision needs all probabilities in their order, so those of a split are in memory: some 20 bytes for each
label of each image.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cnntrain.evaluation import set_measures as measures
from cnntrain.evaluation.calibration import Fit
from cnntrain.evaluation.classes import most_confused
from cnntrain.evaluation.evaluate import MOST_IMAGES
from cnntrain.evaluation.intervals import Interval, of_mean
from cnntrain.evaluation.set_calibration import fit_temperature, reliability, told_at
from cnntrain.evaluation.set_images import ImageSets, SetScore
from cnntrain.evaluation.split_scores import MOST_CONFUSED, SPLIT_WORDS, loader_of, score_all
from cnntrain.runtime.signals import NEVER, StopFlag
from cnntrain.training.job import Job
from cnntrain.training.multi_label import USUAL_THRESHOLD, fit_thresholds
from cnntrain.training.scoring import Answer, need_finite
from cnntrain.training.tta import Views


@dataclass(frozen=True)
class SplitAnswers:
    """The answers to all images of a split, on the host, in the order of their indices.

    Attributes:
        indices: int64 (N,).
        labels: bool (N, K).
        first_logits, logits: float32 (N, K), see Answer.
    """

    indices: Tensor
    labels: Tensor
    first_logits: Tensor
    logits: Tensor

    @classmethod
    def gather(cls, answers: Iterable[Answer]) -> "SplitAnswers":
        """Those of all micro-batches."""
        parts = [(one.indices, one.labels.cpu(), one.first_logits.cpu(), one.logits.cpu()) for one in answers]
        indices, labels, first_logits, logits = map(torch.cat, zip(*parts, strict=True))
        order = indices.argsort(stable=True)
        return cls(indices[order], labels[order], first_logits[order], logits[order])


@dataclass(frozen=True)
class SetScores:
    """What a network is worth on a split.

    Attributes:
        scores: plain containers, ready for JSON; see score_sets.
        images: what it says of each image.
        thresholds: from which probability on a label is given, by label.
        fit: the temperature that suits these images best; None where it was not looked for, or there is none.
    """

    scores: dict[str, Any]
    images: ImageSets
    thresholds: list[float]
    fit: Fit | None

    @property
    def is_right(self) -> bool:
        """Whether all labels that are there are more probable than not, and no others."""
        return bool(((self.images.probabilities > USUAL_THRESHOLD) == self.images.labels).all())


def score_sets(
    job: Job,
    split: str,
    *,
    views: Views | None = None,
    thresholds: list[float] | None = None,
    other: Fit | None = None,
    stop: StopFlag = NEVER,
    advance: Callable[[int], None] | None = None,
) -> SetScores:
    """Score all images of a split of the job, `val` or `test`.

    All that comes from probabilities, loss and all, is of those that the network gives at `job.temperature`. A label is
    given from its threshold on: that of the checkpoint; where it has none, `thresholds`, or those of the highest F1 on
    the validation images where these are scored, or 0.5.

    The scores: `images`; `map`, `loss`, and with views `plain_map` and `plain_loss`, of the first view alone;
    `macro_f1`, `micro_f1`, `hamming`, `subset_accuracy`, `cardinality` and `given_cardinality`, see set_measures;
    `thresholds`, where they come from: `checkpoint`, `val` or `0.5`; `intervals`, of these by name (95 %, [low, high];
    one that cannot be told is missing); `calibration` with `ece`, `bins`, `temperature` and `without` as score_split
    has them, over all labels of all images; `by_threshold`, rows of one threshold for all labels; `confused`, rows of
    `true` (a label that is missed), `predicted` (one that the same image is wrongly given) and `images`; and `classes`,
    by name, with `images`, `given`, `average_precision` (None: of no image), `precision`, `recall`, `f1` and
    `threshold`.

    Args:
        views: several of each image, whose probabilities are averaged.
        other: a temperature to try that was fitted to other images; without it, one is fitted to validation images.
        stop: read after each micro-batch.
        advance: is told the images of each.

    Raises:
        NonFiniteError: the loss is no number.
        Interrupted: a signal asked for the end.
    """
    loader, names = loader_of(job, split, views), job.data.classes
    with closing(job.scorer(views=views).answers(loader, stop=stop, advance=advance)) as parts:
        answers = SplitAnswers.gather(parts)
    if job.thresholds is not None:
        thresholds, source = job.thresholds, "checkpoint"
    elif thresholds is not None:
        source = "val"
    elif split == "val":
        thresholds, source = fit_thresholds(_read(answers, job.temperature)[1], answers.labels), "val"
    else:
        thresholds, source = [USUAL_THRESHOLD] * len(names), str(USUAL_THRESHOLD)
    images = read_images(answers, thresholds, loader.name, job.temperature)
    need_finite(float(images.losses.sum()), f"the loss on the {SPLIT_WORDS[split]} images", job.precision)
    fits = split == "val" and other is None
    # To the first view: all commands share the temperature, whatever their views.
    fit = fit_temperature(answers.first_logits, answers.labels, answers.indices) if fits else None
    mean, precisions, limits = measures.measure_order(answers.logits, answers.labels)
    scores = {
        **_measures(images, mean, limits, _plain(answers, job.temperature) if views else {}),
        "thresholds": source,
        "calibration": _calibration(answers, images.probabilities, job.temperature, fit, other),
        "by_threshold": measures.by_threshold(images.probabilities, answers.labels),
        "confused": most_confused(measures.count_confused(answers.labels, images.given), names, MOST_CONFUSED),
        "classes": _classes(names, images, precisions, thresholds),
    }
    return SetScores(scores, images, thresholds, fit)


def read_images(
    answers: SplitAnswers, thresholds: Sequence[float], name: Callable[[int], str], temperature: float = 1.0
) -> ImageSets:
    """What the answers say of each image.

    Args:
        thresholds: from which probability on a label is given, by label; [] for 0.5.
        name: of an image, by its index.
    """
    losses, probabilities = _read(answers, temperature)
    limits = torch.tensor(thresholds or [USUAL_THRESHOLD], dtype=torch.float64)
    return ImageSets(answers.indices, answers.labels, probabilities >= limits, probabilities, losses, name)


def _read(answers: SplitAnswers, temperature: float) -> tuple[Tensor, Tensor]:
    """The losses (N,) and the probabilities (N, K), float64: float32 makes 1 of many that differ."""
    scaled = answers.logits.double() / temperature
    losses = functional.binary_cross_entropy_with_logits(scaled, answers.labels.double(), reduction="none").sum(1)
    return losses, scaled.sigmoid()


def _measures(
    images: ImageSets, precision: float, limits: dict[str, Interval], plain: dict[str, float]
) -> dict[str, Any]:
    """The scores of a split with their intervals.

    Args:
        precision, limits: the mean average precision, and its interval.
        plain: more scores, of the first view alone.
    """
    count, losses = len(images.labels), images.losses
    decided, more = measures.measure(images.labels, images.given)
    limits |= more
    loss = float(losses.sum()) / max(1, count)
    if count > 1:
        limits["loss"] = of_mean(loss, float(losses.square().mean()), count)
    told = {key: list(interval) for key, interval in limits.items()}
    return {"images": count, "map": precision, "loss": loss, **plain, **decided, "intervals": told}


def _plain(answers: SplitAnswers, temperature: float) -> dict[str, float]:
    """What the first view alone is worth."""
    losses, _ = _read(replace(answers, logits=answers.first_logits), temperature)
    mean, *_ = measures.measure_order(answers.first_logits, answers.labels)
    return {"plain_map": mean, "plain_loss": float(losses.sum()) / max(1, len(losses))}


def _calibration(
    answers: SplitAnswers, probabilities: Tensor, used: float, fit: Fit | None, other: Fit | None
) -> dict[str, Any]:
    """See score_split."""
    temperature: dict[str, Any] = {"used": used, "fitted": None, "loss": None, "helps": False}
    if other:
        told = told_at(other.temperature, answers.logits, answers.labels)
        temperature |= {"fitted": other.temperature, **told, "helps": other.helps}
    elif fit:
        temperature |= {"fitted": fit.temperature, "loss": fit.loss, "helps": fit.helps}
    found = reliability(probabilities, answers.labels)
    without = {"without": told_at(1.0, answers.logits, answers.labels)} if used != 1 else {}
    return {"ece": found.error(), "bins": found.bins(), "temperature": temperature, **without}


def _classes(
    names: Sequence[str], images: ImageSets, precisions: Tensor, thresholds: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """What is told of each label."""
    rows = measures.by_class(names, images.labels, images.given)
    known = [None if math.isnan(value) else value for value in precisions.tolist()]
    for row, precision, threshold in zip(rows.values(), known, thresholds, strict=True):
        row |= {"average_precision": precision, "threshold": threshold}
    return rows


class SetCollector(Protocol):
    """What is told of all images of a split, once it is scored."""

    def add(self, images: ImageSets) -> None:
        """Take what there is to take."""


@dataclass(frozen=True)
class SetEvaluation:
    """What a network is worth on the splits that there are, `val` before `test`.

    Attributes:
        classes: their names.
        found: the scores of each split.
    """

    classes: Sequence[str]
    found: dict[str, SetScores]

    @property
    def last(self) -> str:
        """The split that pictures and tables of single classes and images are of: the test images, if there are any."""
        return list(self.found)[-1]

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Plain containers by split: its scores, and `worst`, images by what is bad about them."""
        return {split: found.scores | {"worst": self._worst(split)} for split, found in self.found.items()}

    def worst(self, split: str) -> dict[str, list[SetScore]]:
        """The worst images of a split."""
        return self.found[split].images.worst(MOST_IMAGES)

    def _worst(self, split: str) -> dict[str, list[dict[str, Any]]]:
        return {kind: [self._plain(image) for image in images] for kind, images in self.worst(split).items()}

    def _plain(self, image: SetScore) -> dict[str, Any]:
        names = self.classes
        named = {key: [names[number] for number in getattr(image, key)] for key in ("labels", "prediction")}
        found = {key: {names[number]: value for number, value in getattr(image, key)} for key in ("missed", "extra")}
        return asdict(image) | named | found


def evaluate_sets(
    job: Job,
    *,
    views: Views | None = None,
    start: Callable[[str], Sequence[SetCollector]] = lambda split: (),
    advance: Callable[[int], None] | None = None,
) -> SetEvaluation:
    """Score all splits of a job. What is fitted, is fitted to the validation images and tried on the test images.

    Args:
        views: several of each image, whose probabilities are averaged.
        start: is told each split before it is scored, and gives more that is to be told of its images.
        advance: is told the images of each micro-batch.

    Raises:
        NonFiniteError: the loss is no number.
    """

    def score(split: str, collectors: Sequence[SetCollector], val: SetScores | None) -> SetScores:
        thresholds, fit = (val.thresholds, val.fit) if val else (None, None)
        found = score_sets(job, split, views=views, thresholds=thresholds, other=fit, advance=advance)
        for collector in collectors:
            collector.add(found.images)
        return found

    return SetEvaluation(job.data.classes, score_all(job, start, score))
