"""The page of a run: what its folder says, what its network answers, and what of it cannot be shown."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.scores import TITLES
from cnntrain.data.labels import class_counts
from cnntrain.data.loaders import Loader
from cnntrain.errors import CheckpointError, CnntrainError, DataError, NonFiniteError
from cnntrain.evaluation.image_scores import ImageScore, Worst
from cnntrain.evaluation.intervals import wilson
from cnntrain.evaluation.label_sets import SetScores, score_sets
from cnntrain.evaluation.split_scores import SPLIT_WORDS, SplitScores, score_split
from cnntrain.inspect.explain.subject import at_rest
from cnntrain.page import answers, pictures, sections, set_answers
from cnntrain.page.dataset import dataset
from cnntrain.page.document import document, head
from cnntrain.page.findings import Facts, find
from cnntrain.page.markup import Html, section, tag
from cnntrain.page.rules import ClassCounts, Finding
from cnntrain.page.run import read_run
from cnntrain.report.run_report import Report
from cnntrain.text import printable, short_path
from cnntrain.training.build import build_train_job
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job, refuse_foreign_code

MOST_ERRORS, MOST_OTHERS = 12, 6  # images: the most confident errors, and of either other kind


class Page:
    """One page: the run, its network, and what was made of them so far.

    Attributes:
        findings: what stands out; known once the page is built.
        notes: what the page cannot show, and why.

    Args:
        folder: of a run.
        report: takes progress and warnings.
        config: that of the folder, where it has been read.
        words: overrides of it.
    """

    def __init__(
        self, folder: Path, report: Report, config: RunConfig | None = None, words: Sequence[str] = ()
    ) -> None:
        self.run, self.report, self.config, self.words = read_run(folder, config), report, config, words
        self.notes: list[str] = []
        self.findings: list[Finding] = []
        self.job: Job | None = None
        self.splits: dict[str, SplitScores | SetScores] = {}
        self.worst = Worst(MOST_ERRORS)
        self.images: dict[str, list[int]] = {}  # of each class, by split
        self.totals: dict[str, int] = {}

    def build(self) -> str:
        """The page as HTML.

        Raises:
            UnsafeError: the network or its images are functions that the words do not repeat.
            ConfigError: words that do not fit the run.
        """
        self._load()
        augmentation = self._augmentation()
        network: list[Html | None] = []
        if self.job:
            with at_rest(self.job.model, self.job.device):
                network = self._network(self.job)
        self.findings = find(self._facts())
        parts = [
            sections.missing(self.notes),
            sections.findings(self.findings),
            sections.next_steps(self.run),
            answers.scores({name: self._scores(name) for name in ("val", "test")}),
            sections.curves(self.run),
            *network,
            augmentation,
            dataset(self.run, self.job.data if self.job else None, self.images, self.totals),
            sections.config(self.run),
            sections.origin(self.run),
        ]
        shown = [part for part in parts if part is not None]
        return document(f"{self.run.title}: report", head(self.run, self._scores, shown), shown)

    def _load(self) -> None:
        """The network with the images to score, or without, or neither."""
        if not self.run.has_checkpoint:
            self._miss("Scores by class, errors and filters", "this run has saved no checkpoint")
            return
        folder, config = self.run.folder, self.config
        try:
            *_, self.job = load_job(folder, self.words, _Listener(self.report, self.notes), config, command="report")
        except CheckpointError as error:
            self._miss("Scores by class, errors and filters", error)
        except DataError as error:
            self._miss("Scores by class, errors and augmentations", error)
            *_, self.job = load_job(folder, self.words, self.report, config, images=False, command="report")

    def _miss(self, what: str, reason: object) -> None:
        line = f"{what}: {str(reason).splitlines()[0]}"
        self.notes.append(line)
        self.report.warn(f"not on the page: {printable(line)}")

    # --- what the network says ---

    def _network(self, job: Job) -> list[Html | None]:
        """What comes of asking the network, part by part."""
        parts: list[Html | None] = []
        try:
            for split in job.data.scored_splits:
                self._score(job, split)
            parts = self._answers(job, list(self.splits)[-1]) if self.splits else []
        except (DataError, NonFiniteError) as error:  # of a file that cannot be read, or of what half precision gives
            self._miss("Scores by class and errors", error)
        self.report.end_phase()
        return [*parts, self._filters(job)]

    def _score(self, job: Job, split: str) -> None:
        loader = job.data.scored_splits[split]
        self.report.validating(len(loader), phase="testing" if split == "test" else "validating")
        before, advance = self.splits.get("val"), self.report.advance
        other = before.fit if before else None
        if job.data.multi_label:
            thresholds = before.thresholds if isinstance(before, SetScores) else None
            self.splits[split] = score_sets(job, split, thresholds=thresholds, other=other, advance=advance)
        else:
            self.worst = Worst(MOST_ERRORS)
            self.splits[split] = score_split(job, split, collectors=[self.worst], other=other, advance=advance)
        self._count(split, loader)

    def _count(self, split: str, loader: Loader) -> None:
        """Note the images of a split, and those of each class."""
        classes = self.job.data.classes if self.job else ()
        self.images[split] = class_counts(loader.labels, len(classes)).tolist()
        self.totals[split] = len(loader.labels)

    def _answers(self, job: Job, split: str) -> list[Html | None]:
        """The parts on one split."""
        found, words = self.splits[split], SPLIT_WORDS[split]
        scores, train_images = found.scores, self.images.get("train", ())
        loader, run = job.data.scored_splits[split], shlex.quote(short_path(self.run.folder))
        if isinstance(found, SetScores):
            return [
                set_answers.by_label(scores, train_images, words),
                set_answers.confusion(scores, words),
                set_answers.errors(job, loader, found, words),
                set_answers.certainty(scores, words, run),
            ]
        return [
            answers.confusion(found.matrix.numpy(), job.data.classes, words, scores["confused"]),
            answers.by_class(scores["classes"], train_images, words),
            self._errors(job, loader, words),
            answers.certainty(scores, words, run),
        ]

    def _errors(self, job: Job, loader: Loader, split: str) -> Html:
        """The worst images, each kind with those that no kind before it has shown."""
        shown: set[int] = set()
        kinds: list[tuple[str, list[ImageScore], int, bool]] = [  # title, images, how many, right ones too
            ("Most confident errors", self.worst.confident_errors, MOST_ERRORS, False),
            ("Largest losses", self.worst.largest_losses, MOST_OTHERS, False),
            ("Least certain", self.worst.least_certain, MOST_OTHERS, True),
        ]
        about = (
            f"Of the {split} images, as the network sees them, with the probabilities that it gives. Beside each, what "
            "speaks for the predicted class and, where that is wrong, for the true one (Grad-CAM): bright parts raise "
            "its score, each in a scale of its own."
        )
        parts = [tag("p", about, class_="about")]
        for title, scores, most, is_all in kinds:
            fresh = [score for score in scores if score.index not in shown and (score.is_error or is_all)][:most]
            shown |= {score.index for score in fresh}
            if fresh:
                tiles = tag("div", *pictures.explained(job, loader, fresh), class_="tiles")
                parts += [tag("h3", title), tiles]
        return section("errors", "Where it errs", *parts)

    def _filters(self, job: Job) -> Html | None:
        found = pictures.first_filters(job)
        if found is None:
            return None
        words, tiles = found
        about = "What the first layer looks for. Grey is 0, bright weights like bright pixels, dark ones dislike them."
        return section("filters", "First filters", tag("p", f"{about} {words}", class_="about"), tiles)

    # --- what the training saw ---

    def _augmentation(self) -> Html | None:
        """What augmentation makes of some training images; the training images of each class are counted as well."""
        if self.job is None or not self.job.data.scored_splits:
            return None
        settings = self.job.settings
        try:
            refuse_foreign_code(settings, self.words, training=True)
            quiet = replace(settings, trainer=replace(settings.trainer, probe=0))
            job = build_train_job(quiet, self.report, splits=("train",))
            self._count("train", job.data.train)
            strips = pictures.augmentations(job)
        except CnntrainError as error:
            self._miss("Augmentations and training images", error)
            return None
        about = "The same training images after each stage; every epoch draws anew."
        return section("augmentation", "What training sees", tag("p", about, class_="about"), strips)

    # --- figures ---

    def _scores(self, split: str) -> dict[str, Any]:
        """The scores of a split: as measured now, else as the run has written them down."""
        if split in self.splits:
            return self.splits[split].scores
        scores = self.run.results.get(split)
        known = {key: self.run.number(split, key) for key in TITLES} if isinstance(scores, dict) else {}
        found: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
        if not found and split == "val":
            found = self._best_so_far()
        images = self.run.images(split)
        if images and found:
            shares = {key: wilson(found[key], images) for key in ("top1", "top5") if 0 <= found.get(key, -1) <= 1}
            found |= {"images": images, "intervals": shares}
        return found

    def _best_so_far(self) -> dict[str, Any]:
        best, history = self.run.best_epoch, self.run.history
        row = next((row for row in history.epochs if row.epoch == best), None)
        return {history.measure: row.val_score, "loss": row.val_loss} if row and row.val_score is not None else {}

    def _facts(self) -> Facts:
        run, classes = self.run, list(self.job.data.classes) if self.job else self.run.classes
        split = list(self.splits)[-1] if self.splits else ""
        totals = {name: self.totals.get(name) or run.images(name) for name in ("train", "val")}
        if not any(self.images.get("val", (1,))):  # no image has a label, and their mAP of 0 tells nothing
            totals["val"] = 0
        return Facts(
            run.settings,
            run.history,
            classes,
            _class_counts(self.splits[split]) if split else (),
            SPLIT_WORDS.get(split, ""),
            self.images.get("train", ()),
            totals["val"],
            run.ended,
            Path(short_path(run.folder)),
            totals["train"],
            run.warnings,
        )


def _class_counts(found: SplitScores | SetScores) -> list[ClassCounts]:
    """How often each class is there and is predicted."""
    if isinstance(found, SetScores):
        labels, given = found.images.labels, found.images.given
        counts = (part.sum(0).tolist() for part in (labels, given, labels & given))
    else:
        matrix = found.matrix
        counts = (part.tolist() for part in (matrix.sum(1), matrix.sum(0), matrix.diagonal()))
    return [ClassCounts(*row) for row in zip(*counts, strict=True)]


class _Listener:
    """A report whose warnings stand on the page as well."""

    def __init__(self, report: Report, notes: list[str]) -> None:
        self._report, self._notes = report, notes

    def warn(self, line: str) -> None:
        """See Reporter."""
        self._notes.append(line)
        self._report.warn(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._report, name)
