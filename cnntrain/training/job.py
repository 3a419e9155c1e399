"""What is scored (Job) and what is trained (TrainJob): a network with its data, constant once it is built."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cnntrain.augment.build import Augment, BatchContext
from cnntrain.augment.mix import Mix
from cnntrain.config.plain import to_plain
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import Precision, TrainerSettings
from cnntrain.data.common import Data, TrainData
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.data.loaders import Loader
from cnntrain.finetune.tuning import Tuning
from cnntrain.models.drop import DropLayer
from cnntrain.optim import schedules
from cnntrain.optim.schedules import Rates
from cnntrain.runtime.reporter import Reporter
from cnntrain.runtime.signals import StopFlag
from cnntrain.runtime.world import ALONE, World
from cnntrain.training.losses import Loss
from cnntrain.training.metrics import has_top5
from cnntrain.training.multi_label import move_thresholds
from cnntrain.training.scoring import Answer, Forward, Scorer
from cnntrain.training.state import Progress
from cnntrain.training.tta import Views

Save = Callable[[dict[str, Any], bool], None]  # a state, and whether it is the best so far; it may go on beside us

Watch = Callable[[nn.Module, int, float, bool], None]  # of the network, epoch, seconds so far, and whether it ends here


class Listener(Protocol):
    """Collects the answers of one epoch's network to the split that is scored at the end, the test or validation split.

    Attributes:
        epoch: whose answers it holds, from 1; 0 before the first.
    """

    epoch: int

    def hearing(self, model: nn.Module, epoch: int) -> AbstractContextManager[Callable[[Answer], None]]:
        """Forget what was heard, and yield what must be given each answer of this network."""


def save_nothing(state: dict[str, Any], is_best: bool) -> None:
    """Keep no checkpoint, as trials do."""


def wait_for_nothing() -> None:
    """Of saves that are done when they answer."""


def watch_nothing(model: nn.Module, epoch: int, seconds: float, is_last: bool) -> None:
    """Look at no network."""


def images_in_step(settings: Settings, data: TrainData, world: World) -> int:
    """Images of an optimizer step at the full size, over all processes: what the learning rate is scaled to."""
    return data.batch_size * world.size * settings.trainer.accumulate


@dataclass(frozen=True, kw_only=True)
class Job:
    """A network, the images that it is scored on, and the device on which they meet."""

    settings: Settings
    data: Data
    model: nn.Module
    device: torch.device
    precision: Precision
    channels_last: bool
    normalize: Callable[[Tensor], Tensor]  # the evaluation transform of a uint8 micro-batch
    notes: list[str]
    warnings: list[str]
    temperature: float = 1.0  # by which logits are divided where probabilities are told (arXiv 1706.04599)
    world: World = ALONE
    thresholds: list[float] | None = None  # of data.multi_label, the probabilities from which on classes are given
    micro_batch: int = 0  # images at once, as the training of a saved network has found; 0: not known

    def scorer(
        self,
        model: nn.Module | None = None,
        views: Views | None = None,
        forward: Forward | None = None,
        most: int = 0,
    ) -> Scorer:
        """The scorer of the network, or of another one in its place such as the average of its weights.

        Args:
            forward: see Scorer.
            most: images that go through the network at once; 0: those of trainer.micro_batch, or of a batch.
        """
        size, multi_label = self.settings.trainer.micro_batch, self.data.multi_label
        return Scorer(
            model or self.model,
            self.normalize,
            self.device,
            self.precision,
            self.world,
            views,
            top5=has_top5(len(self.data.classes)) and not multi_label,
            multi_label=multi_label,
            forward=forward,
            most=most or (size if isinstance(size, int) else self.micro_batch),
        )

    def at_temperature(self, temperature: float) -> "Job":
        """The same network with other probabilities; the thresholds move with them, so that all decisions stay."""
        thresholds = self.thresholds and move_thresholds(self.thresholds, temperature / self.temperature)
        return replace(self, temperature=temperature, thresholds=thresholds)

    @property
    def parameters(self) -> int:
        """How many numbers the network holds."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of itself, so that it can be used without the run folder or the data."""
        data = self.data
        return {
            "config": to_plain(self.settings),
            "classes": list(data.classes),
            "channels": data.channels,
            "image_size": data.image_size,
            "mean": list(data.mean),
            "std": list(data.std),
            "interpolation": data.interpolation.value,
            "crop": data.crop,
            "crop_mode": data.crop_mode.value,
            "data_fingerprint": data.fingerprint,
            "marks": dict(data.marks),
        }


@dataclass(frozen=True, kw_only=True)
class TrainJob(Job):
    """A training: what learns from what, how, and where it is saved and told. All of it is constant over the run."""

    data: TrainData
    plan: EpochPlan
    rates: Rates  # the learning rate of every step
    augment: Augment  # the training transform of a uint8 micro-batch
    mix: Mix | None  # of augmented images and their labels
    loss: Loss
    tuning: Tuning | None  # what of a pretrained network learns when; None: everything, always
    drops: list[DropLayer]  # whose rates rise from 0 over the run; [] where they are constant
    recalibrate: Callable[[nn.Module], None] | None  # measures the statistics of batch norms before each validation
    report: Reporter
    stop: StopFlag
    save: Save = save_nothing
    finish_saves: Callable[[], None] = wait_for_nothing  # until all that `save` was given is on disk
    after_step: Callable[[], float] | None = None  # answers the seconds that it took, where these are not to count
    watch: Watch = watch_nothing  # called after each epoch, when all of it is saved
    listener: Listener | None = None  # None: nobody wants more than the scores

    @property
    def trainer(self) -> TrainerSettings:
        """The settings of the loop."""
        return self.settings.trainer

    @property
    def rate_words(self) -> str:
        """The learning rate, and how it came about."""
        return schedules.scaled_rate(self.settings.optimizer, images_in_step(self.settings, self.data, self.world))[1]

    def total_steps(self, progress: Progress) -> int:
        """Steps of the whole run, to which the schedule is fitted."""
        total = self.plan.total + progress.step_offset
        return min(total, self.trainer.max_steps or total)

    def schedule_steps(self, progress: Progress) -> tuple[int, int]:
        """Steps that are done, and those of the whole run, by the schedule's own count."""
        return progress.schedule_step, self.total_steps(progress) - progress.step_offset

    def loader(self, epoch: int) -> Loader:
        """The training images as an epoch, counted from 0, shows them."""
        stage = self.plan.stage(epoch)
        return self.data.train.at(stage.batch_size, stage.image_size)

    def context(self, epoch: int, batch: int, indices: Tensor) -> BatchContext:
        """The context by which the images of `indices` are augmented as a training micro-batch, counted from 0."""
        size, rank = self.plan.stage(epoch).image_size, self.world.rank
        return BatchContext(self.device, self.settings.seed, epoch, batch, image_size=size, indices=indices, rank=rank)

    def losses(self, output: Tensor | tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of a network's output, their loss, and what is minimised: with that of auxiliary classifiers.

        Args:
            output: logits, or a tuple of them and of those of the auxiliary classifiers.
        """
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        objective = loss = self.loss(logits, targets)
        for aux_logits in auxiliary:
            objective = objective + self.settings.model.aux_weight * self.loss(aux_logits, targets)
        return logits, loss, objective

    def as_images(self, inputs: Tensor) -> Tensor:
        """Normalised inputs (N, C, S, S) as uint8 images again, on the host."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.data.mean, self.data.std))
        return ((inputs.cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
