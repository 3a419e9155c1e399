"""`cnntrain bench [overrides] [rounds=3] [steps=20] [out=FILE.json]`: what a step of a run costs, part by part."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import BenchArgs
from cnntrain.errors import Interrupted
from cnntrain.models.weights.load import read_weights
from cnntrain.report.ladder import Findings, advice, table
from cnntrain.report.run_report import Report
from cnntrain.report.session import saved_into
from cnntrain.report.summary import show_notes
from cnntrain.runtime import device as machine
from cnntrain.runtime import signals
from cnntrain.runtime.device_memory import peak_memory
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import counted, gibibytes, printable, short_path, wrap, wrap_facts
from cnntrain.training.build import build_state
from cnntrain.training.fit_batch import build_fitting_job
from cnntrain.training.job import TrainJob
from cnntrain.training.ladder import Ladder
from cnntrain.training.transfer import start_from_weights, use_features


def run(args: BenchArgs, config: RunConfig) -> Findings:
    """Time the steps of throw-away weights from the bare step up to the real loop, and tell what to change.

    Raises:
        ConfigError: settings that do not fit the data, the network or each other.
        Interrupted: a signal asked for the end; nothing is kept.
        FileSystemError: `out` cannot be written.
    """
    settings = config.settings
    report = Report(None, tensorboard=False)
    try:
        with signals.handle_signals(report.note) as stop:
            job = build_fitting_job(settings, report, stop=stop, splits=("train",))
            job = start_from_weights(job, read_weights(settings.model, report.say))
            with tempfile.TemporaryDirectory(prefix="cnntrain-bench-") as folder:
                found = measure(job, args, Path(folder), report.say)
        show_notes(job, report)
        report.header(f"bench: {settings.heading}", wrap_facts(_facts(job, found)))
        for line in table(found):
            report.say(line, copied=True)
        for line in wrap(advice(found, job), indent=2):
            report.say(line)
        if args.out:
            about: dict[str, Any] = {
                "model": settings.model.heading,
                "data": settings.data.heading,
                "words": list(args.words),
            }
            about |= {"device": machine.describe_device(job.device), "precision": job.precision.value}
            about |= {"torch": torch.__version__, "images_per_step": job.data.batch_size * job.trainer.accumulate}
            write_atomic(
                args.out,
                json.dumps(about | found.as_plain() | {"advice": advice(found, job)}, indent=1) + "\n",
                word="out=FILE.json",
            )
            report.say(f"wrote {printable(short_path(args.out))}", copied=True)
        return found
    except Interrupted as error:
        raise Interrupted(error.signum, "stopped; nothing was kept") from None
    finally:
        report.close()


def measure(job: TrainJob, args: BenchArgs, folder: Path, say: Callable[[str], object]) -> Findings:
    """Climb the ladder; the loop tells and saves in a folder as a run does, and draws its bar where nobody sees it."""
    run = build_state(job)
    job = use_features(job, run)
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=80)
        told = Report(folder, tensorboard=job.trainer.tensorboard, console=console)
        try:
            with saved_into(folder, replace(job, report=told)) as training:
                ladder = Ladder(run, training)
                rungs = ladder.climb(args.rounds, args.steps, say)
                save_seconds = ladder.save()
        finally:
            told.close()
    steps, seconds = job.trainer.save_steps(), job.trainer.save_seconds()
    saves = 1 / steps if steps else rungs[-1].second / (seconds or float("inf"))
    return Findings(rungs, save_seconds, saves, peak_memory(job.device))


def _facts(job: TrainJob, found: Findings) -> dict[str, str]:
    """What was timed."""
    data = job.data
    layout = "channels_last" if job.channels_last else "contiguous"
    size = f"{data.channels}x{data.image_size}x{data.image_size}"
    batches = f"{counted(job.trainer.accumulate, 'batch')} of " if job.trainer.accumulate > 1 else ""
    facts = {
        "step": f"{batches}{counted(data.batch_size, 'image')} of {size}",
        "device": f"{machine.describe_device(job.device)}, {job.precision.value}, {layout}",
        "memory": f"{gibibytes(found.peak_memory)} at the peak"
        + ("" if found.idle is not None else ", of the whole process"),
        "save": f"stops training for {1e3 * found.save_seconds:.1f} ms, {job.trainer.save_every}"
        + (" steps apart" if job.trainer.save_steps() else " apart"),
    }
    return facts | ({"idle": f"{100 * found.idle:.1f}% of the time of the GPU"} if found.idle is not None else {})
