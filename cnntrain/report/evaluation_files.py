"""The files of an evaluation: tables for a spreadsheet, JSON, and pictures."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.evaluation.classes import Counts
from cnntrain.evaluation.evaluate import Evaluation
from cnntrain.evaluation.image_scores import BatchScores, ImageScore
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.storage.atomic import StreamedFile, write_atomic
from cnntrain.storage.spreadsheet import as_csv

if TYPE_CHECKING:
    from torch import Tensor

    from cnntrain.plots.charts import Chart

OVERALL = ("top1", "top5", "loss", "ece")  # columns that the row of a whole split has
WORD = "out=DIR"
CHARTS = (".png", ".svg", ".pdf")  # ends of a file that is the confusion matrix
ENDS = (".json", ".csv", *CHARTS)
KINDS = {
    "confident_errors": "most\nconfident\nerrors",
    "largest_losses": "largest\nlosses",
    "least_certain": "least\ncertain",
}


def as_json(results: Mapping[str, Any]) -> str:
    """All scores."""
    return json.dumps(results, indent=2) + "\n"


def as_table(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """CSV: a row for each class of each split, after one without a class, whose recall and F1 are means over them."""
    keys = [key for key in OVERALL if any(key in scores or key == "ece" for scores in splits.values())]
    rows: list[Sequence[Any]] = [["split", "class", "images", "precision", "recall", "f1", *keys]]
    for split, scores in splits.items():
        values = {**scores, "ece": scores["calibration"]["ece"]}
        means = [None, scores["balanced_accuracy"], scores["macro_f1"]]
        rows.append([split, None, scores["images"], *means, *(values[key] for key in keys)])
        for name, one in scores["classes"].items():
            row = [split, name, one["images"], one["precision"], one["recall"], one["f1"]]
            rows.append([*row, *(None for _ in keys)])
    return as_csv(rows)


def as_counts(matrix: Counts, classes: Sequence[str]) -> str:
    """CSV of a confusion matrix: true classes down, predicted ones across."""
    return as_csv([["true", *classes], *([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True))])


class ImageRows:
    """Writes a row of CSV for every image while these are scored; see evaluation.image_scores.Collector.

    Attributes:
        split: that of the images to come.
        name: of these images, by the index; None: the file.
    """

    name: Callable[[int], str] | None = None

    def __init__(self, file: StreamedFile, classes: Sequence[str]) -> None:
        self._file, self._classes, self.split = file, classes, ""
        file.write(as_csv([["split", "file", "label", "prediction", "probability", "loss"]]))

    def add(self, scores: BatchScores) -> None:
        """Take the images of a micro-batch."""
        self._file.write(as_csv(map(self._row, scores.rows())))

    def _row(self, image: ImageScore) -> list[str]:
        names = self._classes[image.label], self._classes[image.prediction]
        name = self.name(image.index) if self.name else image.file
        return [self.split, name, *names, f"{image.probability:.6f}", f"{image.loss:.6g}"]


def write_file(out: Path, evaluation: Evaluation, results: Mapping[str, Any]) -> None:
    """One file, by its end: the results as JSON, the scores of the classes as CSV, or the confusion matrix."""
    kind = out.suffix.lower()
    if kind in CHARTS:
        content: str | bytes = draw_confusion(evaluation).content(kind[1:])
    else:
        content = as_json(results) if kind == ".json" else as_table(evaluation.scores)
    write_atomic(out, content, word=f"out=FILE{kind}")


def write_folder(
    home: Path,
    evaluation: Evaluation,
    results: Mapping[str, Any],
    pick: Callable[[list[int]], "Tensor"],
    footer: str,
) -> None:
    """All files of a folder that are written at the end; the pictures are of the last split.

    Args:
        pick: gives images of the last split, uint8 (N, C, S, S), by their indices.
        footer: of the sheet of the worst images.
    """
    from cnntrain.plots.calibration import draw_coverage, draw_reliability
    from cnntrain.plots.class_bars import draw_classes
    from cnntrain.plots.worst import draw_worst

    found, what = evaluation.found[evaluation.last], f"{SPLIT_WORDS[evaluation.last]} images"
    kinds = {KINDS[kind]: images for kind, images in evaluation.worst[evaluation.last].kinds().items() if images}
    worst = draw_worst(kinds, pick, evaluation.classes, title_of_worst(found.scores, what), footer)
    charts = {
        "confusion": draw_confusion(evaluation),
        "reliability": draw_reliability(found.scores["calibration"], what),
        "coverage": draw_coverage(found.scores["coverage"], what),
        "classes": draw_classes(found.scores["classes"], what),
    }
    table = as_table(evaluation.scores)
    counts = {"confusion.csv": as_counts(found.matrix.numpy(), evaluation.classes)}
    write_parts(home, results, table, worst, charts, counts)


def title_of_worst(scores: Mapping[str, Any], what: str) -> str:
    """What heads the sheet of the worst images; `what` they are, such as `test images`."""
    return f"the worst of {scores['images']:,} {what}"


def write_parts(
    home: Path,
    results: Mapping[str, Any],
    table: str,
    worst: Any,
    charts: Mapping[str, "Chart"],
    more: Mapping[str, str],
) -> None:
    """The files that every evaluation has, a sheet and charts among them, and `more` by name."""
    files: dict[str, str | bytes] = {"scores.json": as_json(results), "scores.csv": table, "worst.png": as_png(worst)}
    files |= {f"{name}.{kind}": chart.content(kind) for name, chart in charts.items() for kind in ("png", "svg")}
    for name, content in {**files, **more}.items():
        write_atomic(home / name, content, word=WORD)


def draw_confusion(evaluation: Evaluation) -> "Chart":
    """The confusion matrix of the last split."""
    from cnntrain.plots import confusion

    matrix, what = evaluation.found[evaluation.last].matrix.numpy(), SPLIT_WORDS[evaluation.last]
    return confusion.draw_confusion(matrix, evaluation.classes, f"{what} images")


def as_png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
