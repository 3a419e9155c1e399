"""What a run shows of itself before its first step and after its last."""

import shlex
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from cnntrain import device as machine
from cnntrain.commands.setup import Job
from cnntrain.report import Report
from cnntrain.settings import Settings


def show_header(job: Job, steps: int, folder: Path, report: Report) -> None:
    """What will be trained, on what, and how."""
    settings, data, trainer = job.settings, job.data, job.settings.trainer
    splits = {"train": data.train, "val": data.val, "test": data.test}
    sizes = ", ".join(f"{name} {loader.images:,}" for name, loader in splits.items() if loader)
    batch = f"{settings.data.batch_size} x {trainer.accumulate}" if trainer.accumulate > 1 else settings.data.batch_size
    layout = "channels_last" if job.channels_last else "contiguous"
    decay = f"weight decay {settings.optimizer.weight_decay:g}"
    rows = {
        "model": f"{settings.model.name}, {job.parameters:,} parameters",
        "data": f"{len(data.classes)} classes, {data.channels}x{data.image_size}x{data.image_size}; {sizes}",
        "augment": ", ".join(settings.augment.pieces) or "none",
        "optimizer": f"{settings.optimizer.name}, learning rate {job.rate_words}, {decay}",
        "schedule": f"{settings.schedule.name}, {trainer.epochs} epochs, {steps:,} steps of {batch} images",
        "device": f"{machine.describe_device(job.device)}, {job.precision.value}, {layout}",
        "folder": str(folder),
    }
    report.header(f"{settings.model.name} on {data.name}", list(rows.items()))
    for note in job.notes:
        report.say(note)
    for warning in job.warnings:
        report.warn(warning)


def show_samples(job: Job, report: Report) -> None:
    """Augmented training images and the graph of the model, for TensorBoard."""
    data = job.data
    assert data.train is not None
    stage = job.plan.stage(0)
    with closing(data.train.at(stage.batch_size, stage.image_size).batches()) as batches:
        images, labels = next(batches)
    job.model.eval()  # tracing must move neither batch statistics nor random streams
    inputs = job.augment(images, job.moment(0, 0))[:32]
    mean, std = (torch.tensor(values, device=job.device).view(-1, 1, 1) for values in (data.mean, data.std))
    pictures = ((inputs * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    report.pictures("train/images", pictures, [data.classes[label] for label in labels[:32].tolist()])
    report.graph(job.model, inputs[:1])


def flat_scores(results: dict[str, Any]) -> dict[str, float]:
    """`val/top1` and so on: the scores beside the hyperparameters in TensorBoard."""
    return {
        f"{split}/{key}": float(value)
        for split in ("val", "test")
        if results[split]
        for key, value in results[split].items()
    }


def next_commands(settings: Settings, folder: Path) -> list[str]:
    """What a user may want to type after a run."""
    # Runs lie in outputs/<data>/<model>/<date>, if not told otherwise: the tree above shows all of them.
    logs = folder.parents[2] if len(folder.parents) > 2 and folder.parents[2].name == "outputs" else folder
    name = shlex.quote(str(folder))
    code = f" model.name={settings.model.name}" if ":" in settings.model.name else ""
    return [
        f"cnntrain eval {name}{code}",
        f"cnntrain resume {name} trainer.epochs={settings.trainer.epochs * 2}{code}",
        f"tensorboard --logdir {shlex.quote(str(logs))}",
    ]
