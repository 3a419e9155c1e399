"""Three small seeded trainings take the very steps that they took when loss_curves.json was written."""

import json
from pathlib import Path
from typing import Any

import pytest
from loss_curves import COLUMNS, CURVES, FILE, machine, paint, train

# On another processor or under another torch, kernels sum in another order. Measured over ATEN_CPU_CAPABILITY,
# ONEDNN_MAX_CPU_ISA and one and two threads: at most 4.1e-5 of a loss and 3.0e-4 of a norm of gradients. An accuracy
# may jump by a whole image there, and is left out.
ELSEWHERE = 1e-3
ROUNDED = ("loss", "val_loss", "probe_loss", "lr", "grad_norm")


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def rounded(curve: list[list[float | None]]) -> list[dict[str, float]]:
    """What each row has in the columns that may differ by rounding."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in curve]
    return [{name: value for name, value in row.items() if name in ROUNDED and value is not None} for row in rows]


def test_the_curves_written_down_are_those_that_are_trained(written: dict[str, Any]) -> None:
    assert list(written["curves"]) == list(CURVES)
    assert written["columns"] == list(COLUMNS)


@pytest.mark.parametrize("name", CURVES)
def test_a_training_repeats_the_loss_curve_that_was_written_down(
    here: Path, written: dict[str, Any], name: str
) -> None:
    paint(here / "images")
    curve, before = train(CURVES[name], here / "run"), written["curves"][name]
    made_with = {key: written[key] for key in machine()}
    advice = f"made with {made_with}, here {machine()}; if the change is meant, run `python tests/loss_curves.py`"
    if machine() == made_with:
        assert curve == before, advice
        return
    for row, (now, then) in enumerate(zip(rounded(curve), rounded(before), strict=True)):
        assert now == pytest.approx(then, rel=ELSEWHERE, abs=1e-6), f"row {row}; {advice}"
