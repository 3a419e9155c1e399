"""`cnntrain train`: from settings to a finished run."""

import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from cnntrain.config.changes import Change
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.schema.settings import Settings
from cnntrain.errors import (
    CheckpointError,
    CnntrainError,
    ConfigError,
    DataError,
    FileSystemError,
    Interrupted,
    UnsafeError,
)
from cnntrain.models.weights.load import read_weights
from cnntrain.report.run_report import Report
from cnntrain.report.summary import (
    end_words,
    flat_scores,
    next_commands,
    resume_command,
    show_audit,
    show_header,
    show_samples,
)
from cnntrain.runtime import device as machine
from cnntrain.runtime import distributed, signals
from cnntrain.runtime.distributed import World
from cnntrain.runtime.job_clock import take_seconds
from cnntrain.storage import checkpoint, run_folder
from cnntrain.training import loop
from cnntrain.training.final_scores import list_bad_images, score
from cnntrain.training.job import TrainJob, build_run, build_train_job
from cnntrain.training.load_run import changed_splits, reached, with_preprocessing
from cnntrain.training.state import Run
from cnntrain.training.transfer import start_from_weights, use_features

# Changing these moves the borders of the steps: the epoch in hand then starts anew.
STEP_BORDERS = (
    *("data.batch_size", "data.limit", "data.per_class", "data.sampling"),
    *("trainer.accumulate", "augment.progressive", "processes"),
)
LEARNING = ("finetune",)  # changing these may change which layer groups learn in an epoch
GROWTH = ("trainer.epochs", "trainer.max_steps", "data.image_size")  # beside these, where the images grow


@dataclass
class Start:
    """Where a resumed run goes on: a checkpoint's state (None: from its config), and what there is to say about it."""

    state: dict[str, Any] | None
    warnings: list[str]
    changes: dict[str, Change]  # of its config, by key; and of the number of its processes


@dataclass
class Order:
    """What is to be done."""

    settings: Settings
    folder: Path
    overrides: list[str]
    start: Start | None = None  # None: from scratch


def train(settings: Settings, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train from scratch in a new run folder; answers what results.json holds."""
    with distributed.joined(machine.exchange_backend()) as world:
        return begin(Order(settings, folder, overrides), world) if world.is_first else work(None, world)


def begin(order: Order, world: World) -> dict[str, Any]:
    """The part of `train` that the first process does."""
    folder = order.folder
    with run_folder.lock(folder):
        run_folder.refuse_used(folder)
        try:
            # Before anything that takes time: a run killed before its first save starts again from this.
            describe(order)
            return work(order, world)
        except (ConfigError, DataError, CheckpointError, UnsafeError, FileSystemError):
            if not (folder / "checkpoints").exists():
                run_folder.remove_unstarted(folder)
            raise


def describe(order: Order) -> None:
    """Write down how this run is made."""
    command = shlex.join(["cnntrain", *sys.argv[1:]])
    config_yaml = to_yaml(order.settings)
    run_folder.describe(order.folder, config_yaml=config_yaml, overrides=order.overrides, command=command)


def work(given: Order | None, world: World) -> dict[str, Any]:
    """Train in a locked run folder; test the best epoch once at the end.

    Args:
        given: None in all processes but the first: it is the one that reads and writes the run folder and speaks.
    """
    order = world.share(given)
    assert order is not None
    folder, start = order.folder, order.start
    if not world.is_first:
        report = Report(None, tensorboard=False, console=Console(quiet=True))
        with signals.handle_signals(lambda text: True) as stop:
            return _work(order, world, report, stop)

    resume_step = start.state["progress"]["step"] if start and start.state else None
    ended = start is not None and not start.changes and run_folder.is_done(folder)
    report = Report(folder, tensorboard=order.settings.trainer.tensorboard, resume_step=resume_step, ended=ended)
    try:
        with signals.handle_signals(report.note) as stop:
            return _work(order, world, report, stop)
    except Interrupted as error:
        note_end(folder, "interrupted", error)
        raise Interrupted(error.signum, f"{error}; go on with {resume_command(order.settings, folder)}") from None
    except CnntrainError as error:
        note_end(folder, "failed", error)
        raise
    finally:
        report.close()


def note_end(folder: Path, status: str, error: CnntrainError) -> None:
    """Leave a results.json behind for a run without results; those of a finished run stay."""
    if (folder / run_folder.RESULTS).exists():
        return
    with suppress(OSError, CnntrainError):  # the disk may be what failed
        run_folder.write_results(folder, {"status": status, "error": str(error), "seconds": take_seconds()})


def _work(order: Order, world: World, report: Report, stop: signals.Stop) -> dict[str, Any]:
    settings, folder, start = order.settings, order.folder, order.start
    state = start.state if start else None
    followed = settings
    if start and state:  # weights to start from may be gone by now, and the training images may be others
        followed = with_preprocessing(settings, state["about"], start.changes)
    with world.in_turn():  # weights are fetched by one process, and before the images are read
        weights = None if state else read_weights(settings.model, report.say)
    job = build_train_job(followed, report, stop=stop, world=world)
    same_images(job)
    job = start_from_weights(job, weights)
    run = build_run(job)
    run_id = world.share(run_folder.run_id(folder) if world.is_first else "")
    about = job.about() | {"run_id": run_id, "processes": world.size}

    def save(state: dict[str, Any], best: bool) -> None:
        if world.is_first:
            checkpoint.save(folder, state | {"about": about}, best=best)

    job = replace(job, save=save)
    show_header(job, job.total_steps(run.progress), folder, report)
    show_audit(job, report)
    if start:
        go_on(job, run, start, report)
    if world.is_first:
        note_start(order, job, report)
    if stop.requested:
        raise Interrupted(stop.signum or 2, "stopped before the first step")

    training = use_features(job, run)
    if world.is_first:
        run_folder.discard_results(folder)  # from here on, those of an earlier end are out of date
    ended = loop.train(run, training)
    results = score(job, run, folder) | {
        "ended": ended,
        "bad_images": list_bad_images(job, folder),
    }
    results["seconds"] = round(take_seconds(), 2)
    report.hparams(to_plain(settings), flat_scores(results))
    if world.is_first:
        run_folder.write_results(folder, results)
    why = end_words(ended, settings.trainer, run.progress)
    scored = bool(results["val"] or results["test"])
    report.finish(results, next_commands(settings, run.progress, folder, scored=scored), ended=why)
    return results


def note_start(order: Order, job: TrainJob, report: Report) -> None:
    """Write down what is known before the first step."""
    state = order.start.state if order.start else None
    if order.start:
        describe(order)  # not before the checkpoint is known to fit the changed settings
    if order.settings.trainer.tensorboard and state is None:
        show_samples(job, report)
    run_folder.complete(
        order.folder,
        classes=job.data.classes,
        data_fingerprint=job.data.fingerprint,
        device=machine.describe_device(job.device),
        processes=job.world.size,
    )


def same_images(job: TrainJob) -> None:
    """Raises DataError where this process was given other images than the first one."""
    if job.data.fingerprint != job.world.share(job.data.fingerprint):
        raise DataError(
            f"data.root: process {job.world.rank}, on this machine, has found other images than the first one; "
            "give all machines the same images"
        )


def go_on(job: TrainJob, run: Run, start: Start, report: Report) -> None:
    """Put a checkpoint's state into the run, and say what differs and where it goes on."""
    for warning in start.warnings:
        report.warn(warning)
    for key, change in start.changes.items():
        report.say(f"changed: {key}: {change}")
    if start.state is None:
        report.say("no checkpoint yet: the run starts again from its config")
        return
    about = start.state["about"]
    if about["classes"] != job.data.classes:
        raise CheckpointError(
            f"data.root: the run knows the classes {shorten(about['classes'])}, the data has "
            f"{shorten(job.data.classes)}; resume with the data that the run was started on"
        )
    if changed := changed_splits(about, job.data):
        splits = " and ".join(changed)
        report.warn(
            f"data.root: the images of {splits} are not those that the run was started on; it goes on with them"
        )
    run.restore(start.state, retuned=any_below(start.changes, LEARNING))
    progress = run.progress
    if "train" in changed or any_below(start.changes, step_borders(job)):
        if progress.batch:
            report.warn(f"epoch {progress.epoch + 1} starts anew, as the images of its steps have changed")
        progress.batch, progress.step_offset = 0, progress.step - job.plan.first_step(progress.epoch)
        run.epoch_window.reset()
        run.log_window.reset()
    if end := reached(job.settings.trainer, progress):
        report.say(f"nothing is left to train, {end} is reached: its best epoch is scored again")
    else:
        report.say(f"resumed at step {progress.step:,}, epoch {progress.epoch + 1}, batch {progress.batch}")


def step_borders(job: TrainJob) -> tuple[str, ...]:
    """The keys after whose change steps hold other images than before."""
    return STEP_BORDERS + GROWTH if job.settings.augment.progressive else STEP_BORDERS


def any_below(keys: Iterable[str], parents: tuple[str, ...]) -> bool:
    """Whether any key is one of the parents, or lies in a section that is."""
    return any(f"{key}.".startswith(tuple(f"{parent}." for parent in parents)) for key in keys)


def shorten(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:4]) + (f" ... ({len(names)} in all)" if len(names) > 4 else "")
