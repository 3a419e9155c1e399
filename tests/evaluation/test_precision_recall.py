"""Precision and recall from counts at thresholds, against the images themselves and scikit-learn."""

import numpy as np
import pytest
import torch
from forged import random_sets
from sklearn.metrics import average_precision_score

from cnntrain.evaluation.precision_recall import THRESHOLDS, ThresholdCounts

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of 900 images, right more often than not, and their labels; there is no dog."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (900,), generator=generator)
    return 2 * torch.randn(900, 4, generator=generator) + 2 * torch.eye(4)[labels], labels


def counted(logits: torch.Tensor, labels: torch.Tensor) -> ThresholdCounts:
    counts = ThresholdCounts(logits.shape[1], logits.device)
    for part in range(0, len(labels), 128):
        counts.add(logits[part : part + 128], labels[part : part + 128])
    return counts


def test_counts_are_those_of_the_images_at_each_threshold(answers: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = answers
    curves = {curve.name: curve for curve in counted(logits, labels).curves(NAMES, 20)}
    assert list(curves) == ["(all, macro mean)", "(all, micro mean)", "ant", "bee", "cat"]
    probabilities, thresholds = logits.softmax(1).numpy(), np.linspace(0, 1, THRESHOLDS, dtype=np.float32)
    for label, name in enumerate(NAMES[:3]):
        called = probabilities[:, label] >= thresholds[:, None]
        own = (labels == label).numpy()
        wanted = np.stack([called & own, called & ~own, ~called & ~own, ~called & own]).sum(2)
        assert np.abs(curves[name].counts - wanted).max() <= 1  # a probability may lie on a threshold but for rounding
    micro = curves["(all, micro mean)"]
    assert micro.counts.sum(0).tolist() == [4 * 900] * THRESHOLDS
    assert micro.precision[0] == pytest.approx(1 / 4)
    macro = curves["(all, macro mean)"]
    assert macro.recall == pytest.approx(np.mean([curves[name].recall for name in NAMES[:3]], axis=0))


def test_average_precision_is_that_of_scikit_learn_and_the_hardest_classes_are_kept(
    answers: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = answers
    logits[:, 1] = torch.randn(len(labels), generator=torch.Generator().manual_seed(1))
    counts = counted(logits, labels)
    for curve in counts.curves(NAMES, 20)[2:]:
        label = NAMES.index(curve.name)
        exact = average_precision_score((labels == label).numpy(), logits.softmax(1)[:, label].numpy())
        assert curve.average_precision == pytest.approx(exact, abs=0.01)
    assert counts.curves(NAMES, 1)[2].name == "bee"


def test_each_label_of_a_set_is_counted_by_its_own_probability() -> None:
    answers = random_sets(400, 3)
    curves = {curve.name: curve for curve in counted(answers.logits, answers.labels).curves(NAMES[:3], 20)}
    probabilities, labels = answers.logits.sigmoid().numpy(), answers.labels.numpy()
    thresholds = np.linspace(0, 1, THRESHOLDS, dtype=np.float32)
    for place, name in enumerate(NAMES[:3]):
        called, own = probabilities[:, place] >= thresholds[:, None], labels[:, place]
        wanted = np.stack([called & own, called & ~own, ~called & ~own, ~called & own]).sum(2)
        assert np.abs(curves[name].counts - wanted).max() <= 1
        exact = average_precision_score(labels[:, place], probabilities[:, place])
        assert curves[name].average_precision == pytest.approx(exact, abs=0.02)
    exact = average_precision_score(labels, probabilities, average="micro")
    assert curves["(all, micro mean)"].average_precision == pytest.approx(exact, abs=0.02)


def test_answers_that_are_no_numbers_and_no_images_at_all_are_no_fault() -> None:
    assert counted(torch.full((3, 4), torch.nan), torch.tensor([0, 1, 2])).images.sum() == 12
    assert ThresholdCounts(4, torch.device("cpu")).curves(NAMES, 20) == []
