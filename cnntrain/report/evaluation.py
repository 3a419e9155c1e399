"""What a network is worth, in lines of 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from cnntrain.evaluation.evaluate import Evaluation
from cnntrain.evaluation.image_scores import ImageScore
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.text import WIDTH, align_columns, number, percent, printable, short_path, shorten, shorten_apart

MOST_CLASSES, MOST_PAIRS, MOST_ERRORS = 10, 5, 5
WIDEST_NAME = 28  # columns, of a class beside other columns
SCORES = {"top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced", "macro_f1": "macro F1", "loss": "loss"}
THRESHOLDS, MOST_THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99), 5
NEAR = 0.01  # by how much mean probability and accuracy differ at most, to be told as alike
FAR = 0.05  # of the calibration error, from which on that they are alike says little of a single image
LOWER = 0.01  # the least part by which another temperature lowers the loss, to be worth a word
HARM = 0.01  # of top-1: if views cost more, they are better left out
BETTER = 0.001  # the least by which another temperature lowers the calibration error, to be worth a word


def tell(evaluation: Evaluation, robustness: Mapping[str, Sequence[Mapping[str, float]]] | None = None) -> list[str]:
    """What a user wants at a glance.

    Args:
        robustness: what is left of the accuracy on corrupted images of the last split, see robustness_table.
    """
    splits = {split: found.scores for split, found in evaluation.found.items()}
    last = splits[evaluation.last]
    parts = [
        [*score_table(splits), *tta_lines(evaluation.last, last)],
        class_table(evaluation.last, last["classes"]),
        pair_table(last),
        error_table(evaluation.worst[evaluation.last].confident_errors, evaluation.classes),
        robustness_table(evaluation.last, robustness) if robustness else [],
        [*calibration_lines(last), *coverage_table(last)],
    ]
    return [line for part in parts if part for line in ("", *part)][1:]


def score_table(splits: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str] = SCORES) -> list[str]:
    """Each score of each split with its interval of 95 %."""
    rows = [["", *(cell for name in splits for cell in (SPLIT_WORDS[name], "95 % interval"))]]
    rows.append(["images", *(cell for scores in splits.values() for cell in (f"{scores['images']:,}", ""))])
    first = next(iter(splits.values()))
    for key, name in titles.items():
        if key in first:
            rows.append([name, *(cell for scores in splits.values() for cell in _with_interval(scores, key))])
        if f"plain_{key}" in first:
            cells = (cell for scores in splits.values() for cell in _with_interval(scores, f"plain_{key}"))
            rows.append([f"  {name}, one view", *cells])
    return [line.rstrip() for line in align_columns(rows)]


def _with_interval(scores: Mapping[str, Any], key: str) -> tuple[str, str]:
    write = number if key.endswith("loss") else percent
    interval = scores["intervals"].get(key)
    return write(scores[key]), " to ".join(write(round(end, 6)) for end in interval) if interval else ""


def tta_lines(split: str, scores: Mapping[str, Any], key: str = "top1", name: str = "top-1") -> list[str]:
    """A word where several views are worse than one."""
    loss = scores.get(f"plain_{key}", 0.0) - scores[key]
    words = f"tta lowers {name} of the {SPLIT_WORDS[split]} images by {100 * loss:.2f} points: leave it out"
    return [words] if loss > HARM else []


def class_table(split: str, classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Precision, recall and F1 of each class, the lowest F1 first; of many classes, those alone."""
    names = sorted((name for name in classes if classes[name]["images"]), key=lambda name: classes[name]["f1"])
    title = f"{SPLIT_WORDS[split]}, by class"
    if len(names) > MOST_CLASSES:
        title = f"{SPLIT_WORDS[split]}, the {MOST_CLASSES} hardest classes of {len(classes):,}"
    rows = [[title, "images", "precision", "recall", "F1"]]
    for name in names[:MOST_CLASSES]:
        score = classes[name]
        values = (percent(score[key]) for key in ("precision", "recall", "f1"))
        rows.append([shorten(printable(name), WIDTH // 2), f"{score['images']:,}", *values])
    return align_columns(rows)


def pair_table(scores: Mapping[str, Any], heads: Sequence[str] = ("most often confused", "taken for")) -> list[str]:
    """Which class is most often taken for which."""
    rows = [[*heads, "images"]]
    for pair in scores["confused"][:MOST_PAIRS]:
        name, other = (shorten(printable(pair[key]), WIDEST_NAME) for key in ("true", "predicted"))
        rows.append([name, other, f"{pair['images']:,} of {scores['classes'][pair['true']]['images']:,}"])
    return table(rows, left=2) if len(rows) > 1 else []


def error_table(errors: Sequence[ImageScore], classes: Sequence[str]) -> list[str]:
    """The most confident errors."""
    files, cells = (
        [printable(short_path(image.file)) for image in errors[:MOST_ERRORS]],
        [["true", "predicted", "prob."]],
    )
    for image in errors[:MOST_ERRORS]:
        names = [shorten(printable(classes[number]), WIDEST_NAME // 2) for number in (image.label, image.prediction)]
        cells.append([*names, percent(image.probability)])
    room = WIDTH - sum(2 + max(map(cell_len, column)) for column in zip(*cells, strict=True))
    heads = ["most confident errors", *shorten_apart(files, room)]
    return table([[head, *row] for head, row in zip(heads, cells, strict=True)], left=3) if files else []


def calibration_lines(scores: Mapping[str, Any]) -> list[str]:
    """How far probabilities are from what they should be, what that means, and what a temperature would do."""
    calibration = scores["calibration"]
    bins = [each for each in calibration["bins"] if each["images"]]
    said = sum(each["images"] * each["probability"] for each in bins) / scores["images"]
    gap = said - scores["top1"]
    error = calibration["ece"]
    word = "too sure" if gap > 0 else "not sure enough"
    if abs(gap) < NEAR:
        word = "alike on average" if error > FAR else "well calibrated"
    means = f"probability {percent(said)}, accuracy {percent(scores['top1'])}: {word}"
    return [f"calibration  ECE {percent(error)}; {means}", *temperature_lines(scores)]


def temperature_lines(scores: Mapping[str, Any]) -> list[str]:
    """What the temperature of the checkpoint does, and what another one would."""
    calibration, lines = scores["calibration"], []
    error, temperature = calibration["ece"], calibration["temperature"]
    if without := calibration.get("without"):
        old, new = f"ECE {percent(without['ece'])}, loss {number(without['loss'])}", number(scores["loss"])
        lines.append(f"             at temperature 1: {old}; now {percent(error)}, {new}")
    words = _advice(temperature, scores)
    return [*lines, f"             {words}"] if words else lines


def _advice(temperature: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """What a temperature of the validation images would do; empty where that is nothing."""
    fitted, other, loss, error = *map(temperature.get, ("fitted", "ece", "loss")), scores["calibration"]["ece"]
    if fitted is None:
        return ""
    if not temperature["helps"]:
        return "the validation images tell no temperature that helps" if temperature["used"] == 1 else ""
    if other is None:  # these are the images that it was fitted to, one view of each
        helps = loss < (1 - LOWER) * scores["loss"] and "plain_loss" not in scores
        return f"temperature {fitted:.4g} lowers the loss to {number(loss)}: calibrate=true" if helps else ""
    if other < error - BETTER and loss <= scores["loss"]:
        return f"temperature {fitted:.4g} of validation makes it {percent(other)}: calibrate=true"
    if other > error + BETTER or loss > (1 + LOWER) * scores["loss"]:
        return f"temperature {fitted:.4g} of validation would make it {percent(other)}, loss {number(loss)}"
    return ""


def does_harm(scores: Mapping[str, Any]) -> bool:
    """Whether the loss is higher with the temperature of the checkpoint than without it."""
    without = scores["calibration"].get("without")
    return bool(without) and scores["loss"] > without["loss"]


def coverage_table(scores: Mapping[str, Any]) -> list[str]:
    """What a threshold on the probability keeps, and how much of it is right."""
    rows = [row for row in scores["coverage"] if row["threshold"] in THRESHOLDS and row["coverage"]][-MOST_THRESHOLDS:]
    return align_columns(
        [
            ["threshold", *(f"{row['threshold']:g}" for row in rows)],
            ["kept", *(percent(row["coverage"]) for row in rows)],
            ["right of these", *(percent(row["accuracy"]) for row in rows)],
        ]
    )


def robustness_table(split: str, robustness: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Accuracy and loss by corruption at its five strengths, the weakest first."""
    rows = [[f"{SPLIT_WORDS[split]}, corrupted", "weakest", "", "", "", "strongest", "mean"]]
    for name, levels in robustness.items():
        rows.append([name, *(f"{level['strength']:.3g}" for level in levels), ""])
        for key, title, write in (("top1", "  top-1", percent), ("map", "  mAP", percent), ("loss", "  loss", number)):
            if key not in levels[0]:
                continue
            values = [level[key] for level in levels]
            rows.append([title, *map(write, values), write(sum(values) / len(values))])
    return [line.rstrip() for line in align_columns(rows)]


def table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of equal columns, `left` of them flush left and the others right."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [set_cell_size(cell, width) for cell, width in zip(row[:left], widths[:left], strict=True)]
        cells += [f"{cell:>{width}}" for cell, width in zip(row[left:], widths[left:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
