"""Intervals of scores that are no simple mean, by drawing images anew."""

import numpy as np

from cnntrain.evaluation.classes import Counts, class_means
from cnntrain.evaluation.intervals import COVERAGE, Interval

REPEATS, SEED = 1000, 0


def bootstrap(matrix: Counts) -> dict[str, Interval]:
    """95 % intervals of balanced accuracy and macro F1: as many images are drawn from the counts, again and again.

    Seeded. Left out where no image is wrong, or none right: what is drawn is all the same then.

    Args:
        matrix: int64 (K, K), true classes down, predicted ones across.
    """
    images, right = int(matrix.sum()), int(matrix.trace())
    if right in (0, images):
        return {}
    rows, columns = matrix.nonzero()
    shares, classes = matrix[rows, columns] / images, len(matrix)
    random, results = np.random.default_rng(SEED), np.empty((REPEATS, 2))
    for place in range(REPEATS):
        counts = random.multinomial(images, shares)
        on_diagonal = np.bincount(rows, counts * (rows == columns), classes)
        of_rows, of_columns = (np.bincount(side, counts, classes) for side in (rows, columns))
        results[place] = class_means(on_diagonal, of_rows, of_columns)
    ends = np.quantile(results, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0).T.tolist()
    return {name: Interval(*pair) for name, pair in zip(("balanced_accuracy", "macro_f1"), ends, strict=True)}
