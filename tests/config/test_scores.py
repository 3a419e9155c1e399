"""Scores by their keys."""

import pytest

from cnntrain.config.schema.scores import MAIN, TITLES, main_score


@pytest.mark.parametrize(
    ("found", "prefix", "key"),
    [
        ({"top1": 0.9, "top5": 1.0, "loss": 0.3}, "", "top1"),
        ({"map": 0.0, "loss": 0.3}, "", "map"),  # a score of none is one
        ({"val_map": 0.7, "probe_map": 0.8}, "val_", "map"),
        ({"val_top1": "", "val_map": "0.7"}, "val_", "map"),  # a row of metrics.csv has all columns
        ({"val_loss": 0.3}, "val_", "top1"),
    ],
)
def test_the_score_that_judges_is_the_one_that_has_a_value(found: dict[str, object], prefix: str, key: str) -> None:
    assert main_score(found, prefix) == key
    assert set(MAIN) <= set(TITLES)
