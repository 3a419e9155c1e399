"""`cnntrain check [overrides]`: would this run work, what does it need, how long would it take? Leaves no run."""

import itertools
import time
from contextlib import closing
from functools import partial

from torch.nn import functional

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import CheckArgs
from cnntrain.models.weights.load import read_weights
from cnntrain.report.run_report import Report
from cnntrain.report.summary import show_audit, show_notes
from cnntrain.runtime import device as machine
from cnntrain.runtime.device_memory import peak_memory
from cnntrain.text import counted
from cnntrain.training import loop
from cnntrain.training.build import build_state
from cnntrain.training.fit_batch import build_fitting_job
from cnntrain.training.micro_batches import Guard
from cnntrain.training.transfer import may_cache, start_from_weights

TIMED_STEPS = 3


def run(args: CheckArgs, config: RunConfig) -> None:
    """Build model and data, train a few steps on throw-away weights, and report parameters, memory and time."""
    settings = config.settings
    report = Report(None, tensorboard=False)
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
    for _ in range(TIMED_STEPS + 1):  # the first one warms up
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
    functional.cross_entropy(scorer.logits(group[0].images), group[0].labels)
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
    show_notes(job, report)
    show_audit(job, report)
    report.say("check passed; no run folder was made")
    report.close()


def duration(seconds: float) -> str:
    """`12 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
