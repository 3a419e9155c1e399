"""One training in its run folder, from its start to its results: the road that `train` and `resume` share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from cnntrain.config.plain import to_yaml
from cnntrain.config.schema.scores import MAIN
from cnntrain.data import split_file
from cnntrain.data.common import TrainData
from cnntrain.errors import CnntrainError, DataError, FileSystemError, Interrupted, ResourceError
from cnntrain.models.weights.load import read_weights
from cnntrain.report.profile import profiled
from cnntrain.report.run_report import Report
from cnntrain.report.scored_split import ScoredSplit
from cnntrain.report.summary import (
    end_words,
    flat_scores,
    next_commands,
    resume_command,
    show_audit,
    show_header,
    show_samples,
    table_settings,
)
from cnntrain.runtime import device as machine
from cnntrain.runtime import signals
from cnntrain.runtime.job_clock import take_seconds
from cnntrain.runtime.launcher_link import GOES_ON, note_way_on
from cnntrain.runtime.world import World
from cnntrain.storage import run_record
from cnntrain.storage.atomic import StreamedFile
from cnntrain.storage.saver import Saver
from cnntrain.training import loop
from cnntrain.training.build import build_state
from cnntrain.training.final_scores import list_bad_images, score
from cnntrain.training.fit_batch import build_fitting_job
from cnntrain.training.job import TrainJob, Watch
from cnntrain.training.metrics import has_top5
from cnntrain.training.repeatable import check_repeatable
from cnntrain.training.resume import Start, restore
from cnntrain.training.transfer import start_from_weights, use_features

Viewer = Callable[[TrainJob, Report], Watch]
Ended = tuple[dict[str, Any], list[str]]


def lead(start: Start, world: World, viewer: Viewer) -> Ended:
    """Train in a locked run folder, as the first process, which alone reads and writes the folder and speaks.

    Args:
        viewer: makes what looks at the network after each epoch, for TensorBoard.

    Returns:
        What results.json holds; and what the user may want to type next, where that waits for the page of the run.
    """
    folder = start.folder
    world.share(start)
    note_way_on(folder / "checkpoints", resume_command(start.settings, folder))
    resume_step = start.state["progress"]["step"] if start.state else None
    ended = start.is_resumed and not start.changes and run_record.is_done(folder)
    top5 = has_top5(len(start.state["about"]["classes"])) if start.state else True  # a new run has no rows yet
    tensorboard, score = start.settings.trainer.tensorboard, MAIN[start.settings.data.multi_label]
    report = Report(folder, tensorboard=tensorboard, resume_step=resume_step, ended=ended, top5=top5, score=score)
    try:
        with signals.handle_signals(report.note) as stop:
            return train_and_score(start, world, report, stop, viewer)
    except Interrupted as error:
        note_end(folder, "interrupted", error)
        raise Interrupted(error.signum, f"{error}; go on with {resume_command(start.settings, folder)}") from None
    except CnntrainError as error:
        note_end(folder, "failed", error)
        tell_how_to_go_on(error, start)
        raise
    finally:
        report.close()


def follow(world: World) -> Ended:
    """The same in all other processes, which wait for the first one's word."""
    start = cast(Start, world.share(None))
    note_way_on(start.folder / "checkpoints", resume_command(start.settings, start.folder))
    report = Report(None, tensorboard=False, console=Console(quiet=True))
    try:
        with signals.handle_signals(lambda text: True) as stop:
            return train_and_score(start, world, report, stop)
    except CnntrainError as error:  # the first process may be the one that was lost
        tell_how_to_go_on(error, start)
        raise


def tell_how_to_go_on(error: CnntrainError, start: Start) -> None:
    """Add the way on to what the disk, the memory or a lost process has ended, where something is saved."""
    if isinstance(error, (FileSystemError, ResourceError)) and (start.folder / "checkpoints").exists():
        error.args = (f"{error}{GOES_ON}{resume_command(start.settings, start.folder)}",)


def train_and_score(
    start: Start, world: World, report: Report, stop: signals.Stop, viewer: Viewer | None = None
) -> Ended:
    """Build what the settings describe, train it, and test the best epoch once at the end."""
    folder = start.folder
    with world.in_turn():  # weights are fetched by one process, and before the images are read
        weights = None if start.state else read_weights(start.settings.model, report.say)
    job = build_fitting_job(start.job_settings(), report, stop=stop, world=world)
    start = with_found(start, job, is_writer=world.is_first)
    settings = start.settings
    need_same_images(job)
    job = start_from_weights(job, weights)
    loader = job.data.test or job.data.val
    shown = ScoredSplit(job, loader, report) if loader and settings.trainer.tensorboard else None
    job = replace(job, listener=shown)
    if settings.trainer.deterministic:
        check_repeatable(job)
    state = build_state(job)
    show_header(job, job.total_steps(state.progress), folder, report)
    show_audit(job, report)
    if start.is_resumed:
        restore(job, state, start)
    if world.is_first:
        note_start(start, job, report)
    if stop.requested:
        raise Interrupted(stop.signum or 2, "stopped before the first step")

    training = use_features(job, state)
    if viewer and settings.trainer.tensorboard:
        training = replace(training, watch=viewer(job, report))
    if world.is_first:
        run_record.discard_results(folder)  # from here on, those of an earlier end are out of date
    with saved_into(folder, training) as training, profiled(folder, training, state.progress, report) as training:
        ended = loop.train(state, training)

    results = score(job, state, folder)
    if shown:
        shown.draw(state.progress.thresholds)
    results |= {"ended": ended, "bad_images": list_bad_images(job, folder)}
    results["seconds"] = round(take_seconds(), 2)
    report.hparams(table_settings(settings), flat_scores(results))
    if world.is_first:
        run_record.write_results(folder, results)
    why = end_words(ended, settings.trainer, state.progress)
    scored = bool(results["val"] or results["test"])
    commands = next_commands(settings, state.progress, folder, scored=scored)
    now, later = ([], commands) if settings.trainer.report else (commands, [])
    report.finish(results, now, ended=why)
    return results, later


def need_same_images(job: TrainJob) -> None:
    """Raises DataError where this process was given other images than the first one."""
    if job.data.fingerprint != job.world.share(job.data.fingerprint):
        raise DataError(
            f"data.root: process {job.world.rank}, on this machine, has found other images than the first one; "
            "give all machines the same images"
        )


@contextmanager
def saved_into(folder: Path, job: TrainJob) -> Iterator[TrainJob]:
    """The job with its checkpoints in a run folder, written by the first process; all are on disk when it is left."""
    world = job.world
    run_id = world.share(run_record.run_id(folder) if world.is_first else "")
    about = job.about() | {"run_id": run_id, "processes": world.size}
    with Saver(folder, job.device) as saver:

        def save(state: dict[str, Any], best: bool) -> None:
            if world.is_first:
                saver.save(state | {"about": about}, best=best)

        yield replace(job, save=save, finish_saves=saver.join)


def describe(start: Start) -> None:
    """Write down how this run is made."""
    run_record.describe(
        start.folder, config_yaml=to_yaml(start.settings), overrides=start.overrides, command=start.command
    )


def with_found(start: Start, job: TrainJob, *, is_writer: bool) -> Start:
    """The start with the numbers that the job has found, which a run without a checkpoint keeps at once."""
    data = replace(start.settings.data, batch_size=job.settings.data.batch_size)
    trainer = replace(start.settings.trainer, micro_batch=job.settings.trainer.micro_batch)
    found = replace(start, settings=replace(start.settings, data=data, trainer=trainer))
    if found.settings != start.settings and not start.is_resumed and is_writer:
        describe(found)
    return found


def note_start(start: Start, job: TrainJob, report: Report) -> None:
    """Write down what is known before the first step."""
    if start.is_resumed:
        describe(start)  # not before the checkpoint is known to fit the changed settings
    if job.trainer.tensorboard and start.state is None:
        show_samples(job, report)
    keep_splits(start.folder, job.data)
    run_record.complete(
        start.folder,
        classes=job.data.classes,
        data_fingerprint=job.data.fingerprint,
        device=machine.describe_device(job.device),
        processes=job.world.size,
    )


def keep_splits(folder: Path, data: TrainData) -> None:
    """Write down which images train, validate and test, for other tools and for data.split_file."""
    with StreamedFile(folder / run_record.SPLITS) as file:
        for part in split_file.split_rows(data):
            file.write(part)


def note_end(folder: Path, status: str, error: CnntrainError) -> None:
    """Leave a results.json behind for a run without results; those of a finished run stay."""
    if (folder / run_record.RESULTS).exists():
        return
    with suppress(OSError, CnntrainError):  # the disk may be what failed
        run_record.write_results(folder, {"status": status, "error": str(error), "seconds": take_seconds()})
