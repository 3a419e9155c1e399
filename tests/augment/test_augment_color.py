"""Every colour kernel against torchvision's, image by image, in both memory layouts."""

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from scenes import layouts, same_layout, scenes

from cnntrain.augment import color, layout

COUNT = len(scenes(1, 1, 1))
FACTORS = torch.tensor([1.9, 0.1, 1.0, 0.0, 1.5, 0.7, 1.3, 0.55, 1.81, 0.19], dtype=torch.float64)
SIGMAS = torch.tensor([0.1, 2.0, 0.5, 1.0, 0.3, 0.77, 1.5, 1.9, 0.2, 1.1])
SHAPES = [(3, 32, 32), (3, 31, 17), (1, 17, 31)]
# Our kernel, torchvision's of one image and one number, the numbers.
KERNELS = {
    "brightness": (color.brightness, reference.adjust_brightness, FACTORS),
    "contrast": (color.contrast, reference.adjust_contrast, FACTORS),
    "saturation": (color.saturation, reference.adjust_saturation, FACTORS),
    "sharpness": (color.sharpness, reference.adjust_sharpness, FACTORS),
    "hue": (color.hue, reference.adjust_hue, torch.linspace(-0.5, 0.5, COUNT, dtype=torch.float64)),
    "posterize": (color.posterize, reference.posterize, torch.tensor([4, 0, 8, 1, 7, 3, 5, 2, 6, 4])),
    "solarize": (color.solarize, reference.solarize, torch.tensor([128, 0, 255, 77.5, 1, 254, 100, 255, 19, 85.0])),
    "invert": (lambda images, _: color.invert(images), lambda image, _: reference.invert(image), FACTORS),
    "equalize": (lambda images, _: color.equalize(images), lambda image, _: reference.equalize(image), FACTORS),
    "autocontrast": (
        lambda images, _: color.autocontrast(images),
        lambda image, _: reference.autocontrast(image),
        FACTORS,
    ),
    "grayscale": (
        lambda images, _: color.grayscale(images),
        lambda image, _: reference.rgb_to_grayscale(image, len(image)),
        FACTORS,
    ),
    "blur": (
        lambda images, sigmas: color.blur(images, sigmas, 5),
        lambda image, sigma: reference.gaussian_blur(image, 5, sigma),
        SIGMAS,
    ),
}


def one_by_one(kernel, images, numbers):
    return torch.stack([kernel(image, number.item()) for image, number in zip(images, numbers, strict=True)])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_each_image_is_changed_as_torchvision_changes_it(name, shape):
    ours, theirs, numbers = KERNELS[name]
    images = scenes(*shape)
    # Every kind of image with every number.
    for shift in range(COUNT):
        turned = numbers.roll(shift)
        expected = one_by_one(theirs, images, turned)
        for batch in layouts(images):
            kept = batch.clone()
            result = ours(batch, turned)
            assert result.dtype == torch.uint8
            assert torch.equal(result, expected)
            assert same_layout(result, batch)
            assert torch.equal(batch, kept), "the images given were changed"


@pytest.mark.parametrize("name", KERNELS)
def test_one_image_alone_and_in_parts_is_changed_as_in_its_batch(name, monkeypatch):
    ours, _, numbers = KERNELS[name]
    for batch in layouts(scenes(3, 9, 13)):
        expected = ours(batch, numbers)
        assert torch.equal(ours(batch[1:2], numbers[1:2]), expected[1:2])
        monkeypatch.setattr(layout, "PART", 3 * 3 * 9 * 13)
        result = ours(batch, numbers)
        monkeypatch.undo()
        assert torch.equal(result, expected)
        assert same_layout(result, batch)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness", "hue"])
def test_float32_numbers_do_as_well(name):
    ours, theirs, numbers = KERNELS[name]
    images = scenes(3, 16, 16)
    assert torch.equal(ours(images, numbers.float()), one_by_one(theirs, images, numbers.float()))


def test_contrast_and_equalize_are_exact_where_sums_outgrow_float32():
    images = scenes(3, 300, 280)
    for name in ("contrast", "equalize"):
        ours, theirs, numbers = KERNELS[name]
        assert torch.equal(ours(images, numbers), one_by_one(theirs, images, numbers))


def test_images_too_small_to_blur_are_not_sharpened():
    images = scenes(3, 2, 9)
    assert torch.equal(color.sharpness(images, FACTORS), images)
