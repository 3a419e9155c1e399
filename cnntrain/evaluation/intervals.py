"""How far a measured accuracy may lie from the true one: intervals of 95 %."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

COVERAGE = 0.95


class Interval(NamedTuple):
    """Both ends, as fractions of 1."""

    low: float
    high: float


def wilson(share: float, images: float) -> Interval:
    """Wilson's score interval (1927) of an accuracy, 0 to 1, that was measured on so many images.

    It tells what other images of the same kind would do to the score of one trained network.
    """
    z = _z()
    center = (share + z * z / (2 * images)) / (1 + z * z / images)
    reach = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    return Interval(max(0.0, center - reach), min(1.0, center + reach))


def of_shares(mean: float, mean_square: float, images: int, parts: int) -> Interval:
    """Wilson's, of the mean over images of shares, 0 to 1, each of `parts` answers, as many as these are worth.

    Answers to one image are alike. The variance over images tells how many independent ones they are worth (Kish 1965,
    effective sample size): at least one for each image, and at most all of them.

    Args:
        mean_square: the mean of the squares of the shares.
    """
    variance = max(0.0, mean_square - mean * mean) * images / max(1, images - 1)
    worth = mean * (1 - mean) * images / variance if variance else math.inf
    return wilson(mean, max(1, min(worth / images, parts)) * images if 0 < mean < 1 else images)


def student(shares: Sequence[float]) -> Interval:
    """Student's interval (1908) of the mean of two or more accuracies, 0 to 1, within these limits.

    It tells what other seeds would do to the mean over the repeats of a training.
    """
    mean, reach = statistics.fmean(shares), student_reach(shares)
    return Interval(max(0.0, mean - reach), min(1.0, mean + reach))


def student_reach(values: Sequence[float]) -> float:
    """How far Student's interval of the mean of two or more values of any kind reaches to either side."""
    return _t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def of_mean(mean: float, mean_square: float, images: int) -> Interval:
    """Of the mean of values from 0 up over two or more images: about two standard errors either way.

    Args:
        mean_square: the mean of the squares of the values.
    """
    reach = _z() * math.sqrt(max(0.0, mean_square - mean * mean) / (images - 1))
    return Interval(max(0.0, mean - reach), mean + reach)


def of_errors(score: float, error: float) -> Interval:
    """Of a score, 0 to 1, with this standard error: about two of them either way, within these limits."""
    return Interval(max(0.0, score - _z() * error), min(1.0, score + _z() * error))


def of_ratio(ratio: float, squares: float, total: float, images: int) -> Interval | None:
    """Of a ratio, 0 to 1, of two sums over images, by what each image adds to it; None where no image matters.

    Args:
        squares: the sum over images of the squares of numerator - ratio * denominator.
        total: the sum of the denominators.
    """
    error = math.sqrt(max(0.0, squares) * images / max(1, images - 1)) / max(total, 1)
    return of_errors(ratio, error) if error > 1e-12 else None


def _z() -> float:
    """The standard deviations between which, either side of the mean, 95 % of a normal distribution lie."""
    return statistics.NormalDist().inv_cdf((1 + COVERAGE) / 2)


def _t(freedom: int) -> float:
    """The same of Student's distribution of so many degrees of freedom.

    Its share within +-t is a finite sum in the angle atan(t / sqrt(freedom)) (Abramowitz and Stegun 26.7.3 and 26.7.4),
    which rises with the angle: halving finds it.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _share_within(angle, freedom) < COVERAGE else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _share_within(angle: float, freedom: int) -> float:
    is_odd = freedom % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for power in range(2 + is_odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power - 1) / power
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total
