"""Settings -> objects: what train, resume, eval and check have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain.augment.build import Augment, Moment, build_augment, build_normalise
from cnntrain.augment.mix import Mix
from cnntrain.config.plain import to_plain
from cnntrain.config.schema.model import DropSchedule
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import Precision
from cnntrain.data.build import build_data
from cnntrain.data.common import Data
from cnntrain.data.epoch_plan import Plan
from cnntrain.data.loaders import Loader
from cnntrain.errors import ConfigError
from cnntrain.finetune.tuning import Tuning, build_tuning
from cnntrain.models.build import build_model
from cnntrain.models.drop import DropLayer, drop_layers
from cnntrain.models.small_images.check_size import check_size
from cnntrain.models.weights.preprocessing import follow_weights
from cnntrain.optim import optimizers
from cnntrain.optim.optimizers import Rates
from cnntrain.runtime import device as machine
from cnntrain.runtime.distributed import ALONE, World
from cnntrain.training.losses import Loss, class_weights
from cnntrain.training.state import Ema, Run

Say = Callable[[str], None]


@dataclass
class Job:
    """The objects of one run, built from its settings."""

    settings: Settings
    data: Data
    model: nn.Module
    device: torch.device
    precision: Precision
    channels_last: bool
    notes: list[str]
    warnings: list[str]
    world: World = ALONE

    @cached_property
    def plan(self) -> Plan:
        """The epochs of the run."""
        trainer = self.settings.trainer
        assert self.data.train is not None
        return Plan(
            len(self.data.train.labels),
            batch_size=self.data.batch_size * self.world.size,
            image_size=self.data.image_size,
            epochs=trainer.epochs,
            accumulate=trainer.accumulate,
            progressive=self.settings.augment.progressive,
            max_steps=trainer.max_steps,
            processes=self.world.size,
        )

    @cached_property
    def rates(self) -> Rates:
        """The learning rate of every step."""
        settings = self.settings
        return Rates(self._scaled_rate[0], settings.optimizer, settings.schedule, self.plan)

    @property
    def rate_words(self) -> str:
        """The learning rate, and how it came about."""
        return self._scaled_rate[1]

    @property
    def _scaled_rate(self) -> tuple[float, str]:
        settings = self.settings
        batch = self.data.batch_size * self.world.size * settings.trainer.accumulate
        return optimizers.scaled_rate(settings.optimizer, batch)

    @cached_property
    def augment(self) -> Augment:
        """The training transform of a uint8 micro-batch."""
        data = self.data
        assert data.train is not None
        return build_augment(
            self.settings.augment,
            channels=data.channels,
            image_size=self.plan.stage(0).image_size,
            mean=data.mean,
            std=data.std,
            channels_last=self.channels_last,
            cropped=data.train.crops,
        )

    @cached_property
    def mix(self) -> Mix | None:
        """Mixes augmented images and their labels; None where neither mixup nor cutmix is on."""
        augment = self.settings.augment
        return Mix(augment, len(self.data.classes)) if augment.mixes else None

    @cached_property
    def loss(self) -> Loss:
        """Of the training images."""
        settings, train = self.settings, self.data.train
        assert train is not None
        weights = class_weights(settings.loss, train.labels, self.data.classes)
        return Loss(
            settings.loss.label_smoothing,
            None if weights is None else weights.to(self.device),
            settings.augment.augmix.jsd if settings.augment.augmix else 0.0,
        )

    def loader(self, epoch: int) -> Loader:
        """The training images as an epoch, counted from 0, shows them."""
        stage = self.plan.stage(epoch)
        assert self.data.train is not None
        return self.data.train.at(stage.batch_size, stage.image_size)

    def moment(self, epoch: int, batch: int, indices: Tensor) -> Moment:
        """What decides how the images of `indices` are augmented as a training micro-batch, counted from 0."""
        size = self.plan.stage(epoch).image_size
        return Moment(self.device, self.settings.seed, epoch, batch, image_size=size, indices=indices)

    @cached_property
    def tuning(self) -> Tuning | None:
        """What of a pretrained network learns when; None: everything, always."""
        return build_tuning(self.model, self.settings.finetune)

    @property
    def normalise(self) -> Callable[[Tensor], Tensor]:
        """The evaluation transform of a uint8 micro-batch."""
        return build_normalise(self.data.mean, self.data.std, channels_last=self.channels_last)

    def as_images(self, inputs: Tensor) -> Tensor:
        """Normalised inputs (N, C, S, S) as uint8 images again, on the host."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.data.mean, self.data.std))
        return ((inputs.cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)

    @property
    def parameters(self) -> int:
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


def build_job(
    settings: Settings,
    say: Say,
    *,
    splits: Sequence[str] = ("train", "val", "test"),
    classes: list[str] | None = None,
    data: Data | None = None,
    world: World = ALONE,
) -> Job:
    """Choose the device, load the data (where none are given), build the model: everything up to the optimizer.

    Images are prepared as the weights to start from know them; the weights themselves are not loaded.

    The initial weights depend on `seed` and the model alone, not on the data that was loaded before.
    """
    trainer = settings.trainer
    machine.set_threads(trainer.threads)
    machine.tune_malloc()
    device = machine.choose_device(trainer.device, world)
    precision, warnings = machine.choose_precision(trainer.precision, device)
    machine.set_matmul_precision(precision)
    settings, followed = follow_weights(settings)
    with world.in_turn():  # a data set is fetched, and its statistics are computed, by one process
        data = data or build_data(
            settings.data,
            settings.augment,
            seed=settings.seed,
            device=device,
            classes=classes,
            splits=splits,
            probe=trainer.probe if settings.augment.pieces else 0,
            say=say,
            world=world,
        )
    machine.seed_everything(settings.seed, deterministic=trainer.deterministic)
    model, notes = build_model(
        settings.model,
        classes=len(data.classes),
        channels=data.channels,
        image_size=data.image_size,
        head=settings.finetune.head,
    )
    channels_last = trainer.channels_last
    if channels_last is None:
        channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    notes += data.notes + followed
    job = Job(settings, data, model, device, precision, channels_last, notes, warnings + data.warnings, world)
    check_sizes(job)
    return job


def check_sizes(job: Job) -> None:
    """Try the image sizes that the network meets beside the one that it was built for.

    Raises:
        ConfigError: it does not take them.
    """
    data, name = job.data, job.settings.model.name
    if data.eval_size != data.image_size:
        check_size(job.model, data.channels, data.eval_size, name=name, key="data.eval_size")
    if job.settings.augment.progressive and data.train:
        smallest = job.plan.stage(0).image_size
        check_size(job.model, data.channels, smallest, name=name, key="augment.progressive")


def build_run(job: Job) -> Run:
    """The run in its first state."""
    settings, trainer = job.settings, job.settings.trainer
    learners = job.tuning.learners() if job.tuning else None
    job.world.copy_(list(job.model.state_dict().values()))  # other machines may have drawn other bits
    if not job.world.is_first:
        machine.seed_streams(settings.seed, job.world.rank)  # dropout is each process's own
    return Run(
        model=job.model,
        optimizer=optimizers.build_optimizer(settings.optimizer, job.model, job.rates.lr, job.device, learners),
        scaler=machine.grad_scaler(job.precision, job.device),
        device=job.device,
        precision=job.precision,
        seed=settings.seed,
        ema=Ema(job.model, trainer.ema) if trainer.ema else None,
        tuning=job.tuning,
        compiled=trainer.compile,
        world=job.world,
    )


def scheduled_drops(job: Job) -> list[DropLayer]:
    """The rates that rise over the run; none where they are constant.

    Raises:
        ConfigError: they should rise, and the network drops nothing.
    """
    if job.settings.model.drop_schedule is DropSchedule.constant:
        return []
    found = drop_layers(job.model)
    if not found:
        raise ConfigError(
            f"model.drop_schedule: {job.settings.model.name} drops nothing, so no rate can rise (given linear); "
            "set model.dropout=0.5 or another rate, or model.drop_schedule=constant"
        )
    return found
