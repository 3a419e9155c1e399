"""The scores of a network by their keys in rows and files: what people call them, and which one judges a run."""

from collections.abc import Mapping
from typing import Any

TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "hamming": "Hamming loss",
    "subset_accuracy": "subset accuracy",
    "loss": "loss",
}
MAIN = ("top1", "map")  # of single labels and of sets of labels; higher is better


def main_score(found: Mapping[str, Any], prefix: str = "") -> str:
    """The score that judges a run, `top1` or `map`: the one that has a value; `top1` where none has.

    Args:
        found: scores by key, or a row of metrics.csv.
        prefix: what stands before the keys there, such as `val_`.
    """
    return next((key for key in MAIN if found.get(f"{prefix}{key}") not in (None, "")), MAIN[0])
