"""The files of an evaluation of label sets: tables for a spreadsheet, JSON, and pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.errors import ConfigError
from cnntrain.evaluation.label_sets import SetEvaluation
from cnntrain.evaluation.set_images import ImageSets, SetScore
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.report.evaluation_files import CHARTS, as_json, title_of_worst, write_parts
from cnntrain.storage.atomic import StreamedFile, write_atomic
from cnntrain.storage.spreadsheet import as_csv
from cnntrain.text import printable

if TYPE_CHECKING:
    from torch import Tensor

BETWEEN = "|"  # labels of a cell
OF_LABEL = ("images", "given", "average_precision", "precision", "recall", "f1", "threshold")
OVERALL = ("loss", "micro_f1", "hamming", "subset_accuracy", "ece")  # columns that the row of a whole split has
KINDS = {
    "wrongly_given": "wrongly\ngiven",
    "missed": "missed",
    "largest_losses": "largest\nlosses",
}


def as_table(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """CSV: a row for each label of each split, after one without a label, whose AP and F1 are means over them."""
    rows: list[Sequence[Any]] = [["split", "class", *OF_LABEL, *OVERALL]]
    for split, scores in splits.items():
        means = [scores["images"], None, scores["map"], None, None, scores["macro_f1"], None]
        values = {**scores, "ece": scores["calibration"]["ece"]}
        rows.append([split, None, *means, *(values[key] for key in OVERALL)])
        for name, one in scores["classes"].items():
            rows.append([split, name, *(one[key] for key in OF_LABEL), *(None for _ in OVERALL)])
    return as_csv(rows)


class SetRows:
    """Writes a row of CSV for every image of a split once it is scored; see evaluation.label_sets.SetCollector.

    Attributes:
        split: that of the images to come.
        name: of these images, by the index; None: the file.
    """

    name: Callable[[int], str] | None = None

    def __init__(self, file: StreamedFile, classes: Sequence[str]) -> None:
        self._file, self._classes, self.split = file, classes, ""
        file.write(as_csv([["split", "file", "labels", "prediction", "missed", "wrongly_given", "loss"]]))

    def add(self, images: ImageSets) -> None:
        """Take all images of a split."""
        for image in images.rows():
            self._file.write(as_csv([self._row(image)]))

    def _row(self, image: SetScore) -> list[str]:
        mistakes = ((place for place, _ in part) for part in (image.missed, image.extra))
        sets = [self._names(places) for places in (image.labels, image.prediction, *mistakes)]
        name = self.name(image.index) if self.name else image.file
        return [self.split, name, *sets, f"{image.loss:.6g}"]

    def _names(self, places: Iterable[int]) -> str:
        return BETWEEN.join(self._classes[place] for place in places)


def write_file(out: Path, evaluation: SetEvaluation, results: Mapping[str, Any]) -> None:
    """One file, by its end: the results as JSON, or the scores of the labels as CSV.

    Raises:
        ConfigError: see need_file.
    """
    need_file(out)
    content = as_json(results) if out.suffix.lower() == ".json" else as_table(evaluation.scores)
    write_atomic(out, content, word=f"out=FILE{out.suffix.lower()}")


def need_file(out: Path) -> None:
    """Raises ConfigError where one file is asked for that label sets have not."""
    if out.suffix.lower() in CHARTS:
        raise ConfigError(
            f"out: must end in .json or .csv, or be a folder, as sets of labels have no confusion matrix "
            f"(given {printable(out)}); write out=DIR, which gets all charts"
        )


def write_folder(
    home: Path,
    evaluation: SetEvaluation,
    results: Mapping[str, Any],
    pick: Callable[[list[int]], "Tensor"],
    footer: str,
) -> None:
    """All files of a folder that are written at the end; the pictures are of the last split.

    Args:
        pick: gives images of the last split, uint8 (N, C, S, S), by their indices.
        footer: of the sheet of the worst images.
    """
    from cnntrain.plots.calibration import OF_LABELS, draw_reliability, draw_thresholds
    from cnntrain.plots.class_bars import draw_classes
    from cnntrain.plots.worst import draw_worst_sets

    found, what = evaluation.found[evaluation.last], f"{SPLIT_WORDS[evaluation.last]} images"
    worst = evaluation.worst(evaluation.last)
    kinds = {words: worst[kind] for kind, words in KINDS.items() if worst[kind]}
    sheet = draw_worst_sets(kinds, pick, evaluation.classes, title_of_worst(found.scores, what), footer)
    charts = {
        "reliability": draw_reliability(found.scores["calibration"], what, OF_LABELS),
        "thresholds": draw_thresholds(found.scores["by_threshold"], what),
    }
    if found.images.labels.any():  # else there is no bar to draw
        charts["classes"] = draw_classes(found.scores["classes"], what)
    write_parts(home, results, as_table(evaluation.scores), sheet, charts, {})
