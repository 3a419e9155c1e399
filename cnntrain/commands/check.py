"""`cnntrain check [overrides]`: is the data sound, would this run work, what does it take? Leaves no run."""

import itertools
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from torch.nn import functional

from cnntrain.config.paths import expand_path, need_outside
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.command_args import LookArgs
from cnntrain.config.schema.commands import CheckArgs
from cnntrain.config.schema.run_commands import CheckRunArgs
from cnntrain.config.schema.settings import Settings
from cnntrain.errors import DataError
from cnntrain.inspect.doctor.look_at_data import Answer, look_at_data, write
from cnntrain.models.weights.load import read_weights
from cnntrain.report.run_report import Report
from cnntrain.report.summary import show_audit, show_notes
from cnntrain.runtime import device as machine
from cnntrain.runtime.device_memory import peak_memory
from cnntrain.storage import run_record
from cnntrain.text import counted, few
from cnntrain.training import loop
from cnntrain.training.build import build_state
from cnntrain.training.fit_batch import build_fitting_job
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job, refuse_foreign_code
from cnntrain.training.micro_batches import Guard
from cnntrain.training.multi_label import plain_loss
from cnntrain.training.transfer import may_cache, start_from_weights


def run(args: CheckArgs | CheckRunArgs, config: RunConfig | None) -> dict[str, Any]:
    """Look at the data; then build model and data, train a few steps on throw-away weights, and say what that takes.

    Of a trained network the images of its run are looked at, and their labels by what it says of them.

    Returns:
        What was found in the data, as in FILE.json; empty where it was not looked at.

    Raises:
        ConfigError: `out` lies among the images.
        DataError: something serious was found, and strict=true asks for that.
    """
    report = Report(None, tensorboard=False)
    try:
        if isinstance(args, CheckRunArgs):
            folder, _, job = load_job(args.run, args.words, report, config, images=False, command="check")
            refuse_foreign_code(job.settings, args.words, training=False)
            answer = _look(args, job.settings, report, job, folder.parent.parent / run_record.SPLITS)
        else:
            assert config is not None
            answer = _look(args, config.settings, report) if args.images != 0 else None
            if args.steps:
                _try_steps(args.steps, config.settings, report, looked=answer is not None)
                report.say("check passed; no run folder was made")
    finally:
        report.close()
    return answer.as_plain() if answer else {}


def _look(
    args: LookArgs, settings: Settings, report: Report, job: Job | None = None, splits: Path | None = None
) -> Answer | None:
    """Look at the images, tell and write what was found; None where they cannot be listed.

    Args:
        job: a trained network that is asked for its opinion of the labels.
        splits: those of its run.
    """
    if args.out and settings.data.has_files:
        need_outside(args.out, expand_path(settings.data.root))
    answer = look_at_data(settings, args.images, report, job, labels=args.labels, splits=splits)
    if answer and args.out:
        write(args.out, answer, report)
    elif answer and any(len(finding.entries) > 1 for finding in answer.findings):
        report.say("of each, one image is shown; out=FOLDER lists all, and draws the pairs")
    if answer and args.strict and answer.serious:
        names = few(dict.fromkeys(finding.kind for finding in answer.serious))
        raise DataError(f"data: {names} found (given strict=true); mend the data")
    return answer


def _try_steps(count: int, settings: Settings, report: Report, *, looked: bool) -> None:
    """Train so many steps, and say what a run takes; `looked`: what is wrong with the data has been told."""
    job = build_fitting_job(settings, report)
    job = start_from_weights(job, read_weights(settings.model, report.say))
    state = build_state(job)
    data = job.data
    if settings.augment.progressive:
        state.progress.epoch = settings.trainer.epochs - 1  # the largest images tell what fits into memory
    loader = job.loader(state.progress.epoch)
    with closing(loader.batches(state.progress.epoch)) as batches:
        group = list(itertools.islice(batches, settings.trainer.accumulate))

    state.start_epoch()
    seconds = []
    guard = Guard(state, job, loader.batch_size)
    take_step = partial(loop.train_step, state, job, group, sum(batch.total for batch in group))
    for _ in range(count + 1):  # the first one warms up
        state.progress.batch = 0
        start = time.perf_counter()
        while not guard.take(take_step):
            pass  # once more, in smaller micro-batches
        machine.synchronize(job.device)
        seconds.append(time.perf_counter() - start)
    state.check_finite()
    step = min(seconds[1:])

    start = time.perf_counter()
    scorer = job.scorer(state.eval_model, most=state.progress.micro_batch)
    loss = plain_loss if data.multi_label else functional.cross_entropy
    loss(scorer.logits(group[0].images), group[0].labels)
    machine.synchronize(job.device)
    forward = time.perf_counter() - start
    steps = job.plan.steps(state.progress.epoch)
    epoch = step * steps + forward * (len(data.val) if data.val else 0)
    total = job.total_steps(state.progress)
    mebibyte = 2**20
    shorter = "; with cached features, a small part of it" if may_cache(job) else ""
    report.header(
        f"check: {settings.heading}",
        [
            ("model", f"{job.parameters:,} parameters, {job.parameters * 4 / mebibyte:.1f} MiB"),
            ("data", f"{len(data.classes):,} classes, {data.channels}x{data.image_size}x{data.image_size}"),
            ("learning rate", job.rate_words),
            ("device", f"{machine.describe_device(job.device)}, {job.precision.value}"),
            ("memory", f"{peak_memory(job.device) / mebibyte:,.0f} MiB at the peak of a step"),
            ("step", f"{step * 1000:.1f} ms for {counted(data.batch_size * settings.trainer.accumulate, 'image')}"),
            ("epoch", f"about {duration(epoch)}, without waiting for data"),
            ("run", f"about {duration(epoch * total / steps)} for {counted(total, 'step')}{shorter}"),
        ],
    )
    show_notes(job, report, looked=looked)
    show_audit(job, report)


def duration(seconds: float) -> str:
    """`12 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
