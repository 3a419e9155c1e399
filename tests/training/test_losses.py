"""The loss against torch's own and against formulas written out; class weights against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from cnntrain.config.schema.loss import LossSettings
from cnntrain.errors import ConfigError
from cnntrain.training.class_weights import class_weights
from cnntrain.training.losses import Loss, jensen_shannon

CLASSES = list("abcdef")
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0, 0.0])


def case(count: int = 7, versions: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits that want a gradient, labels and probabilities."""
    generator = torch.Generator().manual_seed(count)
    logits = torch.randn(versions * count, 6, generator=generator) * 3
    probabilities = torch.rand(count, 6, generator=generator).softmax(1)
    return logits.requires_grad_(), torch.randint(6, (count,), generator=generator), probabilities


def with_gradient(loss: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return loss, torch.autograd.grad(loss, logits)[0]


def assert_same(mine, expected) -> None:
    for value, wanted in zip(mine, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_labels_without_weights_give_the_bits_of_torchs_cross_entropy(count, smoothing, dtype):
    logits, labels, _ = case(count)
    logits = logits.detach().to(dtype).requires_grad_()
    expected = functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="sum")
    mine = Loss(smoothing)(logits, labels)
    assert mine.dtype == torch.float32
    for value, wanted in zip(with_gradient(mine, logits), with_gradient(expected, logits), strict=True):
        assert torch.equal(value, wanted)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_probabilities_weights_and_smoothing_follow_the_formula(count, smoothing, weights):
    logits, labels, probabilities = case(count)
    loss = Loss(smoothing, weights)
    for targets, dense in ((labels, torch.eye(6)[labels]), (probabilities, probabilities)):
        smooth = (1 - smoothing) * dense + smoothing / 6
        terms = -logits.log_softmax(1) * smooth * (1 if weights is None else weights)
        assert_same(with_gradient(loss(logits, targets), logits), with_gradient(terms.sum(), logits))


def test_micro_batches_add_up_to_the_whole():
    logits, _, probabilities = case(7)
    for loss in (Loss(), Loss(0.1, WEIGHTS)):
        parts = sum(loss(*part) for part in zip(logits.split(3), probabilities.split(3), strict=True))
        torch.testing.assert_close(parts, loss(logits, probabilities))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_jsd_equals_the_plain_formula_on_top_of_the_clean_cross_entropy(count):
    logits, labels, _ = case(count, versions=3)
    clean, first, second = (part.softmax(1) for part in logits.split(count))
    mean = ((clean + first + second) / 3).clamp(1e-7, 1).log()
    divergence = sum(functional.kl_div(mean, part, reduction="sum") for part in (clean, first, second)) / 3
    expected = functional.cross_entropy(logits[:count], labels, WEIGHTS, reduction="sum") + 12 * divergence
    mine = Loss(class_weights=WEIGHTS, jsd=12.0)(logits, labels)
    assert_same(with_gradient(mine, logits), with_gradient(expected, logits))


def test_the_divergence_is_0_for_equal_outputs_and_log_3_at_most_and_stays_finite():
    same = torch.randn(4, 6).repeat(3, 1)
    assert abs(jensen_shannon(same)) < 1e-6
    sure = torch.full((3, 6), -1e4).fill_diagonal_(1e4).requires_grad_()
    value, gradient = with_gradient(jensen_shannon(sure), sure)
    assert value.item() == pytest.approx(math.log(3))
    assert gradient.isfinite().all()


LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [3] * 4 + [4] * 1 + [5] * 100)
COUNTS = torch.bincount(LABELS)


def weights_of(labels: torch.Tensor = LABELS, **settings) -> torch.Tensor:
    result = class_weights(LossSettings(**settings), labels, CLASSES)
    assert result is not None
    assert result.dtype == torch.float32
    assert result[labels].mean().item() == pytest.approx(1, rel=1e-5)
    return result


def test_balanced_weights_are_scikit_learns():
    expected = compute_class_weight("balanced", classes=np.arange(6), y=LABELS.numpy())
    assert weights_of(class_weights="balanced").tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_effective_weights_are_in_the_ratio_of_the_paper(beta):
    mine = weights_of(class_weights="effective", beta=beta)
    expected = torch.tensor([(1 - beta) / (1 - beta**count) for count in COUNTS.tolist()])
    torch.testing.assert_close(mine / mine[0], expected / expected[0])


def test_the_effective_number_lies_between_no_weights_and_balanced_ones():
    assert weights_of(class_weights="effective", beta=0.0).tolist() == [1.0] * 6
    near = weights_of(class_weights="effective", beta=1 - 1e-9)
    torch.testing.assert_close(near, weights_of(class_weights="balanced"), rtol=1e-5, atol=0)


def test_weights_from_the_user_keep_their_ratios():
    mine = weights_of(class_weights=[1, 2, 3, 4, 5, 6.5])
    torch.testing.assert_close(mine / mine[0], torch.tensor([1, 2, 3, 4, 5, 6.5]))


@pytest.mark.parametrize("wish", ["balanced", "effective"])
def test_a_class_without_images_weighs_nothing_and_disturbs_no_other(wish):
    without = LABELS[LABELS != 2]
    mine, among_five = weights_of(without, class_weights=wish), [0, 1, 3, 4, 5]
    assert mine[2] == 0
    assert mine.isfinite().all()
    five = class_weights(LossSettings(class_weights=wish), torch.where(without > 2, without - 1, without), CLASSES[:5])
    torch.testing.assert_close(mine[among_five], five)


def test_no_weights_are_none_and_a_wrong_count_is_a_config_error():
    assert class_weights(LossSettings(), LABELS, CLASSES) is None
    with pytest.raises(
        ConfigError, match=r"^loss\.class_weights: 2 numbers for 6 classes; give 6, .* a, b, c, d, e, f$"
    ):
        class_weights(LossSettings(class_weights=[1.0, 2.0]), LABELS, CLASSES)
    with pytest.raises(ConfigError, match=r"2 numbers for 100 classes; .* 0, 1, 2, \.\.\., 99$"):
        class_weights(LossSettings(class_weights=[1.0, 2.0]), LABELS, [str(number) for number in range(100)])


def test_weights_by_name_are_those_in_the_order_of_the_classes():
    classes = ["1", "10", "2"]
    labels = torch.tensor([0, 1, 1, 2])
    named = class_weights(LossSettings(class_weights={2: 5, "1": 1, "10": 3}), labels, classes)
    assert torch.equal(named, class_weights(LossSettings(class_weights=[1, 3, 5]), labels, classes))
    assert class_weights(LossSettings(class_weights={True: 1, None: 1}), labels[:1], ["true", "null"]).tolist() == [
        1,
        1,
    ]
    for wish, told in (
        ({"1": 1, "10": 1, "20": 4}, r"no class '20' \(given 4\); did you mean 2\?"),
        ({"1": 1, "10": 1, "zebra": 4}, r"no class 'zebra' \(given 4\); there are 1, 10, 2"),
        ({"1": 1}, r"no weight for 10, 2; give one to every class"),
    ):
        with pytest.raises(ConfigError, match=rf"^loss\.class_weights: {told}"):
            class_weights(LossSettings(class_weights=wish), labels, classes)


def test_nothing_waits_for_the_device():
    """Fake tensors have no values: whatever asks for one fails."""
    with FakeTensorMode():
        for targets in (torch.empty(4, dtype=torch.int64), torch.empty(4, 6)):
            assert Loss(0.1, torch.empty(6), 12.0)(torch.empty(12, 6), targets).shape == ()
