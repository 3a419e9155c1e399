"""Where a run starts: anew, or from the newest checkpoint of its folder, with what has changed since."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cnntrain.config.changes import Change, leaves
from cnntrain.config.plain import to_plain
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.limits import AUTO
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.data.common import Data
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.errors import CheckpointError, ConfigError
from cnntrain.runtime.world import World
from cnntrain.storage import checkpoint, run_record, state_form
from cnntrain.training.job import TrainJob
from cnntrain.training.limits import end_of, limits
from cnntrain.training.load_run import with_preprocessing
from cnntrain.training.load_state import ANOTHER
from cnntrain.training.pace import Pace
from cnntrain.training.state import Progress, TrainState

# Changing these moves the borders of the steps: the epoch in hand then starts anew.
STEP_BORDERS = (
    *("data.batch_size", "data.limit", "data.per_class", "data.sampling"),
    *("trainer.accumulate", "augment.progressive", "processes"),
)
GROWTH = ("trainer.epochs", "trainer.max_steps", "data.image_size")  # beside these, where the images grow
LENGTH = ("trainer.epochs", "trainer.max_steps", "trainer.max_time")
GROUP_KEYS = ("finetune",)  # changing these may change which layer groups learn in an epoch


@dataclass(frozen=True)
class Start:
    """What a run starts from: its settings and its folder, and what of it is there already.

    Attributes:
        overrides: the words that the settings were composed with.
        command: the line as typed.
        is_resumed: the folder holds a run, which goes on.
        state: its newest checkpoint; None: it starts from the first step.
        changes: of its config, by key; and of the number of its processes.
        warnings: what there is to say of its folder.
    """

    settings: Settings
    folder: Path
    overrides: list[str]
    command: str
    is_resumed: bool = False
    state: dict[str, Any] | None = None
    changes: dict[str, Change] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def job_settings(self) -> Settings:
        """The settings with the preprocessing of the checkpoint, as the training images may be others by now."""
        if self.state is None:
            return self.settings
        return with_preprocessing(self.settings, self.state["about"], self.changes)


def find_start(folder: Path, config: RunConfig, command: str, world: World) -> Start:
    """The newest sound checkpoint of a locked run folder, or its config where the run has saved none yet.

    Args:
        command: the line as typed.

    Raises:
        ConfigError: with these changes nothing would be trained.
        CheckpointError: all checkpoints are damaged, or those of a finished run gone.
    """
    warnings: list[str] = []
    newest, is_done = checkpoint.newest(folder, warnings.append), run_record.is_done(folder)
    state = newest[1] if newest else None
    if state is None and is_done:
        raise checkpoint.lost(folder)
    about = state["about"] if state else {}
    settings, all_changes = config.settings, dict(config.changes)
    if state:
        # The config of the folder is that of the last start, which may have been killed before its first save.
        all_changes = changes_of_steps(about["config"], settings) | all_changes
        refuse_end_behind(settings.trainer, Progress(**state["progress"]), config.changes, is_done=is_done)
        if fault := best_fault(folder, state["progress"]):
            warnings.append(f"{fault}; the best epoch is chosen anew among those to come")
            state = state | {"progress": state["progress"] | _no_best()}
        if (before := about.get("processes", 1)) != world.size:
            all_changes["processes"] = Change(before, world.size)
    if not run_record.run_id(folder):
        warnings.append(f"{folder / run_record.ENVIRONMENT}: missing or without an id of the run; written anew")
        run_record.give_id(folder, about.get("run_id"))
    overrides = list(config.overrides)
    return Start(settings, folder, overrides, command, True, state, all_changes, warnings)


def changes_of_steps(plain: Mapping[str, Any], settings: Settings) -> dict[str, Change]:
    """What differs from the config of a checkpoint in what decides its steps and what learns in them."""
    before, now = leaves(dict(plain)), leaves(to_plain(settings))
    return {
        key: Change(value, now.get(key))
        for key, value in before.items()
        if any_below([key], STEP_BORDERS + GROWTH + LENGTH + GROUP_KEYS) and now.get(key) != value
    }


def refuse_end_behind(
    trainer: TrainerSettings, progress: Progress, changes: Mapping[str, Change], *, is_done: bool
) -> None:
    """Refuse changes with which nothing would be trained: config.yaml would tell of a run that never was.

    Args:
        progress: of the checkpoint.
        changes: what is to be other than before.
        is_done: the run has come to its end.

    Raises:
        ConfigError: its new end lies behind, or it has come to its end and stays there.
    """
    for limit in limits(trainer, progress):
        key = f"trainer.{limit.key}"
        if key in changes and limit.is_behind:
            value = getattr(trainer, limit.key)
            raise ConfigError(f"{key}: the run is {limit.place} already (given {value}); give more, or leave it out")
    if is_done and changes and (reason := end_of(trainer, progress)):
        raise ConfigError(
            f"{next(iter(changes))}: the run is finished, {reason} is reached, and nothing would be trained with this "
            "change; raise that too, or start a new run"
        )


def best_fault(folder: Path, progress: Mapping[str, Any]) -> str | None:
    """What is wrong with the checkpoint of the best epoch, where there should be one."""
    return checkpoint.fault_of(folder / "checkpoints" / "best") if progress["best_epoch"] else None


def _no_best() -> dict[str, Any]:
    """The progress of a run that has no best epoch yet, as far as that goes."""
    return {key: value for key, value in asdict(Progress()).items() if key.startswith("best_")}


def restore(job: TrainJob, run: TrainState, start: Start) -> None:
    """Put a checkpoint's state into the run, and say what differs and where it goes on.

    Raises:
        CheckpointError: the changed model or data do not fit.
    """
    for warning in start.warnings:
        job.report.warn(warning)
    for key, change in start.changes.items():
        job.report.say(f"changed: {key}: {change}")
    if start.state is None:
        job.report.say("no checkpoint yet: the run starts again from its config")
        return
    about = start.state["about"]
    known, there = about["classes"], job.data.classes
    if known != there:
        lost, new = ([name for name in one if name not in other] for one, other in ((known, there), (there, known)))
        parts = [f"{word} {shorten(names)}" for word, names in (("without", lost), ("with", new)) if names]
        raise CheckpointError(
            f"data.root: the data has other classes than the run ({', '.join(parts) or 'in another order'}); "
            "resume with the data that the run was started on"
        )
    if splits := changed_splits(about, job.data):
        names = " and ".join(splits)
        job.report.warn(
            f"data.root: the images of {names} are not those that the run was started on; it goes on with them"
        )
    run.restore(start.state, is_retuned=any_below(start.changes, GROUP_KEYS))
    progress = run.progress
    if job.trainer.micro_batch != AUTO:
        progress.micro_batch = 0
    borders = STEP_BORDERS + GROWTH if job.settings.augment.progressive else STEP_BORDERS
    is_moved = "train" in splits or any_below(start.changes, borders)
    if is_moved:
        if progress.batch:
            job.report.warn(f"epoch {progress.epoch + 1} starts anew, as the images of its steps have changed")
        progress.batch, progress.step_offset = 0, progress.step - job.plan.first_step(progress.epoch)
        run.epoch_window.reset()
        run.log_window.reset()
    refuse_odd_counts(start.state, progress, job.plan)
    fit_pace(job, run, is_moved=is_moved, is_longer=any_below(start.changes, LENGTH))
    if end := end_of(job.trainer, progress):
        job.report.say(f"nothing is left to train, {end} is reached: its best epoch is scored again")
    else:
        job.report.say(f"resumed at step {progress.step:,}, epoch {progress.epoch + 1}, batch {progress.batch}")


def refuse_odd_counts(state: Mapping[str, Any], progress: Progress, plan: EpochPlan) -> None:
    """Refuse a forged state whose counts no training comes to; CheckpointError."""
    name = state_form.largest(state)
    if not name and progress.epoch < plan.epochs and progress.schedule_step > plan.total:
        name = "progress.step"
    if name:
        raise CheckpointError(f"{name}: the checkpoint counts more than a run comes to; {ANOTHER}")


def fit_pace(job: TrainJob, run: TrainState, *, is_moved: bool, is_longer: bool) -> None:
    """Put a run that time ends where it stands on its schedule.

    Args:
        is_moved: the borders of its steps are others.
        is_longer: it has another length.
    """
    limit, progress = job.trainer.max_seconds(), run.progress
    step, steps = job.schedule_steps(progress)
    is_moved |= max(run.pace.step, run.pace.first_step) > step  # where an older version let it count on
    if is_moved:
        run.pace = Pace()
    if limit and (is_moved or is_longer):
        run.pace.restart(step, steps, progress.seconds, limit)


def changed_splits(about: dict[str, Any], data: Data) -> list[str]:
    """The splits of a run that goes on whose images have changed since: at most train and test.

    Raises:
        CheckpointError: the images that choose the best epoch are not what they were, or have been trained on.
    """
    if about["data_fingerprint"] == data.fingerprint:
        return []
    marks, now = about.get("marks", {}), data.marks
    what = "data.root: the images are not those that the run was started on"
    if data.val and "val" not in now:
        reason = f"{what}, and validation would meet images that were trained on"
    elif now and not marks:
        reason = f"{what}, and its checkpoint does not tell whether those of validation still are"
    elif marks.get("val") != now.get("val"):
        reason = f"{what}, and the best epoch was chosen on other validation images"
    else:
        return [name for name in ("train", "test") if marks.get(name) != now.get(name)] or ["train", "test"]
    raise CheckpointError(f"{reason}; restore them, or start a new run")


def any_below(keys: Iterable[str], parents: tuple[str, ...]) -> bool:
    """Whether any key is one of the parents, or lies in a section that is."""
    return any(f"{key}.".startswith(tuple(f"{parent}." for parent in parents)) for key in keys)


def shorten(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:4]) + (f" ... ({len(names)} in all)" if len(names) > 4 else "")
