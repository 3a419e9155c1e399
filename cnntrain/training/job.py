"""From settings to a network with its data: what is scored (Job), and what is trained (TrainJob)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain.augment.build import Augment, BatchContext, build_augment, build_normalise
from cnntrain.augment.mix import Mix
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.plain import to_plain
from cnntrain.config.schema.loss import LOSSES
from cnntrain.config.schema.model import DropSchedule, ModelSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import Precision, TrainerSettings
from cnntrain.data.build import build_data, build_eval_data
from cnntrain.data.common import Data, TrainData
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.data.loaders import Loader
from cnntrain.errors import ConfigError
from cnntrain.finetune.tuning import Tuning, build_tuning
from cnntrain.models.build import build_model
from cnntrain.models.drop import DropLayer, drop_layers
from cnntrain.models.small_images.check_size import check_size
from cnntrain.models.weights.preprocessing import follow_weights
from cnntrain.optim import optimizers, schedules
from cnntrain.optim.schedules import Rates
from cnntrain.runtime import device as machine
from cnntrain.runtime.distributed import ALONE, World
from cnntrain.runtime.reporter import Reporter
from cnntrain.runtime.signals import NEVER, StopFlag
from cnntrain.training.losses import Loss, class_weights
from cnntrain.training.recalibration import recalibration
from cnntrain.training.scoring import Scorer
from cnntrain.training.state import Ema, Progress, TrainState
from cnntrain.training.tta import Views

Say = Callable[[str], None]
Machine = tuple[torch.device, Precision, list[str]]  # and warnings about them
Save = Callable[[dict[str, Any], bool], None]  # a state, and whether it is the best so far


def save_nothing(state: dict[str, Any], best: bool) -> None:
    """For trials, which leave no checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A network, the images that it is scored on, and the device on which they meet."""

    settings: Settings
    data: Data
    model: nn.Module
    device: torch.device
    precision: Precision
    channels_last: bool
    normalise: Callable[[Tensor], Tensor]  # the evaluation transform of a uint8 micro-batch
    notes: list[str]
    warnings: list[str]
    world: World = ALONE

    def scorer(self, model: nn.Module | None = None, views: Views | None = None) -> Scorer:
        """What asks the network, or another one in its place such as the average of its weights."""
        return Scorer(model or self.model, self.normalise, self.device, self.precision, self.world, views)

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
        planned = self.plan.total + progress.step_offset
        return min(planned, self.trainer.max_steps or planned)

    def loader(self, epoch: int) -> Loader:
        """The training images as an epoch, counted from 0, shows them."""
        stage = self.plan.stage(epoch)
        return self.data.train.at(stage.batch_size, stage.image_size)

    def context(self, epoch: int, batch: int, indices: Tensor) -> BatchContext:
        """What decides how the images of `indices` are augmented as a training micro-batch, counted from 0."""
        size, rank = self.plan.stage(epoch).image_size, self.world.rank
        return BatchContext(self.device, self.settings.seed, epoch, batch, image_size=size, indices=indices, rank=rank)

    def as_images(self, inputs: Tensor) -> Tensor:
        """Normalised inputs (N, C, S, S) as uint8 images again, on the host."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.data.mean, self.data.std))
        return ((inputs.cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)


def build_eval_job(settings: Settings, say: Say, *, classes: list[str], data: Data | None = None) -> Job:
    """Choose the device, load the images to score (where none are given) and build the network, without its weights.

    Images are prepared as the weights that the run started from know them.

    Args:
        classes: those that the network was trained on.
    """
    chosen = _prepare_machine(settings, ALONE)
    settings, followed = follow_weights(settings)
    if data is None:
        data = build_eval_data(settings.data, seed=settings.seed, device=chosen[0], classes=classes, say=say)
    return _build_network(settings, data, chosen, followed)


def build_train_job(
    settings: Settings,
    report: Reporter,
    *,
    stop: StopFlag = NEVER,
    world: World = ALONE,
    splits: Sequence[str] = ("train", "val", "test"),
) -> TrainJob:
    """Choose the device, load the data and build the network: everything up to its weights and the optimizer.

    Images are prepared as the weights to start from know them; the weights themselves are not loaded.

    The initial weights depend on `seed` and the model alone, not on the data that was loaded before.

    Raises:
        ConfigError: settings that do not fit the data, the network or each other.
    """
    device, *_ = chosen = _prepare_machine(settings, world)
    settings, followed = follow_weights(settings)
    trainer, augment = settings.trainer, settings.augment
    with world.in_turn():  # a data set is fetched, and its statistics are computed, by one process
        data = build_data(
            settings.data,
            augment,
            seed=settings.seed,
            device=device,
            splits=splits,
            probe=trainer.probe if augment.pieces else 0,
            say=report.say,
            world=world,
        )
    if "val" in splits and data.val is None and (found := settings.unvalidated()):
        raise ConfigErrors(f"{key}: must be {rule} (given {value})" for key, value, rule in found)
    job = _build_network(settings, data, chosen, followed, world)
    plan = EpochPlan(
        len(data.train.labels),
        batch_size=data.batch_size * world.size,
        image_size=data.image_size,
        epochs=trainer.epochs,
        accumulate=trainer.accumulate,
        progressive=augment.progressive,
        max_steps=trainer.max_steps,
        processes=world.size,
    )
    smallest = plan.stage(0).image_size
    if augment.progressive:
        check_size(job.model, data.channels, smallest, name=settings.model.name, key="augment.progressive")
    tuning = build_tuning(job.model, settings.finetune)
    rate, _ = schedules.scaled_rate(settings.optimizer, images_in_step(settings, data, world))
    return TrainJob(
        **vars(job),
        plan=plan,
        rates=Rates(rate, settings.optimizer, settings.schedule, plan),
        augment=build_augment(
            augment,
            channels=data.channels,
            image_size=smallest,
            mean=data.mean,
            std=data.std,
            channels_last=job.channels_last,
            cropped=data.train.crops,
        ),
        mix=Mix(augment, len(data.classes)) if augment.mixes else None,
        loss=_build_loss(settings, data, device),
        tuning=tuning,
        drops=scheduled_drops(settings.model, job.model),
        recalibrate=recalibration(tuning, data.train, job.normalise, device, job.precision, world),
        report=report,
        stop=stop,
    )


def images_in_step(settings: Settings, data: TrainData, world: World) -> int:
    """Images of an optimizer step at the full size, over all processes: what the learning rate is scaled to."""
    return data.batch_size * world.size * settings.trainer.accumulate


def _prepare_machine(settings: Settings, world: World) -> Machine:
    """Choose device and precision, and set what the settings say of threads, memory and arithmetic."""
    trainer = settings.trainer
    machine.set_threads(trainer.threads)
    machine.tune_malloc()
    device = machine.choose_device(trainer.device, world)
    precision, warnings = machine.choose_precision(trainer.precision, device)
    machine.set_matmul_precision(precision)
    return device, precision, warnings


def _build_network(settings: Settings, data: Data, chosen: Machine, notes: list[str], world: World = ALONE) -> Job:
    """The network for the data, with the weights that the seed draws.

    Raises:
        ConfigError: it does not take images of their sizes.
    """
    trainer, (device, precision, warnings) = settings.trainer, chosen
    machine.seed_everything(settings.seed, deterministic=trainer.deterministic)
    model, said = build_model(
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
    if data.eval_size != data.image_size:
        check_size(model, data.channels, data.eval_size, name=settings.model.name, key="data.eval_size")
    return Job(
        settings=settings,
        data=data,
        model=model,
        device=device,
        precision=precision,
        channels_last=channels_last,
        normalise=build_normalise(data.mean, data.std, channels_last=channels_last),
        notes=said + data.notes + notes,
        warnings=warnings + data.warnings,
        world=world,
    )


def _build_loss(settings: Settings, data: TrainData, device: torch.device) -> Loss:
    """The loss of the training images."""
    weights = class_weights(settings.loss, data.train.labels, data.classes)
    weights = None if weights is None else weights.to(device)
    jsd = settings.augment.augmix.jsd if settings.augment.augmix else 0.0
    loss: Loss = LOSSES.entry(settings.loss.name).build(settings.loss, weights, jsd)
    return loss


def build_run(job: TrainJob) -> TrainState:
    """The run in its first state."""
    settings, trainer = job.settings, job.trainer
    learners = job.tuning.learners() if job.tuning else None
    job.world.copy_(list(job.model.state_dict().values()))  # other machines may have drawn other bits
    if not job.world.is_first:
        machine.seed_streams(settings.seed, job.world.rank)  # dropout is each process's own
    return TrainState(
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


def scheduled_drops(settings: ModelSettings, model: nn.Module) -> list[DropLayer]:
    """The rates that rise over the run; none where they are constant.

    Raises:
        ConfigError: they should rise, and the network drops nothing.
    """
    if settings.drop_schedule is DropSchedule.constant:
        return []
    found = drop_layers(model)
    if not found:
        raise ConfigError(
            f"model.drop_schedule: {settings.name} drops nothing, so no rate can rise (given linear); "
            "set model.dropout=0.5 or another rate, or model.drop_schedule=constant"
        )
    return found
