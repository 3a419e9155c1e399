"""What TensorBoard is shown of the split that is scored at the end of a run.

All of it comes from the one pass that scores: precision and recall of each class, the most confident errors, and the
features that enter the head.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import nn

from cnntrain.data.labels import is_sets
from cnntrain.data.loaders import Loader
from cnntrain.errors import ConfigError
from cnntrain.evaluation.precision_recall import ThresholdCounts
from cnntrain.models.head import find_head
from cnntrain.report.augmentation import class_name
from cnntrain.report.last_features import LastFeatures
from cnntrain.report.projector import SIDE, write_projector
from cnntrain.report.run_report import Report
from cnntrain.report.split_errors import ClassErrors, Errors, SetErrors
from cnntrain.report.tensorboard import TensorBoardLog
from cnntrain.text import printable
from cnntrain.training.job import TrainJob
from cnntrain.training.scoring import Answer

MOST_CLASSES, MOST_POINTS = 20, 1000


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
        images = len(loader.labels)
        order = torch.arange(images) if is_sets(loader.labels) else loader.labels.argsort(stable=True)
        self._chosen[order[torch.linspace(0, images - 1, min(MOST_POINTS, images)).long()]] = True
        self._start(0)

    def _start(self, epoch: int) -> None:
        self.epoch = epoch
        classes, device = len(self._job.data.classes), self._job.device
        self._counts = ThresholdCounts(classes, device)
        kind = SetErrors if self._job.data.multi_label else ClassErrors
        self._errors: Errors = kind(self._job, self._loader, self._report, self._name)
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
        self._errors.add(answer)
        attempt("precision and recall", lambda: self._counts.add(answer.logits, answer.labels))
        if self._has_head:
            attempt("features", lambda: self._features.add(answer))

    def draw(self, thresholds: Sequence[float] = ()) -> None:
        """Show what all processes have collected; of features, those of this one.

        Args:
            thresholds: see Errors.
        """
        draw = self._report.draw
        self._counts.sum(self._job.world)
        self._errors.draw(thresholds)
        draw("precision and recall", self._draw_curves)
        if self._has_head:
            draw("features", self._draw_features)

    def _draw_curves(self, log: TensorBoardLog, step: int) -> None:
        names = [class_name(name) for name in self._job.data.classes]
        for curve in self._counts.curves(names, MOST_CLASSES):
            log.curve(f"pr_{self._name}/{printable(curve.name)}", curve, step)

    def _draw_features(self, log: TensorBoardLog, step: int) -> None:
        indices, features, images, predictions = self._features.read()
        images_of = [self._loader.name(index) for index in indices.tolist()]
        facts = self._errors.facts(indices, predictions) | {"image": images_of}
        write_projector(log.folder, f"what enters the head, {self._name}", features, self._job.as_images(images), facts)
