"""`cnntrain eval RUN_DIR_or_CHECKPOINT [overrides]`: score a trained network on its validation and test splits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import EvalArgs
from cnntrain.data.unlabelled import widen
from cnntrain.report.run_report import Report
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import printable, short_path
from cnntrain.training.load_run import load_job
from cnntrain.training.metrics import ConfusionCounts
from cnntrain.training.scoring import need_finite
from cnntrain.training.tta import Views

CHARTS = (".png", ".svg", ".pdf")  # ends of out=, with which it is a chart of the confusion matrix


def run(args: EvalArgs, config: RunConfig | None = None) -> dict[str, Any]:
    """Score a checkpoint; it knows its classes, preprocessing and config, and `data.root=...` points to other images.

    Args:
        config: that of the run folder, where it is known.

    Returns:
        "checkpoint"; "tta" (names) and "views" (how many) where views are averaged; of each split its scores, of the
        plain view alone too (`plain_top1` and so on), and those of its "classes".
    """
    report = Report(None, tensorboard=False)
    try:
        folder, _, job = load_job(args.run, args.words, report, config)
        views = Views(args.tta, job.data.eval_size) if args.tta else None
        results: dict[str, Any] = {"checkpoint": str(folder)}
        confusions: dict[str, ConfusionCounts] = {}
        if views:
            results |= {"tta": list(views.names), "views": len(views)}
        for split, loader in job.data.scored_splits.items():
            if views and views.reach:
                loader = widen(loader, job.settings.data, job.device)
            counts = confusions[split] = ConfusionCounts(len(job.data.classes), job.device)
            report.validating(len(loader), phase="testing" if split == "test" else "validating")
            scores = job.scorer(views=views).score(loader, confusion=counts, advance=report.advance)
            need_finite(scores["loss"], f"the loss on the {split} images", job.precision)
            results[split] = scores | {"classes": counts.by_class(job.data.classes)}
        report.scores(results)
        if args.out:
            _write(args.out, results, confusions, job.data.classes)
            report.say(f"wrote {printable(short_path(args.out))}", copied=True)
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
