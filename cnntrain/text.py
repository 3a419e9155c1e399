"""Numbers as people read them, and the lines that they make."""

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size

_COLUMNS = {
    "train_loss": ("loss", 6),
    "train_top1": ("top-1", 6),
    "probe_top1": ("probe", 6),
    "val_loss": ("val loss", 8),
    "val_top1": ("top-1", 6),
    "val_top5": ("top-5", 6),
    "lr": ("lr", 8),
    "images_per_second": ("images/s", 8),
    "seconds": ("time", 7),
}
WIDTH = 80  # columns of a table
WIDEST_NAME = 40  # columns, of a class in a table
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
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                set_cell_size(row[0], widths[0]),
                *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]


def shorten(text: str, width: int) -> str:
    """Text of at most `width` columns; what is too long loses its middle, as a path says most at its ends."""
    if cell_len(text) <= width:
        return text
    head, tail = text[:width], text[-width:]
    while cell_len(head) > (width - 1) // 3:
        head = head[:-1]
    while cell_len(head) + 1 + cell_len(tail) > width:
        tail = tail[1:]
    return f"{head}…{tail}"


def wrapped(facts: dict[str, str], width: int = 80) -> list[tuple[str, str]]:
    """Named facts, those too long for one line in several, so that they fit the screen, frame and all."""
    room = width - max(map(len, facts)) - 6
    rows = []
    for name, fact in facts.items():
        first, *others = textwrap.wrap(fact, room, break_on_hyphens=False)
        rows += [(name, first), *(("", line) for line in others)]
    return rows


def table_head(row: dict[str, Any], epochs: int) -> str:
    """The head of the table of epochs that begins with `row`."""
    heads = (f"{name:>{width}}" for name, width in _columns(row).values())
    return "  ".join([f"{'epoch':>{_epoch_width(epochs)}}", *heads])


def table_row(row: dict[str, Any], epochs: int) -> str:
    """An epoch in 80 columns at most; the star marks the best so far."""
    epoch = f"{row['epoch']}/{epochs}"
    first = epoch if len(epoch) <= _LONGEST_EPOCH else str(row["epoch"])
    cells = (f"{_cell(key, row.get(key)):>{width}}" for key, (_, width) in _columns(row).items())
    return "  ".join([f"{first:>{_epoch_width(epochs)}}", *cells]) + (" *" if row["best"] else "")


def _columns(row: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """The probe takes the place of top-5 where there is one: a row has 80 columns."""
    left_out = {"val_top5" if "probe_top1" in row else "probe_top1"}
    if "val_top1" not in row:
        left_out |= {"val_loss", "val_top1", "val_top5"}
    return {key: column for key, column in _COLUMNS.items() if key not in left_out}


def _cell(key: str, value: float | None) -> str:
    if "top" in key:
        return percent(value)
    if "loss" in key:
        return number(value)
    if key == "lr":
        return f"{value:.3g}"
    return clock(value) if key == "seconds" else rate(value)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """An epoch in words, for a log."""
    val = ""
    if "val_top1" in row:
        top5 = percent(row.get("val_top5"))
        val = f"  val loss {number(row['val_loss'])} top-1 {percent(row['val_top1'])} top-5 {top5}"
    probe = f" probe {percent(row['probe_top1'])}" if "probe_top1" in row else ""
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']}"
        f"  train loss {number(row['train_loss'])} top-1 {percent(row['train_top1'])}{probe}"
        f"{val}  lr {row['lr']:.3g}  {rate(row['images_per_second'])} images/s  {clock(row['seconds'])}"
        + ("  best" if row["best"] else "")
    )


def _epoch_width(epochs: int) -> int:
    return max(5, min(_LONGEST_EPOCH, 2 * len(str(epochs)) + 1))
