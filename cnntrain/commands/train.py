"""`cnntrain train`: from settings to a finished run."""

import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cnntrain import checkpoint, config, loop, runfolder, signals, take_seconds
from cnntrain import device as machine
from cnntrain.commands.setup import Job, build_job, build_run
from cnntrain.commands.show import flat_scores, next_commands, show_header, show_samples
from cnntrain.errors import CheckpointError, CnntrainError, ConfigError, DataError, Interrupted
from cnntrain.files import write_atomic
from cnntrain.models.drop import DropLayer, drop_layers
from cnntrain.report import Report
from cnntrain.run import Run, load_weights
from cnntrain.settings import Settings
from cnntrain.settings.model import DropSchedule

# Changing these moves the borders of the steps: the epoch in hand then starts anew.
STEP_BORDERS = ("data.batch_size:", "data.limit:", "data.sampling:", "trainer.accumulate:", "augment.progressive")
GROWTH = ("trainer.epochs:", "trainer.max_steps:", "data.image_size:")  # beside these, where the images grow


@dataclass
class Start:
    """Where a resumed run goes on: a checkpoint's state (None: from its config), and what there is to say about it."""

    state: dict[str, Any] | None
    warnings: list[str]
    differences: list[str]  # "trainer.epochs: 10 -> 50"


def train(settings: Settings, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train from scratch in a new run folder; answers what results.json holds."""
    with runfolder.lock(folder):
        runfolder.refuse_used(folder)
        # Before anything that takes time: a run killed before its first save starts again from this.
        describe(folder, settings, overrides)
        try:
            return work(settings, folder, overrides)
        except (ConfigError, DataError):
            if not (folder / "checkpoints").exists():
                runfolder.remove_unstarted(folder)
            raise


def describe(folder: Path, settings: Settings, overrides: list[str]) -> None:
    """Write down how this run is made."""
    command = shlex.join(["cnntrain", *sys.argv[1:]])
    runfolder.describe(folder, config_yaml=config.to_yaml(settings), overrides=overrides, command=command)


def work(settings: Settings, folder: Path, overrides: list[str], start: Start | None = None) -> dict[str, Any]:
    """Train in a locked run folder; test the best epoch once at the end."""
    resume_step = start.state["progress"]["step"] if start and start.state else None
    report = Report(folder, tensorboard=settings.trainer.tensorboard, resume_step=resume_step)
    try:
        with signals.handle_signals(report.note) as stop:
            return _work(settings, folder, overrides, start, report, stop)
    except Interrupted as error:
        note_end(folder, "interrupted", error)
        raise Interrupted(error.signum, f"{error}; go on with cnntrain resume {shlex.quote(str(folder))}") from None
    except CnntrainError as error:
        note_end(folder, "failed", error)
        raise
    finally:
        report.close()


def note_end(folder: Path, status: str, error: CnntrainError) -> None:
    """Leave a results.json behind for a run without results; those of a finished run stay."""
    if (folder / runfolder.RESULTS).exists():
        return
    with suppress(OSError, CnntrainError):  # the disk may be what failed
        runfolder.write_results(folder, {"status": status, "error": str(error), "seconds": take_seconds()})


def _work(
    settings: Settings, folder: Path, overrides: list[str], start: Start | None, report: Report, stop: signals.Stop
) -> dict[str, Any]:
    job = build_job(settings, report.say)
    run = build_run(job)
    about = job.about() | {"run_id": runfolder.run_id(folder)}

    def save(state: dict[str, Any], best: bool) -> None:
        report.flush()  # after a kill, TensorBoard then reaches as far as the checkpoint
        checkpoint.save(folder, state | {"about": about}, best=best)

    task = make_task(job, save, report, stop)
    show_header(job, task.total_steps(run.progress), folder, report)
    if start:
        go_on(job, run, task, start, report)
        describe(folder, settings, overrides)  # not before the checkpoint is known to fit the changed settings
    if settings.trainer.tensorboard and not (start and start.state):
        show_samples(job, report)
    runfolder.complete(
        folder,
        classes=job.data.classes,
        data_fingerprint=job.data.fingerprint,
        device=machine.describe_device(job.device),
    )
    if stop.requested:
        raise Interrupted(stop.signum or 2, "stopped before the first step")

    runfolder.discard_results(folder)  # from here on, those of an earlier end are out of date
    ended = loop.train(run, task)
    results = score(job, run, task, folder, report) | {
        "ended": ended,
        "bad_images": list_bad_images(job, folder, report),
    }
    results["seconds"] = round(take_seconds(), 2)
    runfolder.write_results(folder, results)
    report.hparams(config.to_plain(settings), flat_scores(results))
    report.finish(results | {"folder": str(folder)}, next_commands(settings, folder))
    return results


def list_bad_images(job: Job, folder: Path, report: Report) -> int:
    """How many images were skipped (data.on_bad_image=skip); bad_images.tsv names them with the reason."""
    loaders = [loader for loader in (job.data.train, job.data.val, job.data.test) if loader]
    skipped = sorted({entry for loader in loaders for entry in loader.skipped})
    if skipped:
        path = folder / "bad_images.tsv"
        write_atomic(path, "".join(f"{name}\t{reason}\n" for name, reason in skipped))
        report.warn(f"{len(skipped)} bad images were skipped, others stood in for them; {path} names them")
    return len(skipped)


def make_task(job: Job, save: Any, report: Any, stop: Any) -> loop.Task:
    """What the loop needs, from a built job."""
    assert job.data.train is not None
    assert job.data.val is not None
    return loop.Task(
        train=job.data.train,
        val=job.data.val,
        probe=job.data.probe,
        plan=job.plan,
        rates=job.rates,
        augment=job.augment,
        mix=job.mix,
        loss=job.loss,
        normalise=job.normalise,
        trainer=job.settings.trainer,
        schedule=job.settings.schedule,
        aux_weight=job.settings.model.aux_weight,
        drops=scheduled_drops(job),
        save=save,
        report=report,
        stop=stop,
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


def go_on(job: Job, run: Run, task: loop.Task, start: Start, report: Report) -> None:
    """Put a checkpoint's state into the run, and say what differs and where it goes on."""
    for warning in start.warnings:
        report.warn(warning)
    for line in start.differences:
        report.say(f"changed: {line}")
    if start.state is None:
        report.say("no checkpoint yet: the run starts again from its config")
        return
    about = start.state["about"]
    if about["classes"] != job.data.classes:
        raise CheckpointError(
            f"data.root: the run knows the classes {shorten(about['classes'])}, the data has "
            f"{shorten(job.data.classes)}; resume with the data that the run was started on"
        )
    limited = any(line.startswith("data.limit:") for line in start.differences)
    if about["data_fingerprint"] != job.data.fingerprint and not limited:
        raise CheckpointError(
            "data.root: the images are not those that the run was started on, and validation would meet images that "
            "were trained on; restore them, or start a new run"
        )
    run.restore(start.state)
    progress = run.progress
    if any(line.startswith(step_borders(job)) for line in start.differences):
        if progress.batch:
            report.warn(f"epoch {progress.epoch + 1} starts anew, as the images of its steps have changed")
        progress.batch, progress.step_offset = 0, progress.step - task.plan.first_step(progress.epoch)
        run.epoch_window.reset()
        run.log_window.reset()
    report.say(f"resumed at step {progress.step:,}, epoch {progress.epoch + 1}, batch {progress.batch}")


def step_borders(job: Job) -> tuple[str, ...]:
    """The beginnings of the differences after which steps hold other images than before."""
    return STEP_BORDERS + GROWTH if job.settings.augment.progressive else STEP_BORDERS


def shorten(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:4]) + (f" ... ({len(names)} in all)" if len(names) > 4 else "")


def score(job: Job, run: Run, task: loop.Task, folder: Path, report: Report) -> dict[str, Any]:
    """Scores of the best epoch: validation as measured then, the test split once, now."""
    progress, data = run.progress, job.data
    weights = checkpoint.fingerprint(run.model.state_dict())  # of the last step, before the best epoch comes back
    best = checkpoint.load(folder / "checkpoints" / "best")
    model = run.eval_model
    load_weights(model, best["ema"]["model"] if best["ema"] else best["model"])
    counts = ConfusionCounts(len(data.classes), job.device)

    split, loader = ("test", data.test) if data.test else ("val", data.val)
    assert loader is not None
    report.validating(len(loader), phase="testing" if data.test else "validating")
    scores = loop.evaluate(
        model,
        loader,
        task.normalise,
        run.device,
        run.precision,
        stop=task.stop,
        advance=report.advance,
        collect=counts.add,
    )
    report.confusion(f"{split}/confusion", counts.matrix.cpu(), data.classes)
    return {
        "status": "done",
        "best_epoch": progress.best_epoch,
        "val": {"top1": progress.best_top1, "top5": progress.best_top5, "loss": progress.best_loss},
        "test": scores if data.test else None,
        "images_per_second": round(run.images_per_second(), 1),
        "parameters": job.parameters,
        "peak_memory_bytes": machine.peak_memory(job.device),
        "checkpoint": str(folder / "checkpoints" / "best"),
        "weights_sha256": weights,
    }


class ConfusionCounts:
    """Counts of (true class, predicted class), kept on the device."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count one micro-batch: logits (N, C), labels (N,)."""
        classes = len(self.matrix)
        cells = labels * classes + logits.argmax(1)
        self.matrix += torch.bincount(cells, minlength=classes * classes).view(classes, classes)
