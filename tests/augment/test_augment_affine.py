"""The affine kernel against torchvision's, image by image, in both memory layouts."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from scenes import layouts, same_layout, scenes
from torchvision.transforms import InterpolationMode

from cnntrain.augment import layout, pixels
from cnntrain.augment.affine import affine, inverse_matrices
from cnntrain.config.schema.pieces import Resampling

pytestmark = pytest.mark.usefixtures("plain_products")

COUNT = len(scenes(1, 1, 1))
SHAPES = [(3, 32, 32), (3, 31, 17), (1, 17, 31)]


def arguments(**changed):
    """What inverse_matrices takes, moving nothing, but for what is given."""
    names = ["angle", "translate_x", "translate_y", "shear_x", "shear_y"]
    still = dict.fromkeys(names, np.zeros(COUNT)) | {"scale": np.ones(COUNT)}
    return still | {name: np.asarray(values, dtype=float) for name, values in changed.items()}


def random(low, high):
    return np.random.default_rng(abs(int(100 * high))).uniform(low, high, COUNT)


MOVES = {
    "nothing": arguments(),
    "rotation": arguments(angle=random(-180, 180)),
    "quarter turns": arguments(angle=[0, 90, 180, 270, 360, -90, -180, 45, -45, 135]),
    "whole pixels": arguments(translate_x=random(-9, 9).round(), translate_y=random(-40, 40).round()),
    "half pixels": arguments(translate_x=random(-9, 9).round() / 2, translate_y=random(-8, 8).round() / 2),
    "scale": arguments(scale=[0.5, 2, 1, 0.1, 4, 1.5, 0.9, 1.1, 3, 0.75]),
    "shear": arguments(shear_x=random(-20, 20), shear_y=random(-19, 19)),
    "all": arguments(
        angle=random(-30, 30),
        translate_x=random(-5, 5),
        translate_y=random(-4, 4),
        scale=random(0.7, 1.3),
        shear_x=random(-10, 10),
        shear_y=random(-11, 11),
    ),
}


def torchvisions(images, move, interpolation, fill):
    moved = []
    for index, image in enumerate(images):
        one = {name: float(values[index]) for name, values in move.items()}
        moved.append(
            reference.affine(
                image,
                one["angle"],
                [one["translate_x"], one["translate_y"]],
                one["scale"],
                [one["shear_x"], one["shear_y"]],
                interpolation=InterpolationMode(interpolation.value),
                fill=fill,
            )
        )
    return torch.stack(moved)


@pytest.mark.parametrize("fill", [0.0, 127.5, 255.0])
@pytest.mark.parametrize("interpolation", Resampling)
@pytest.mark.parametrize("name", MOVES)
def test_each_image_is_moved_as_torchvision_moves_it(name, interpolation, fill):
    matrices = torch.from_numpy(inverse_matrices(**MOVES[name]))
    for shape in SHAPES:
        images = scenes(*shape)
        expected = torchvisions(images, MOVES[name], interpolation, fill)
        for batch in layouts(images):
            kept = batch.clone()
            result = affine(batch, matrices.float(), interpolation=interpolation, fill=fill)
            assert result.dtype == torch.uint8
            assert torch.equal(result, expected)
            assert same_layout(result, batch)
            assert torch.equal(batch, kept), "the images given were changed"


@pytest.mark.parametrize("interpolation", Resampling)
@pytest.mark.parametrize("size", [(32, 32), (31, 17)])
def test_torchvisions_rotate_is_affine_by_the_opposite_angle(size, interpolation):
    images = scenes(3, *size)
    angles = np.array([0, 90, 180, 270, -90, 30, -30, 12.345, 1e-3, 359.9])
    matrices = torch.from_numpy(inverse_matrices(**arguments(angle=-angles)))
    result = affine(images, matrices, interpolation=interpolation, fill=64.0)
    mode = InterpolationMode(interpolation.value)
    for index, angle in enumerate(angles):
        assert torch.equal(result[index], reference.rotate(images[index], float(angle), mode, fill=64.0))


@pytest.mark.parametrize("interpolation", Resampling)
def test_one_image_alone_and_in_parts_is_moved_as_in_its_batch(interpolation, monkeypatch):
    matrices = torch.from_numpy(inverse_matrices(**MOVES["all"]))
    for batch in layouts(scenes(3, 9, 13)):
        expected = affine(batch, matrices, interpolation=interpolation, fill=0.0)
        alone = affine(batch[1:2], matrices[1:2], interpolation=interpolation, fill=0.0)
        assert torch.equal(alone, expected[1:2])
        monkeypatch.setattr(layout, "PART", 3 * 3 * 9 * 13)
        assert torch.equal(affine(batch, matrices, interpolation=interpolation, fill=0.0), expected)
        monkeypatch.undo()


@pytest.mark.parametrize("interpolation", [Resampling.nearest, Resampling.bilinear])
def test_torchvisions_default_fill_differs_from_0_at_the_edge_of_a_bilinear_turn_alone(interpolation):
    mode = InterpolationMode(interpolation.value)
    white = torch.full((1, 1, 64, 64), 255, dtype=torch.uint8)
    default, zero = (reference.rotate(white, 17.0, mode, fill=fill).int() for fill in (None, 0))
    differs = (default - zero).abs()
    if interpolation is Resampling.nearest:
        assert not differs.any()
    else:
        assert 60 < differs.max() <= 64
        assert differs.count_nonzero() < 0.04 * differs.numel()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (31, 17)])
@pytest.mark.parametrize("count", [1, 3])
def test_pixels_come_back_from_numbers_as_they_were(count, size):
    images = torch.randint(256, (count, *size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    assert torch.equal(pixels.as_pixels(pixels.as_numbers(images)), images)
    numbers = pixels.as_numbers(images).bitwise_and_(0xFFFFFF).view(-1)
    wanted = (images.long() * torch.tensor([1, 1 << 8, 1 << 16]).view(3, 1, 1)).sum(1)
    assert torch.equal(numbers.long(), wanted.view(-1))
