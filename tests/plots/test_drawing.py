"""What sheets are made of: enlarged images."""

import numpy as np

from cnntrain.plots.sheet import at_side


def test_small_images_are_enlarged_pixel_by_pixel_and_large_ones_fit() -> None:
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(at_side(small, 160), np.kron(small, np.ones((5, 5, 1), dtype=np.uint8)))
    assert np.array_equal(at_side(small, 170)[5:165, 5:165], at_side(small, 160))
    for size in (112, 224):
        assert at_side(np.zeros((size, size, 3), dtype=np.uint8), 160).max() == 0
