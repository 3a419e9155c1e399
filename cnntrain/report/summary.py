"""What a run shows of itself before its first step and after its last."""

import math
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cnntrain.config.plain import to_plain
from cnntrain.config.schema.data import Sampling
from cnntrain.config.schema.export import Format, absent_packages
from cnntrain.config.schema.finetune import FinetuneSettings, Mode
from cnntrain.config.schema.loss import LossSettings
from cnntrain.config.schema.optimizer import MuonSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import GradExchange, TrainerSettings
from cnntrain.data.labels import class_counts, near_names, near_words
from cnntrain.data.quick_look import skew_words
from cnntrain.finetune.audit import audit
from cnntrain.finetune.tuning import Tuning
from cnntrain.report.augmentation import describe_all, label_names, shares
from cnntrain.report.run_report import Report
from cnntrain.report.tensorboard import flatten
from cnntrain.runtime import device as machine
from cnntrain.text import WIDEST_NAME, counted, shorten, wrap, wrap_facts
from cnntrain.training.job import TrainJob
from cnntrain.training.limits import limits_met
from cnntrain.training.state import Progress

MOST_WEIGHTS, ENDS = 20, 5  # of classes that are told, and of each end of more
BOOKKEEPING = {  # settings that move no score, and those that a heading stands for
    *("data.name", "data.title", "data.root", "data.download", "data.workers", "data.loader", "data.on_bad_image"),
    *("model.name", "model.title", "trainer.threads", "trainer.probe", "trainer.save_every", "trainer.log_every"),
    *("trainer.tensorboard", "trainer.profile"),
}


def show_header(job: TrainJob, steps: int, folder: Path, report: Report) -> None:
    """What will be trained, on what, and how."""
    settings, data, trainer = job.settings, job.data, job.settings.trainer
    splits = {"train": data.train, "val": data.val, "test": data.test}
    sizes = ", ".join(f"{name} {loader.images:,}" for name, loader in splits.items() if loader)
    processes = job.world.size
    first, full = job.plan.stage(0).batch_size // processes, data.batch_size
    batch = str(full) if first == full else f"{first} to {full}"  # of images that grow
    batch += f" x {trainer.accumulate}" if trainer.accumulate > 1 else ""
    batch += " image" if batch == "1" else " images"
    batch += f" x {processes} processes" if processes > 1 else ""
    scored = f", scored at {data.eval_size}" if data.eval_size != data.image_size else ""
    lasts = [counted(trainer.epochs, "epoch"), f"{counted(steps, 'step')} of {batch}"]
    if trainer.max_time:
        limit = f"{trainer.max_time}s" if trainer.max_time[-1].isdecimal() else trainer.max_time
        lasts = [f"fitted to {limit}, or to {lasts[0]}", f"{lasts[1]} where these end first"]
    rows = {
        "model": f"{settings.model.heading}, {job.parameters:,} parameters",
        "data": f"{len(data.classes):,} classes, {data.channels}x{data.image_size}x{data.image_size}{scored}; {sizes}",
        "augment": describe_all(settings.augment),
        **({"finetune": _finetuning(settings.finetune, job.tuning)} if job.tuning else {}),
        "optimizer": _optimizing(job),
        **({"loss": settings.loss.name} if settings.loss.name != LossSettings().name else {}),
        "schedule": ", ".join([settings.schedule.name, *lasts]),
        "device": _computing(job),
        **({"saves": _saving(trainer)} if trainer.save_every != TrainerSettings().save_every else {}),
    }
    report.header(settings.heading, [*wrap_facts(rows), ("folder", str(folder))])
    show_notes(job, report)


def _optimizing(job: TrainJob) -> str:
    """`muon, learning rate 0.02, weight decay 0, all else by adamw at 0.003, *.bias x 64`."""
    settings = job.settings.optimizer
    words = [settings.name, f"learning rate {job.rate_words}", f"weight decay {settings.weight_decay:g}"]
    if isinstance(settings, MuonSettings):
        rate = job.rates.lr * (settings.others_lr or settings.lr) / settings.lr
        words.append(f"all else by {settings.others.value} at {rate:.4g}")
    return ", ".join([*words, *(f"{pattern} x {factor:g}" for pattern, factor in settings.lr_factors.items())])


def _computing(job: TrainJob) -> str:
    """`2 processes, each on CPU, 1 thread, fp32, channels_last, deterministic, gradients sent in bf16`."""
    trainer, several = job.trainer, job.world.size > 1
    words = [f"{job.world.size} processes, each on"] if several else []
    words.append(f"{machine.describe_device(job.device)}, {job.precision.value}")
    form = trainer.grad_exchange
    facts = {
        "channels_last" if job.channels_last else "contiguous": True,
        "deterministic": trainer.deterministic,
        f"gradients sent in {form.value}": several and form is not GradExchange.fp32,
    }
    return ", ".join([" ".join(words), *(fact for fact, is_so in facts.items() if is_so)])


def _saving(trainer: TrainerSettings) -> str:
    every = counted(steps, "step") if (steps := trainer.save_steps()) else trainer.save_every
    return f"every {every}, and after each epoch"


def show_notes(job: TrainJob, report: Report, *, looked: bool = False) -> None:
    """What there is to say of data, network and loss; `looked`: what a glance at the images tells has been told."""
    for note in job.notes:
        for line in wrap(note, indent=2):
            report.say(line)
    if (weights := job.loss.class_weights) is not None:
        words = _weights_of_classes(job.data.classes, weights.tolist())
        report.say(f"class weights, 1 on average over the training images: {words}")
    glance = [] if looked else [*job.data.findings, *_skew(job), *_near_names(job)]
    for warning in [*job.warnings, *glance, *_rising_alone(job)]:
        report.warn(warning)


def _skew(job: TrainJob) -> list[str]:
    """What there is to say of classes of very different sizes, where nothing evens them out."""
    labels = job.data.train.labels
    is_even = job.loss.class_weights is not None or job.settings.data.sampling is Sampling.balanced
    if is_even or labels.ndim != 1:
        return []
    counts = labels.bincount(minlength=len(job.data.classes)).tolist()
    words = skew_words(counts, job.data.classes)
    return [f"data: {words}; loss.class_weights=balanced evens that out"] if words else []


def _near_names(job: TrainJob) -> list[str]:
    """What there is to say of classes that look the same; a table has told it with its rows."""
    classes, data = job.data.classes, job.settings.data
    if not (near := near_names(classes)) or data.is_table:
        return []
    counts = dict(zip(classes, class_counts(job.data.train.labels, len(classes)).tolist(), strict=True))
    return [f"data: {near_words(near[0], counts)}; give them one name if they are one class"]


def _rising_alone(job: TrainJob) -> list[str]:
    """What there is to say of a warm-up that lasts to the end of the run."""
    plan, warmup = job.plan, job.settings.schedule.warmup
    steps = min(plan.total, job.settings.trainer.max_steps or plan.total)
    if warmup * plan.steps(plan.epochs) < plan.at_full_size(steps):
        return []
    what = "schedule.warmup: the whole run is one rise of the learning rate"
    return [f"{what} (given {warmup:g}, in epochs); set schedule.warmup=0, or train longer"]


def _weights_of_classes(classes: Sequence[str], weights: Sequence[float]) -> str:
    """`cat 0.5, dog 2`; of many classes those of the lowest and of the highest weights."""
    pairs = [(shorten(name, WIDEST_NAME), f"{weight:.3g}") for name, weight in zip(classes, weights, strict=True)]
    if len({words for _, words in pairs}) == 1:
        return f"{pairs[0][1]} for each"
    if len(pairs) <= MOST_WEIGHTS:
        return ", ".join(map(" ".join, pairs))
    order = sorted(range(len(pairs)), key=lambda index: weights[index])
    low, high = (", ".join(" ".join(pairs[index]) for index in part) for part in (order[:ENDS], order[-ENDS:]))
    return f"{low}, … ({len(pairs) - 2 * ENDS:,} between) …, {high}"


def _finetuning(settings: FinetuneSettings, tuning: Tuning) -> str:
    """`mode C, 9 layer groups, lr_decay 0.7, batch norms train`."""
    pace = {key: getattr(settings, key) for key in ("lr_decay", "lr_factors", "wd_decay", "wd_factors", "unfreeze")}
    words = [f"mode {settings.mode.name}", counted(len(tuning.groups), "layer group")]
    words += [f"{key} {value}" for key, value in pace.items() if value is not None]
    words += [f"head alone for {counted(settings.head_epochs, 'epoch')}"] if settings.head_epochs else []
    return ", ".join([*words, f"batch norms {tuning.norm.name}"])


def show_audit(job: TrainJob, report: Report) -> None:
    """What of the network learns, when and how fast, as a tree; for TensorBoard too."""
    if job.tuning:
        report.audit(audit(job.tuning, lr=job.rates.lr, weight_decay=job.settings.optimizer.weight_decay))


def show_samples(job: TrainJob, report: Report) -> None:
    """Training images as the network gets them, and the graph of the model, for TensorBoard."""
    data = job.data
    with closing(job.loader(0).batches()) as batches:
        batch = next(batches)
    job.model.eval()  # tracing must move neither batch statistics nor random streams
    views, context = job.settings.augment.views, job.context(0, 0, batch.indices)
    many = min(len(batch.labels), 32 if views == 1 else 8)  # the grid has 8 columns: one row of each view
    inputs = job.augment(batch.images, context)
    captions = label_names(batch.labels[:many], data.classes) * views
    if job.mix:
        inputs, targets = job.mix(inputs, batch.labels, context)
        captions = ["\n".join(lines) for lines in shares(targets[:many], data.classes)]
    inputs = inputs.unflatten(0, (views, -1))[:, :many].flatten(0, 1)
    report.pictures("train/images", job.as_images(inputs), captions)
    report.graph(job.model, inputs[:1])


def table_settings(settings: Settings) -> dict[str, Any]:
    """The settings by which TensorBoard compares runs: those that can move a score, of pieces that are on.

    Data, network and augmentation have a column each that says which, beside those of their numbers.
    """
    sections, augment = to_plain(settings), settings.augment
    pieces = [*augment.pieces, *(["mix"] if augment.mixes else [])]
    sections["augment"] = {piece: sections["augment"][piece] for piece in pieces if sections["augment"][piece]}
    if settings.finetune.mode is Mode.none:
        sections["finetune"] = {"mode": Mode.none.name}
    table = {key: value for key, value in flatten(sections).items() if key not in BOOKKEEPING}
    headings = {"data": settings.data.heading, "model": settings.model.heading}
    return table | headings | {"augment": ", ".join(augment.pieces) or "none"}


def flat_scores(results: dict[str, Any]) -> dict[str, float]:
    """`val/top1` and so on: the scores beside the hyperparameters in TensorBoard."""
    return {
        f"{split}/{key}": float(value)
        for split in ("val", "test")
        if results[split]
        for key, value in results[split].items()
    }


def end_words(ended: str, trainer: TrainerSettings, progress: Progress) -> str:
    """Why a run came to its end, from what `loop.train` answers."""
    limit = f"by trainer.{ended}={getattr(trainer, ended)}"
    if ended == "early_stop":
        return f"{limit}: no better epoch since epoch {progress.best_epoch}"
    return (
        limit if ended == "epochs" else f"{limit}, with {progress.epoch:,} of {counted(trainer.epochs, 'epoch')} done"
    )


def next_commands(settings: Settings, progress: Progress, folder: Path, *, scored: bool) -> list[str]:
    """What a user may want to type after a run: each of it does something.

    Args:
        scored: there are images to score.
    """

    def line(command: str, *words: str) -> str:
        return shlex.join(["cnntrain", command, str(folder), *words])

    # Runs lie in outputs/<data>/<model>/<date>, if not told otherwise: the tree above shows all of them.
    logs = folder.parents[2] if len(folder.parents) > 2 and folder.parents[2].name == "outputs" else folder
    users_code = settings.users_code(training=False)
    kind = Format.safetensors if absent_packages() else Format.onnx
    predict = line("predict", "images=PHOTOS", *settings.users_code(training=False, images=False))
    board = shlex.join(["tensorboard", "--logdir", str(logs)])
    return [
        *([line("eval", *users_code)] if scored else []),
        *([] if settings.trainer.report else [line("report", *settings.users_code())]),
        predict,
        line("export", f"format={kind.name}", *users_code),
        resume_command(settings, folder, *_further(settings.trainer, progress)),
        *([board] if settings.trainer.tensorboard else []),
    ]


def resume_command(settings: Settings, folder: Path, *words: str) -> str:
    """How a run goes on."""
    return shlex.join(["cnntrain", "resume", str(folder), *words, *settings.users_code()])


def _further(trainer: TrainerSettings, progress: Progress) -> list[str]:
    """Every limit that the run has met, further away: a resume that left one would end at once."""
    further = {"epochs": f"{2 * trainer.epochs}", "max_steps": f"{2 * progress.step}", "early_stop": "null"}
    if seconds := trainer.max_seconds():
        longer = seconds * (1 + round(progress.seconds / seconds))
        unit, size = ("h", 3600) if longer % 3600 == 0 else ("m", 60) if longer % 60 == 0 else ("s", 1)
        further["max_time"] = f"{math.ceil(longer / size)}{unit}"
    return [f"trainer.{key}={further[key]}" for key in limits_met(trainer, progress)]
