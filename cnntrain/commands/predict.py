"""`cnntrain predict RUN_DIR_OR_CHECKPOINT images=...`: what a trained network says of pictures that nobody labelled."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.data import OnBadImage
from cnntrain.config.schema.run_commands import PredictArgs
from cnntrain.data.folder import kinds
from cnntrain.data.paths import Paths
from cnntrain.data.unlabelled import FileDecoder, find_files, stream
from cnntrain.errors import ConfigError, DataError
from cnntrain.evaluation.prediction import Prediction, Ranks, Reading, predictions, rank
from cnntrain.report.predictions import Answers, summary, table
from cnntrain.report.run_report import Report
from cnntrain.report.submission import Submission
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import percent, printable, short_path
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
        "checkpoint", "tta" (names), "views" (how many), "temperature" (1 where none was fitted), "threshold" (or None),
        where images have sets of labels "thresholds" (name -> probability), "images" (how many), "abstained" (how many
        of them get no class), "classes" (name -> images), and "skipped" ("file" and "reason" of each bad one).

    Raises:
        ConfigError: a threshold that no image can be below, or an image in the place of a file to write.
        DataError: no images, or a bad one that may not be skipped.
    """
    report = Report(None, tensorboard=False)
    try:
        folder, _, job = load_job(args.run, args.words, report, config, images=False, command="predict")
        call = _Call(args, job, report)
        call.announce(folder)
        call.ask()
        results = call.results(folder)
        call.tell(results)
        call.store(results)
        return results
    finally:
        report.close()


class _Call:
    """One call: the files, and what the network says of them. Of each image a few numbers are kept."""

    def __init__(self, args: PredictArgs, job: Job, report: Report) -> None:
        self.args, self.job, self.report = args, job, report
        self.classes = job.data.classes
        if not job.data.multi_label:
            _check_threshold(args.threshold, len(self.classes))
        self.reading = Reading.of(job, args.threshold)
        self.paths, self.skip_counts = find_files(args.images, report.say)
        _need_other_files(args.out, self.paths)
        self.submission: Submission | None = None
        if args.like:
            names = [str(self.paths[index]) for index in range(len(self.paths))]
            self.submission = Submission(args.like, names, self.classes, multi_label=job.data.multi_label)
        self.views = Views(args.tta, job.data.eval_size) if args.tta else None
        self.view, settings = job.data.view(job.data.eval_size), job.settings.data
        seen = self.view.wide_view if self.views and self.views.reach else self.view
        # Whatever a training may do: one bad file among thousands is no reason to lose the others.
        on_bad_image = OnBadImage.error if "data.on_bad_image=error" in args.words else OnBadImage.skip
        self.decoder = FileDecoder(self.paths, seen, job.data.channels, on_bad_image)
        self.loader = stream(self.decoder, job.data.batch_size, settings, job.device)

    def ask(self) -> None:
        """Ask the network."""
        scorer, count = self.job.scorer(views=self.views), min(self.args.top, len(self.classes))
        if self.submission and self.submission.has_probabilities:
            count = len(self.classes)
        parts: list[Ranks] = []
        self.report.validating(len(self.loader), phase="predicting")
        for answer in scorer.answers(self.loader, advance=self.report.advance):
            parts.append(rank(answer.logits, self.reading, count))  # on the device, which nobody waits for
        self.report.end_phase()
        self.ranks = Ranks.join(parts)
        need_finite(float(self.ranks.values.sum()), "what the network answers", self.job.precision)
        bad = self.decoder.reasons
        self.rows = torch.tensor([index for index in range(len(self.paths)) if index not in bad], dtype=torch.int64)
        if not len(self.rows):
            file, reason = self.decoder.bad_files[0]
            raise DataError(
                f"images: none of {len(self.paths)} can be decoded, the first {file}: {reason}; give others"
            )

    def predictions(self, rows: Tensor, count: int) -> Iterator[Prediction]:
        """For each image at `rows`, int64, its `count` probable classes."""
        files = (str(self.paths[row]) for row in rows.tolist())
        return predictions(files, self.ranks, self.classes, self.reading, rows=rows, count=count)

    def counts(self) -> list[tuple[str, int, float]]:
        """For each class its name, how many images are given it, and the mean of their probabilities."""
        ranks = self.ranks
        if self.job.data.multi_label:
            is_good = torch.zeros(len(self.paths), dtype=torch.bool).index_fill_(0, self.rows, True)
            is_told = is_good.repeat_interleave(ranks.counts)
            labels, values = ranks.label_places[is_told], ranks.label_values[is_told].double()
        else:
            labels, values = ranks.places[self.rows, 0], ranks.values[self.rows, 0].double()
            is_told = values >= self.reading.threshold
            labels, values = labels[is_told], values[is_told]
        images = labels.bincount(minlength=len(self.classes))
        sums = torch.zeros(len(self.classes), dtype=torch.float64).index_add_(0, labels, values)
        return list(zip(self.classes, images.tolist(), (sums / images.clamp_min(1)).tolist(), strict=True))

    def announce(self, folder: Path) -> None:
        """Say what is asked, and of what."""
        settings, data = self.job.settings, self.job.data
        rows = [
            ("network", f"{settings.model.heading}, {len(data.classes):,} classes"),
            ("images", f"{len(self.paths):,}, seen as {data.eval_size} x {data.eval_size} pixels"),
        ]
        if self.job.temperature != 1:
            rows.append(("temperature", f"{self.job.temperature:.4g}, fitted to the validation images"))
        if (thresholds := self.reading.thresholds) is not None:
            rows.append(("thresholds", _describe(thresholds, self.args.threshold, is_fitted=bool(self.job.thresholds))))
        rows.append(("ignored", kinds(self.skip_counts)))
        rows.append(("tta", str(self.views or "")))
        self.report.header(short_path(folder), [(name, value) for name, value in rows if value])

    def tell(self, results: dict[str, Any]) -> None:
        """Print what was found, and what was not."""
        is_long = len(self.rows) > MOST_LINES
        head = self.rows[: FIRST_LINES if is_long else MOST_LINES]
        lines = table([*self.predictions(head, MOST_CLASSES)])
        if is_long:
            more = f"and {len(self.rows) - len(head):,} more images{self._advice('stores')}"
            lines += [more, "", *summary(self.counts(), len(self.rows))]
        count, images = results["abstained"], results["images"]
        share = f"{count:,} of {images:,} images ({percent(count / images)})"
        if self.job.data.multi_label:
            lines += ["", f"no label for {share}"] if count else []
        elif self.args.threshold is not None:
            lines += ["", f"no class for {share}, whose best is below {self.reading.threshold:g}"]
            lines.append("(cnntrain eval shows accuracy against coverage, to choose a threshold by)")
        for line in lines:
            self.report.say(line)
        bad_files = self.decoder.bad_files
        if bad_files:
            self.report.warn(f"left out, {len(bad_files):,} of {len(self.paths):,} images cannot be decoded:")
        for file, reason in bad_files[:MOST_SKIPPED]:
            self.report.say(f"  {file}: {reason}")
        if len(bad_files) > MOST_SKIPPED:
            more = f"  and {len(bad_files) - MOST_SKIPPED:,} more"
            self.report.say(more + self._advice("lists"))

    def _advice(self, verb: str) -> str:
        return "" if any(out.suffix.lower() != ".png" for out in self.args.out) else f"; out=FILE.csv {verb} all"

    def store(self, results: dict[str, Any]) -> None:
        """Write the files that `out` names."""
        for out in self.args.out:
            kind = out.suffix.lower()[1:]
            lines: list[str] = []
            if kind == "csv" and self.submission:
                content: str | bytes = self._submit(self.submission)
                lines = self.submission.lines()
            else:
                content = self._sheet(results) if kind == "png" else self._answers(results).content(kind)
            write_atomic(out, content, word=f"out=FILE.{kind}")
            self.report.say(f"wrote {printable(short_path(out))}", copied=True)
            for line in lines:
                self.report.say(f"  {line}")

    def _submit(self, submission: Submission) -> str:
        """What the sample asks for of each image."""
        found = self.predictions(self.rows, self.ranks.values.shape[1])
        return submission.content(dict(zip(self.rows.tolist(), found, strict=True)))

    def _answers(self, results: dict[str, Any]) -> Answers:
        top = min(self.args.top, len(self.classes))
        return Answers(
            [*self.predictions(self.rows, top)],
            top,
            results,
            has_threshold=self.args.threshold is not None,
            names=self.classes if self.job.data.multi_label else None,
        )

    def _sheet(self, results: dict[str, Any]) -> bytes:
        """Some of the images, which are decoded once more: so none is kept while the network is asked."""
        from cnntrain.plots.prediction_sheet import MOST, draw_predictions

        count = min(MOST, len(self.rows))
        rows = self.rows[torch.linspace(0, len(self.rows) - 1, count).round().long()]
        loader = stream(self.decoder.through(self.view), len(rows), self.job.settings.data, self.job.device)
        return draw_predictions(
            f"What {self.job.settings.model.heading} says of {results['images']:,} images",
            printable(short_path(results["checkpoint"])),
            loader.pick(rows).cpu(),
            [*self.predictions(rows, 1)],
            total=results["images"],
            classes=self.classes,
        )

    def results(self, folder: Path) -> dict[str, Any]:
        """See run."""
        counts = {name: images for name, images, _ in self.counts()}
        thresholds, abstained = self.reading.thresholds, len(self.rows) - sum(counts.values())
        if thresholds is not None:  # an image may count for several classes
            abstained = int((self.ranks.counts[self.rows] == 0).sum())
        return {
            "checkpoint": str(folder),
            "tta": list(self.args.tta),
            "views": len(self.views) if self.views else 1,
            "temperature": self.job.temperature,
            "threshold": self.args.threshold,
            **({} if thresholds is None else {"thresholds": dict(zip(self.classes, thresholds.tolist(), strict=True))}),
            "images": len(self.rows),
            "abstained": abstained,
            "classes": counts,
            "skipped": [
                {"file": str(self.paths[index]), "reason": reason} for index, reason in self.decoder.reasons.items()
            ],
        }


def _need_other_files(outs: Sequence[Path], images: Paths) -> None:
    """Refuse to draw a sheet in the place of an image that is asked about; ConfigError names it."""
    for out in outs:
        if out.suffix.lower() != ".png" or not out.exists():
            continue
        if out.resolve() in (images[index].resolve() for index in range(len(images))):
            raise ConfigError(f"out: {printable(short_path(out))} is one of the images; write out=FILE.csv")


def _check_threshold(value: float | None, classes: int) -> None:
    """Refuse a probability that none of so many classes could be below; ConfigError says so."""
    if value is not None and value <= 1 / classes:
        raise ConfigError(
            f"threshold: must be a number > {1 / classes:.4g}, as the best of {classes:,} classes has that at least "
            f"(given {value:g}); give a higher one, or leave it out"
        )


def _describe(thresholds: Tensor, given: float | None, *, is_fitted: bool) -> str:
    """From which probability on an image has a label, and why."""
    if given is not None:
        return f"{given:g} for every class, in place of those of the checkpoint"
    if not is_fitted:
        return f"{thresholds[0]:g} for every class, as none were fitted"
    return f"{thresholds.min():.2g} to {thresholds.max():.2g}, fitted to the validation images for the highest F1"
