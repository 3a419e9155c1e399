"""What a network of label sets is worth, in lines of 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from cnntrain.config.schema.scores import TITLES
from cnntrain.evaluation.label_sets import SetEvaluation
from cnntrain.evaluation.set_images import SetScore
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.report.evaluation import (
    MOST_CLASSES,
    WIDEST_NAME,
    pair_table,
    robustness_table,
    score_table,
    table,
    temperature_lines,
    tta_lines,
)
from cnntrain.text import WIDTH, align_columns, percent, printable, short_path, shorten, shorten_apart

SCORES = {key: TITLES[key] for key in ("map", "macro_f1", "micro_f1", "subset_accuracy", "hamming", "loss")}
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
MOST_ERRORS = 3  # of each kind
SOURCES = {
    "checkpoint": "fitted to the validation images of its training",
    "val": "fitted to these validation images, whose scores flatter",
    "0.5": "0.5 for all, as there are no validation images to fit them to",
}


def tell(evaluation: SetEvaluation, robustness: Mapping[str, Sequence[Mapping[str, float]]] | None = None) -> list[str]:
    """What a user wants at a glance.

    Args:
        robustness: what is left of the scores on corrupted images of the last split, see robustness_table.
    """
    splits, split = {name: found.scores for name, found in evaluation.found.items()}, evaluation.last
    last = splits[split]
    parts = [
        [*score_table(splits, SCORES), *tta_lines(split, last, "map", TITLES["map"])],
        label_lines(last),
        label_table(split, last["classes"]),
        pair_table(last, ("most often missed", "while given")),
        error_table(evaluation.worst(split), evaluation.classes),
        robustness_table(split, robustness) if robustness else [],
        [*calibration_lines(last), *threshold_table(last)],
    ]
    return [line for part in parts if part for line in ("", *part)][1:]


def label_lines(scores: Mapping[str, Any]) -> list[str]:
    """How many labels images have and are given, and from which thresholds on."""
    counts = f"an image has {scores['cardinality']:.2f} on average, and is given {scores['given_cardinality']:.2f}"
    return [f"labels      {counts}", f"thresholds  {SOURCES[scores['thresholds']]}"]


def label_table(split: str, classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What each label is worth, the lowest average precision first; of many labels, those alone."""
    known = [name for name in classes if classes[name]["average_precision"] is not None]
    names = sorted(known, key=lambda name: classes[name]["average_precision"])
    title = f"{SPLIT_WORDS[split]}, by label"
    if len(names) > MOST_CLASSES:
        title = f"{SPLIT_WORDS[split]}, hardest {MOST_CLASSES} of {len(classes):,}"
    cells = [["images", "AP", "precision", "recall", "F1", "from"]]
    for name in names[:MOST_CLASSES]:
        score = classes[name]
        values = (percent(score[key]) for key in ("average_precision", "precision", "recall", "f1", "threshold"))
        cells.append([f"{score['images']:,}", *values])
    room = _room(cells)
    heads = [title, *(shorten(printable(name), room) for name in names[:MOST_CLASSES])]
    return align_columns([[shorten(head, room), *row] for head, row in zip(heads, cells, strict=True)])


def error_table(worst: Mapping[str, Sequence[SetScore]], classes: Sequence[str]) -> list[str]:
    """The labels that are given where they are least true, and those that are missed where they are least seen."""
    shown = [(image, "given", image.extra[0]) for image in worst["wrongly_given"][:MOST_ERRORS]]
    shown += [(image, "missed", image.missed[0]) for image in worst["missed"][:MOST_ERRORS]]
    cells = [["label", "was", "prob."]]
    for _, kind, (place, probability) in shown:
        cells.append([shorten(printable(classes[place]), WIDEST_NAME), kind, percent(probability)])
    files = shorten_apart([printable(short_path(image.file)) for image, *_ in shown], _room(cells))
    heads = ["most confident errors", *files]
    return table([[head, *row] for head, row in zip(heads, cells, strict=True)], left=3) if shown else []


def _room(cells: Sequence[Sequence[str]]) -> int:
    """The columns that these leave for the first one."""
    return WIDTH - sum(2 + max(map(cell_len, column)) for column in zip(*cells, strict=True))


def calibration_lines(scores: Mapping[str, Any]) -> list[str]:
    """How far probabilities are from what they should be, what that means, and what a temperature would do."""
    bins = [each for each in scores["calibration"]["bins"] if each["images"]]
    said = sum(each["images"] * each["probability"] for each in bins) / scores["images"]
    means = f"expects {said:.2f} labels an image, {scores['cardinality']:.2f} are there"
    return [f"calibration  ECE {percent(scores['calibration']['ece'])}; {means}", *temperature_lines(scores)]


def threshold_table(scores: Mapping[str, Any]) -> list[str]:
    """What one threshold for all labels would give."""
    rows = [row for row in scores["by_threshold"] if row["threshold"] in THRESHOLDS]
    return align_columns(
        [
            ["one threshold for all", *(f"{row['threshold']:g}" for row in rows)],
            *([key, *(percent(row[key]) for row in rows)] for key in ("precision", "recall")),
            ["micro F1", *(percent(row["f1"]) for row in rows)],
            ["labels an image", *(f"{row['given']:.2f}" for row in rows)],
        ]
    )
