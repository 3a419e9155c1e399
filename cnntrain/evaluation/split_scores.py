"""All scores of one split, in one pass: no more than the counts of K x K classes and a micro-batch is in memory."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch.nn import functional

from cnntrain.data.loaders import Loader
from cnntrain.data.unlabelled import widen
from cnntrain.evaluation import classes as class_scores
from cnntrain.evaluation.bootstrap import bootstrap
from cnntrain.evaluation.calibration import Coverage, Fit, Reliability, TemperatureFit, Trial
from cnntrain.evaluation.image_scores import BatchScores, Collector
from cnntrain.evaluation.intervals import Interval, of_mean, wilson
from cnntrain.runtime.signals import NEVER, StopFlag
from cnntrain.training.job import Job
from cnntrain.training.metrics import ConfusionCounts, RunningScores, has_top5
from cnntrain.training.scoring import Answer, need_finite
from cnntrain.training.tta import Views

C = TypeVar("C")  # what is told of the images of a split
F = TypeVar("F")  # the scores of a split
MOST_CONFUSED = 20  # pairs of classes that are told
SPLIT_WORDS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class SplitScores:
    """What a network is worth on a split.

    Attributes:
        scores: plain containers, ready for JSON; see score_split.
        matrix: int64 (K, K) on the host, true classes down, predicted ones across.
        fit: the temperature that suits these images best; None where it was not looked for, or there is none.
    """

    scores: dict[str, Any]
    matrix: Tensor
    fit: Fit | None

    @property
    def is_right(self) -> bool:
        """Whether every image is."""
        return bool(self.scores["top1"] == 1)


def score_split(
    job: Job,
    split: str,
    *,
    views: Views | None = None,
    collectors: Sequence[Collector] = (),
    other: Fit | None = None,
    stop: StopFlag = NEVER,
    advance: Callable[[int], None] | None = None,
) -> SplitScores:
    """Score all images of a split of the job, `val` or `test`.

    All that comes from probabilities, loss and all, is of those that the network gives at `job.temperature`.

    The scores: `images`; `top1`, `top5` (of more than five classes), `loss`, `balanced_accuracy`, `macro_f1`, and with
    views `plain_top1` and so on, of the first view alone; `intervals`, of these by name (95 %, [low, high]; one that
    cannot be told is missing); `calibration` with `ece`, `bins` and `temperature` (`used`; `fitted` to the validation
    images or None; with that one the `loss`, of the first view where it is of these images, and of other images the
    `ece`; whether it `helps`, see Fit) and, where another than 1 is used, `without` it `loss` and `ece`; `coverage`,
    rows of `threshold`, `coverage` and `accuracy`; `confused`, rows of `true`, `predicted` and `images`; and `classes`,
    by name, with `images`, `precision`, `recall` and `f1`.

    Args:
        views: several of each image, whose probabilities are averaged.
        collectors: are told of every image.
        other: a temperature to try that was fitted to other images; without it, one is fitted to validation images.
        stop: read after each micro-batch.
        advance: is told the images of each.

    Raises:
        NonFiniteError: the loss is no number.
        Interrupted: a signal asked for the end.
    """
    loader, names = loader_of(job, split, views), job.data.classes
    fit = TemperatureFit() if split == "val" and other is None else None
    counts = _Counts(job, len(names), views, fit, other)
    with closing(job.scorer(views=views).answers(loader, stop=stop, advance=advance)) as answers:
        for answer in answers:
            logits = answer.logits / job.temperature
            batch = BatchScores.read(logits, answer, loader.name)
            need_finite(float(batch.losses.sum()), f"the loss on the {SPLIT_WORDS[split]} images", job.precision)
            counts.add(logits, answer.labels, batch)
            counts.add_plain(answer)
            for collector in collectors:
                collector.add(batch)
    return counts.read(names)


def score_all(
    job: Job,
    start: Callable[[str], Sequence[C]],
    score: Callable[[str, Sequence[C], F | None], F],
) -> dict[str, F]:
    """The scores of all splits that there are, `val` before `test`.

    Args:
        start: is told each split before it is scored, and gives what is to be told of its images.
        score: of a split; what is fitted, is fitted to the validation images and tried on the test images, which are
            scored with the scores of those.
    """
    found: dict[str, F] = {}
    for split in job.data.scored_splits:
        found[split] = score(split, start(split), found.get("val"))
    return found


def loader_of(job: Job, split: str, views: Views | None) -> Loader:
    """The images of a split, with what lies around them where the views reach there."""
    loader = job.data.scored_splits[split]
    return widen(loader, job.settings.data, job.device) if views and views.reach else loader


class _Counts:
    """Sums and counts over the micro-batches of a split."""

    def __init__(
        self,
        job: Job,
        classes: int,
        views: Views | None,
        fit: TemperatureFit | None,
        other: Fit | None,
    ) -> None:
        top5 = has_top5(classes)
        self.running = RunningScores(job.device, top5=top5)
        self.first = RunningScores(job.device, top5=top5) if views else None
        self.confusion = ConfusionCounts(classes, job.device)
        self.reliability, self.coverage = Reliability(), Coverage()
        self.squares = 0.0  # of the losses
        self.temperature, self.fit, self.other = job.temperature, fit, other
        self.trial = Trial(other.temperature) if other else None
        self.without = Trial(1.0) if job.temperature != 1 else None

    def add(self, logits: Tensor, labels: Tensor, batch: BatchScores) -> None:
        """Count a micro-batch; its logits are those that are told."""
        self.running.add(functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)
        self.confusion.add(logits, labels)
        self.reliability.add(batch)
        self.coverage.add(batch)
        self.squares += float(batch.losses.square().sum())

    def add_plain(self, answer: Answer) -> None:
        """Count what does without the temperature: the first view, and what another temperature would do."""
        labels = answer.labels
        if self.first:
            first_logits = answer.first_logits / self.temperature
            self.first.add(functional.cross_entropy(first_logits, labels, reduction="sum"), first_logits, labels)
        if self.fit:  # to the first view: all commands share the temperature, whatever their views
            self.fit.add(answer.first_logits, labels, answer.indices)
        for trial in (self.trial, self.without):
            if trial:
                trial.add(answer.logits, labels)

    def read(self, names: Sequence[str]) -> SplitScores:
        """All scores."""
        scores, images = self.running.read(), self.running.images
        matrix = self.confusion.matrix.cpu()
        counts = matrix.numpy()
        balanced_accuracy, macro_f1 = class_scores.of_matrix(counts)
        limits: dict[str, Interval] = {key: wilson(scores[key], images) for key in ("top1", "top5") if key in scores}
        if images > 1:
            limits["loss"] = of_mean(scores["loss"], self.squares / images, images)
        limits |= bootstrap(counts)
        plain = {f"plain_{key}": value for key, value in self.first.read().items()} if self.first else {}
        fit = self.fit.fit(images) if self.fit else None
        result = {
            "images": images,
            **scores,
            **plain,
            "balanced_accuracy": balanced_accuracy,
            "macro_f1": macro_f1,
            "intervals": {key: list(interval) for key, interval in limits.items()},
            "calibration": {
                "ece": self.reliability.error(),
                "bins": self.reliability.bins(),
                "temperature": {"used": self.temperature, **self._other(fit)},
                **({"without": self.without.read()} if self.without else {}),
            },
            "coverage": self.coverage.rows(),
            "confused": class_scores.most_confused(counts, names, MOST_CONFUSED),
            "classes": self.confusion.by_class(names),
        }
        return SplitScores(result, matrix, fit)

    def _other(self, fit: Fit | None) -> dict[str, float | None]:
        """The temperature that would suit better, and what it would do."""
        if self.other and self.trial:
            return {"fitted": self.other.temperature, **self.trial.read(), "helps": self.other.helps}
        if fit:
            return {"fitted": fit.temperature, "loss": fit.loss, "helps": fit.helps}
        return {"fitted": None, "loss": None, "helps": False}
