"""mixup and CutMix against torchvision, and the weights of labels against the pixels."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as theirs
from torch._subclasses.fake_tensor import FakeTensorMode

from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.mix import Mix, cutmix_boxes
from cnntrain.config.schema.augment import AugmentSettings, MixMode, MixSettings
from cnntrain.config.schema.pieces import CutmixSettings, MixupSettings

MODES = list(MixMode)
LAYOUTS = [torch.contiguous_format, torch.channels_last]
KINDS: dict[str, dict[str, Any]] = {
    "mixup": {"mixup": MixupSettings(0.8)},
    "cutmix": {"cutmix": CutmixSettings(1.0)},
    "both": {"mixup": MixupSettings(0.8), "cutmix": CutmixSettings(1.0)},
    "extremes": {"cutmix": CutmixSettings(0.01)},  # boxes of nothing and of everything
}


def context(batch: int = 0, epoch: int = 0) -> BatchContext:
    return BatchContext(torch.device("cpu"), 3, epoch, batch, image_size=12, indices=torch.arange(8))


def batch_of(count: int, layout=torch.contiguous_format) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 3, 12, 10, generator=generator).contiguous(memory_format=layout)
    return inputs, torch.randint(5, (count,), generator=generator)


def build(kind: str = "both", classes: int = 5, **shared) -> Mix:
    return Mix(AugmentSettings(**KINDS[kind], mix=MixSettings(**shared)), classes)


def mixed(mix: Mix, inputs: torch.Tensor, labels: torch.Tensor, at: BatchContext) -> tuple[torch.Tensor, torch.Tensor]:
    return mix(inputs.clone(), labels, at)


def reference(inputs, labels, weight: float, box: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """torchvision's MixUp where the weight of the partner is below 1, else its CutMix."""
    top, bottom, left, right = box
    share = (bottom - top) * (right - left) / (inputs.shape[2] * inputs.shape[3])
    transform = theirs.MixUp(num_classes=5) if weight < 1 else theirs.CutMix(num_classes=5)
    transform.make_params = lambda _: {
        "lam": 1 - weight,
        "box": (left, top, right, bottom),
        "lam_adjusted": 1 - share,
    }
    return transform(inputs, labels)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_batch_mode_is_torchvisions_with_the_same_weight_and_box(kind, count, layout):
    inputs, labels = batch_of(count, layout)
    mix = build(kind)
    for batch in range(20):
        weights, boxes = mix.draw(1, 12, 10, context(batch).host)
        assert (weights[0] == 1) == (kind == "cutmix")
        expected = reference(inputs, labels, weights[0], boxes[0].tolist())
        result = mixed(mix, inputs, labels, context(batch))
        for mine, wanted in zip(result, expected, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_element_mode_mixes_each_image_as_torchvision_would_mix_all(count, layout):
    inputs, labels = batch_of(count, layout)
    mix = build(mode=MixMode.element)
    for batch in range(10):
        weights, boxes = mix.draw(count, 12, 10, context(batch).host)
        result, targets = mixed(mix, inputs, labels, context(batch))
        for index in range(count):
            expected = reference(inputs, labels, weights[index], boxes[index].tolist())
            torch.testing.assert_close(result[index], expected[0][index], rtol=0, atol=1e-6)
            torch.testing.assert_close(targets[index], expected[1][index], rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_pair_mode_swaps_the_same_part_between_two_images(kind, count, layout):
    inputs, labels = batch_of(count, layout)
    mix, one_hot = build(kind, mode=MixMode.pair), torch.eye(5)[labels]
    for batch in range(10):
        weights, boxes = mix.draw(count // 2, 12, 10, context(batch).host)
        result, targets = mixed(mix, inputs, labels, context(batch))
        for first, (weight, box) in enumerate(zip(weights, boxes.tolist(), strict=True)):
            pair = torch.tensor([first, count - 1 - first])
            expected = reference(inputs[pair], labels[pair], weight, box)
            torch.testing.assert_close(result[pair], expected[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(targets[pair], expected[1], rtol=0, atol=1e-6)
        # What one image gives, the other takes.
        torch.testing.assert_close(result + result.flip(0), inputs + inputs.flip(0), rtol=0, atol=1e-5)
        if count % 2:
            assert torch.equal(result[count // 2], inputs[count // 2])
            assert torch.equal(targets[count // 2], one_hot[count // 2])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 7, 16])
def test_the_weight_of_a_label_is_the_share_of_its_image(count, kind, mode, layout):
    values = torch.arange(count).float()
    inputs = values.view(-1, 1, 1, 1).expand(count, 3, 12, 10).contiguous(memory_format=layout)
    for batch in range(10):
        result, targets = mixed(build(kind, count, mode=mode), inputs, torch.arange(count), context(batch))
        torch.testing.assert_close(result.mean((1, 2, 3)), targets @ values)
        torch.testing.assert_close(targets.sum(1), torch.ones(count))
        assert (targets >= 0).all()
        assert ((targets > 0).sum(1) <= 2).all()


@pytest.mark.parametrize("mode", MODES)
def test_two_images_of_one_class_make_a_whole_label(mode):
    inputs, _ = batch_of(6)
    _, targets = mixed(build(mode=mode), inputs, torch.full((6,), 3), context())
    assert torch.equal(targets, torch.eye(5)[[3] * 6])


@pytest.mark.parametrize(("lam", "x", "y"), [(0.3, 0, 0), (0.5, 9, 11), (0.77, 4, 6), (0.0, 3, 2), (1.0, 5, 5)])
def test_a_box_is_torchvisions_with_the_same_draws(lam, x, y, monkeypatch):
    transform = theirs.CutMix(num_classes=5)
    transform._dist = SimpleNamespace(sample=lambda _: lam)
    draws = iter([torch.tensor([x]), torch.tensor([y])])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(draws))
    left, top, right, bottom = transform.make_params([torch.zeros(2, 3, 12, 10)])["box"]
    host: Any = SimpleNamespace(integers=lambda high, size: np.full(size, {12: y, 10: x}[high]))
    assert cutmix_boxes(np.array([1 - lam]), 12, 10, host).tolist() == [[top, bottom, left, right]]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_mixed_comes_back_as_it_was(mode):
    for count, shared, epoch in ((1, {}, 0), (6, {"p": 0.0}, 0), (6, {"off_epoch": 3}, 3), (6, {"off_epoch": 3}, 9)):
        inputs, labels = batch_of(count)
        before = inputs.clone()
        result, targets = build(mode=mode, **shared)(inputs, labels, context(epoch=epoch))
        assert result is inputs
        assert targets is labels
        assert torch.equal(inputs, before)
    inputs, labels = batch_of(6)
    assert build(mode=mode, off_epoch=3)(inputs, labels, context(epoch=2))[1].shape == (6, 5)


@pytest.mark.parametrize("mode", [MixMode.pair, MixMode.element])
def test_p_is_the_share_of_mixed_images_and_the_others_keep_their_bits(mode):
    inputs, labels = batch_of(1000)
    result, targets = mixed(build("mixup", mode=mode, p=0.3), inputs, labels, context())
    same = (result == inputs).flatten(1).all(1)
    assert 0.64 < same.float().mean() < 0.76
    assert torch.equal(targets[same], torch.eye(5)[labels[same]])


def test_in_batch_mode_p_is_the_share_of_mixed_micro_batches():
    inputs, labels = batch_of(4)
    whole = sum(mixed(build(p=0.3), inputs, labels, context(batch))[1].ndim == 2 for batch in range(400))
    assert 90 < whole < 150


def test_switch_p_is_the_share_of_cutmix():
    for switch_p, low, high in ((0.0, 0, 0), (0.2, 160, 240), (1.0, 1000, 1000)):
        weights, boxes = build(switch_p=switch_p).draw(1000, 12, 10, np.random.default_rng(0))
        cut = weights == 1
        assert low <= cut.sum() <= high
        assert (boxes[~cut] == [0, 12, 0, 10]).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_weights_follow_the_beta_distribution(alpha):
    mix = Mix(AugmentSettings(mixup=MixupSettings(alpha)), 5)
    weights, _ = mix.draw(20000, 12, 10, np.random.default_rng(0))
    assert weights.mean() == pytest.approx(0.5, abs=0.01)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("mode", MODES)
def test_the_moment_alone_decides_in_either_layout_which_stays(mode, count):
    mix, (inputs, labels) = build(mode=mode), batch_of(count)
    first, targets = mixed(mix, inputs, labels, context(1))
    for layout in LAYOUTS:
        torch.manual_seed(99)
        laid_out = inputs.clone(memory_format=layout)
        again, same_targets = mix(laid_out, labels, context(1))
        assert again.data_ptr() == laid_out.data_ptr()
        assert again.is_contiguous(memory_format=layout)
        assert torch.equal(again, first)
        assert torch.equal(same_targets, targets)
    assert not torch.equal(mixed(mix, inputs, labels, context(2))[0], first)
    assert targets.dtype == torch.float32


def test_nothing_waits_for_the_device():
    """Fake tensors have no values: whatever asks for one fails."""
    with FakeTensorMode():
        for mode in MODES:
            inputs, labels = torch.empty(7, 3, 12, 10), torch.empty(7, dtype=torch.int64)
            assert build(mode=mode)(inputs, labels, context())[1].shape == (7, 5)
