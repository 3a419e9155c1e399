"""Numbers as people read them, and the lines that they make."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLUMNS = (
    ("loss", 6),
    ("top-1", 6),
    ("val loss", 8),
    ("top-1", 6),
    ("top-5", 6),
    ("lr", 8),
    ("images/s", 8),
    ("time", 7),
)
_LONGEST_EPOCH = 7  # characters; with it a row has 80


def percent(share: float | None) -> str:
    """A fraction of 1 in six characters: `85.24%`."""
    if share is None:
        return "-"
    return "100%" if share == 1 else f"{100 * share:.2f}%"


def number(value: float | None) -> str:
    """A loss in six characters: `0.4321`, `12.346`, `1234.5`."""
    if value is None:
        return "-"
    if abs(value) < 9.99995:
        return f"{value:.4f}"
    return f"{value:.5g}" if abs(value) < 99999.5 else f"{value:.0e}"


def rate(value: float | None) -> str:
    """Images per second: `12,345`, `0.52`."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def clock(seconds: float | None) -> str:
    """`0:01:23`, with as many hours as it takes."""
    if seconds is None or not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def short_path(path: str | Path) -> str:
    """A path as the user would type it: relative where it lies below the current folder."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd())) or os.curdir
    except ValueError:
        return str(path)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equal columns: the first one flush left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def table_head(epochs: int) -> str:
    """The head of the table of epochs."""
    return "  ".join([f"{'epoch':>{_epoch_width(epochs)}}", *(f"{name:>{width}}" for name, width in _COLUMNS)])


def table_row(row: dict[str, Any], epochs: int) -> str:
    """An epoch in 80 columns at most; the star marks the best so far."""
    cells = [
        number(row["train_loss"]), percent(row["train_top1"]),
        number(row["val_loss"]), percent(row["val_top1"]), percent(row.get("val_top5")),
        f"{row['lr']:.3g}", rate(row["images_per_second"]), clock(row["seconds"]),
    ]  # fmt: skip
    epoch = f"{row['epoch']}/{epochs}"
    first = epoch if len(epoch) <= _LONGEST_EPOCH else str(row["epoch"])
    padded = (f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    return "  ".join([f"{first:>{_epoch_width(epochs)}}", *padded]) + (" *" if row["best"] else "")


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """An epoch in words, for a log."""
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']}"
        f"  train loss {number(row['train_loss'])} top-1 {percent(row['train_top1'])}"
        f"  val loss {number(row['val_loss'])} top-1 {percent(row['val_top1'])} top-5 {percent(row.get('val_top5'))}"
        f"  lr {row['lr']:.3g}  {rate(row['images_per_second'])} images/s  {clock(row['seconds'])}"
        + ("  best" if row["best"] else "")
    )


def _epoch_width(epochs: int) -> int:
    return max(5, min(_LONGEST_EPOCH, 2 * len(str(epochs)) + 1))
