"""From settings to jobs: the device, the data, the network and all that a training needs, up to its first state."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnntrain.augment.build import build_augment, build_normalize
from cnntrain.augment.mix import Mix
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.schema.limits import AUTO
from cnntrain.config.schema.loss import LOSSES
from cnntrain.config.schema.model import DropSchedule, ModelSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import COMPILE_MODES, Precision
from cnntrain.data.build import build_data, build_eval_data
from cnntrain.data.common import Data, TrainData
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.errors import ConfigError
from cnntrain.finetune.tuning import build_tuning
from cnntrain.models.build import build_model
from cnntrain.models.drop import DropLayer, drop_layers
from cnntrain.models.layers import make_repeatable
from cnntrain.models.libraries import library_of
from cnntrain.models.small_images.check_size import check_size
from cnntrain.models.weights.preprocessing import follow_weights
from cnntrain.models.zoo.fast import Whitening
from cnntrain.optim import optimizers, schedules
from cnntrain.optim.schedules import Rates
from cnntrain.runtime import device as machine
from cnntrain.runtime.algorithms import use_repeatable
from cnntrain.runtime.device_memory import reset_peak_memory
from cnntrain.runtime.host_memory import tune_malloc
from cnntrain.runtime.precision import choose_precision, grad_scaler, set_matmul_precision
from cnntrain.runtime.reporter import Reporter
from cnntrain.runtime.seeds import seed_everything, seed_streams
from cnntrain.runtime.signals import NEVER, StopFlag, at_once
from cnntrain.runtime.threads import set_threads
from cnntrain.runtime.world import ALONE, World
from cnntrain.training import micro_batches
from cnntrain.training.class_weights import class_weights, pos_weight
from cnntrain.training.compilation import Compiler
from cnntrain.training.ema import Ema
from cnntrain.training.exchange import note_idle, synchronize_norms
from cnntrain.training.job import Job, TrainJob, images_in_step
from cnntrain.training.losses import Loss, LossFacts
from cnntrain.training.recalibration import recalibration
from cnntrain.training.state import TrainState

Say = Callable[[str], None]
WHITENED = 1000  # images from which such a layer is made: of 32 pixels, a million patches


class Hardware(NamedTuple):
    """The machine that a network runs on."""

    device: torch.device
    precision: Precision
    warnings: list[str]


def build_eval_job(settings: Settings, say: Say, *, classes: list[str], data: Data | None = None) -> Job:
    """Choose the device, load the images to score (where none are given) and build the network, without its weights.

    Images are prepared as the weights that the run started from know them.

    Args:
        classes: those that the network was trained on.
    """
    hardware = _prepare_machine(settings, ALONE)
    settings, notes = follow_weights(settings)
    if data is None:
        data = build_eval_data(settings.data, seed=settings.seed, device=hardware.device, classes=classes, say=say)
    return _build_network(settings, data, hardware, notes)


def build_train_job(
    settings: Settings,
    report: Reporter,
    *,
    stop: StopFlag = NEVER,
    world: World = ALONE,
    splits: Sequence[str] = ("train", "val", "test"),
    data: TrainData | None = None,
) -> TrainJob:
    """Choose the device, load the data and build the network: everything up to its weights and the optimizer.

    Images are prepared as the weights to start from know them; the weights themselves are not loaded.

    The initial weights depend on `seed` and the model alone, not on the data that was loaded before, but for filters
    that whiten the images.

    Args:
        data: where it is loaded already.

    Raises:
        ConfigError: settings that do not fit the data, the network or each other.
    """
    hardware = _prepare_machine(settings, world)
    reset_peak_memory(hardware.device)
    if settings.model.entry is None:
        library_of(settings.model.name, settings.model.library)  # a misspelt name, before the images are looked at
    settings, notes = follow_weights(settings)
    trainer, augment = settings.trainer, settings.augment
    if data is None:
        halt = at_once(stop) if world.size == 1 else nullcontext()
        with world.in_turn(), halt:  # a data set is fetched, and its statistics are computed, by one process
            data = build_data(
                settings.data,
                augment,
                seed=settings.seed,
                device=hardware.device,
                splits=splits,
                probe=trainer.probe if augment.pieces or settings.data.multi_label else 0,
                say=report.say,
                world=world,
            )
    if "val" in splits and data.val is None and (faults := settings.validation_faults()):
        raise ConfigErrors(f"{key}: must be {rule} (given {value})" for key, value, rule in faults)
    notes = notes + micro_batches.note(trainer.micro_batch, data.batch_size)
    job = _build_network(settings, data, hardware, notes, world)
    _fit_whitening(job.model, data, job.normalize)
    if settings.model.sync_bn:
        job = replace(job, model=synchronize_norms(job.model, job.device, world))
    job.warnings.extend(note_idle(settings, job.model, world))
    if trainer.compile in COMPILE_MODES and not machine.replays_graphs(job.device):
        job.warnings.append(f"trainer.compile={trainer.compile} replays graphs of CUDA; here it is as true")
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
        loss=_build_loss(settings, data, job.device),
        tuning=tuning,
        drops=scheduled_drops(settings.model, job.model),
        recalibrate=recalibration(tuning, data.train, job.normalize, job.device, job.precision, world),
        report=report,
        stop=stop,
    )


def _prepare_machine(settings: Settings, world: World) -> Hardware:
    """Choose device and precision, and set what the settings say of threads, memory and arithmetic."""
    trainer = settings.trainer
    set_threads(trainer.threads)
    tune_malloc()
    use_repeatable(trainer.deterministic)
    device = machine.choose_device(trainer.device, world)
    precision, warnings = choose_precision(trainer.precision, device)
    set_matmul_precision(precision)
    return Hardware(device, precision, warnings)


def _build_network(settings: Settings, data: Data, hardware: Hardware, notes: list[str], world: World = ALONE) -> Job:
    """The network for the data, with the weights that the seed draws.

    Raises:
        ConfigError: it does not take images of their sizes.
    """
    trainer, (device, precision, warnings) = settings.trainer, hardware
    seed_everything(settings.seed)
    model, model_notes = build_model(
        settings.model,
        classes=len(data.classes),
        channels=data.channels,
        image_size=data.image_size,
        head=settings.finetune.head,
    )
    if trainer.deterministic:
        make_repeatable(model)
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
        normalize=build_normalize(data.mean, data.std, channels_last=channels_last),
        notes=model_notes + data.notes + notes,
        warnings=warnings + data.warnings,
        world=world,
    )


def _fit_whitening(model: nn.Module, data: TrainData, normalize: Callable[[Tensor], Tensor]) -> None:
    """Fit the layers that whiten to some training images, an even choice of them."""
    layers = [module for module in model.modules() if isinstance(module, Whitening)]
    if layers:
        count = len(data.train.labels)
        images = normalize(data.train.pick(torch.linspace(0, count - 1, min(count, WHITENED)).long()))
        for layer in layers:
            layer.fit(images)


def _build_loss(settings: Settings, data: TrainData, device: torch.device) -> Loss:
    """The loss of the training images."""
    every = (make(settings.loss, data.train.labels, data.classes) for make in (class_weights, pos_weight))
    weights, positive = (None if values is None else values.to(device) for values in every)
    jsd = settings.augment.augmix.jsd if settings.augment.augmix else 0.0
    facts = LossFacts(weights, positive, jsd, data.multi_label)
    loss: Loss = LOSSES.entry(settings.loss.name).build(settings.loss, facts)
    return loss


def build_state(job: TrainJob) -> TrainState:
    """The run in its first state."""
    settings, trainer = job.settings, job.trainer
    learners = job.tuning.learners() if job.tuning else None
    job.world.copy_(list(job.model.state_dict().values()))  # other machines may have drawn other bits
    if not job.world.is_first:
        seed_streams(settings.seed, job.world.rank)  # dropout is each process's own
    return TrainState(
        model=job.model,
        optimizer=optimizers.build_optimizer(settings.optimizer, job.model, job.rates.lr, job.device, learners),
        scaler=grad_scaler(job.precision, job.device),
        device=job.device,
        precision=job.precision,
        seed=settings.seed,
        ema=Ema(job.model, trainer.ema) if trainer.ema else None,
        tuning=job.tuning,
        compiler=_compiler(job) if trainer.compile else None,
        multi_label=job.data.multi_label,
        world=job.world,
        grad_exchange=trainer.grad_exchange,
    )


def _compiler(job: TrainJob) -> Compiler:
    """What compiles the network of a training: for each size, and anew whenever a layer group opens."""
    compiler = Compiler(job.trainer.compile, job.device, job.report.say)
    sets_of_learners = 1 + len(job.tuning.groups) if job.tuning else 1
    # As parts of batches, two sizes that differ by one, and those of each time that they are halved.
    parts = 2 * (job.data.batch_size.bit_length() if job.trainer.micro_batch == AUTO else 1)
    sizes = job.plan.stages * (1 if job.trainer.micro_batch is None else parts)
    compiler.prepare((sizes + 1) * sets_of_learners)  # one more scores
    return compiler


def scheduled_drops(settings: ModelSettings, model: nn.Module) -> list[DropLayer]:
    """The rates that rise over the run; none where they are constant.

    Raises:
        ConfigError: they should rise, and the network drops nothing.
    """
    if settings.drop_schedule is DropSchedule.constant:
        return []
    layers = drop_layers(model)
    if not layers:
        raise ConfigError(
            f"model.drop_schedule: {settings.name} drops nothing, so no rate can rise (given linear); "
            "set model.dropout=0.5 or another rate, or model.drop_schedule=constant"
        )
    return layers
