"""`cnntrain preview [overrides] [images=8] [out=DIR]`: what a config does to the images and to its run, as pictures."""

import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import PreviewArgs
from cnntrain.config.schema.data import Sampling
from cnntrain.storage import run_folder
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import printable

if TYPE_CHECKING:
    from PIL import Image

    from cnntrain.inspect.preview.schedule import Course
    from cnntrain.inspect.preview.sheet import Strip
    from cnntrain.plots.charts import Chart
    from cnntrain.training.job import TrainJob

HOME, WORD = Path("outputs/preview"), "out=DIR"
MOST_SCALARS = 300  # steps that TensorBoard gets


def run(args: PreviewArgs, config: RunConfig) -> Path:
    """Draw the sheet and the schedule, write them with a TensorBoard page, and say what was composed.

    Args:
        args: how many images, the folder to write, and the other words of the line, to train with.

    Returns:
        The folder.

    Raises:
        ConfigError: settings that do not fit the data.
        FileSystemError: the folder cannot be written.
    """
    from cnntrain.inspect.preview.schedule import Course
    from cnntrain.inspect.preview.sheet import Sample, sheet
    from cnntrain.report.run_report import Report
    from cnntrain.text import short_path, wrap_facts
    from cnntrain.training.build import build_train_job

    settings, words = config.settings, args.words
    report = Report(None, tensorboard=False)
    without_probe = replace(settings, trainer=replace(settings.trainer, probe=0))  # no images but those that are shown
    job = build_train_job(without_probe, report, splits=("train",))
    strips, course = list(Sample(job, args.images).strips()), Course(job)
    line = shlex.join(["cnntrain", "preview", *words])
    picture = sheet(strips, f"What the network sees of {settings.data.heading}", _notes(job), line).draw()
    curves = course.curves(f"Schedule: {settings.heading}").draw()

    folder = run_folder.make_output(args.out, HOME, settings.data.heading, word=WORD)
    files = {"sheet.png": _png(picture)} | {f"schedule.{kind}": curves.content(kind) for kind in ("png", "svg")}
    for name, content in files.items():
        write_atomic(folder / name, content, word=WORD)
    _write_events(folder, strips, course, curves)
    report.header(f"preview: {settings.heading}", wrap_facts(_facts(job, course)))
    for note in job.notes:
        report.say(note)
    for warning in job.warnings:
        report.warn(warning)
    for name in files:
        report.say(f"wrote {printable(short_path(folder / name))}", copied=True)
    report.say("next  " + shlex.join(["cnntrain", "train", *words]), copied=True)
    report.say(f"      tensorboard --logdir {shlex.quote(short_path(folder))}", copied=True)
    report.close()
    return folder


# --- what is told ----------------------------------------------------------------------------------------------------


def _facts(job: "TrainJob", course: "Course") -> dict[str, str]:
    """What was composed, in the order in which the images meet it."""
    from cnntrain.report.augmentation import describe, mixing

    settings, data = job.settings, job.data
    facts = {
        "data": f"{data.train.images:,} training images of {len(data.classes):,} classes, "
        f"{data.channels}x{data.image_size}x{data.image_size}"
        + (", every class equally often" if settings.data.sampling is Sampling.balanced else "")
    }
    for stage in job.augment.stages:
        facts[stage.name] = ", ".join(describe(settings.augment, name) for name, _ in stage.pieces)
    if not job.augment.stages and not job.mix:
        facts["augment"] = "none: the images go to the network as they are"
    mean, std = (" ".join(f"{value:.3g}" for value in values) for values in (data.mean, data.std))
    facts["normalise"] = f"mean {mean}, std {std}"
    if job.mix:
        facts["mix"] = ", ".join(describe(settings.augment, name) for name in mixing(settings.augment))
    if settings.loss.label_smoothing:
        facts["labels"] = f"smoothed by {settings.loss.label_smoothing:g}, on top of what the sheet shows"
    facts["schedule"] = f"{settings.schedule.name}, learning rate {job.rate_words}"
    facts["run"] = course.words
    if course.drops:
        highest = f"rates up to {course.drops[-1]:g}" if len(course.drops) > 1 else f"rate {course.drops[-1]:g}"
        facts["drop"] = f"{highest}, {'rising from 0' if course.drops_rise else 'constant'}"
    return facts


def _notes(job: "TrainJob") -> list[str]:
    """How to read the sheet."""
    if not job.augment.stages and not job.mix:
        return ["augment=none: the images go to the network as they are."]
    notes = [
        "Each column is one training image, each row what it looks like after one more stage, in the first epoch. "
        "Every micro-batch of the training draws random numbers of its own."
    ]
    if job.mix:
        notes.append("Numbers below mixed images are the weights of their labels, before any label smoothing.")
    return notes


def _png(picture: "Image.Image") -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _write_events(folder: Path, strips: "Sequence[Strip]", course: "Course", curves: "Chart") -> None:
    """The page in TensorBoard: the rows of the sheet, the curves as a picture and as numbers."""
    import numpy as np

    from cnntrain.inspect.preview.sheet import sheet
    from cnntrain.report.tensorboard import TensorBoardLog

    log = TensorBoardLog(folder)
    for number, strip in enumerate(strips, 1):
        name = re.sub(r"\W+", "_", strip.tag)
        log.picture(f"preview/{number:02}_{name}", np.asarray(sheet([strip], strip.tag, (), "").draw()), 0)
    log.picture("schedule/curves", curves.pixels(), 0)
    stride = -(-len(course.points) // MOST_SCALARS)
    for step in sorted({*course.points[::stride], course.points[-1]}):
        log.scalars(course.scalars(step), step)
    log.close()
