"""`cnntrain predict RUN_DIR_or_CHECKPOINT images=...`: what a trained network says of pictures that nobody labelled."""

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import PredictArgs
from cnntrain.data.folder import kinds
from cnntrain.data.unlabelled import FileDecoder, find_files, stream
from cnntrain.errors import DataError
from cnntrain.report.predictions import Prediction, as_csv, as_json, summary, table
from cnntrain.report.run_report import Report
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import printable, short_path
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job
from cnntrain.training.scoring import need_finite
from cnntrain.training.tta import Views

MOST_LINES, FIRST_LINES = 40, 20  # more images than the one are told as the other and a summary
MOST_SKIPPED = 10  # bad files that are listed
MOST_CLASSES = 4  # classes of an image on the terminal, at most


def run(args: PredictArgs, config: RunConfig | None = None) -> dict[str, Any]:
    """Tell the classes of image files; the checkpoint is all that is needed.

    Args:
        config: that of the run folder, where it is known.

    Returns:
        "checkpoint", "tta" (names), "views" (how many), "images" (how many), "classes" (name -> images), and "skipped"
        ("file" and "reason" of each bad one).

    Raises:
        DataError: no images, or a bad one that may not be skipped.
    """
    report = Report(None, tensorboard=False)
    try:
        folder, _, job = load_job(args.run, args.words, report, config, images=False)
        predictions = _Predictions(args, job, report)
        predictions.announce(folder)
        predictions.run()
        predictions.tell()
        results = predictions.results(folder)
        predictions.store(results)
        return results
    finally:
        report.close()


class _Predictions:
    """One call: the files, and what the network says of them."""

    def __init__(self, args: PredictArgs, job: Job, report: Report) -> None:
        self.args, self.job, self.report = args, job, report
        self.paths, self.skip_counts = find_files(args.images)
        self.views = Views(args.tta, job.data.eval_size)
        view = job.data.view(job.data.eval_size)
        settings = job.settings.data
        self.decoder = FileDecoder(
            self.paths, view.wide_view if self.views.reach else view, job.data.channels, settings.on_bad_image
        )
        self.loader = stream(self.decoder, job.data.batch_size, settings, job.device)

    @torch.no_grad()  # not inference_mode: the decode threads write into tensors that are made here
    def run(self) -> None:
        """Ask the network."""
        scorer = self.job.scorer(views=self.views)
        count = min(max(self.args.top, MOST_CLASSES), len(self.job.data.classes))
        answers: list[tuple[Tensor, Tensor]] = []
        self.report.validating(len(self.loader), phase="predicting")
        with closing(self.loader.batches()) as batches:
            for batch in batches:
                _, logits = scorer.answer(batch.images)
                top = logits.softmax(1).topk(count, dim=1)
                answers.append((top.values.cpu(), top.indices.cpu()))
                self.report.advance(len(batch.indices))
        self.report.end_phase()
        self.values, self.labels = (torch.cat(part) for part in zip(*answers, strict=True))
        need_finite(float(self.values.sum()), "what the network answers", self.job.precision)
        bad_indices = self.decoder.bad_indices
        self.good_indices = [index for index in range(len(self.paths)) if index not in bad_indices]
        if not self.good_indices:
            file, reason = self.decoder.bad_files[0]
            raise DataError(
                f"images: none of {len(self.paths)} can be decoded, the first {file}: {reason}; give others"
            )

    def predictions(self, count: int) -> Iterator[Prediction]:
        """For each good image, its `count` probable classes."""
        names = self.job.data.classes
        for index in self.good_indices:
            labels, values = self.labels[index, :count].tolist(), self.values[index, :count].tolist()
            pairs = [(names[label], value) for label, value in zip(labels, values, strict=True)]
            yield Prediction(str(self.paths[index]), pairs)

    def counts(self) -> list[tuple[str, int, float]]:
        """For each class its name, how many images are of it, and the mean of their probabilities."""
        names, rows = self.job.data.classes, torch.tensor(self.good_indices)
        labels, values = self.labels[rows, 0], self.values[rows, 0].double()
        images = labels.bincount(minlength=len(names))
        sums = torch.zeros(len(names), dtype=torch.float64).index_add_(0, labels, values)
        return list(zip(names, images.tolist(), (sums / images.clamp_min(1)).tolist(), strict=True))

    def announce(self, folder: Path) -> None:
        """Say what is asked, and of what."""
        settings, data = self.job.settings, self.job.data
        rows = [
            ("network", f"{settings.model.heading}, {len(data.classes):,} classes"),
            ("images", f"{len(self.paths):,}, seen as {data.eval_size} x {data.eval_size} pixels"),
        ]
        rows.append(("ignored", kinds(self.skip_counts)))
        rows.append(("tta", str(self.views)))
        self.report.header(short_path(folder), [(name, value) for name, value in rows if value])

    def tell(self) -> None:
        """Print what was found, and what was not."""
        is_long = len(self.good_indices) > MOST_LINES
        head = list(islice(self.predictions(MOST_CLASSES), FIRST_LINES if is_long else MOST_LINES))
        lines = table(head)
        if is_long:
            advice = "" if self.args.out else "; out=FILE.csv stores all"
            lines += [f"and {len(self.good_indices) - len(head):,} more images{advice}", "", *summary(self.counts())]
        for line in lines:
            self.report.say(line)
        bad_files = self.decoder.bad_files
        if bad_files:
            self.report.warn(f"left out, {len(bad_files):,} of {len(self.paths):,} images cannot be decoded:")
        for file, reason in bad_files[:MOST_SKIPPED]:
            self.report.say(f"  {file}: {reason}")
        if len(bad_files) > MOST_SKIPPED:
            self.report.say(f"  and {len(bad_files) - MOST_SKIPPED:,} more")

    def store(self, results: dict[str, Any]) -> None:
        """Write the file that `out` names, if it names one."""
        out, count = self.args.out, min(self.args.top, len(self.job.data.classes))
        if out is None:
            return
        if out.suffix.lower() == ".csv":
            content = as_csv(self.predictions(count), count)
        else:
            content = json.dumps(results | {"predictions": as_json(self.predictions(count))}, indent=2) + "\n"
        write_atomic(out, content, word="out=FILE.csv")
        self.report.say(f"wrote {printable(short_path(out))}", copied=True)

    def results(self, folder: Path) -> dict[str, Any]:
        """See run."""
        return {
            "checkpoint": str(folder),
            "tta": list(self.args.tta),
            "views": len(self.views),
            "images": len(self.good_indices),
            "classes": {name: images for name, images, _ in self.counts()},
            "skipped": [{"file": file, "reason": reason} for file, reason in self.decoder.bad_files],
        }
