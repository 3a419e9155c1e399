"""Batch augmentations against one-image references, and one draw per image."""

import math
import random
import typing
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch._subclasses.fake_tensor import FakeTensorMode

from cnntrain.augment import color, geometry
from cnntrain.augment.build import BatchContext, build_augment, build_normalize
from cnntrain.config.schema.augment import AugmentSettings, ProgressiveSettings
from cnntrain.config.schema.pieces import OwnSettings, PadCropSettings, ResizedCropSettings
from cnntrain.data.view import View
from cnntrain.errors import ConfigError

GROWING = ProgressiveSettings()
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=draw(9))


def build(settings: AugmentSettings, *, size: int = 16, channels_last: bool = False, cropped: bool = False):
    return build_augment(
        settings, channels=3, image_size=size, mean=MEAN, std=STD, channels_last=channels_last, cropped=cropped
    )


def context(batch: int = 0, *, epoch: int = 0, count: int = 64, size: int = 16, seed: int = 0) -> BatchContext:
    return BatchContext(torch.device("cpu"), seed, epoch, batch, image_size=size, indices=torch.arange(count))


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalize_equals_torchvision(channels_last):
    images = pictures()
    expected = reference.normalize(reference.to_dtype(images, torch.float32, scale=True), MEAN, STD)
    result = build_normalize(MEAN, STD, channels_last)(images)
    assert (result - expected).abs().max() <= 1e-6
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert result.is_contiguous(memory_format=layout)


def test_normalize_is_right_for_one_channel_and_for_a_channels_last_batch():
    grey = pictures(channels=1)
    assert torch.allclose(build_normalize([0.5], [0.25], False)(grey), (grey / 255 - 0.5) / 0.25, atol=1e-6)
    images = pictures().to(memory_format=torch.channels_last)
    normalize = build_normalize(MEAN, STD, True)
    assert torch.equal(normalize(images), normalize(images.contiguous()))


@pytest.mark.parametrize("padding", [1, 4, 11])
@pytest.mark.parametrize(("mode", "called"), [("zeros", "constant"), ("reflect", "reflect")])
def test_pad_crop_is_torchvisions_pad_and_crop_of_each_image(mode, called, padding):
    images = pictures(height=12, width=20)
    result = geometry.pad_crop(images, padding, mode, geometry.crop_places(64, padding, draw()))
    top, left = torch.randint(2 * padding + 1, (2, 64), generator=draw())
    padded = reference.pad(images, [padding] * 4, padding_mode=called)
    for index in range(64):
        expected = reference.crop(padded[index], int(top[index]), int(left[index]), 12, 20)
        assert torch.equal(result[index], expected)


def test_padding_is_black_before_normalisation():
    white = torch.full((200, 1, 8, 8), 255, dtype=torch.uint8)
    places = geometry.crop_places(200, 2, draw())
    assert geometry.pad_crop(white, 2, "zeros", places).unique().tolist() == [0, 255]
    assert geometry.pad_crop(white, 2, "reflect", places).unique().tolist() == [255]


@pytest.mark.parametrize(("dimension", "mirrored"), [(3, reference.hflip), (2, reference.vflip)])
def test_flip_mirrors_about_its_share_of_the_images_and_leaves_the_others(dimension, mirrored):
    images = pictures(2000, 1, 4, 4)
    result = geometry.mirror(images, geometry.flips(2000, 0.3, draw()), dimension)
    flipped = (result == mirrored(images)).flatten(1).all(1)
    same = (result == images).flatten(1).all(1)
    assert (flipped | same).all()
    assert 0.25 < flipped.float().mean() < 0.35
    for p, expected in ((0.0, images), (1.0, mirrored(images))):
        assert torch.equal(geometry.mirror(images, geometry.flips(2000, p, draw()), dimension), expected)


def test_resized_boxes_equal_torchvisions_resized_crop_within_one_grey_level():
    images = pictures(32, 3, 20, 24)
    boxes = geometry.crop_boxes(32, 20, 24, [0.1, 1.0], [0.75, 4 / 3], draw())
    result = geometry.resize_boxes(images, boxes, 16)
    assert result.dtype == torch.uint8
    for image, box, mine in zip(images, boxes.tolist(), result, strict=True):
        expected = reference.resized_crop(image.float(), *box, [16, 16], antialias=False)
        assert (mine - expected).abs().max() <= 0.51


@pytest.mark.parametrize("shrink", [geometry.shrink_boxes, geometry.shrink_by_products])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_boxes_that_shrink_equal_torchvisions_resized_crop_with_antialias(shrink, layout):
    images = pictures(32, 3, 40, 48).contiguous(memory_format=layout)
    boxes = geometry.crop_boxes(32, 40, 48, [0.02, 1.0], [0.75, 4 / 3], draw())
    result = shrink(images, boxes, 16)
    assert result.dtype == torch.uint8
    assert result.is_contiguous(memory_format=layout)
    for image, box, mine in zip(images, boxes.tolist(), result, strict=True):
        expected = reference.resized_crop(image.float().contiguous(), *box, [16, 16], antialias=True)
        assert (mine - expected).abs().max() <= 1


def test_crops_of_growing_images_shrink_with_antialias_and_those_of_the_full_size_stay_as_they_were():
    images = pictures(64, 1, 32, 32)
    scale, ratio = [0.2, 1.0], [0.75, 4 / 3]
    for size, method in ((16, geometry.shrink_boxes), (28, geometry.resize_boxes), (32, geometry.resize_boxes)):
        boxes = geometry.crop_boxes(64, 32, 32, scale, ratio, draw())
        assert torch.equal(geometry.resized_crop(images, size, scale, ratio, draw()), method(images, boxes, size))
    for size in range(4, 300):  # images that lie in memory with the room around them
        assert geometry.ROOM * View(size).short_side <= size + 0.5


def test_random_boxes_are_spread_as_torchvisions():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image, scale, ratio = torch.zeros(1, 60, 90), [0.08, 1.0], [0.75, 4 / 3]
    theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(3000)]).double()
    mine = geometry.crop_boxes(3000, 60, 90, scale, ratio, draw()).double()
    assert (mine[:, :2] >= 0).all()
    assert (mine[:, 2:] >= 1).all()
    assert (mine[:, 0] + mine[:, 2] <= 60).all()
    assert (mine[:, 1] + mine[:, 3] <= 90).all()
    for quantile in (0.1, 0.5, 0.9):
        assert (mine.quantile(quantile, 0) - theirs.quantile(quantile, 0)).abs().max() <= 2.5


def test_a_shape_that_never_fits_falls_back_to_the_largest_central_box():
    boxes = geometry.crop_boxes(5, 100, 4, [0.9, 1.0], [3.0, 4.0], draw())
    assert boxes.tolist() == [[49, 0, 1, 4]] * 5
    assert geometry.central_box(10, 100, [0.75, 4 / 3]) == (0, 43, 10, 13)


def test_a_resized_crop_of_everything_is_the_image_itself():
    images = pictures()
    assert torch.equal(geometry.resized_crop(images, 16, [1.0, 1.0], [1.0, 1.0], draw()), images)


def on(name: str, **numbers) -> AugmentSettings:
    """The settings with one piece switched on, with probability 1 or the numbers given."""
    kind = next(typing.get_args(hint)[0] for key, hint in HINTS.items() if key == name)
    return AugmentSettings(**{name: kind(**numbers)})


HINTS = typing.get_type_hints(AugmentSettings)
PIECES: dict[str, dict[str, Any]] = {
    "resized_crop": {},
    "pad_crop": {"mode": "reflect"},
    "hflip": {},
    "vflip": {},
    "affine": {"degrees": 20, "scale": [0.8, 1.2], "shear": 10},
    "autoaugment": {},
    "randaugment": {},
    "trivialaugment": {},
    "augmix": {},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "grayscale": {"p": 0.5},
    "invert": {},
    "posterize": {},
    "solarize": {},
    "equalize": {},
    "autocontrast": {},
    "sharpness": {},
    "blur": {},
    "noise": {},
    "cutout": {},
    "random_erasing": {"p": 0.5},
}


def test_every_piece_is_tried_here():
    others = {"own", "mixup", "cutmix", "mix", "progressive"}
    assert PIECES.keys() == HINTS.keys() - others


@pytest.mark.parametrize("name", PIECES)
def test_each_image_has_a_draw_of_its_own(name):
    same = pictures(1).repeat(64, 1, 1, 1)
    different = {tuple(image.flatten().tolist()) for image in build(on(name, **PIECES[name]))(same, context())}
    some = name in ("resized_crop", "pad_crop", "affine", "color_jitter", "noise", "cutout", "random_erasing", "blur")
    assert len(different) >= (20 if some else 2)


@pytest.mark.parametrize("name", PIECES)
def test_seed_epoch_and_batch_alone_decide_and_the_input_stays_untouched(name):
    images = pictures()
    before, augment = images.clone(), build(on(name, **PIECES[name]))
    first = augment(images, context(1))
    torch.manual_seed(123)
    np.random.seed(5)
    random.seed(5)
    assert torch.equal(first, augment(images, context(1)))
    for other in (context(2), context(1, epoch=1), context(1, seed=1)):
        assert not torch.equal(first, augment(images, other))
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", sorted(PIECES.keys() - {"noise"}))  # whose draws follow the bytes as they lie
def test_the_layout_in_memory_changes_nothing(name):
    images, augment = pictures(12, 3, 24, 24), build(on(name, **PIECES[name]), size=24)
    when = {"count": 12, "size": 24}
    by_pixels = augment(images.to(memory_format=torch.channels_last), context(**when))
    assert torch.equal(by_pixels, augment(images, context(**when)))


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_micro_batch_may_hold_one_image(name, channels):
    if channels == 1 and name in ("grayscale", "color_jitter"):
        return
    augment = build_augment(
        on(name, **PIECES[name]), channels=channels, image_size=16, mean=MEAN[:channels], std=STD[:channels],
        channels_last=True, cropped=False,
    )  # fmt: skip
    for batch in range(8):
        assert augment(pictures(1, channels), context(batch, count=1)).shape == (1, channels, 16, 16)


def test_alternating_flips_mirror_each_image_in_every_other_epoch():
    images = pictures(200)
    augment = build(on("hflip", alternate=True))
    epochs = [augment(images, context(epoch=epoch, count=200)) for epoch in range(4)]
    plain, mirrored = (build_normalize(MEAN, STD, False)(x) for x in (images, images.flip(3)))
    begins = [bool(torch.equal(image, other)) for image, other in zip(epochs[0], mirrored, strict=True)]
    assert 60 < sum(begins) < 140
    for epoch, result in enumerate(epochs):
        for index, begun in enumerate(begins):
            assert torch.equal(result[index], (mirrored if begun ^ epoch % 2 else plain)[index])
    shuffled = context(3, epoch=1, count=200)
    shuffled.indices = torch.arange(200).flip(0)
    assert torch.equal(augment(images.flip(0), shuffled), epochs[1].flip(0))  # an image keeps its turn wherever it is


def test_nothing_chosen_is_normalisation_alone():
    images = pictures()
    assert torch.equal(build(AugmentSettings())(images, context()), build_normalize(MEAN, STD, False)(images))


ALL = AugmentSettings(**{name: getattr(on(name, **numbers), name) for name, numbers in PIECES.items()})


def test_all_pieces_together_keep_the_order_of_the_stages():
    augment = build(ALL, size=14, channels_last=True)
    assert [stage.name for stage in augment.stages] == ["geometry", "policy", "colour", "noise"]
    assert [name for stage in augment.stages for name, _ in stage.pieces] == list(PIECES)
    result = augment(pictures(), context(size=14))
    assert result.shape == (64, 3, 14, 14)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_nothing_waits_for_the_device(monkeypatch):
    """Fake tensors have no values: whatever asks for one fails."""
    # As off the CPU, where reading costs nothing.
    monkeypatch.setattr(geometry, "shrink_boxes", geometry.shrink_by_products)
    monkeypatch.setattr(color, "launching_costs", lambda device: True)
    for settings in (ALL, AugmentSettings(pad_crop=PadCropSettings(), progressive=GROWING)):
        build(settings, size=8)(pictures(8), context(count=8, size=8))  # works out the magnitudes for this size
        when = context(count=8, size=8)
        with FakeTensorMode():
            images = torch.empty(8, 3, 16, 16, dtype=torch.uint8)
            assert build(settings, size=8)(images, when).shape == (8, 3, 8, 8)


def test_a_trace_ends_with_what_the_network_gets():
    augment = build(ALL)
    steps = augment.trace(pictures(), context())
    assert [(name, len(pieces)) for name, pieces, _ in steps] == [
        ("geometry", 5),
        ("policy", 4),
        ("colour", 9),
        ("noise", 3),
    ]
    assert torch.equal(augment.normalize(steps[-1][2]), augment(pictures(), context()))


def test_the_consistency_loss_gets_three_versions_of_each_image_the_first_one_clean():
    images = pictures(8)
    result = build(on("augmix", jsd=12.0))(images, context(count=8))
    assert result.shape == (24, 3, 16, 16)
    assert torch.equal(result[:8], build_normalize(MEAN, STD, False)(images))


def test_growing_images_are_resized_to_the_size_of_the_epoch():
    result = build(on("progressive"), size=8)(pictures(), context(size=8))
    assert torch.equal(result, build_normalize(MEAN, STD, False)(geometry.resize(pictures(), 8)))
    both = AugmentSettings(progressive=GROWING, resized_crop=ResizedCropSettings())
    assert build(both, size=8)(pictures(), context(size=12)).shape[2:] == (12, 12)


def test_crops_that_the_loader_has_cut_are_not_cut_again():
    images = pictures()
    only_crop = on("resized_crop")
    assert torch.equal(build(only_crop, cropped=True)(images, context()), build_normalize(MEAN, STD, False)(images))


def test_a_mirror_wider_than_the_image_is_a_config_error():
    settings = AugmentSettings(pad_crop=PadCropSettings(padding=16, mode="reflect"))
    with pytest.raises(ConfigError, match=r"^augment\.pad_crop\.padding: 16 .*16 pixels; choose"):
        build(settings, size=16)
    assert math.isfinite(build(settings, size=17)(pictures(2, 3, 17, 17), context(count=2)).sum())


# ---- the user's own function ----


def darker(images, generator, by=2):
    return images // by


def blackens(images, generator):
    return images.zero_()


def grows(images, generator):
    return images.repeat(2, 1, 1, 1)


def alone(images):
    return images


def fails(images, generator):
    raise ValueError("no such colour")


def own(name: str, **args):
    return build(AugmentSettings(own=OwnSettings(name=f"{__name__}:{name}", args=args)))


def test_a_function_of_the_user_works_before_normalisation():
    images = pictures()
    assert torch.equal(own("darker", by=4)(images, context()), build_normalize(MEAN, STD, False)(images // 4))


def test_a_function_of_the_user_may_write_into_its_images():
    images = pictures()
    (_, _, black), before = own("blackens").trace(images, context())[0], pictures()
    assert not black.any()
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: own("lighter"), r"augment\.own\.name: .* has no 'lighter'"),
        (lambda: own("darker", bye=3), r"augment\.own\.args\.bye: .*did you mean augment\.own\.args\.by\?"),
        (lambda: own("alone"), r"augment\.own\.name: .*alone cannot be called with \(images, generator\) and augment"),
        (lambda: own("grows")(pictures(), context()), r"gave uint8 \(128, .*; return"),
        (lambda: own("fails")(pictures(), context()), r"fails on images \(64, .*no such colour, in .*; correct it"),
    ],
)
def test_a_function_that_cannot_work_is_a_config_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_built_in_function_without_a_signature_is_found_out_when_it_is_called():
    settings = AugmentSettings(own=OwnSettings(name="builtins:iter"))
    with pytest.raises(ConfigError, match=r"^augment\.own\.name: builtins:iter "):
        build(settings)(pictures(), context())
