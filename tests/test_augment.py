"""Batch augmentations against one-image references, and one draw per image."""

import math
import random

import pytest
import torch
import torchvision.transforms.v2.functional as reference

from cnntrain.augment import build_augment, build_normalise, ops
from cnntrain.errors import ConfigError
from cnntrain.settings.augment import AugmentSettings, FlipSettings, PadCropSettings, ResizedCropSettings

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=draw(9))


def build(settings: AugmentSettings, *, size: int = 16, channels_last: bool = False, cropped: bool = False):
    return build_augment(settings, image_size=size, mean=MEAN, std=STD, channels_last=channels_last, cropped=cropped)


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalise_equals_torchvision(channels_last):
    images = pictures()
    expected = reference.normalize(reference.to_dtype(images, torch.float32, scale=True), MEAN, STD)
    result = build_normalise(MEAN, STD, channels_last)(images)
    assert (result - expected).abs().max() <= 1e-6
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert result.is_contiguous(memory_format=layout)


def test_normalise_is_right_for_one_channel_and_for_a_channels_last_batch():
    grey = pictures(channels=1)
    assert torch.allclose(build_normalise([0.5], [0.25], False)(grey), (grey / 255 - 0.5) / 0.25, atol=1e-6)
    images = pictures().to(memory_format=torch.channels_last)
    normalise = build_normalise(MEAN, STD, True)
    assert torch.equal(normalise(images), normalise(images.contiguous()))


@pytest.mark.parametrize(("mode", "called"), [("zeros", "constant"), ("reflect", "reflect")])
def test_pad_crop_is_torchvisions_pad_and_crop_of_each_image(mode, called):
    images = pictures(height=12, width=20)
    result = ops.pad_crop(images, 4, mode, draw())
    top, left = torch.randint(9, (2, 64), generator=draw())
    padded = reference.pad(images, [4, 4, 4, 4], padding_mode=called)
    for index in range(64):
        expected = reference.crop(padded[index], int(top[index]), int(left[index]), 12, 20)
        assert torch.equal(result[index], expected)


def test_padding_is_black_before_normalisation():
    white = torch.full((200, 1, 8, 8), 255, dtype=torch.uint8)
    assert ops.pad_crop(white, 2, "zeros", draw()).unique().tolist() == [0, 255]
    assert ops.pad_crop(white, 2, "reflect", draw()).unique().tolist() == [255]


@pytest.mark.parametrize(("dimension", "mirrored"), [(3, reference.hflip), (2, reference.vflip)])
def test_flip_mirrors_about_its_share_of_the_images_and_leaves_the_others(dimension, mirrored):
    images = pictures(2000, 1, 4, 4)
    result = ops.flip(images, 0.3, dimension, draw())
    flipped = (result == mirrored(images)).flatten(1).all(1)
    same = (result == images).flatten(1).all(1)
    assert (flipped | same).all()
    assert 0.25 < flipped.float().mean() < 0.35
    assert torch.equal(ops.flip(images, 0.0, dimension, draw()), images)
    assert torch.equal(ops.flip(images, 1.0, dimension, draw()), mirrored(images))


def test_resized_boxes_equal_torchvisions_resized_crop_within_one_grey_level():
    images = pictures(32, 3, 20, 24)
    boxes = ops.crop_boxes(32, 20, 24, [0.1, 1.0], [0.75, 4 / 3], draw())
    result = ops.resize_boxes(images, boxes, 16)
    assert result.dtype == torch.uint8
    for image, box, mine in zip(images, boxes.tolist(), result, strict=True):
        expected = reference.resized_crop(image.float(), *box, [16, 16], antialias=False)
        assert (mine - expected).abs().max() <= 0.51


def test_random_boxes_are_spread_as_torchvisions():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image, scale, ratio = torch.zeros(1, 60, 90), [0.08, 1.0], [0.75, 4 / 3]
    theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(3000)]).double()
    mine = ops.crop_boxes(3000, 60, 90, scale, ratio, draw()).double()
    assert (mine[:, :2] >= 0).all()
    assert (mine[:, 2:] >= 1).all()
    assert (mine[:, 0] + mine[:, 2] <= 60).all()
    assert (mine[:, 1] + mine[:, 3] <= 90).all()
    for quantile in (0.1, 0.5, 0.9):
        assert (mine.quantile(quantile, 0) - theirs.quantile(quantile, 0)).abs().max() <= 2.5


def test_a_shape_that_never_fits_falls_back_to_the_largest_central_box():
    boxes = ops.crop_boxes(5, 100, 4, [0.9, 1.0], [3.0, 4.0], draw())
    assert boxes.tolist() == [[49, 0, 1, 4]] * 5
    assert ops.central_box(10, 100, [0.75, 4 / 3]) == (0, 43, 10, 13)


def test_a_resized_crop_of_everything_is_the_image_itself():
    images = pictures()
    assert torch.equal(ops.resized_crop(images, 16, [1.0, 1.0], [1.0, 1.0], draw()), images)


ALL = AugmentSettings(
    pad_crop=PadCropSettings(), resized_crop=ResizedCropSettings(), hflip=FlipSettings(), vflip=FlipSettings()
)
PIECES = {
    "pad_crop": AugmentSettings(pad_crop=PadCropSettings(mode="reflect")),
    "resized_crop": AugmentSettings(resized_crop=ResizedCropSettings()),
    "hflip": AugmentSettings(hflip=FlipSettings()),
    "vflip": AugmentSettings(vflip=FlipSettings()),
}


@pytest.mark.parametrize("name", PIECES)
def test_each_image_has_a_draw_of_its_own(name):
    same = pictures(1).repeat(200, 1, 1, 1)
    different = {tuple(image.flatten().tolist()) for image in build(PIECES[name])(same, draw())}
    assert len(different) >= (2 if "flip" in name else 30)


@pytest.mark.parametrize("name", PIECES)
def test_the_generator_alone_decides_and_the_input_stays_untouched(name):
    images = pictures()
    before, augment = images.clone(), build(PIECES[name])
    first = augment(images, draw(1))
    torch.manual_seed(123)
    random.seed(5)
    assert torch.equal(first, augment(images, draw(1)))
    assert not torch.equal(first, augment(images, draw(2)))
    assert torch.equal(images, before)


def test_nothing_chosen_is_normalisation_alone():
    images = pictures()
    assert torch.equal(build(AugmentSettings())(images, draw()), build_normalise(MEAN, STD, False)(images))


def test_all_pieces_together_give_normalised_images_of_the_wanted_size():
    result = build(ALL, size=14, channels_last=True)(pictures(), draw())
    assert result.shape == (64, 3, 14, 14)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_crops_that_the_loader_has_cut_are_not_cut_again():
    images = pictures()
    only_crop = PIECES["resized_crop"]
    assert torch.equal(build(only_crop, cropped=True)(images, draw()), build_normalise(MEAN, STD, False)(images))


def test_a_mirror_wider_than_the_image_is_a_config_error():
    settings = AugmentSettings(pad_crop=PadCropSettings(padding=16, mode="reflect"))
    with pytest.raises(ConfigError, match=r"^augment\.pad_crop\.padding: 16 .*16 pixels; choose"):
        build(settings, size=16)
    assert math.isfinite(build(settings, size=17)(pictures(2, 3, 17, 17), draw()).sum())
