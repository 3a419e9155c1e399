"""`cnntrain find_lr [overrides] [steps=100] [low=1e-7] [high=10] [out=DIR]`: which learning rate suits this run?"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import FindLrArgs
from cnntrain.storage import run_folder
from cnntrain.storage.atomic import write_atomic
from cnntrain.storage.spreadsheet import as_csv
from cnntrain.text import percent, printable, short_path, wrap_facts

if TYPE_CHECKING:
    from cnntrain.training.job import TrainJob
    from cnntrain.training.lr_range import RangeCurve

HOME, WORD = Path("outputs/find_lr"), "out=DIR"
RATE, FACTORS, DECAY = "optimizer.lr", "finetune.lr_factors", "finetune.lr_decay"


def run(args: FindLrArgs, config: RunConfig) -> Path | None:
    """Train throw-away weights with a rate that rises until the loss diverges, and tell which rate that speaks for.

    Returns:
        The folder of the curves.

    Raises:
        ConfigError: settings do not fit the data.
        Interrupted: a signal asked for the end; nothing is kept.
        FileSystemError: the folder cannot be written.
    """
    from cnntrain.models.weights.load import read_weights
    from cnntrain.report.run_report import Report
    from cnntrain.report.summary import show_notes
    from cnntrain.runtime import signals
    from cnntrain.training.fit_batch import build_fitting_job
    from cnntrain.training.lr_range import range_tests, trial_settings
    from cnntrain.training.transfer import start_from_weights

    settings = trial_settings(config.settings, args.steps)
    report = Report(None, tensorboard=False)
    try:
        with signals.handle_signals(report.note) as stop:
            job = build_fitting_job(settings, report, stop=stop, splits=("train",))
            job = start_from_weights(job, read_weights(settings.model, report.say))
            curves = list(range_tests(job, args.low, args.high, args.steps))
        report.end_phase()
        show_notes(job, report)
        words = _words(args.words, curves, job)
        folder = _write(args, job, curves)
        report.header(f"range test: {config.settings.heading}", wrap_facts(_facts(args, job, curves)))
        for name in ("find_lr.png", "find_lr.svg", "find_lr.csv"):
            report.say(f"wrote {printable(short_path(folder / name))}", copied=True)
        if words:
            report.say("next  " + shlex.join(["cnntrain", "train", *words]), copied=True)
        return folder
    finally:
        report.close()


# --- what is told ----------------------------------------------------------------------------------------------------


def _facts(args: FindLrArgs, job: "TrainJob", curves: Sequence["RangeCurve"]) -> dict[str, str]:
    """What was tried, and how the loss went."""
    images = job.plan.batch_size * job.trainer.accumulate
    facts = {
        "rates": f"{args.low:g} to {args.high:g}, as optimizer.lr says them, in {args.steps} steps of {images} images",
        "optimizer": f"{job.settings.optimizer.name}, learning rate so far {job.rate_words}",
    }
    for number, curve in enumerate(curves):
        facts["loss" if len(curves) == 1 else curve.name] = _course(curve, is_lower=number > 0)
    if len(curves) > 1:
        facts["each"] = "alone, while the others rest; the lower ones below a head that is half-way"
    return facts


def _course(curve: "RangeCurve", *, is_lower: bool) -> str:
    """How the loss went, and what that suggests."""
    if curve.suggestion is None and is_lower:
        return f"no rate lowers the {curve.start:.3g} of the start: as the group above"
    if curve.suggestion is None:
        start = f"did not fall from {curve.start:.3g} by more than its noise"
        return f"{start}: no suggestion; take more steps, such as steps=200"
    lowest = f"{curve.start:.3g} at first, lowest at {curve.rates[curve.lowest]:.2g} ({curve.smooth.min():.3g})"
    end = "where the rates end: give a higher one, high=" if curve.is_open else f"suggested {curve.suggestion:g}"
    if curve.is_faint:
        end += f"; a fall of {percent(curve.fall / curve.start)} is near the noise: train to see, or take steps=200"
    return f"{lowest}, {end}"


def _words(words: Sequence[str], curves: Sequence["RangeCurve"], job: "TrainJob") -> list[str]:
    """The words to train with: the user's own, with the suggestion in place of what they say of rates."""
    head, *lower = curves
    if head.suggestion is None:
        return []
    keys, more = [RATE], [f"{RATE}={head.suggestion:g}"]
    if lower:
        keys += [FACTORS, DECAY]
        assert job.tuning
        factors = _factors({curve.name: curve.suggestion for curve in curves}, [one.name for one in job.tuning.groups])
        more += [f"{DECAY}=null", f"{FACTORS}=[{','.join(f'{factor:.2g}' for factor in factors)}]"]
    return [*(word for word in words if word.partition("=")[0].lstrip("+") not in keys), *more]


def _factors(rates: Mapping[str, float | None], groups: Sequence[str]) -> list[float]:
    """The part of the head's rate for each group, the lowest first, none above 1.

    One without a suggestion learns as the one above it; one that has not been tested never learns.
    """
    head = rates[groups[-1]]
    assert head
    above, factors = 1.0, []
    for name in reversed(groups):
        rate = rates.get(name, 0.0)
        above = above if rate is None else min(rate / head, 1.0)
        factors.append(above)
    return factors[::-1]


# --- the folder ------------------------------------------------------------------------------------------------------


def _write(args: FindLrArgs, job: "TrainJob", curves: Sequence["RangeCurve"]) -> Path:
    """The curves as a chart and as a table."""
    from cnntrain.plots.lr_range import draw_lr_range

    folder = run_folder.make_output(args.out, HOME, job.settings.data.heading, word=WORD)
    notes = ["pale: the loss of each step; thick: without its noise; dot: the suggestion"]
    chart = draw_lr_range(curves, f"Learning-rate range test: {job.settings.heading}", notes)
    for kind in ("png", "svg"):
        write_atomic(folder / f"find_lr.{kind}", chart.content(kind), word=WORD)
    rows = [
        (curve.name, step, rate, loss, smooth)
        for curve in curves
        for step, (rate, loss, smooth) in enumerate(zip(curve.rates, curve.losses, curve.smooth, strict=True), 1)
    ]
    table = as_csv([("group", "step", "lr", "loss", "smooth_loss"), *rows])
    write_atomic(folder / "find_lr.csv", table, word=WORD)
    return folder
