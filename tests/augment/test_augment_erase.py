"""Noise and wiped-out boxes, against torchvision and against one image at a time."""

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as theirs
from torch._subclasses.fake_tensor import FakeTensorMode

from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.erase import build_noise, erasing_boxes
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.pieces import CutoutSettings, Fill, NoiseSettings, RandomErasingSettings
from cnntrain.runtime.seeds import mix_seed

CPU = torch.device("cpu")
MEAN = [0.49, 0.2, 0.9]
COLOR = torch.tensor([125, 51, 230], dtype=torch.uint8).view(3, 1, 1)  # the mean as bytes
PIECES = {
    "noise": AugmentSettings(noise=NoiseSettings(p=0.6)),
    "cutout": AugmentSettings(cutout=CutoutSettings(size=0.5, holes=2, p=0.6)),
    "erasing_mean": AugmentSettings(random_erasing=RandomErasingSettings(p=0.6)),
    "erasing_random": AugmentSettings(random_erasing=RandomErasingSettings(p=0.6, value=Fill.random)),
}
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def context(batch: int = 0) -> BatchContext:
    return BatchContext(CPU, 3, 1, batch, image_size=16, indices=torch.arange(8))


def pictures(count: int = 40, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def operation(settings: AugmentSettings, mean=MEAN):
    return build_noise(settings, mean)[0][1]


def test_the_pieces_come_in_the_order_of_the_stage():
    every = AugmentSettings(random_erasing=RandomErasingSettings(), cutout=CutoutSettings(), noise=NoiseSettings())
    assert [name for name, _ in build_noise(every, MEAN)] == ["noise", "cutout", "random_erasing"]
    assert build_noise(AugmentSettings(), MEAN) == []


def test_noise_is_torchvisions_on_the_scale_of_floats_rounded():
    images = pictures()
    result = operation(AugmentSettings(noise=NoiseSettings(sigma=0.3, p=1.0)))(images, context())
    torch.manual_seed(mix_seed(3, 1, 0))  # the generator of the context
    expected = (255 * theirs.functional.gaussian_noise(images / 255, 0.0, 0.3)).round()
    assert (result - expected).abs().max() <= 1
    assert (result == expected).float().mean() > 0.999
    assert result.min() == 0
    assert result.max() == 255


@pytest.mark.parametrize("layout", LAYOUTS)
def test_noise_has_its_spread_no_bias_and_touches_its_share_of_the_images(layout):
    grey = torch.full((400, 3, 16, 16), 128, dtype=torch.uint8).contiguous(memory_format=layout)
    change = operation(AugmentSettings(noise=NoiseSettings(sigma=0.05, p=0.3)))(grey, context()) - 128.0
    touched = change.flatten(1).any(1)
    assert 0.23 < touched.float().mean() < 0.37
    assert change[touched].std().item() == pytest.approx(0.05 * 255, rel=0.01)
    assert abs(change[touched].mean()) < 0.15


def fill_one(image: torch.Tensor, top: int, bottom: int, left: int, right: int, color: torch.Tensor) -> None:
    image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = color


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("height", "width", "size", "side"), [(16, 16, 0.5, 8), (9, 12, 0.33, 3), (8, 8, 1.0, 8)])
def test_cutout_fills_squares_around_any_pixel_of_the_chosen_images(height, width, size, side, layout):
    images = pictures(300, height=height, width=width).contiguous(memory_format=layout)
    settings = AugmentSettings(cutout=CutoutSettings(size=size, holes=2, p=0.7))
    result = operation(settings)(images, context())
    draws, expected = context(), images.clone()
    chosen = draws.chosen(300, 0.7)
    for _ in range(2):
        tops, lefts = (draws.host.integers(edge, size=len(chosen)) - side // 2 for edge in (height, width))
        assert {-(side // 2), height - 1 - side // 2} <= set(tops.tolist())  # the first and last pixel as the centre
        for index, top, left in zip(chosen, tops, lefts, strict=True):
            fill_one(expected[index], top, top + side, left, left + side, COLOR)
    assert torch.equal(result, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [Fill.mean, Fill.zeros])
def test_random_erasing_fills_its_boxes_and_nothing_else(layout, value):
    images = pictures(50, height=18, width=14).contiguous(memory_format=layout)
    erasing = RandomErasingSettings(p=0.5, value=value)
    result = operation(AugmentSettings(random_erasing=erasing))(images, context())
    draws, expected = context(), images.clone()
    chosen = draws.chosen(50, 0.5)
    boxes = erasing_boxes(len(chosen), 18, 14, erasing.scale, erasing.ratio, draws.host)
    color = COLOR if value is Fill.mean else torch.zeros_like(COLOR)
    for index, (top, bottom, left, right) in zip(chosen, boxes.tolist(), strict=True):
        fill_one(expected[index], top, bottom, left, right, color)
    assert torch.equal(result, expected)
    assert not torch.equal(result, images)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_erasing_with_noise_draws_each_byte_anew(layout):
    black = torch.zeros(300, 3, 16, 16, dtype=torch.uint8).contiguous(memory_format=layout)
    erasing = RandomErasingSettings(p=1.0, scale=[0.3, 0.3], ratio=[1.0, 1.0], value=Fill.random)  # 9 by 9 pixels
    result = operation(AugmentSettings(random_erasing=erasing))(black, context())
    inside = result[result.amax(1, keepdim=True).expand_as(result) > 0].double()
    assert len(inside) == pytest.approx(300 * 3 * 81, rel=1e-3)
    assert inside.mean().item() == pytest.approx(127.5, abs=1)
    assert inside.std().item() == pytest.approx(math.sqrt((256**2 - 1) / 12), abs=1)
    red, green, _ = result.flatten(2).double().unbind(1)
    there = red + green > 0
    assert abs(torch.corrcoef(torch.stack([red[there], green[there]]))[0, 1]) < 0.03


def test_boxes_are_spread_as_torchvisions():
    torch.manual_seed(0)
    image, scale, ratio = torch.zeros(3, 60, 40), [0.02, 0.5], [0.3, 3.3]
    reference = theirs.RandomErasing(p=1.0, scale=scale, ratio=ratio)
    drawn = [reference.make_params([image]) for _ in range(4000)]
    expected = np.array([[box["i"], box["i"] + box["h"], box["j"], box["j"] + box["w"]] for box in drawn])
    mine = erasing_boxes(4000, 60, 40, scale, ratio, np.random.default_rng(0))
    assert (mine >= 0).all()
    assert (mine[:, 1] < 60 + mine[:, 0]).all()
    for quantile in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert np.abs(np.quantile(mine, quantile, axis=0) - np.quantile(expected, quantile, axis=0)).max() <= 2


def test_a_box_that_never_fits_leaves_the_image_untouched():
    images = pictures()
    never = RandomErasingSettings(p=1.0, scale=[1.0, 1.0], ratio=[1.0, 1.0])
    assert torch.equal(operation(AugmentSettings(random_erasing=never))(images, context()), images)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PIECES)
def test_the_moment_alone_decides_and_layout_and_input_stay(name, channels, count):
    apply = operation(PIECES[name], MEAN[:channels])
    for layout in LAYOUTS:
        images = pictures(count, channels).contiguous(memory_format=layout)
        before = images.clone()
        results = [apply(images, context(batch)) for batch in (0, 0, *range(1, 12))]
        assert torch.equal(results[0], results[1])
        assert len({tuple(result.flatten().tolist()) for result in results}) > 2
        assert torch.equal(images, before)
        for result in results:
            assert (result.shape, result.dtype) == (images.shape, torch.uint8)
            assert result.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", PIECES)
def test_each_image_has_a_draw_of_its_own(name):
    same = pictures(1).repeat(100, 1, 1, 1)
    different = {tuple(image.flatten().tolist()) for image in operation(PIECES[name])(same, context())}
    assert len(different) > 45


def test_images_that_are_a_view_of_others_are_taken_too():
    wide = pictures(width=32)
    for name, settings in PIECES.items():
        apply = operation(settings)
        assert torch.equal(apply(wide[..., ::2], context()), apply(wide[..., ::2].contiguous(), context())), name


def test_nothing_waits_for_the_device():
    """Fake tensors have no values: whatever asks for one fails."""
    with FakeTensorMode():
        images = torch.empty(8, 3, 16, 16, dtype=torch.uint8)
        for settings in PIECES.values():
            assert operation(settings)(images, context()).shape == images.shape
