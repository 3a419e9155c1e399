"""Settings -> objects: what train, resume, eval and check have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain import checkpoint, config, optim
from cnntrain import device as machine
from cnntrain.augment import build_augment, build_normalise
from cnntrain.data import Data, build_data
from cnntrain.errors import ConfigError, UnsafeError
from cnntrain.models import build_model
from cnntrain.report import Report
from cnntrain.run import Ema, Run, load_weights
from cnntrain.settings import Settings
from cnntrain.settings.trainer import Precision

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

    @property
    def augment(self) -> Callable[[Tensor, torch.Generator], Tensor]:
        """The training transform of a uint8 micro-batch."""
        data = self.data
        assert data.train is not None
        return build_augment(
            self.settings.augment,
            image_size=data.image_size,
            mean=data.mean,
            std=data.std,
            channels_last=self.channels_last,
            cropped=data.train.crops,
        )

    @property
    def normalise(self) -> Callable[[Tensor], Tensor]:
        """The evaluation transform of a uint8 micro-batch."""
        return build_normalise(self.data.mean, self.data.std, channels_last=self.channels_last)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of itself, so that it can be used without the run folder or the data."""
        data = self.data
        return {
            "config": config.to_plain(self.settings),
            "classes": list(data.classes),
            "channels": data.channels,
            "image_size": data.image_size,
            "mean": list(data.mean),
            "std": list(data.std),
            "data_fingerprint": data.fingerprint,
        }


def build_job(
    settings: Settings,
    say: Say,
    *,
    splits: Sequence[str] = ("train", "val", "test"),
    classes: list[str] | None = None,
) -> Job:
    """Choose the device, load the data, build the model: everything up to the optimizer.

    The initial weights depend on `seed` and the model alone, not on the data that was loaded before.
    """
    trainer = settings.trainer
    machine.set_threads(trainer.threads)
    machine.tune_malloc()
    device = machine.choose_device(trainer.device)
    precision, warnings = machine.choose_precision(trainer.precision, device)
    machine.set_matmul_precision(precision)
    data = build_data(
        settings.data, settings.augment, seed=settings.seed, device=device, classes=classes, splits=splits, say=say
    )
    machine.seed_everything(settings.seed, deterministic=trainer.deterministic)
    model, notes = build_model(
        settings.model, classes=len(data.classes), channels=data.channels, image_size=data.image_size
    )
    channels_last = trainer.channels_last
    if channels_last is None:
        channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return Job(settings, data, model, device, precision, channels_last, notes + data.notes, warnings)


def build_run(job: Job) -> tuple[Run, str]:
    """The run in its first state, and its learning rate in words."""
    settings, trainer = job.settings, job.settings.trainer
    lr, lr_words = optim.scaled_rate(settings.optimizer, settings.data.batch_size * trainer.accumulate)
    run = Run(
        model=job.model,
        optimizer=optim.build_optimizer(settings.optimizer, job.model, lr, job.device),
        scaler=machine.grad_scaler(job.precision, job.device),
        device=job.device,
        precision=job.precision,
        lr=lr,
        seed=settings.seed,
        ema=Ema(job.model, trainer.ema) if trainer.ema else None,
        compiled=trainer.compile,
    )
    return run, lr_words


def load_job(target: Path, overrides: list[str], report: Report) -> tuple[Path, dict[str, Any], Job]:
    """A trained network with its weights, and the images that it is scored on (val and test).

    Args:
        target: a run folder, a checkpoint folder or its state.pt.
        overrides: of the run's config.
        report: takes progress and warnings.

    Returns:
        The checkpoint's folder, its state, and the job.
    """
    folder = checkpoint.find(target)
    state = checkpoint.load(folder)
    about = state["about"]
    before = config.from_plain(about["config"], source=str(folder))
    settings = config.from_plain(about["config"], overrides, source=str(folder))
    refuse_foreign_code(settings, overrides)
    differences = config.differences(before, settings)
    refuse_other_split(differences)
    settings = with_preprocessing(settings, about, differences)
    job = build_job(settings, report.say, splits=("val", "test"), classes=about["classes"])
    if about["data_fingerprint"] != job.data.fingerprint:
        report.warn("these images are not those of the run: its validation part may now hold images trained on")
    load_weights(job.model, state["ema"]["model"] if state["ema"] else state["model"])
    return folder, state, job


# What the validation images depend on, where they come out of the training images.
SPLIT_KEYS = ("seed", "data.val", "data.name")


def refuse_other_split(differences: Sequence[str]) -> None:
    """Whoever changed the split of a saved run would validate on images that were trained on.

    Args:
        differences: "data.val: 0.1 -> 0.2", as `config.differences` tells them.

    Raises:
        ConfigError: one of the keys that the split depends on was changed.
    """
    for line in differences:
        key = line.partition(":")[0]
        if key in SPLIT_KEYS:
            raise ConfigError(f"{line}: would validate on images that were trained on; leave {key} out, or train anew")


def with_preprocessing(settings: Settings, about: dict[str, Any], differences: Sequence[str]) -> Settings:
    """Settings whose images are prepared as the checkpoint's network knows them, but for what the user has changed."""
    changed = {line.partition(":")[0] for line in differences}
    known = {key: about[key] for key in ("channels", "image_size", "mean", "std") if f"data.{key}" not in changed}
    return replace(settings, data=replace(settings.data, **known))


def refuse_foreign_code(settings: Settings, overrides: Sequence[str]) -> None:
    """A `package.module:function` of a saved config is followed only if the user repeats it.

    Raises:
        UnsafeError: it was not repeated.
    """
    name = settings.model.name
    if ":" in name and f"model.name={name}" not in overrides:
        raise UnsafeError(
            f"model.name: {name} comes out of a saved run and would run code; "
            f"if you trust it, repeat model.name={name} on the command line"
        )
