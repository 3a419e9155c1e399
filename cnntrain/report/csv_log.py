"""metrics.csv: one header, a row per log step and per epoch, written out row by row.

`pandas.read_csv` reads it at once; `kind` (step or epoch) tells the rows apart. In a step row, loss and top1 are those
of the training images since the row before, as augmented and mixed; in an epoch row, those of the whole epoch, beside
the validation scores and those of some training images without augmentation (probe).
Where the labels are sets, the score is the mean average precision (val_map, probe_map), which steps have none of.
Scores and data_wait are fractions of 1, seconds are wall time; those of an epoch's row are split into phases (see
runtime/stopwatch.py). A column that a kind of row does not know is empty.
"""

import csv
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnntrain.config.schema.scores import MAIN
from cnntrain.runtime.stopwatch import PHASES
from cnntrain.storage.atomic import file_system_error, open_own

COLUMNS = (
    "kind", "epoch", "step", "loss", "top1", "val_loss", "val_top1", "val_top5", "probe_loss", "probe_top1",
    "lr", "grad_norm", "images_per_second", "data_wait", "seconds", "best",
    *(f"seconds_{phase}" for phase in PHASES),
)  # fmt: skip
SET_COLUMNS = tuple(name.replace("top1", "map") for name in COLUMNS if name not in ("top1", "val_top5"))
COLUMNS_OF = dict(zip(MAIN, (COLUMNS, SET_COLUMNS), strict=True))  # by the score that judges the run
NUMBERS = {*COLUMNS, *SET_COLUMNS} - {"kind"}

WHOLE = ("epoch", "step")
TAIL = 1 << 12  # bytes at the end of the file that the latest rows are looked for in
LONGEST = 1 << 16  # characters of a line: no row of ours comes near


class CsvLog:
    """The open metrics.csv of a run.

    Args:
        resume_step: keep the rows up to this step, as those after it will be trained again; None: start anew.
        empty: columns that the rows leave empty; those of an earlier version may hold something there.
        score: the one of scores.MAIN that judges the run.
    """

    def __init__(
        self, path: Path, *, resume_step: int | None = None, empty: Collection[str] = (), score: str = MAIN[0]
    ) -> None:
        self._path = path
        aside = path.with_suffix(".csv.new")
        try:
            earlier_rows: list[dict[str, str]] = []
            if resume_step is not None and path.exists():
                earlier_rows = [row for row in rows_of(path, "step", "epoch") if int(row["step"]) <= resume_step]
            earlier_rows = [row | dict.fromkeys(empty, "") for row in earlier_rows]
            self._last = {row["kind"]: int(row["step"]) for row in earlier_rows}
            handle = open_own(aside, os.O_WRONLY | os.O_TRUNC)
            self._file = open(handle, "w", encoding="utf-8", newline="")  # noqa: SIM115  (`close` does it)
            self._writer = csv.DictWriter(self._file, COLUMNS_OF[score], extrasaction="ignore", lineterminator="\n")
            self._writer.writeheader()
            self._writer.writerows(earlier_rows)
            self._file.flush()
            os.replace(aside, path)
        except OSError as error:
            if hasattr(self, "_file"):
                with suppress(OSError):
                    self._file.close()
                with suppress(OSError):
                    aside.unlink()
            raise file_system_error(Path(error.filename or path), error) from error

    def write(self, kind: str, row: dict[str, Any]) -> bool:
        """Add a row; False where a row of this kind and step stands there already, from before the run was resumed."""
        if row["step"] <= self._last.get(kind, -1):
            return False
        self._last[kind] = row["step"]
        try:
            self._writer.writerow({"kind": kind} | {key: _csv_value(value) for key, value in row.items()})
            self._file.flush()
        except OSError as error:
            raise file_system_error(self._path, error) from error
        return True

    def close(self) -> None:
        self._file.close()


def has_rows(folder: Path) -> bool:
    """Whether the run in this folder has come as far as a row."""
    path = folder / "metrics.csv"
    return path.is_file() and any(rows_of(path, "step"))


def rows_of(path: Path, *kinds: str) -> Iterator[dict[str, str]]:
    """The whole rows of some kinds; one that was cut off in the middle of writing, or is damaged, is none.

    Raises:
        OSError: it cannot be read.
    """
    with open(open_own(path, os.O_RDONLY), encoding="utf-8", errors="replace", newline="\n") as file:
        lines = iter(lambda: file.readline(LONGEST), "")
        names = next(lines, "").strip().split(",")
        for line in lines:
            values = line.strip().split(",")
            row = dict(zip(names, values, strict=False))
            if line.endswith("\n") and len(values) == len(names) and row.get("kind") in kinds and _is_sound(row):
                yield row


def latest_rows(path: Path) -> list[dict[str, str]]:
    """The last rows of a run of this version, as far as a short look shows them; none where there is no file."""
    with suppress(OSError), open(open_own(path, os.O_RDONLY), "rb") as file:
        names = tuple(file.readline(LONGEST).decode(errors="replace").strip().split(","))
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()[1:]  # the first is the header, or a part of a row
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines]
        return (
            [row for row in rows if len(row) == len(names) and _is_sound(row)] if names in COLUMNS_OF.values() else []
        )
    return []


def _is_sound(row: dict[str, str]) -> bool:
    """Whether each of our values is a number or empty, and epoch and step are whole numbers."""
    try:
        for name in NUMBERS:
            float(row.get(name) or 0)
        return all(0 <= int(row.get(name) or -1) < 2**63 for name in WHOLE)
    except ValueError:
        return False


def _csv_value(value: Any) -> Any:
    """Seven digits hold what float32 knows; a flag is 0 or 1."""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.7g}" if isinstance(value, float) else value
