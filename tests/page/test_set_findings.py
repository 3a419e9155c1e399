"""The rules on runs of label sets: what guessing reaches there, and what is said of a mean average precision."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.settings import Settings
from cnntrain.page.findings import Facts, find
from cnntrain.page.history import History, Row, read_history
from cnntrain.page.rules import ClassCounts
from cnntrain.page.scale import Scale
from cnntrain.report.csv_log import CsvLog
from cnntrain.training.multi_label import mean_average_precision

NAMES = [f"label {number}" for number in range(5)]


@pytest.fixture(scope="module")
def settings() -> Settings:
    words = ["data=table", "data.root=labels.csv", "data.multi_label=true", "loss=bce", "model=lenet5"]
    return compose_settings([*words, "trainer.epochs=20", "schedule=cosine"])


def run(train: float, val: float, count: int = 20) -> History:
    """Epochs of one mAP of the training images and one of the others."""
    rows = (
        Row(number, number, loss=0.3, probe_score=train, val_loss=0.3, val_score=val, lr=0.1 * (1 - number / count))
        for number in range(1, count + 1)
    )
    return History(tuple(rows), measure="map")


def facts(settings: Settings, history: History, **changes: object) -> Facts:
    """A run on five labels, each of which a fifth of the images have."""
    counts = [ClassCounts(100, 100, 90)] * 5
    usual = Facts(settings, history, NAMES, counts, "test", [200] * 5, 500, "epochs", Path("runs/a"), 1000)
    return replace(usual, **changes)  # type: ignore[arg-type]


def test_findings_speak_of_the_map_and_not_of_images_that_are_right(settings: Settings) -> None:
    assert find(facts(settings, run(0.95, 0.93))) == []
    (over,) = find(facts(settings, run(0.95, 0.60)))
    assert over.title == "Over-fitting"
    assert over.figure == (
        "After epoch 20, the mAP of the training images (without augmentation) is 95.00% and that of the 500 "
        "validation images 60.00%: 35 points apart."
    )
    (none,) = find(facts(settings, run(0.22, 0.21)))
    assert (none.title, none.figure) == (
        "Nothing learned",
        "At best the mAP is 22.00%; guessing has a mAP of 20.00%.",
    )
    (under,) = find(facts(settings, run(0.5, 0.45)))
    assert (under.title, under.figure) == (
        "Under-fitting",
        "The mAP is not above 50.00%, in training or in validation.",
    )
    short = replace(settings, trainer=replace(settings.trainer, epochs=1))
    (early,) = find(facts(short, run(0.3, 0.3, count=1)))
    assert early.figure == "After 1 epoch at best the mAP is 30.00%; guessing has a mAP of 20.00%."


def test_without_the_training_images_nobody_knows_what_guessing_reaches(settings: Settings) -> None:
    assert find(facts(settings, run(0.22, 0.21), train_images=(), images=0)) == []


def test_rare_labels_are_weighed_by_the_loss(settings: Settings) -> None:
    counts = [ClassCounts(100, 100, 90)] * 4 + [ClassCounts(10, 2, 1)]
    skewed = facts(settings, run(0.9, 0.89), train_images=[400] * 4 + [20], counts=counts)
    (found,) = find(skewed)
    assert found.title == "Skewed classes"
    assert "`loss=bce loss.pos_weight=balanced`" in found.advice
    weighed = replace(settings, loss=replace(settings.loss, pos_weight="balanced"))
    assert find(replace(skewed, settings=weighed)) == []
    never = facts(settings, run(0.9, 0.89), counts=[ClassCounts(100, 100, 90)] * 4 + [ClassCounts(50, 0, 0)])
    assert [one.title for one in find(never)] == ["A class is never predicted"]


def test_guessing_has_the_share_of_a_label_as_its_average_precision_and_rare_labels_a_larger_error() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = [0.5, 0.2, 0.05]
    labels = torch.rand(4000, 3, generator=generator) < torch.tensor(shares)
    guessed = mean_average_precision(torch.rand(4000, 3, generator=generator), labels)
    scale = Scale("map", 3, shares)
    assert scale.chance == pytest.approx(guessed, abs=0.01)
    assert scale.is_guess(guessed)
    assert scale.guess_loss == pytest.approx(math.log(2) + 0.5004 + 0.1985, abs=1e-3)
    # Scores that tell labels in part: the spread of the mAP of 400 images over 200 drawings of them.
    scores = labels + torch.randn(4000, 3, generator=generator)
    parts = [torch.randint(4000, (400,), generator=generator) for _ in range(200)]
    values = torch.tensor([mean_average_precision(scores[part], labels[part]) for part in parts])
    assert 0.7 < scale.error(float(values.mean()), 400) / float(values.std()) < 1.6


def test_the_history_of_label_sets_is_read_by_its_columns(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv", score="map")
    log.write("step", {"step": 1, "epoch": 1, "loss": 0.5})
    log.write("epoch", {"step": 2, "epoch": 1, "loss": 0.5, "val_map": 0.25, "probe_map": 0.5})
    log.close()
    history = read_history(tmp_path / "metrics.csv")
    assert history.measure == "map"
    assert [(row.val_score, row.train_score, row.score) for row in history.epochs] == [(0.25, 0.5, None)]
