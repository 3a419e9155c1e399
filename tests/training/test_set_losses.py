"""Focal, binary and asymmetric losses against torch's, torchvision's and timm's, and against formulas written out."""

import pytest
import torch
from test_losses import CLASSES, WEIGHTS, assert_same, case, with_gradient
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from cnntrain.config.schema.loss import LossSettings
from cnntrain.errors import ConfigError
from cnntrain.training.class_weights import pos_weight
from cnntrain.training.losses import Loss, LossFacts, asymmetric, bce, focal

SETS = LossFacts(multi_label=True)


def sets(count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that want a gradient, and sets of labels, bool (N, 6), one of them empty."""
    logits, _, probabilities = case(count)
    labels = probabilities > 1 / 6
    labels[0] = False
    return logits, labels


@pytest.mark.parametrize("positive", [None, WEIGHTS])
def test_the_binary_loss_of_sets_is_torchs(positive):
    logits, labels = sets()
    loss = bce(LossSettings(), LossFacts(class_weights=WEIGHTS, pos_weight=positive, multi_label=True))
    expected = functional.binary_cross_entropy_with_logits(
        logits, labels.float(), WEIGHTS, pos_weight=positive, reduction="sum"
    )
    assert_same(with_gradient(loss(logits, labels), logits), with_gradient(expected, logits))


def test_smoothing_spreads_over_the_classes_of_one_label_and_over_yes_and_no_of_each_of_a_set():
    logits, labels, probabilities = case()
    binary = functional.binary_cross_entropy_with_logits
    for targets, dense in ((labels, torch.eye(6)[labels]), (probabilities, probabilities)):
        loss = bce(LossSettings(label_smoothing=0.1), LossFacts())(logits, targets)
        expected = binary(logits, 0.9 * dense + 0.1 / 6, reduction="sum")
        assert_same(with_gradient(loss, logits), with_gradient(expected, logits))
    logits, chosen = sets()
    loss = bce(LossSettings(label_smoothing=0.1), SETS)(logits, chosen)
    expected = binary(logits, 0.9 * chosen.float() + 0.05, reduction="sum")
    assert_same(with_gradient(loss, logits), with_gradient(expected, logits))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_of_sets_is_torchvisions(gamma):
    logits, labels = sets()
    loss = focal(LossSettings(gamma=gamma), SETS)(logits, labels)
    expected = sigmoid_focal_loss(logits, labels.float(), alpha=-1, gamma=gamma, reduction="sum")
    assert_same(with_gradient(loss, logits), with_gradient(expected, logits))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_focal_loss_of_one_label_follows_the_formula(weights, smoothing):
    logits, labels, probabilities = case()
    loss = focal(LossSettings(gamma=2.0, label_smoothing=smoothing), LossFacts(class_weights=weights))
    for targets, dense in ((labels, torch.eye(6)[labels]), (probabilities, probabilities)):
        shares, answers = (1 - smoothing) * dense + smoothing / 6, logits.softmax(1)
        terms = -shares * (1 - answers) ** 2 * answers.log() * (1 if weights is None else weights)
        assert_same(with_gradient(loss(logits, targets), logits), with_gradient(terms.sum(), logits))
    plain = focal(LossSettings(gamma=0.0), LossFacts())(logits, labels)
    assert_same(with_gradient(plain, logits), with_gradient(Loss()(logits, labels), logits))


def test_the_asymmetric_loss_is_that_of_its_authors():
    losses = pytest.importorskip("timm.loss")
    logits, labels = sets()
    loss = asymmetric(LossSettings(), SETS)(logits, labels)
    theirs = losses.AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=1, clip=0.05, reduction="sum")
    expected = theirs(logits, labels.float())
    assert_same(with_gradient(loss, logits), with_gradient(expected, logits))


@pytest.mark.parametrize("make", [focal, bce, asymmetric])
def test_what_is_certain_has_a_finite_gradient(make):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    targets = torch.tensor([[True, False], [True, False]])
    settings = LossSettings(gamma=0.5, gamma_pos=0.5, gamma_neg=0.5)
    for facts, labels in ((SETS, targets), (LossFacts(), torch.tensor([0, 0]))):
        loss, gradient = with_gradient(make(settings, facts)(logits, labels), logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_positive_weights_are_those_without_by_those_with_a_number_names_or_a_list():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]).bool()
    names = CLASSES[:3]
    assert pos_weight(LossSettings(pos_weight="balanced"), labels, names).tolist() == pytest.approx([1 / 3, 3.0, 1.0])
    assert pos_weight(LossSettings(pos_weight=2), labels, names).tolist() == [2.0, 2.0, 2.0]
    assert pos_weight(LossSettings(pos_weight={"c": 1, "a": 2, "b": 3}), labels, names).tolist() == [2.0, 3.0, 1.0]
    assert pos_weight(LossSettings(pos_weight=[1, 2, 3]), labels, names).tolist() == [1.0, 2.0, 3.0]
    assert pos_weight(LossSettings(), labels, names) is None
    with pytest.raises(ConfigError, match=r"^loss\.pos_weight: 2 numbers for 3 classes"):
        pos_weight(LossSettings(pos_weight=[1, 2]), labels, names)
