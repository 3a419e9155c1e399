"""`cnntrain eval RUN_DIR_or_CHECKPOINT [overrides]`: score a trained network on its validation and test splits."""

import json
from pathlib import Path
from typing import Any

import torch

from cnntrain import loop
from cnntrain.commands.setup import load_job
from cnntrain.files import write_atomic
from cnntrain.paths import out_file
from cnntrain.report import Report


def evaluate(target: Path, overrides: list[str]) -> dict[str, Any]:
    """Score a checkpoint; it knows its classes, preprocessing and config, and `data.root=...` points to other images.

    `out=FILE.json` among the overrides stores the scores; nothing else is written.
    """
    out = [out_file(word.removeprefix("out="), "FILE.json") for word in overrides if word.startswith("out=")]
    overrides = [word for word in overrides if not word.startswith("out=")]

    report = Report(None, tensorboard=False)
    folder, _, job = load_job(target, overrides, report)
    results: dict[str, Any] = {"checkpoint": str(folder)}
    for split, loader in (("val", job.data.val), ("test", job.data.test)):
        if loader is None:
            continue
        logits: list[torch.Tensor] = []
        labels: list[torch.Tensor] = []

        def collect(some: torch.Tensor, known: torch.Tensor, logits: Any = logits, labels: Any = labels) -> None:
            logits.append(some)
            labels.append(known)

        report.validating(len(loader), phase="testing" if split == "test" else "validating")
        scores = loop.evaluate(
            job.model, loader, job.normalise, job.device, job.precision, advance=report.advance, collect=collect
        )
        results[split] = scores | {"classes": per_class(torch.cat(logits), torch.cat(labels), job.data.classes)}
    report.scores(results)
    report.close()
    for file in out:
        write_atomic(file, json.dumps(results, indent=2) + "\n", word="out=FILE.json")
    return results


def per_class(logits: torch.Tensor, labels: torch.Tensor, names: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and image count of each class."""
    from torchmetrics.functional.classification import (  # seconds to import, so only where it is used
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    measures = {"precision": multiclass_precision, "recall": multiclass_recall, "f1": multiclass_f1_score}
    columns = {
        key: measure(logits, labels, num_classes=len(names), average="none").tolist()
        for key, measure in measures.items()
    }
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    return {
        name: {key: values[index] for key, values in columns.items()} | {"images": counts[index]}
        for index, name in enumerate(names)
    }
