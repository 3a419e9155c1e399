"""`cnntrain eval RUN_DIR_or_CHECKPOINT [overrides]`: score a trained network on its validation and test splits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.arguments import read_eval
from cnntrain.data.loaders import Loader
from cnntrain.data.unlabelled import widened
from cnntrain.report.run_report import Report
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import printable, short_path
from cnntrain.training import scoring
from cnntrain.training.final_scores import ConfusionCounts
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job
from cnntrain.training.tta import Views

CHARTS = (".png", ".svg", ".pdf")  # ends of out=, with which it is a chart of the confusion matrix


def evaluate(target: Path, words: list[str]) -> dict[str, Any]:
    """Score a checkpoint; it knows its classes, preprocessing and config, and `data.root=...` points to other images.

    Args:
        target: a run folder, a checkpoint folder or its state.pt.
        words: tta=, out= (wishes.py), and overrides of the run's config.

    Returns:
        "checkpoint"; "tta" (names) and "views" (how many) where views are averaged; of each split its scores, of the
        plain view alone too (`plain_top1` and so on), and those of its "classes".
    """
    wishes, overrides = read_eval(words)
    report = Report(None, tensorboard=False)
    try:
        folder, _, job = load_job(target, overrides, report)
        views = Views(wishes.tta, job.data.eval_size) if wishes.tta else None
        results: dict[str, Any] = {"checkpoint": str(folder)}
        confusions: dict[str, ConfusionCounts] = {}
        if views:
            results |= {"tta": list(views.names), "views": len(views)}
        for split, loader in job.data.scored.items():
            if views and views.reach:
                loader = widened(loader, job.settings.data, job.device)
            confusions[split] = ConfusionCounts(len(job.data.classes), job.device)
            results[split] = _score(job, loader, views, report, split, confusions[split])
            scoring.need_finite(results[split]["loss"], f"the loss on the {split} images", job.precision)
        report.scores(results)
        if wishes.out:
            _write(wishes.out, results, confusions, job.data.classes)
            report.say(f"wrote {printable(short_path(wishes.out))}", copied=True)
        return results
    finally:
        report.close()


def _write(out: Path, results: dict[str, Any], confusions: dict[str, ConfusionCounts], classes: Sequence[str]) -> None:
    """The results, or by the end of the file's name the confusion matrix of the last split."""
    kind = out.suffix.lower()
    if kind not in CHARTS:
        write_atomic(out, json.dumps(results, indent=2) + "\n", word="out=FILE.json")
        return
    from cnntrain.plots.confusion import draw_confusion

    split, counts = list(confusions.items())[-1]
    what = "test images" if split == "test" else "validation images"
    chart = draw_confusion(counts.matrix.cpu().numpy(), classes, what)
    write_atomic(out, chart.content(kind[1:]), word=f"out=FILE{kind}")


def _score(
    job: Job, loader: Loader, views: Views | None, report: Report, split: str, counts: ConfusionCounts
) -> dict[str, Any]:
    """The scores of a split and of its classes, whose confusions are counted."""
    logits: list[Tensor] = []
    labels: list[Tensor] = []

    def collect(some: Tensor, known: Tensor) -> None:
        logits.append(some)
        labels.append(known)
        counts.add(some, known)

    report.validating(len(loader), phase="testing" if split == "test" else "validating")
    scores = scoring.evaluate(
        job.model,
        loader,
        job.normalise,
        job.device,
        job.precision,
        advance=report.advance,
        collect=collect,
        views=views,
    )
    return scores | {"classes": per_class(torch.cat(logits), torch.cat(labels), job.data.classes)}


def per_class(logits: Tensor, labels: Tensor, names: list[str]) -> dict[str, dict[str, float]]:
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
