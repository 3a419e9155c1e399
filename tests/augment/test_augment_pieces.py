"""Single pieces, image by image against torchvision's functions, and what is drawn for them."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import InterpolationMode

from cnntrain.augment import color, layout
from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.pieces import affine_draws, build_affine, build_color, jitter_draws
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.pieces import (
    AffineSettings,
    AutocontrastSettings,
    BlurSettings,
    ColorJitterSettings,
    EqualizeSettings,
    GrayscaleSettings,
    InvertSettings,
    PosterizeSettings,
    Resampling,
    SharpnessSettings,
    SolarizeSettings,
)
from cnntrain.errors import ConfigError

pytestmark = pytest.mark.usefixtures("plain_products")

PIECES: dict[str, tuple[Any, Any]] = {
    "grayscale": (GrayscaleSettings(p=0.3), lambda image: reference.rgb_to_grayscale(image, num_output_channels=3)),
    "invert": (InvertSettings(p=0.3), reference.invert),
    "posterize": (PosterizeSettings(bits=3, p=0.3), lambda image: reference.posterize(image, 3)),
    "solarize": (SolarizeSettings(threshold=99.5, p=0.3), lambda image: reference.solarize(image, 99.5)),
    "equalize": (EqualizeSettings(p=0.3), reference.equalize),
    "autocontrast": (AutocontrastSettings(p=0.3), reference.autocontrast),
    "sharpness": (SharpnessSettings(factor=1.7, p=0.3), lambda image: reference.adjust_sharpness(image, 1.7)),
    "blur": (
        BlurSettings(kernel_size=5, sigma=[0.8, 0.8], p=0.3),
        lambda image: reference.gaussian_blur(image, [5, 5], [0.8, 0.8]),
    ),
}
LAYOUTS = [torch.contiguous_format, torch.channels_last]
JITTER = ColorJitterSettings(brightness=0.4, contrast=1.5, saturation=0.7, hue=0.5)


def context(batch: int = 0) -> BatchContext:
    return BatchContext(torch.device("cpu"), 0, 0, batch, image_size=16, indices=torch.arange(1))


def pictures(count: int, channels: int = 3, height: int = 20, width: int = 24) -> torch.Tensor:
    """Noise of moderate contrast, which every operation changes."""
    draw = torch.Generator().manual_seed(9)
    return torch.randint(20, 230, (count, channels, height, width), dtype=torch.uint8, generator=draw)


def build(channels: int = 3, image_size: int = 20, **pieces):
    return build_color(AugmentSettings(**pieces), channels, image_size)


# --- colour --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PIECES)
def test_a_piece_changes_its_share_of_the_images_as_torchvision_does_and_no_other(name, layout):
    settings, theirs = PIECES[name]
    ((called, operation),) = build(**{name: settings})
    images = pictures(400).to(memory_format=layout)
    before = images.clone()
    result = operation(images, context())
    changed = (result != before).flatten(1).any(1)
    assert called == name
    assert 0.22 < changed.float().mean() < 0.38
    for index in changed.nonzero().flatten()[:40]:
        assert torch.equal(result[index], theirs(before[index].contiguous()))
    assert torch.equal(images, before)
    assert result.is_contiguous(memory_format=layout)
    assert torch.equal(operation(images, context()), result)
    assert not torch.equal(operation(images, context(batch=1)), result)


@pytest.mark.parametrize("name", PIECES)
def test_never_and_always_and_a_single_image(name):
    settings, theirs = PIECES[name]
    images = pictures(20)
    settings = type(settings)(**{**vars(settings), "p": 0.0})
    ((_, operation),) = build(**{name: settings})
    assert operation(images, context()).data_ptr() == images.data_ptr()
    settings = type(settings)(**{**vars(settings), "p": 1.0})
    ((_, operation),) = build(**{name: settings})
    assert torch.equal(operation(images, context()), torch.stack([theirs(image) for image in images]))
    assert torch.equal(operation(images[3:4], context()), theirs(images[3:4]))


def test_pieces_come_in_the_order_of_the_settings_and_leave_grey_images_grey():
    settings: dict[str, Any] = {name: item for name, (item, _) in reversed(PIECES.items())}
    assert [name for name, _ in build(color_jitter=JITTER, **settings)] == ["color_jitter", *PIECES]
    del settings["grayscale"]
    for _, operation in build(1, color_jitter=ColorJitterSettings(brightness=0.5, contrast=0.5), **settings):
        assert operation(pictures(30, 1), context()).shape == (30, 1, 20, 24)
    assert build() == []


def test_blur_draws_the_spread_of_each_image():
    ((_, operation),) = build(blur=BlurSettings(kernel_size=3, sigma=[0.3, 3.0], p=1.0))
    images = pictures(30)
    sigmas = context().host.uniform(0.3, 3.0, 30)
    result = operation(images, context())
    for image, sigma, blurred in zip(images, sigmas, result, strict=True):
        wanted = reference.gaussian_blur(image, [3, 3], [float(sigma)] * 2)
        assert (blurred.int() - wanted.int()).abs().max() <= 1
    assert 0.3 < sigmas.min() < 0.7
    assert 2.6 < sigmas.max() < 3.0


@pytest.mark.parametrize(
    ("pieces", "named"),
    [
        ({"grayscale": GrayscaleSettings()}, "augment.grayscale: does nothing"),
        ({"color_jitter": ColorJitterSettings(saturation=0.3)}, "saturation does nothing .* augment.color_jitter=null"),
        ({"color_jitter": ColorJitterSettings(contrast=0.3, hue=0.1)}, "hue does nothing .*color_jitter.hue=0"),
        ({"color_jitter": ColorJitterSettings(0.4, 0, 0.4, 0.1)}, "saturation and hue do nothing .*ation=0 .*hue=0"),
    ],
)
def test_a_piece_without_effect_on_grey_images_is_refused(pieces, named):
    with pytest.raises(ConfigError, match=named):
        build(1, **pieces)
    assert len(build(3, **pieces)) == 1


def test_a_blur_wider_than_the_images_is_refused():
    with pytest.raises(ConfigError, match=r"augment.blur.kernel_size: 9 .* odd number up to 7"):
        build(image_size=4, blur=BlurSettings(kernel_size=9))
    ((_, operation),) = build(image_size=4, blur=BlurSettings(kernel_size=7, p=1.0))
    assert operation(pictures(2, 3, 4, 4), context()).shape == (2, 3, 4, 4)


def test_nothing_waits_for_the_device(monkeypatch):
    """Fake tensors have no values: whatever asks for one fails."""
    for module in (color, layout):  # where the device is the host, some may ask
        monkeypatch.setattr(module, "launching_costs", lambda device: True)
    operations = build(color_jitter=JITTER, **{name: item for name, (item, _) in PIECES.items()})
    with FakeTensorMode():
        images = torch.empty(8, 3, 20, 24, dtype=torch.uint8)
        for operation in [build_affine(MOVES["all"]), *(operation for _, operation in operations)]:
            assert operation(images, context()).shape == images.shape


# --- color jitter --------------------------------------------------------------------------------------------------

ADJUST = {
    1: reference.adjust_brightness,
    2: reference.adjust_contrast,
    3: reference.adjust_saturation,
    4: reference.adjust_hue,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", [JITTER, ColorJitterSettings(contrast=0.4, hue=0.1), ColorJitterSettings(hue=0.2)])
def test_color_jitter_is_torchvisions_in_an_order_of_each_images_own(settings, layout):
    ((_, operation),) = build(color_jitter=settings)
    images = pictures(60).to(memory_format=layout)
    choices, factors = jitter_draws(settings, 60, context().host)
    result = operation(images, context())
    for index in range(60):
        wanted = images[index].contiguous()
        for choice, factor in zip(choices[:, index], factors[:, index], strict=True):
            wanted = ADJUST[int(choice)](wanted, float(factor))
        assert torch.equal(result[index], wanted)
    assert result.is_contiguous(memory_format=layout)


def test_color_jitter_draws_all_orders_equally_often_and_factors_from_their_ranges():
    choices, factors = jitter_draws(JITTER, 24_000, np.random.default_rng(0))
    orders = choices.T.tolist()
    counts = [orders.count(list(order)) for order in permutations([1, 2, 3, 4])]
    assert sum(counts) == 24_000
    assert min(counts) > 850
    for choice, low, high in [(1, 0.6, 1.4), (2, 0.0, 2.5), (3, 0.3, 1.7), (4, -0.5, 0.5)]:
        found = factors[choices == choice]
        assert low <= found.min() < low + 0.01
        assert high - 0.01 < found.max() <= high
        assert found.mean() == pytest.approx((low + high) / 2, abs=0.02)


def test_color_jitter_leaves_out_what_is_off_and_the_images_it_does_not_choose():
    choices, _ = jitter_draws(ColorJitterSettings(brightness=0.2, saturation=0.2), 100, np.random.default_rng(0))
    assert sorted(set(map(tuple, choices.T.tolist()))) == [(1, 3), (3, 1)]
    ((_, operation),) = build(color_jitter=ColorJitterSettings(brightness=0.9, contrast=0.9, p=0.3))
    images = pictures(400)
    changed = (operation(images, context()) != images).flatten(1).any(1)
    assert 0.22 < changed.float().mean() < 0.38


# --- affine --------------------------------------------------------------------------------------------------------

MOVES = {
    "all": AffineSettings(degrees=180, translate=0.3, scale=[0.5, 2.0], shear=30),
    "rotation": AffineSettings(degrees=20, interpolation=Resampling.nearest, fill=77.0),
    "shift": AffineSettings(translate=0.5, fill=128.0),
    "shear": AffineSettings(shear=40, scale=[1.5, 1.5], interpolation=Resampling.nearest),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MOVES)
def test_affine_is_torchvisions_with_the_same_draws(name, layout):
    settings = MOVES[name]
    images = pictures(60).to(memory_format=layout)
    draws = affine_draws(settings, 60, 20, 24, context().host)
    result = build_affine(settings)(images, context())
    for index in range(60):
        one = {key: float(values[index]) for key, values in draws.items()}
        wanted = reference.affine(
            images[index].contiguous(),
            angle=one["angle"],
            translate=[one["translate_x"], one["translate_y"]],
            scale=one["scale"],
            shear=[one["shear_x"], one["shear_y"]],
            interpolation=InterpolationMode(settings.interpolation.value),
            fill=[settings.fill],
        )
        assert torch.equal(result[index], wanted)
    assert result.is_contiguous(memory_format=layout)


def test_affine_draws_fill_their_ranges_and_translate_by_whole_pixels():
    draws = affine_draws(MOVES["all"], 20_000, 20, 41, np.random.default_rng(0))
    ranges = {
        "angle": (-180, 180),
        "translate_y": (-6, 6),
        "translate_x": (-12, 12),
        "scale": (0.5, 2),
        "shear_x": (-30, 30),
    }
    for name, (low, high) in ranges.items():
        assert low <= draws[name].min() < low + 0.02 * (high - low), name
        assert high - 0.02 * (high - low) < draws[name].max() <= high, name
        assert draws[name].mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low)), name
    assert (draws["translate_x"] == np.rint(draws["translate_x"])).all()
    assert (draws["shear_y"] == 0).all()
    assert all(abs(np.corrcoef(draws["angle"], draws[name])[0, 1]) < 0.03 for name in list(ranges)[1:])


def test_affine_moves_its_share_of_the_images_and_each_moment_others():
    operation = build_affine(AffineSettings(degrees=90, p=0.3))
    images = pictures(400)
    result = operation(images, context())
    changed = (result != images).flatten(1).any(1)
    assert 0.22 < changed.float().mean() < 0.38
    assert torch.equal(operation(images, context()), result)
    assert not torch.equal(operation(images, context(batch=1)), result)
    assert operation(images[:1], context()).shape == (1, 3, 20, 24)
    assert build_affine(AffineSettings(degrees=90, p=0.0))(images, context()).data_ptr() == images.data_ptr()
