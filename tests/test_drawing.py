"""What pictures are made of: curves with their ticks, and enlarged images."""

import numpy as np
import pytest

from cnntrain.report.curves import Curves, Panel, counts, nice
from cnntrain.report.letters import RIGHT
from cnntrain.report.sheet import at_side


def test_small_images_are_enlarged_pixel_by_pixel_and_large_ones_fit() -> None:
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(at_side(small, 160), np.kron(small, np.ones((5, 5, 1), dtype=np.uint8)))
    assert np.array_equal(at_side(small, 170)[5:165, 5:165], at_side(small, 160))
    for size in (112, 224):
        assert at_side(np.zeros((size, size, 3), dtype=np.uint8), 160).max() == 0


def test_ticks_are_round_and_as_few_as_asked_for() -> None:
    random = np.random.default_rng(0)
    for largest in [1, 10, 37200, 0.05, 3e-7, *10 ** random.uniform(-8, 8, 200)]:
        inner, outer = nice(largest, 4), nice(largest, 4, beyond=True)
        assert inner[-1] <= largest * (1 + 1e-9)
        assert outer[-1] >= largest * (1 - 1e-9)
        assert len(inner) <= len(outer) <= 6
        assert f"{inner[1] / 10 ** np.floor(np.log10(inner[1]) + 1e-9):.6g}" in ("1", "2", "5", "10")
    assert nice(0, 4) == [0]
    assert [counts(largest) for largest in (0, 1, 3, 12)] == [[0], [0, 1], [0, 1, 2, 3], [0, 2, 4, 6, 8, 10, 12]]


def test_curves_lie_where_their_values_are() -> None:
    def height(value: float) -> int:
        drawn = Curves("title", [], [Panel("constant", [0], [[value], [0.8]])], 100, [0, 100]).draw()
        column = np.asarray(drawn)[:, drawn.width // 2]
        return int(np.flatnonzero((column == RIGHT).all(axis=1)).max())

    low, middle, high = height(0.2), height(0.4), height(0.6)
    assert low - middle == pytest.approx(middle - high, abs=1)
    assert high < middle < low
