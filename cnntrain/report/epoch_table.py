"""An epoch as a row of 80 columns for the terminal, and as a line of words for a log."""

from typing import Any

from cnntrain.config.schema.scores import TITLES, main_score
from cnntrain.text import clock, number, percent, rate

_COLUMNS = {  # key: split, head, width
    "train_loss": ("train", "loss", 6),
    "train_top1": ("train", TITLES["top1"], 6),
    "probe_top1": ("train", "probe", 6),
    "probe_map": ("train", TITLES["map"], 6),
    "val_loss": ("val", "loss", 6),
    "val_top1": ("val", TITLES["top1"], 6),
    "val_top5": ("val", TITLES["top5"], 6),
    "val_map": ("val", TITLES["map"], 6),
    "lr": ("", "lr", 8),
    "images_per_second": ("", "images/s", 8),
    "seconds": ("", "time", 7),
}
_LONGEST_EPOCH = 9  # characters; with it a row has 80


def table_head(row: dict[str, Any], epochs: int) -> tuple[str, str]:
    """The two heads of the table of epochs that begins with `row`: the splits, and the columns of each."""
    splits, heads, last = [" " * _epoch_width(epochs)], [f"{'epoch':>{_epoch_width(epochs)}}"], ""
    for split, name, width in _columns(row).values():
        splits.append(f"{split if split != last else '':<{width}}")
        heads.append(f"{name:>{width}}")
        last = split
    return "  ".join(splits).rstrip(), "  ".join(heads)


def table_row(row: dict[str, Any], epochs: int) -> str:
    """An epoch in 80 columns at most; the star marks the best so far."""
    epoch = f"{row['epoch']}/{epochs}"
    first = epoch if len(epoch) <= _LONGEST_EPOCH else str(row["epoch"])
    cells = (f"{_cell(key, row.get(key)):>{width}}" for key, (_, _, width) in _columns(row).items())
    return "  ".join([f"{first:>{_epoch_width(epochs)}}", *cells]) + (" *" if row["best"] else "")


def _columns(row: dict[str, Any]) -> dict[str, tuple[str, str, int]]:
    """The probe takes the place of top-5 where there is one: a row has 80 columns."""
    left_out = {"val_top5"} if "probe_top1" in row else set()
    return {key: column for key, column in _COLUMNS.items() if key in row.keys() - left_out}


def _cell(key: str, value: float | None) -> str:
    if "loss" in key:
        return number(value)
    if key == "lr":
        return f"{value:.3g}"
    if key == "seconds":
        return clock(value)
    return rate(value) if key == "images_per_second" else percent(value)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """An epoch in words, for a log."""
    score = main_score(row, "val_")
    val = train = ""
    if f"val_{score}" in row:
        top5 = f" top-5 {percent(row['val_top5'])}" if "val_top5" in row else ""
        val = f"  val loss {number(row['val_loss'])} {TITLES[score]} {percent(row[f'val_{score}'])}{top5}"
    names = {"train_top1": TITLES["top1"], "probe_top1": "probe", "probe_map": TITLES["map"]}
    train = "".join(f" {name} {percent(row[key])}" for key, name in names.items() if key in row)
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']}"
        f"  train loss {number(row['train_loss'])}{train}"
        f"{val}  lr {row['lr']:.3g}  {rate(row['images_per_second'])} images/s  {clock(row['seconds'])}"
        + ("  best" if row["best"] else "")
    )


def _epoch_width(epochs: int) -> int:
    return max(5, min(_LONGEST_EPOCH, 2 * len(str(epochs)) + 1))
