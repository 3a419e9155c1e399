"""Charts of what a network is worth: what is drawn, and that any names and numbers can be."""

import numpy as np
import pytest
from test_charts import ODD, read_texts

from cnntrain.plots.calibration import draw_coverage, draw_reliability
from cnntrain.plots.charts import escape_unknown
from cnntrain.plots.class_bars import MOST_BARS, draw_classes
from cnntrain.plots.drawing import RIGHT

EMPTY = {"accuracy": None, "probability": None, "images": 0}


def bins(**full: tuple[int, float, float]) -> list[dict[str, object]]:
    """Fifteen bins; those of `full`, by number, have images, accuracy and probability."""
    rows: list[dict[str, object]] = [{"low": place / 15, "high": (place + 1) / 15, **EMPTY} for place in range(15)]
    for place, values in full.items():
        rows[int(place[1:])] |= dict(zip(("images", "accuracy", "probability"), values, strict=True))
    return rows


def test_a_reliability_diagram_tells_the_error_and_encloses_all_bins() -> None:
    chart = draw_reliability({"ece": 0.0321, "bins": bins(b7=(10, 0.9, 0.5), b14=(90, 0.8, 0.99))}, "test images")
    words = read_texts(chart)
    assert {"test images: calibration error 3.21%", "accuracy", "probability of the prediction", "100%"} <= set(words)
    blue = (np.abs(chart.pixels().astype(int) - RIGHT).sum(axis=2) < 120).sum()
    assert 420 * 0.8 * 20 < blue < 420 * 1.7 * 28


@pytest.mark.parametrize(
    "rows", [[], [(0.0, 1.0, 0.25)], [(0.0, 1.0, 1.0)], [(0.0, 1.0, 0.9), (0.5, 0.5, 1.0), (0.9, 0.0, None)]]
)
def test_accuracy_against_coverage_is_drawn_of_any_images(rows: list[tuple[float, float, float | None]]) -> None:
    keys = ("threshold", "coverage", "accuracy")
    chart = draw_coverage([dict(zip(keys, row, strict=True)) for row in rows], "test images")
    words = read_texts(chart)
    assert {"test images: accuracy against coverage", "images that are kept", "0%", "100%"} <= set(words)
    assert ("0.5" in words) == (len(rows) == 3)
    assert "0.9" not in words  # it keeps nothing


def test_the_hardest_classes_come_first_and_those_without_images_not_at_all() -> None:
    scores = {
        f"c{place}": {"f1": place / 200, "precision": 0.5, "recall": 1.0, "images": place} for place in range(200)
    }
    words = read_texts(draw_classes(scores, "test images"))
    shown = [word.split()[0] for word in words if word.startswith("c")]
    assert shown == [f"c{place}" for place in range(1, MOST_BARS + 1)]
    assert "test images: F1 of the 40 hardest of 200 classes" in words


def test_names_of_classes_are_shown_as_they_are() -> None:
    chart = draw_classes({name: {"f1": 1.0, "precision": 1.0, "recall": 1.0, "images": 3} for name in ODD})
    assert {f"{escape_unknown(name)}  3" for name in ODD} <= set(read_texts(chart))
    assert b"<script" not in chart.content("svg")
