"""What TensorBoard is shown of the split that is scored at the end of a run.

All of it comes from the one pass that scores: precision and recall of each class, the most confident errors, and the
features that enter the head.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch
from torch import nn

from cnntrain.data.loaders import Loader
from cnntrain.errors import ConfigError
from cnntrain.evaluation.image_scores import BatchScores, ImageScore, Worst
from cnntrain.evaluation.precision_recall import ThresholdCounts
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.models.head import find_head
from cnntrain.plots.worst import draw_worst
from cnntrain.report.augmentation import class_name
from cnntrain.report.last_features import LastFeatures
from cnntrain.report.projector import SIDE, write_projector
from cnntrain.report.run_report import Report
from cnntrain.report.tensorboard import TensorBoardLog
from cnntrain.text import percent, printable
from cnntrain.training.job import TrainJob
from cnntrain.training.metrics import ConfusionCounts
from cnntrain.training.scoring import Answer

MOST_ERRORS, MOST_CLASSES, MOST_POINTS = 24, 20, 1000


class ScoredSplit:
    """Collects the answers to the split that is scored at the end of a run, a micro-batch at a time, and draws them.

    The processes of a run do this together, and the first one draws. No fault of drawing is raised.

    Attributes:
        epoch: whose answers these are; see Listener.
    """

    def __init__(self, job: TrainJob, loader: Loader, report: Report) -> None:
        self._job, self._loader, self._report = job, loader, report
        self._name = "test" if loader is job.data.test else "val"
        self._chosen = torch.zeros(len(loader.labels), dtype=torch.bool)
        by_class = loader.labels.argsort(stable=True)
        self._chosen[by_class[torch.linspace(0, len(by_class) - 1, min(MOST_POINTS, len(by_class))).long()]] = True
        self._start(0)

    def _start(self, epoch: int) -> None:
        self.epoch = epoch
        classes, device = len(self._job.data.classes), self._job.device
        self._confusion, self._counts = ConfusionCounts(classes, device), ThresholdCounts(classes, device)
        self._worst = Worst(MOST_ERRORS)
        self._features = LastFeatures(self._chosen, SIDE)
        self._has_head = False

    @contextmanager
    def hearing(self, model: nn.Module, epoch: int) -> Iterator[Callable[[Answer], None]]:
        """Forget what was heard; yield what takes each answer, and hear what enters the head, where one is found."""
        self._start(epoch)
        with ExitStack() as stack:

            def hear() -> None:
                with suppress(ConfigError):
                    head = find_head(model, self._job.settings.finetune.head)
                    stack.enter_context(self._features.listening(model, head))
                    self._has_head = True

            self._report.attempt("features", hear)
            yield self._add

    def _add(self, answer: Answer) -> None:
        """Take the answer to a micro-batch."""
        attempt = self._report.attempt
        self._confusion.add(answer.logits, answer.labels)
        attempt("precision and recall", lambda: self._counts.add(answer.logits, answer.labels))
        attempt("errors", lambda: self._worst.add(BatchScores.read(answer.logits, answer, self._loader.name)))
        if self._has_head:
            attempt("features", lambda: self._features.add(answer))

    def draw(self) -> None:
        """Show what all processes have collected; of features, those of this one."""
        world, draw = self._job.world, self._report.draw
        self._counts.sum(world)
        world.sum_([self._confusion.matrix])
        errors = [error for part in world.gather(self._worst.confident_errors) for error in part]
        errors.sort(key=lambda error: -error.probability)
        self._report.confusion(f"{self._name}/confusion", self._confusion.matrix, self._job.data.classes)
        draw("precision and recall", self._draw_curves)
        if errors:
            draw("errors", lambda log, step: self._draw_errors(log, step, errors[:MOST_ERRORS]))
        if self._has_head:
            draw("features", self._draw_features)

    def _draw_curves(self, log: TensorBoardLog, step: int) -> None:
        names = [class_name(name) for name in self._job.data.classes]
        for curve in self._counts.curves(names, MOST_CLASSES):
            log.curve(f"pr_{self._name}/{printable(curve.name)}", curve, step)

    def _draw_errors(self, log: TensorBoardLog, step: int, errors: list[ImageScore]) -> None:
        loader, settings = self._loader, self._job.settings
        classes = [class_name(name) for name in self._job.data.classes]
        title = f"{settings.model.heading}: the most confident errors"
        footer = f"{loader.images:,} {SPLIT_WORDS[self._name]} images of {settings.data.heading}"
        sheet = draw_worst({"": errors}, lambda indices: loader.pick(torch.tensor(indices)), classes, title, footer)
        log.picture(f"{self._name}/errors", np.asarray(sheet), step)
        log.text(f"{self._name}/error_files", _markdown(errors, classes), step)

    def _draw_features(self, log: TensorBoardLog, step: int) -> None:
        indices, features, images, predictions = self._features.read()
        classes = [class_name(name) for name in self._job.data.classes]
        labels = self._loader.labels[indices]
        facts = {
            "class": [classes[label] for label in labels.tolist()],
            "predicted": [classes[label] for label in predictions.tolist()],
            "right": ["yes" if is_right else "no" for is_right in (labels == predictions).tolist()],
            "image": [self._loader.name(index) for index in indices.tolist()],
        }
        write_projector(log.folder, f"what enters the head, {self._name}", features, self._job.as_images(images), facts)


def _markdown(errors: Sequence[ImageScore], classes: Sequence[str]) -> str:
    """A table of the files."""
    lines = ["| file | class | predicted | probability |", "| --- | --- | --- | --- |"]
    for error in errors:
        names = error.file, classes[error.label], classes[error.prediction]
        lines.append(f"| {' | '.join(map(_plain, names))} | {percent(error.probability)} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A text that Markdown and HTML make nothing of: names may be a stranger's, and a link or an image among them."""
    return re.sub(r"[^\w ./-]|_", lambda match: f"&#{ord(match[0])};", printable(text))
