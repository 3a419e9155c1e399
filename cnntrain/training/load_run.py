"""Trained networks: how a checkpoint becomes a job again, and what of a saved run is not to be changed or believed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnntrain.config.changes import Change
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.no_effect import faults_of_saved
from cnntrain.config.run_config import RunConfig, restore_config
from cnntrain.config.schema.data import CropMode, Interpolation
from cnntrain.config.schema.settings import Settings
from cnntrain.data.common import Data
from cnntrain.data.unlabelled import data_without_images
from cnntrain.data.view import EVAL_SHARE
from cnntrain.errors import CheckpointError, ConfigError, DataError, UnsafeError
from cnntrain.runtime.reporter import Teller
from cnntrain.storage import checkpoint
from cnntrain.training.build import build_eval_job
from cnntrain.training.job import Job
from cnntrain.training.load_state import load_weights

LEAST_TEMPERATURE = 0.01  # calibrate fits 1/16 to 16; float32 cannot divide by what a forged one may be


def load_job(
    target: Path,
    overrides: Sequence[str],
    report: Teller,
    config: RunConfig | None = None,
    *,
    images: bool = True,
    command: str = "eval",
) -> tuple[Path, dict[str, Any], Job]:
    """A trained network with its weights, and the images that it is scored on (val and test).

    Args:
        target: a run folder, a checkpoint folder or its state.pt.
        overrides: of the run's config.
        report: is told progress and warnings.
        config: that of the run folder, where it is known; it counts where the checkpoint has the same.
        images: off, no split is there, and the images of the run need not be either.
        command: what asks for it, for the words that change nothing of what it does.

    Returns:
        The checkpoint's folder, its state, and the job.
    """
    folder = checkpoint.find(target)
    state = checkpoint.load(folder)
    about = state["about"]
    if config is None or config.plain != about["config"]:
        config = _restore(about["config"], overrides, str(folder))
        if faults := faults_of_saved(command, config):
            raise ConfigErrors(faults)
    refuse_foreign_code(config.settings, config.overrides, training=False, images=images)
    refuse_other_split(config.changes)
    settings = with_preprocessing(config.settings, about, config.changes)
    data = None if images else data_without_images(settings.data, about["classes"], about["data_fingerprint"])
    job = build_eval_job(settings, report.say, classes=about["classes"], data=data)
    if images and not job.data.scored_splits:
        raise DataError(
            "data.val: nothing to score, as the run has no validation images (data.val=0) and there is no test/; "
            "give others with data.root=DIR, which holds val/ or test/"
        )
    if about["data_fingerprint"] != job.data.fingerprint:
        _warn_of_other_images(about.get("marks", {}), job.data, report)
    load_weights(job.model, state["ema"]["model"] if state["ema"] else state["model"])
    micro_batch = state["progress"].get("micro_batch", 0)  # of older checkpoints unknown
    thresholds = state["progress"].get("thresholds")
    if thresholds and len(thresholds) != len(job.data.classes):
        raise CheckpointError(
            f"{folder}: holds {len(thresholds)} thresholds for {len(job.data.classes)} classes; "
            "evaluate another checkpoint"
        )
    job = replace(job, thresholds=thresholds or None, micro_batch=micro_batch)
    return folder, state, job.at_temperature(_temperature(about, folder))  # thresholds were fitted at 1


def _temperature(about: dict[str, Any], folder: Path) -> float:
    """The temperature that was fitted to the network, 1 where none was."""
    value = about.get("temperature", 1.0)
    if type(value) not in (int, float) or not LEAST_TEMPERATURE <= value <= 1 / LEAST_TEMPERATURE:
        raise CheckpointError(
            f"{folder}: its temperature is no number from {LEAST_TEMPERATURE} to {1 / LEAST_TEMPERATURE:g} "
            f"(found {value}); evaluate another checkpoint"
        )
    return float(value)


def _restore(plain: dict[str, Any], overrides: Sequence[str], source: str) -> RunConfig:
    """The config of a checkpoint, changed; CheckpointError where it is at fault by itself, not of the user's making."""
    try:
        return restore_config(plain, overrides, source)
    except ConfigError:
        try:
            restore_config(plain, (), source)
        except ConfigError as error:
            raise CheckpointError(str(error).splitlines()[0]) from error
        raise


def _warn_of_other_images(marks: dict[str, str], data: Data, report: Teller) -> None:
    """Say what scores on other images are worth; where only the training images have changed, they are what they were.

    Args:
        marks: the marks of the run's own images.
    """
    if data.val and "val" not in data.marks:
        report.warn("these images are not those of the run: its validation part may now hold images trained on")
    elif not marks or any(marks.get(name) != data.marks.get(name) for name in ("val", "test")):
        report.warn("these images are not those of the run")


# What the validation images depend on, where they come out of the training images.
SPLIT_KEYS = ("seed", "data.multi_label", "data.val", "data.folds", "data.fold", "data.name", "data.classes")


def refuse_other_split(changes: Mapping[str, Change]) -> None:
    """Whoever changed the split of a saved run would mix images that validate with those that were trained on.

    Args:
        changes: what is to be other than it was saved.

    Raises:
        ConfigError: one of the keys that the split depends on was changed.
    """
    for key, change in changes.items():
        if key in SPLIT_KEYS:
            what = "would mix images that validate with those that were trained on"
            if key == "data.classes":
                what = "the outputs of the network stand for the classes as they were, in their order"
            raise ConfigError(f"{key}: {change}: {what}; leave {key} out, or train anew")


def with_preprocessing(settings: Settings, about: dict[str, Any], changed_keys: Collection[str]) -> Settings:
    """Settings whose images are prepared as the checkpoint's network knows them, where the user says nothing.

    Args:
        changed_keys: the keys that the user has changed.
    """
    preprocessing: dict[str, Any] = {key: about[key] for key in ("channels", "image_size", "mean", "std")} | {
        "interpolation": Interpolation(about.get("interpolation", "bilinear")),  # all that older checkpoints knew
        "crop": about.get("crop", EVAL_SHARE if settings.data.has_files else 1.0),
        "crop_mode": CropMode(about.get("crop_mode", "center")),
    }
    user_keys = {
        key for key in preprocessing if getattr(settings.data, key) is not None or f"data.{key}" in changed_keys
    }
    if "data.channels" in changed_keys:
        user_keys |= {"mean", "std"}
    values = {key: value for key, value in preprocessing.items() if key not in user_keys}
    return replace(settings, data=replace(settings.data, **values))


def refuse_foreign_code(settings: Settings, overrides: Sequence[str], *, training: bool, images: bool = True) -> None:
    """A `package.module:function` of a saved config is followed only if the user repeats it.

    Args:
        training: see Settings.users_code.
        images: see there.

    Raises:
        UnsafeError: it was not repeated.
    """
    for word in settings.users_code(training=training, images=images):
        key, _, name = word.partition("=")
        if word not in overrides:
            raise UnsafeError(
                f"{key}: {name} comes out of a saved run and would run code; "
                f"if you trust it, repeat {word} on the command line"
            )
