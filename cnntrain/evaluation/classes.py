"""Scores that weigh all classes alike, and which classes are taken for which: all of it from counts alone."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Counts: TypeAlias = NDArray[np.int64]


def class_means(hits: NDArray[Any], images: NDArray[Any], guesses: NDArray[Any]) -> tuple[float, float]:
    """Balanced accuracy and macro F1: scikit-learn's balanced_accuracy_score and f1_score(average="macro").

    The first is the mean recall of the classes that have images; the second the mean F1 of those that have images or
    were predicted.

    Args:
        hits, images, guesses: (K,), of each class those that are right, its images, and how often it was predicted.
    """
    there, named = images > 0, images + guesses > 0
    recall = hits[there] / images[there]
    f1 = 2 * hits[named] / (images + guesses)[named]
    return float(recall.mean()) if len(recall) else 0.0, float(f1.mean()) if len(f1) else 0.0


def of_matrix(matrix: Counts) -> tuple[float, float]:
    """Balanced accuracy and macro F1 of counts (K, K), true classes down, predicted ones across."""
    return class_means(matrix.diagonal(), matrix.sum(1), matrix.sum(0))


def most_confused(matrix: Counts, classes: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Which class is most often predicted in place of which: `true`, `predicted` and `images`, most images first."""
    rows, columns = matrix.nonzero()
    wrong = rows != columns
    rows, columns = rows[wrong], columns[wrong]
    order = np.argsort(-matrix[rows, columns], kind="stable")[:most]
    return [
        {"true": classes[row], "predicted": classes[column], "images": int(matrix[row, column])}
        for row, column in zip(rows[order], columns[order], strict=True)
    ]
