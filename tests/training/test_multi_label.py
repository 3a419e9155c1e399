"""Average precision and thresholds against scikit-learn, and against every threshold tried."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.metrics import average_precision_score, f1_score

from cnntrain.training.multi_label import (
    SetAnswers,
    average_precision,
    fit_thresholds,
    mean_average_precision,
    plain_loss,
)


def answers(images: int, classes: int, seed: int, steps: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that tell something of random labels; on so many `steps`, many of them alike."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(images, classes, generator=generator) < 0.3
    scores = (torch.randn(images, classes, generator=generator) + labels).sigmoid()
    return (scores * steps).round() / steps if steps else scores, labels


@settings(max_examples=25, deadline=None)
@given(some.integers(1, 60), some.integers(0, 10_000), some.sampled_from([0, 1, 3, 10]))
def test_average_precision_is_scikit_learns_equal_scores_or_not(images, seed, steps):
    scores, labels = answers(images, 4, seed, steps)
    found = average_precision(scores, labels)
    for place in range(4):
        if labels[:, place].any():
            wanted = average_precision_score(labels[:, place].numpy(), scores[:, place].numpy())
            assert float(found[place]) == pytest.approx(wanted, abs=1e-12)
        else:
            assert found[place].isnan()


def test_the_mean_is_over_the_classes_that_have_images():
    scores, labels = answers(50, 4, 0)
    labels[:, 2] = False
    rest = [0, 1, 3]
    wanted = average_precision_score(labels[:, rest].numpy(), scores[:, rest].numpy(), average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(wanted, abs=1e-12)
    assert mean_average_precision(scores, torch.zeros_like(labels)) == 0


@settings(max_examples=12, deadline=None)
@given(some.integers(2, 40), some.integers(0, 10_000), some.sampled_from([0, 4]))
def test_no_other_threshold_gives_a_higher_f1(images, seed, steps):
    scores, labels = answers(images, 3, seed, steps)
    for place, threshold in enumerate(fit_thresholds(scores, labels)):
        own, values = labels[:, place].numpy(), scores[:, place].double().numpy()
        assert 0 <= threshold <= 1
        if own.all() or not own.any():
            assert threshold == 0.5
            continue
        best = max(f1_score(own, values >= other) for other in np.unique(values))
        assert f1_score(own, values >= threshold) == pytest.approx(best, abs=1e-12)


def test_a_threshold_lies_between_what_is_called_and_what_is_not():
    scores = torch.tensor([[0.9], [0.7], [0.3], [0.1]])
    assert fit_thresholds(scores, torch.tensor([[True], [True], [False], [False]])) == pytest.approx([0.5])


def test_answers_come_back_as_they_were_given():
    scores, labels = answers(7, 3, 1)
    sets = SetAnswers()
    for part in (slice(0, 4), slice(4, 7)):
        sets.add(scores[part].logit(), labels[part])
    logits, found = sets.read()
    torch.testing.assert_close(logits.sigmoid(), scores)
    assert torch.equal(found, labels)
    assert sets.fit_thresholds() == pytest.approx(fit_thresholds(scores, labels), abs=1e-5)
    assert float(plain_loss(logits, labels)) == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy(scores, labels.float(), reduction="sum")), rel=1e-5
    )
