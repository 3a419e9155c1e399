"""What came of the runs of a comparison, and the numbers of its rows. Nothing here imports torch."""

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnntrain.compare.plan import Combination
from cnntrain.config.schema.scores import MAIN, TITLES
from cnntrain.errors import ConfigError
from cnntrain.evaluation.intervals import Interval, student, wilson

# Scores to compare by, the first where it is known: of single labels, and of sets of labels.
SCORES = {score: (f"test_{score}", f"val_{score}") for score in MAIN}
# What of a run's results.json is compared beside its scores.
OTHERS = (
    *("best_epoch", "train_seconds", "seconds"),
    *("peak_memory_bytes", "trainable_parameters", "parameters"),
)
# How an interval of 95 % was made.
METHODS = {
    "student": "95 % interval of the mean over the repeats, by Student's t",
    "wilson": "95 % interval of the accuracy of one network on so many images, by Wilson's score",
}


def scores_like(measure: str) -> tuple[str, str]:
    """The scores of both splits, of the kind of `measure`, which is one of them."""
    return SCORES[measure.partition("_")[2]]


def score_title(measure: str) -> str:
    """A score in words: `test top-1`."""
    split, _, score = measure.partition("_")
    return f"{split} {TITLES[score]}"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of some values; None of a single one."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """The spread of some values; None where there are none."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        status: done, failed, interrupted, or waiting for its start.
        measures: of a run that is done, what is known of its SCORES and OTHERS.
        images: how many there are of each split, as far as the run tells.
        note: why it failed.
    """

    run: Combination
    folder: Path
    status: str
    measures: dict[str, float] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def is_done(self) -> bool:
        return self.status == "done"

    def images_of(self, score: str) -> int:
        """How many images a score was measured on; 0: it is not known."""
        return self.images.get(score.partition("_")[0], 0)


@dataclass
class Repeats:
    """The repeats of one combination."""

    values: dict[str, str]
    outcomes: list[Outcome]

    @property
    def finished_outcomes(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.is_done]

    def spread(self, measure: str) -> Spread | None:
        """The spread of a measure over the runs that are done; None where any does not know it."""
        values = [outcome.measures[measure] for outcome in self.finished_outcomes if measure in outcome.measures]
        return Spread.of(values) if len(values) == len(self.finished_outcomes) else None

    def best(self, measure: str) -> Outcome:
        """The run of the highest score."""
        return max(self.finished_outcomes, key=lambda outcome: outcome.measures[measure])

    @property
    def method(self) -> str | None:
        """The one of METHODS that gives the intervals of this row; None: none does."""
        outcomes = self.finished_outcomes
        return "student" if len(outcomes) > 1 else method_of_one(*outcomes)

    def interval(self, score: str) -> Interval | None:
        """The interval of a score; None where no run, or not each, knows what it takes."""
        outcomes = self.finished_outcomes
        shares = [outcome.measures[score] for outcome in outcomes if score in outcome.measures]
        if not shares or len(shares) < len(outcomes):
            return None
        if len(shares) > 1:
            return student(shares)
        images = outcomes[0].images_of(score)
        return wilson(shares[0], images) if images and self.method else None


def method_of_one(*outcomes: Outcome) -> str | None:
    """The one of METHODS for a single run: none for a score that is no share of its images."""
    return None if any(_kind(outcome) == "map" for outcome in outcomes) else "wilson"


def rows(outcomes: Iterable[Outcome]) -> list[Repeats]:
    """The rows of the table, in the order of the first repeats."""
    repeats: dict[tuple[str, ...], Repeats] = {}
    for outcome in outcomes:
        values = outcome.run.values
        repeats.setdefault(tuple(values.values()), Repeats(values, [])).outcomes.append(outcome)
    return list(repeats.values())


def outcome(run: Combination, folder: Path, results: dict[str, Any]) -> Outcome:
    """What came of a run that is done, from the content of its results.json, where nothing need be as we write it."""
    counts = results.get("images")
    images = (
        {str(name): count for name, count in counts.items() if _is_count(count)} if isinstance(counts, dict) else {}
    )
    return Outcome(run, folder, "done", measures(results), images)


def measures(results: dict[str, Any]) -> dict[str, float]:
    """The values that are known of SCORES and OTHERS, from the content of a results.json; scores as fractions."""
    parts = {split: part if isinstance(part := results.get(split), dict) else {} for split in ("test", "val")}
    scores: dict[str, Any] = {f"{split}_{score}": part.get(score) for score in MAIN for split, part in parts.items()}
    known = {key: value for key, value in scores.items() if _is_number(value) and 0 <= value <= 1}
    return known | {key: results[key] for key in OTHERS if _is_number(results.get(key))}


def _is_number(value: Any) -> bool:
    """Whether a value can be averaged: of a damaged file it may be anything."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < sys.float_info.max


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53


def judged_by(outcomes: Iterable[Outcome]) -> str:
    """The measure to compare by: test images where every run that is done has some, else validation images."""
    finished = [outcome for outcome in outcomes if outcome.is_done]
    first, second = SCORES[next(filter(None, map(_kind, finished)), MAIN[0])]
    return first if finished and all(first in outcome.measures for outcome in finished) else second


def need_one_kind(outcomes: Iterable[Outcome]) -> None:
    """Raises ConfigError where some runs have single labels and others sets of them: no score tells of both."""
    folders = {_kind(outcome): outcome.folder for outcome in outcomes}
    if folders.keys() >= set(MAIN):
        examples = " and ".join(f"{TITLES[kind]} in {folders[kind]}" for kind in MAIN)
        raise ConfigError(
            f"compare: runs of different scores, {examples}; compare single labels and sets by themselves"
        )


def _kind(outcome: Outcome) -> str | None:
    """The one of scores.MAIN that a run has; None: it has none."""
    return next((kind for kind in MAIN if set(SCORES[kind]) & outcome.measures.keys()), None)


def best_row(rows: Sequence[Repeats], measure: str) -> Repeats | None:
    """The row of the highest mean; None where none has finished a run."""
    scores = [(spread.mean, row) for row in rows if (spread := row.spread(measure))]
    return max(scores, key=lambda item: item[0])[1] if scores else None
