"""What TensorBoard is shown of errors: the images whose class, or set of labels, is told most wrongly."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnntrain.data.loaders import Loader
from cnntrain.evaluation.image_scores import BatchScores, ImageScore, Worst
from cnntrain.evaluation.label_sets import SplitAnswers, read_images
from cnntrain.evaluation.set_images import LabelScore, SetScore
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.plots.worst import draw_worst, draw_worst_sets
from cnntrain.report.augmentation import class_name
from cnntrain.report.run_report import Report
from cnntrain.report.tensorboard import TensorBoardLog
from cnntrain.text import percent, printable
from cnntrain.training.job import TrainJob
from cnntrain.training.metrics import ConfusionCounts
from cnntrain.training.scoring import Answer

MOST_ERRORS = 24
BETWEEN = " | "  # labels of an image


class Errors(Protocol):
    """Collects the answers to a split, and draws what is wrong with them."""

    def add(self, answer: Answer) -> None:
        """Take the answer to a micro-batch."""

    def draw(self, thresholds: Sequence[float]) -> None:
        """Show what all processes have collected; all must call it.

        Args:
            thresholds: from which probability on a label is given, by label; [] where each image has one class.
        """

    def facts(self, indices: Tensor, predictions: Tensor) -> dict[str, list[str]]:
        """Columns on some images that this process was told of: `class`, `predicted` and `right`.

        Args:
            indices, predictions: int64 (N,), of the images and of their most probable classes.
        """


class ClassErrors:
    """Of images of one class each: which class is taken for which, and the most confident errors."""

    def __init__(self, job: TrainJob, loader: Loader, report: Report, name: str) -> None:
        self._job, self._loader, self._report, self._name = job, loader, report, name
        self._classes = [class_name(one) for one in job.data.classes]
        self._confusion = ConfusionCounts(len(self._classes), job.device)
        self._worst = Worst(MOST_ERRORS)

    def add(self, answer: Answer) -> None:
        """See Errors."""
        self._confusion.add(answer.logits, answer.labels)
        self._report.attempt("errors", lambda: self._add_worst(answer))

    def _add_worst(self, answer: Answer) -> None:
        self._worst.add(BatchScores.read(answer.logits, answer, self._loader.name))

    def draw(self, thresholds: Sequence[float]) -> None:
        """See Errors."""
        world = self._job.world
        world.sum_([self._confusion.matrix])
        errors = [error for part in world.gather(self._worst.confident_errors) for error in part]
        errors.sort(key=lambda error: -error.probability)
        self._report.confusion(f"{self._name}/confusion", self._confusion.matrix, self._job.data.classes)
        if errors:
            self._report.draw("errors", lambda log, step: self._draw(log, step, errors[:MOST_ERRORS]))

    def _draw(self, log: TensorBoardLog, step: int, errors: list[ImageScore]) -> None:
        words = _words(self._job, self._loader, self._name)
        sheet = draw_worst({"": errors}, _pick(self._loader), self._classes, *words)
        _show(log, step, self._name, sheet, error_table(errors, self._classes))

    def facts(self, indices: Tensor, predictions: Tensor) -> dict[str, list[str]]:
        """See Errors."""
        labels = self._loader.labels[indices]
        return {
            "class": [self._classes[label] for label in labels.tolist()],
            "predicted": [self._classes[label] for label in predictions.tolist()],
            "right": ["yes" if is_right else "no" for is_right in (labels == predictions).tolist()],
        }


class SetErrors:
    """Of images that have a set of labels each: those that are wrongly given, and those that are missed."""

    def __init__(self, job: TrainJob, loader: Loader, report: Report, name: str) -> None:
        self._job, self._loader, self._report, self._name = job, loader, report, name
        self._classes = [class_name(one) for one in job.data.classes]
        self._answers: list[Answer] = []
        self._given = torch.zeros(len(loader.labels), len(self._classes), dtype=torch.bool)

    def add(self, answer: Answer) -> None:
        """See Errors."""
        on_host = (part.cpu() for part in (answer.labels, answer.first_logits, answer.logits))
        self._answers.append(Answer(answer.indices, *on_host))

    def draw(self, thresholds: Sequence[float]) -> None:
        """See Errors."""
        worst: dict[str, list[SetScore]] = {}
        if self._answers:
            answers = SplitAnswers.gather(self._answers)
            images = read_images(answers, thresholds, self._loader.name)
            self._given[images.indices] = images.given
            worst = images.worst(MOST_ERRORS // 2)
        parts = self._job.world.gather(worst)
        kinds = {kind: _merge(parts, kind, sign) for kind, sign in (("wrongly_given", -1), ("missed", 1))}
        if any(kinds.values()):
            self._report.draw("errors", lambda log, step: self._draw(log, step, kinds))

    def _draw(self, log: TensorBoardLog, step: int, kinds: Mapping[str, list[SetScore]]) -> None:
        words = _words(self._job, self._loader, self._name)
        groups = {kind.replace("_", "\n"): images for kind, images in kinds.items() if images}
        sheet = draw_worst_sets(groups, _pick(self._loader), self._classes, *words)
        _show(log, step, self._name, sheet, mistake_table(kinds, self._classes))

    def facts(self, indices: Tensor, predictions: Tensor) -> dict[str, list[str]]:
        """See Errors."""
        labels, given = self._loader.labels[indices], self._given[indices]
        return {
            "class": [self._names(row) for row in labels],
            "predicted": [self._names(row) for row in given],
            "right": ["yes" if is_right else "no" for is_right in (labels == given).all(1).tolist()],
        }

    def _names(self, row: Tensor) -> str:
        return BETWEEN.join(self._classes[place] for place in row.nonzero().flatten().tolist())


def _merge(parts: Iterable[Mapping[str, list[SetScore]]], kind: str, sign: int) -> list[SetScore]:
    """The worst images of all processes."""
    every = [image for part in parts for image in part.get(kind, ())]
    every.sort(key=lambda image: sign * (image.missed if kind == "missed" else image.extra)[0][1])
    return every[: MOST_ERRORS // 2]


def _words(job: TrainJob, loader: Loader, name: str) -> tuple[str, str]:
    """The title and the footer of a sheet."""
    settings = job.settings
    footer = f"{loader.images:,} {SPLIT_WORDS[name]} images of {settings.data.heading}"
    return f"{settings.model.heading}: the most confident errors", footer


def _pick(loader: Loader) -> Callable[[list[int]], Tensor]:
    return lambda indices: loader.pick(torch.tensor(indices))


def _show(log: TensorBoardLog, step: int, name: str, sheet: Image.Image, table: str) -> None:
    log.picture(f"{name}/errors", np.asarray(sheet), step)
    log.text(f"{name}/error_files", table, step)


def error_table(errors: Sequence[ImageScore], classes: Sequence[str]) -> str:
    """A table of the files, in Markdown."""
    rows = (
        (error.file, classes[error.label], classes[error.prediction], percent(error.probability)) for error in errors
    )
    return _markdown(("file", "class", "predicted", "probability"), rows)


def mistake_table(kinds: Mapping[str, Sequence[SetScore]], classes: Sequence[str]) -> str:
    """A table of the files with the labels that are wrongly given and missed, in Markdown."""

    def words(labels: Sequence[LabelScore]) -> str:
        return ", ".join(f"{classes[place]} {percent(probability)}" for place, probability in labels)

    every = dict.fromkeys(image for images in kinds.values() for image in images)  # each once
    rows = ((image.file, words(image.extra), words(image.missed)) for image in every)
    return _markdown(("file", "wrongly given", "missed"), rows)


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_plain, row))} |" for row in rows)])


def _plain(text: str) -> str:
    """A text that Markdown and HTML make nothing of: names may be a stranger's, and a link or an image among them."""
    return re.sub(r"[^\w %,./-]|_", lambda match: f"&#{ord(match[0])};", printable(text))
