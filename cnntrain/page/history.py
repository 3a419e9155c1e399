"""The course of a run as metrics.csv has it."""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from cnntrain.config.schema.scores import MAIN
from cnntrain.report.csv_log import rows_of


@dataclass(frozen=True)
class Row:
    """An epoch, or the steps since the row before; None where the file is silent or has no finite number.

    Attributes:
        epoch: from 1.
        step: optimizer steps done.
        loss, score: of the training images, as augmented and mixed.
        probe_loss, probe_score: of some of them without augmentation.
        val_loss, val_score: of the validation images. What a score is, the history says.
        data_wait: the part of the time that went by waiting for images.
    """

    epoch: int
    step: int
    loss: float | None = None
    score: float | None = None
    val_loss: float | None = None
    val_score: float | None = None
    probe_loss: float | None = None
    probe_score: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    images_per_second: float | None = None
    data_wait: float | None = None
    seconds: float | None = None

    @property
    def train_score(self) -> float | None:
        """How well the training images are known: without augmentation where that was measured."""
        return self.score if self.probe_score is None else self.probe_score


@dataclass(frozen=True)
class History:
    """All rows of a run, in their order.

    Attributes:
        measure: the one of scores.MAIN that its scores are; sets of labels have none of images as augmented.
    """

    epochs: tuple[Row, ...] = ()
    steps: tuple[Row, ...] = ()
    measure: str = MAIN[0]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those of the steps, or where there are none those of the epochs."""
        return self.steps or self.epochs


LARGEST = 1e30  # no figure of a run comes near, and charts can still compute with it
NUMBERS = tuple(item.name for item in fields(Row))[2:]


def read_history(metrics: Path) -> History:
    """The rows of a metrics.csv; none where it is gone or cannot be read."""
    parts: dict[str, list[Row]] = {"epoch": [], "step": []}
    measure = MAIN[0]
    with suppress(OSError):
        for cells in rows_of(metrics, *parts):
            measure = next((key for key in MAIN if f"val_{key}" in cells), measure)  # each kind has its own columns
            parts[cells["kind"]].append(_row(cells, measure))
    return History(tuple(parts["epoch"]), tuple(parts["step"]), measure)


def _row(cells: dict[str, str], measure: str) -> Row:
    values = {name: _finite(cells.get(name.replace("score", measure))) for name in NUMBERS}
    return Row(int(cells["epoch"]), int(cells["step"]), **values)


def _finite(cell: str | None) -> float | None:
    value = float(cell) if cell else math.nan
    return value if abs(value) < LARGEST else None


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
