"""Intervals of accuracies, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from cnntrain.evaluation.intervals import of_ratio, of_shares, student, wilson


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


def test_answers_to_one_image_count_as_far_as_they_differ() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(2000) < 0.3
    alike = np.repeat(hits[:, None], 4, 1).mean(1)
    assert of_shares(alike.mean(), (alike**2).mean(), 2000, 4) == pytest.approx(wilson(alike.mean(), 2000), abs=1e-5)
    unlike = (rng.random((2000, 4)) < 0.3).mean(1)
    low, high = of_shares(unlike.mean(), (unlike**2).mean(), 2000, 4)
    assert (high - low) / 2 == pytest.approx(1.96 * stats.sem(unlike), rel=0.03)
    assert of_shares(0.25, 0.0625, 2000, 4) == pytest.approx(wilson(0.25, 8000))  # each image has one of four
    for share in (0.0, 1.0):
        assert of_shares(share, share, 30, 4) == wilson(share, 30)
    assert of_shares(0.5, 0.25, 1, 4) == wilson(0.5, 4)


def test_the_interval_of_shares_holds_the_truth_in_95_of_100_draws() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(1000):
        chances = rng.beta(0.2, 1.8, 300)  # of images, 0.1 in the mean
        shares = (rng.random((300, 4)) < chances[:, None]).mean(1)
        low, high = of_shares(shares.mean(), (shares**2).mean(), 300, 4)
        held += low <= 0.1 <= high
    assert 935 <= held <= 965


def test_the_interval_of_a_ratio_is_as_wide_as_images_drawn_anew_make_it() -> None:
    rng = np.random.default_rng(2)
    below = rng.integers(1, 9, 400).astype(float)
    above = rng.binomial(below.astype(int), 0.6).astype(float)
    ratio = above.sum() / below.sum()
    interval = of_ratio(ratio, ((above - ratio * below) ** 2).sum(), below.sum(), 400)
    drawn = rng.integers(0, 400, (2000, 400))
    anew = above[drawn].sum(1) / below[drawn].sum(1)
    assert interval == pytest.approx(np.percentile(anew, [2.5, 97.5]), abs=0.004)
    assert of_ratio(1.0, 0.0, 30.0, 10) is None


def test_no_interval_leaves_what_an_accuracy_can_be() -> None:
    assert student([0.6, 0.9]) == (0, 1)
    assert student([0.8, 0.8]) == pytest.approx((0.8, 0.8))
    low, high = wilson(1.0, 3)
    assert 0 < low < high == 1
