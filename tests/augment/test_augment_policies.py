"""The policies, image by image against torchvision.transforms.v2 with the same draws, and what is drawn."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as reference
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import InterpolationMode

from cnntrain.augment import layout
from cnntrain.augment.augmix import AugMix
from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.policies import autoaugment, build_policies, randaugment, trivialaugment
from cnntrain.augment.sampling import PLACES, Chooser, Draws, perform
from cnntrain.augment.spaces import AUGMIX, AUTOAUGMENT, OPERATIONS, PAIRS, RANDAUGMENT, TRIVIALAUGMENT
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.pieces import (
    AugMixSettings,
    AutoAugmentSettings,
    Policy,
    RandAugmentSettings,
    Resampling,
    TrivialAugmentSettings,
)

pytestmark = pytest.mark.usefixtures("plain_products")

BLENDS = {"Brightness", "Color", "Contrast", "Sharpness"}
SPACES = [
    (AUTOAUGMENT, reference.AutoAugment, 10),
    (RANDAUGMENT, reference.RandAugment, 31),
    (TRIVIALAUGMENT, reference.TrivialAugmentWide, 31),
    (AUGMIX, reference.AugMix, 10),
]
DRAWS = {
    "imagenet": autoaugment(Policy.imagenet),
    "cifar10": autoaugment(Policy.cifar10),
    "randaugment": randaugment(RandAugmentSettings(n=3, m=9)),
    "scattered": randaugment(RandAugmentSettings(n=2, m=20, spread=8)),
    "trivialaugment": trivialaugment,
}
POLICIES = {
    "autoaugment": AugmentSettings(autoaugment=AutoAugmentSettings()),
    "randaugment": AugmentSettings(randaugment=RandAugmentSettings()),
    "trivialaugment": AugmentSettings(trivialaugment=TrivialAugmentSettings()),
    "augmix": AugmentSettings(augmix=AugMixSettings()),
    "augmix with jsd": AugmentSettings(augmix=AugMixSettings(jsd=12.0)),
}


def context(seed: int = 0, epoch: int = 0, batch: int = 0) -> BatchContext:
    return BatchContext(torch.device("cpu"), seed, epoch, batch, image_size=16, indices=torch.arange(1))


def pictures(count: int, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    """Noise; in every other image of low contrast and nearly grey, where rounding shows."""
    draw = torch.Generator().manual_seed(9)
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=draw)
    images[::2] = images[::2, :1] // 2 + images[::2] // 60
    return images


def expected(image: torch.Tensor, draws: Draws, at: int, interpolation: Resampling, fill: float) -> torch.Tensor:
    """What torchvision makes of one image (C, H, W) with the draws number `at`."""
    policy = reference.RandAugment(fill=fill)
    for operation, magnitude in zip(draws.operations[:, at], draws.magnitudes[:, at], strict=True):
        image = policy._apply_image_or_video_transform(
            image, OPERATIONS[operation], float(magnitude), InterpolationMode(interpolation.value), policy._fill
        )
    return image


def check(images: torch.Tensor, draws: Draws, interpolation: Resampling, fill: float) -> None:
    before = images.clone()
    result = perform(images, draws, context(), interpolation=interpolation, fill=fill)
    for index in range(len(images)):
        wanted = expected(before[index].contiguous(), draws, index, interpolation, fill)
        assert torch.equal(result[index], wanted), [OPERATIONS[operation] for operation in draws.operations[:, index]]
    assert torch.equal(images, before)
    assert result.dtype == torch.uint8
    assert result.is_contiguous() == images.is_contiguous()


@pytest.mark.parametrize(("interpolation", "fill"), [(Resampling.nearest, 0.0), (Resampling.bilinear, 128.0)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_equals_torchvision_at_every_magnitude_and_sign(name, interpolation, fill):
    magnitudes = []
    for space, _, levels in SPACES:
        if name in space:
            row = Chooser(space, levels).table(20, 16)[PLACES[name]]
            magnitudes += [np.rint(row) if name == "Posterize" else row, *([-row] if space[name].signed else [])]
    values = np.unique(np.concatenate(magnitudes))[None]
    draws = Draws(np.full(values.shape, PLACES[name]), values)
    check(pictures(values.size, height=20), draws, interpolation, fill)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", DRAWS)
def test_policies_equal_torchvision_with_the_same_draws(name, channels, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = pictures(100, channels, 15, 18).to(memory_format=layout)
    draws = DRAWS[name](100, (15, 18), np.random.default_rng(3))
    check(images, draws, Resampling.nearest, 0.0)


@pytest.mark.parametrize(("space", "policy", "levels"), SPACES)
def test_magnitudes_are_torchvisions_at_any_image_size(space, policy, levels):
    theirs = policy._AUGMENTATION_SPACE
    assert set(space) == set(theirs)
    chooser = Chooser(space, levels)
    for height, width in [(32, 32), (28, 31), (160, 224), (299, 384)]:
        for name, (magnitudes, signed) in theirs.items():
            wanted = magnitudes(levels, height, width)
            wanted = torch.zeros(levels) if wanted is None else wanted
            operations = np.full((1, levels), PLACES[name])
            draws = chooser.draws(operations, np.arange(float(levels))[None], (height, width), np.random.default_rng(0))
            assert np.array_equal(np.abs(draws.magnitudes[0]), wanted.double().numpy()), name
            assert space[name].signed == signed


@pytest.mark.parametrize(("policy", "theirs"), [(Policy.imagenet, "imagenet"), (Policy.cifar10, "cifar10")])
def test_autoaugments_pairs_are_torchvisions(policy, theirs):
    pairs = reference.AutoAugment(reference.AutoAugmentPolicy(theirs))._policies
    assert PAIRS[policy] == [tuple((name, p, level or 0) for name, p, level in pair) for pair in pairs]


def shares(operations: np.ndarray) -> dict[str, float]:
    return {name: float((operations == place).mean()) for name, place in PLACES.items()}


@pytest.mark.parametrize(("draw", "space"), [(DRAWS["randaugment"], RANDAUGMENT), (trivialaugment, TRIVIALAUGMENT)])
def test_all_operations_are_equally_likely_and_half_of_the_signs_negative(draw, space):
    draws = draw(20_000, (32, 32), np.random.default_rng(0))
    for name, share in shares(draws.operations).items():
        assert abs(share - (name in space) / len(space)) < 0.01, name
    for name, item in space.items():
        magnitudes = draws.magnitudes[(draws.operations == PLACES[name]) & (draws.magnitudes != 0)]
        assert not item.signed or abs((magnitudes < 0).mean() - 0.5) < 0.07, name
        assert item.signed or (magnitudes >= 0).all(), name


@pytest.mark.parametrize("policy", Policy)
def test_autoaugment_does_each_operation_as_often_as_its_pairs_say(policy):
    draws = autoaugment(policy)(40_000, (32, 32), np.random.default_rng(0))
    for turn in range(2):
        found = shares(draws.operations[turn])
        for name in AUTOAUGMENT:
            wanted = sum(pair[turn][1] for pair in PAIRS[policy] if pair[turn][0] == name) / 25
            assert abs(found[name] - wanted) < 0.01, name


def test_trivialaugment_uses_all_levels_and_randaugment_one():
    draws = trivialaugment(30_000, (32, 32), np.random.default_rng(0))
    rotations = np.abs(draws.magnitudes[draws.operations == PLACES["Rotate"]])
    assert np.unique(np.rint(rotations / 4.5)).tolist() == list(range(31))
    draws = randaugment(RandAugmentSettings(m=10))(3000, (32, 32), np.random.default_rng(0))
    assert np.unique(np.abs(draws.magnitudes[draws.operations == PLACES["Rotate"]])).tolist() == [10.0]


@pytest.mark.parametrize(("m", "rotation", "shift", "bits"), [(0.0, 0.0, 0.0, 8.0), (30.0, 30.0, 14.5, 4.0)])
def test_randaugment_reaches_from_nothing_to_the_strongest_magnitude(m, rotation, shift, bits):
    draws = randaugment(RandAugmentSettings(m=m))(3000, (32, 32), np.random.default_rng(0))
    for name, value in {"Rotate": rotation, "TranslateX": shift, "Posterize": bits, "Identity": 0.0}.items():
        assert np.allclose(np.abs(draws.magnitudes[draws.operations == PLACES[name]]), value, atol=0.01)


def test_spread_scatters_the_magnitude_about_m_within_its_range():
    spreads = []
    for spread in (0.0, 1.0, 4.0, 100.0):
        draws = randaugment(RandAugmentSettings(m=15, spread=spread))(20_000, (32, 32), np.random.default_rng(0))
        degrees = np.abs(draws.magnitudes[draws.operations == PLACES["Rotate"]])
        assert abs(degrees.mean() - 15) < 0.6
        assert degrees.min() >= 0
        assert degrees.max() <= 30
        spreads.append(degrees.std())
    assert spreads[0] == 0
    assert spreads[1:3] == pytest.approx([1.0, 4.0], rel=0.1)
    assert spreads[3] > 10


@pytest.mark.parametrize("name", POLICIES)
def test_a_moment_decides_all_and_each_moment_otherwise(name):
    ((called, operation),) = build_policies(POLICIES[name])
    assert called == name.split()[0]
    images = pictures(32)
    results = [
        operation(images, at) for at in (context(), context(), context(batch=1), context(epoch=1), context(seed=1))
    ]
    assert torch.equal(results[0], results[1])
    assert not any(torch.equal(results[0], result) for result in results[2:])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", POLICIES)
def test_a_single_image_and_any_layout_do(name, channels, channels_last):
    ((_, operation),) = build_policies(POLICIES[name])
    for count in (1, 2, 33):
        images = pictures(count, channels, 8, 9)
        wanted = operation(images, context())
        layout = torch.channels_last if channels_last else torch.contiguous_format
        result = operation(images.to(memory_format=layout), context())
        assert torch.equal(result, wanted)
        assert result.shape == (POLICIES[name].views * count, channels, 8, 9)
        assert result.is_contiguous(memory_format=layout)


def test_an_image_does_not_depend_on_its_neighbours():
    images = pictures(60)
    draws = randaugment(RandAugmentSettings(n=3, m=15))(60, (16, 16), np.random.default_rng(0))
    options: dict[str, Any] = {"interpolation": Resampling.nearest, "fill": 0.0}
    together = perform(images, draws, context(), **options)
    for part in (slice(7, 8), slice(20, 40)):
        alone = Draws(draws.operations[:, part], draws.magnitudes[:, part])
        assert torch.equal(perform(images[part], alone, context(), **options), together[part])


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_waits_for_the_device(name, monkeypatch):
    """Fake tensors have no values: whatever asks for one fails."""
    monkeypatch.setattr(layout, "launching_costs", lambda device: True)  # where the device is the host, some may ask
    ((_, operation),) = build_policies(POLICIES[name])
    operation(pictures(2), context())  # works out the magnitudes for this size
    with FakeTensorMode():
        images = torch.empty(64, 3, 16, 16, dtype=torch.uint8)
        assert operation(images, context()).shape == (64 * POLICIES[name].views, 3, 16, 16)


# --- AugMix --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        AugMixSettings(),
        AugMixSettings(severity=10, width=2, depth=2, alpha=0.5, all_ops=False, fill=128.0),
        AugMixSettings(severity=5, width=1, depth=1, interpolation=Resampling.nearest, jsd=12.0),
        AugMixSettings(jsd=1.0),
    ],
)
def test_augmix_equals_torchvisions_mixture_with_the_same_chains_and_weights(settings):
    images, count, width = pictures(24), 24, settings.width
    operation, at = AugMix(settings), context()
    draws = operation.draws(count, (16, 16), at.host)
    weights = torch.from_numpy(operation.weights(count, at.host)).float()
    result = operation(images, context())
    if settings.jsd:
        assert torch.equal(result[:count], images)
        result = result[count:]
    for place, mixed in enumerate(result):
        mixture, index = divmod(place, count)
        first, *others = weights[mixture, index]
        wanted = first * images[index]
        for chain, weight in enumerate(others):
            at_chain = (mixture * width + chain) * count + index
            wanted.add_(weight * expected(images[index], draws, at_chain, settings.interpolation, settings.fill))
        assert torch.equal(mixed, wanted.to(torch.uint8))


def test_augmix_chains_have_one_to_three_operations_or_the_depth_asked_for():
    draws = AugMix(AugMixSettings()).draws(5000, (16, 16), np.random.default_rng(0))
    depths = (draws.operations != PLACES["Identity"]).sum(0)
    assert np.bincount(depths, minlength=4) / len(depths) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.02)
    assert (draws.operations[0] != PLACES["Identity"]).all()
    draws = AugMix(AugMixSettings(depth=4, width=2, jsd=1.0)).draws(10, (16, 16), np.random.default_rng(0))
    assert draws.operations.shape == (4, 2 * 2 * 10)
    assert (draws.operations != PLACES["Identity"]).all()


@pytest.mark.parametrize("all_ops", [True, False])
def test_augmix_draws_all_its_operations_up_to_its_severity(all_ops):
    settings = AugMixSettings(severity=4, depth=1, all_ops=all_ops)
    draws = AugMix(settings).draws(10_000, (16, 16), np.random.default_rng(0))
    space = {name for name in AUGMIX if all_ops or name not in BLENDS}
    for name, share in shares(draws.operations).items():
        assert abs(share - (name in space) / len(space)) < 0.01, name
    rotations = np.abs(draws.magnitudes[draws.operations == PLACES["Rotate"]])
    assert np.unique(np.rint(rotations)).tolist() == [0, 3, 7, 10]


def test_augmix_weights_are_those_of_the_paper():
    for alpha in (0.2, 1.0, 8.0):
        settings = AugMixSettings(alpha=alpha, width=4, jsd=1.0)
        weights = AugMix(settings).weights(20_000, np.random.default_rng(0))
        assert weights.shape == (2, 20_000, 5)
        assert np.allclose(weights.sum(2), 1)
        assert weights.mean((0, 1)) == pytest.approx([0.5] + [0.125] * 4, abs=0.01)
        assert weights[:, :, 0].var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.05)
        chains = weights[:, :, 1] / weights[:, :, 1:].sum(2)
        assert chains.var() == pytest.approx(0.1875 / (4 * alpha + 1), rel=0.05)


def test_the_two_mixtures_of_an_image_differ():
    images = pictures(16)
    _, first, second = AugMix(replace(AugMixSettings(), jsd=12.0))(images, context()).split(16)
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))
