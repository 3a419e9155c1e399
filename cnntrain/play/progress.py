"""What a run has come to, for the chart of the page."""

from pathlib import Path
from typing import Any

from cnntrain.config.schema.scores import TITLES
from cnntrain.page.history import Row, read_history

MOST_STEPS = 400  # points of a curve


def progress(run: Path, epochs: int, is_done: bool) -> dict[str, Any]:
    """The rows of a run so far: of steps an even choice, of epochs all.

    Args:
        run: its folder.
        epochs: how many were planned.
        is_done: whether it has come to its end.
    """
    history = read_history(run / "metrics.csv")
    every = max(1, -(-len(history.steps) // MOST_STEPS))
    return {
        "done": is_done,
        "epochs": epochs,
        "measure": TITLES[history.measure],
        "probe": any(row.probe_score is not None for row in history.epochs),  # which is then what "train" says
        "steps": [_point(row) for row in history.steps[::every]],
        "rows": [_point(row) for row in history.epochs],
    }


def _point(row: Row) -> dict[str, Any]:
    return {
        "epoch": row.epoch,
        "step": row.step,
        "loss": row.loss,
        "train": row.train_score,
        "val_loss": row.val_loss,
        "val": row.val_score,
    }
