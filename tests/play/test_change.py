"""What the page does to a picture: moved, turned, noisy."""

import pytest
import torch

from cnntrain.inspect.explain.shift import shift
from cnntrain.play.change import Change

IMAGE = torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_no_change_changes_no_bit() -> None:
    assert Change().of(IMAGE) is IMAGE


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-2, 0), (0, 3), (2, -1)])
def test_whole_pixels_move_as_explain_moves_them(right: int, down: int) -> None:
    assert Change(right=right, down=down).of(IMAGE).equal(shift(IMAGE[None], down, right)[0])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_of_a_turn_is_counter_clockwise_and_exact(quarters: int) -> None:
    assert Change(turn=90.0 * quarters).of(IMAGE).equal(torch.rot90(IMAGE, quarters, (1, 2)))


def test_what_is_turned_moves_as_the_page_says_and_not_along_its_own_axes() -> None:
    turned = torch.rot90(IMAGE, 1, (1, 2))
    assert Change(turn=90, right=2).of(IMAGE).equal(shift(turned[None], 0, 2)[0])


def test_noise_has_the_deviation_that_is_asked_for_and_one_pattern() -> None:
    grey = torch.full((1, 200, 200), 128, dtype=torch.uint8)
    noisy = Change(noise=0.1).of(grey)
    assert noisy.float().std() == pytest.approx(25.5, rel=0.03)
    assert noisy.equal(Change(noise=0.1).of(grey))
