"""What a network says of images, as lines of 80 columns, as CSV, as JSON and as Parquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

from cnntrain.evaluation.prediction import Prediction
from cnntrain.storage import spreadsheet
from cnntrain.text import (
    WIDEST_NAME,
    WIDTH,
    align_columns,
    common_start,
    counted,
    percent,
    printable,
    shorten,
    shorten_apart,
    utf8,
)

WIDEST_CLASS, LEAST_FILE, RUNNERS_UP = 24, 24, 31
LEAST = 0.00005  # a probability below it would be shown as 0.00 %
LEAST_PERCENT = 0.005  # and below this one as 0 %
MOST_CLASSES = 20  # lines of the summary
NO_CLASS = "-"
LABELS, LEAST_OTHERS = 40, 10  # columns of the labels of an image, at most, and of what it is not given, at least
SIGNS = ("|", ";", ",")  # that part labels in CSV: the first that is in no name, as a table of labels is read


# --- lines ------------------------------------------------------------------------------------------------------------


def table(predictions: Sequence[Prediction]) -> list[str]:
    """A line for each image: file, class, probability, and as many of the runners-up as there is room for.

    Of an image without a class all are runners-up. Names that are too long lose what is alike in all of them; a folder
    that they share is told once, above the table. Where images have sets of labels, the labels with their
    probabilities take the place of the class.
    """
    every = (name for found in predictions for name, _ in (*found.classes, *(found.given or ())))
    classes = list(dict.fromkeys(every))
    short = dict(zip(classes, shorten_apart([*map(printable, classes)], WIDEST_CLASS), strict=True))
    if predictions[0].given is not None:
        return _table_of_sets(predictions, short)
    answers = [NO_CLASS if found.label is None else short[found.label] for found in predictions]
    rests = [
        [(short[name], value) for name, value in found.classes[0 if found.label is None else 1 :]]
        for found in predictions
    ]
    class_width = max(map(cell_len, ["class", *answers]))
    room = WIDTH - class_width - len("  " * 3 + "99.99%")
    others = max(cell_len(_list_classes(rest, RUNNERS_UP)) for rest in rests)
    folder, files = _shorten_files(predictions, max(LEAST_FILE, room - max(others, len("runners-up"))))
    file_width = max(map(cell_len, ["file", *files]))
    room -= file_width
    lines = [f"{set_cell_size('file', file_width)}  {set_cell_size('class', class_width)}   prob.  runners-up"]
    for found, file, answer, rest in zip(predictions, files, answers, rests, strict=True):
        first = f"{set_cell_size(file, file_width)}  {set_cell_size(answer, class_width)}"
        probability = "" if found.label is None else _percent(found.probability)  # else it is the first runner-up's
        lines.append(f"{first}  {probability:>6}  {_list_classes(rest, room)}".rstrip())
    return [*([f"in {folder}"] if folder else []), *lines]


def _table_of_sets(predictions: Sequence[Prediction], short: Mapping[str, str]) -> list[str]:
    """A line for each image: file, its labels, and as many of the classes that it is not given as there is room for."""
    room = WIDTH - 2 * len("  ")
    given = [_list_labels([(short[name], value) for name, value in found.given or ()], LABELS) for found in predictions]
    width = max(map(cell_len, ["labels", *given]))
    folder, files = _shorten_files(predictions, max(LEAST_FILE, room - width - LEAST_OTHERS))
    file_width = max(map(cell_len, ["file", *files]))
    room -= file_width + width
    lines = [f"{set_cell_size('file', file_width)}  {set_cell_size('labels', width)}  others"]
    for found, file, labels in zip(predictions, files, given, strict=True):
        own = {name for name, _ in found.given or ()}
        others = [(short[name], value) for name, value in found.classes if name not in own and value >= LEAST_PERCENT]
        rest = next(filter(lambda text: cell_len(text) <= room, map(_pairs, _beginnings(others))), "")
        lines.append(f"{set_cell_size(file, file_width)}  {set_cell_size(labels, width)}  {rest}".rstrip())
    return [*([f"in {folder}"] if folder else []), *lines]


def _list_labels(labels: Sequence[tuple[str, float]], room: int) -> str:
    """`cat 98%, dog 71%`, and how many there is no room for."""
    for part in _beginnings(labels):
        text = _pairs(part) + (f", +{len(labels) - len(part)}" if len(part) < len(labels) else "")
        if cell_len(text) <= room:
            return text
    return NO_CLASS


def _beginnings(classes: Sequence[tuple[str, float]]) -> Iterator[Sequence[tuple[str, float]]]:
    """All of them, then all but the last, and so on down to the first one."""
    return (classes[:count] for count in range(len(classes), 0, -1))


def _pairs(classes: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {value:.0%}" for name, value in classes)


def _shorten_files(predictions: Sequence[Prediction], width: int) -> tuple[str, list[str]]:
    """The files in `width` columns, without the folder of all of them where they are too long with it."""
    files = [printable(found.file) for found in predictions]
    folder = common_start(files).rpartition("/")[0] if len(files) > 1 else ""
    if not folder or max(map(cell_len, files)) <= width:
        return "", shorten_apart(files, width)
    return shorten(f"{folder}/", WIDTH - len("in ")), shorten_apart([file[len(folder) + 1 :] for file in files], width)


def _percent(probability: float) -> str:
    """`85.24%`; all that would be shown as 100.00 % is `100%`."""
    return percent(1.0 if probability >= 1 - LEAST else probability)


def _list_classes(classes: Sequence[tuple[str, float]], room: int) -> str:
    words = ""
    for name, probability in classes:
        more = f"{', ' if words else ''}{name} {_percent(probability)}"
        if probability < LEAST or cell_len(words + more) > room:
            break
        words += more
    return words


def summary(counts: Sequence[tuple[str, int, float]], total: int) -> list[str]:
    """How often each class was given to `total` images, most often first, from (class, images, mean probability)."""
    found = sorted((row for row in counts if row[1]), key=lambda row: -row[1])
    names = shorten_apart([printable(name) for name, _, _ in found[:MOST_CLASSES]], WIDEST_NAME)
    rows = [["class", "images", "share", "mean prob."]]
    rows += [
        [name, f"{images:,}", percent(images / total), percent(mean)]
        for name, (_, images, mean) in zip(names, found, strict=False)
    ]
    more = len(found) - MOST_CLASSES
    return align_columns(rows) + ([f"and {counted(more, 'class')} more"] if more > 0 else [])


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What goes into a file.

    Attributes:
        predictions: of the images that can be decoded.
        top: classes of each.
        results: of the call as a whole, see commands/predict.py.
        has_threshold: an image may have no class: its most probable one has a column of its own.
        names: of all classes, where images have sets of labels: these stand in one column, and then the classes by
            falling probability.
    """

    predictions: Sequence[Prediction]
    top: int
    results: dict[str, Any]
    has_threshold: bool
    names: Sequence[str] | None = None

    def content(self, kind: str) -> str | bytes:
        """The file of a kind: csv, json or parquet."""
        if kind == "parquet":
            return self._parquet()
        return self._csv() if kind == "csv" else self._json()

    def columns(self) -> list[str]:
        """`file`, `class` and `probability`, then those of the arguments; the same whatever was found."""
        more = [f"{key}_{place}" for place in range(2, self.top + 1) for key in ("class", "probability")]
        if self.names is not None:
            return ["file", "labels", "class_1", "probability_1", *more, "error"]
        first = ["class_1"] if self.has_threshold else []
        return ["file", "class", "probability", *first, *more, "error"]

    def rows(self) -> Iterator[list[Any]]:
        """A row for each image, and at the end one for each bad file; None where there is nothing."""
        for found in self.predictions:
            first = [found.classes[0][0]] if self.has_threshold else []
            more = [part for pair in found.classes[1:] for part in pair]
            if self.names is None:
                yield [found.file, found.label, found.probability, *first, *more, None]
            else:
                yield [found.file, list(found.labels), *found.classes[0], *more, None]
        gap = [None] * (len(self.columns()) - 2)
        for bad in self.results["skipped"]:
            yield [bad["file"], *gap, bad["reason"]]

    def _csv(self) -> str:
        sign = next((one for one in SIGNS if not any(one in name for name in self.names or ())), SIGNS[0])

        def cell(value: Any) -> Any:
            if isinstance(value, list):
                return sign.join(value)
            return f"{value:.6f}" if isinstance(value, float) else value

        return spreadsheet.as_csv([self.columns(), *([cell(value) for value in row] for row in self.rows())])

    def _json(self) -> str:
        rows = [
            {
                "file": found.file,
                **({"class": found.label} if self.names is None else {"labels": found.labels}),
                "classes": [{"class": name, "probability": value} for name, value in found.classes],
            }
            for found in self.predictions
        ]
        return json.dumps(self.results | {"predictions": rows}, indent=2) + "\n"

    def _parquet(self) -> bytes:
        import pyarrow
        from pyarrow import parquet

        def kind(name: str) -> Any:
            if name.startswith("probability"):
                return pyarrow.float32()
            return pyarrow.list_(pyarrow.string()) if name == "labels" else pyarrow.string()

        columns = {
            name: pyarrow.array([_unicode(value) for value in values], kind(name))
            for name, values in zip(self.columns(), zip(*self.rows(), strict=True), strict=True)
        }
        about = {"cnntrain": json.dumps(self.results)}
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table(columns).replace_schema_metadata(about), sink)
        content: bytes = sink.getvalue().to_pybytes()
        return content


def _unicode(value: Any) -> Any:
    """Names of files may hold bytes that are no text, which Parquet refuses: these are escaped."""
    if isinstance(value, list):
        return [_unicode(item) for item in value]
    return utf8(value).decode("utf-8", "backslashreplace") if isinstance(value, str) else value
