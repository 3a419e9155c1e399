"""Intervals of accuracies, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from cnntrain.evaluation.intervals import student, wilson


@pytest.mark.parametrize("images", [1, 2, 144, 360, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_the_interval_of_one_accuracy_is_wilsons(share: float, images: int) -> None:
    hits = round(share * images)
    expected = stats.binomtest(hits, images).proportion_ci(0.95, method="wilson")
    assert wilson(hits / images, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 10, 31, 200])
def test_the_interval_of_a_mean_is_students(count: int) -> None:
    shares = np.random.default_rng(count).uniform(0.70, 0.72, count)
    expected = stats.t.interval(0.95, count - 1, loc=shares.mean(), scale=stats.sem(shares))
    assert student(shares.tolist()) == pytest.approx(expected, abs=1e-9)


def test_no_interval_leaves_what_an_accuracy_can_be() -> None:
    assert student([0.6, 0.9]) == (0, 1)
    assert student([0.8, 0.8]) == pytest.approx((0.8, 0.8))
    low, high = wilson(1.0, 3)
    assert 0 < low < high == 1
