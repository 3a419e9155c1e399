"""What the network sees of a picture: interpolation and crop, against Pillow, in every kind of loader."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import scenes

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import CropMode, DataSettings, Interpolation, LoaderKind
from cnntrain.config.schema.pieces import ResizedCropSettings
from cnntrain.data.build import build_data, resize_batch
from cnntrain.data.decode import read_image
from cnntrain.data.view import RandomView, View

CPU = torch.device("cpu")
PILLOWS = {Interpolation.bilinear: Image.Resampling.BILINEAR, Interpolation.bicubic: Image.Resampling.BICUBIC}
CROP = AugmentSettings(resized_crop=ResizedCropSettings())


def pictures():
    """uint8 (H, W, 3): what overshoots (black and white), noise, gradients."""
    return [image.permute(1, 2, 0).contiguous() for image in scenes(3, 60, 83)]


def by_pillow(pixels, size, share, interpolation):
    """Resize of the short side and central square, as another library makes them."""
    image = Image.fromarray(pixels.numpy())
    short = round(size / share)
    scale = short / min(image.size)
    resized = image.resize([max(short, int(side * scale)) for side in image.size], PILLOWS[interpolation])
    left, top = ((round((side - size) / 2)) for side in resized.size)
    return torch.from_numpy(np.array(resized.crop((left, top, left + size, top + size))))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of odd pictures in train/ and val/."""
    home = tmp_path_factory.mktemp("photos")
    for split in ("train", "val"):
        for name, images in (("a", scenes(3, 40, 53)[:4]), ("b", scenes(3, 57, 41)[:4])):
            (home / split / name).mkdir(parents=True)
            for index, image in enumerate(images):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(home / split / name / f"{index}.png")
    return home


def build(root, augment=None, **settings):
    known: dict[str, Any] = {"name": "imagefolder", "root": str(root), "image_size": 16, "workers": 0}
    known |= {"mean": [0.5], "std": [0.5]}
    return build_data(
        DataSettings(**known | settings), augment or AugmentSettings(), seed=0, device=CPU, probe=4, say=list
    )


def content(loader, epoch=0):
    return torch.cat([images for images, *_ in loader.batches(epoch)])


@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize(("size", "share"), [(32, 0.875), (32, 1.0), (100, 0.95), (17, 0.5)])
def test_a_view_is_pillows_resize_within_two_levels(interpolation, size, share):
    for pixels in pictures():
        seen = View(size, share, interpolation)(pixels)
        difference = (seen.int() - by_pillow(pixels, size, share, interpolation).int()).abs()
        assert difference.max() <= 2
        assert difference.float().mean() < 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_squash_is_pillows_resize_of_both_sides_to_the_bit(channels):
    for pixels in (*pictures(), torch.full((1, 500, 3), 9, dtype=torch.uint8)):
        pixels = pixels[:, :, :channels].contiguous()
        for way, pillows in PILLOWS.items():
            seen = View(30, 0.75, way, CropMode.squash)(pixels)
            whole = np.array(Image.fromarray(pixels.squeeze(2).numpy()).resize((40, 40), pillows))
            assert torch.equal(seen, torch.from_numpy(whole).view(40, 40, channels)[5:35, 5:35])


def test_a_border_leaves_the_picture_whole_and_takes_the_mean_color():
    lines = torch.full((60, 121, 3), 255, dtype=torch.uint8)
    seen = View(40, 1.0, mode=CropMode.border, fill=(10, 20, 30))(lines)
    assert (seen[10:30] == 255).all()
    for rows in (seen[:10], seen[30:]):
        assert (rows == torch.tensor([10, 20, 30])).all()
    assert torch.equal(
        View(40, 1.0, mode=CropMode.border, fill=(10, 20, 30))(lines.transpose(0, 1)), seen.transpose(0, 1)
    )
    strip = View(40, 1.0, mode=CropMode.border)(lines[:1].repeat(1, 40, 1))
    assert (strip[19] == 255).all()
    assert int(strip.count_nonzero()) == 40 * 3


def test_what_a_share_above_one_leaves_is_black():
    seen = View(46, 1.15)(torch.full((50, 80, 3), 255, dtype=torch.uint8))
    assert (seen[3:43] == 255).all()
    assert not seen[:3].any()
    assert not seen[43:].any()


@pytest.mark.parametrize("loader", [LoaderKind.stream, LoaderKind.memory])
@pytest.mark.parametrize("mode", CropMode)
def test_all_splits_become_squares_as_the_settings_say(root, loader, mode):
    data = build(root, loader=loader, crop_mode=mode, mean=[0.2, 0.4, 0.6])
    fill = (51, 102, 153) if mode is CropMode.border else ()
    view = View(16, 0.875, Interpolation.bilinear, mode, fill)
    assert (data.crop_mode, data.view(16)) == (mode, view)
    expected = torch.stack([view(read_image(file, 3)) for file in sorted((root / "val").rglob("*.png"))])
    assert torch.equal(content(data.val), expected.permute(0, 3, 1, 2))
    digits = build("", name="digits", crop_mode=mode)
    assert digits.crop_mode is CropMode.center


def test_bicubic_overshoots_are_clamped_and_flat_images_stay_flat():
    edge = torch.zeros(20, 20, 1, dtype=torch.uint8)
    edge[:, 10:] = 255
    seen = View(64, 1.0, Interpolation.bicubic)(edge)
    assert (seen[:, :24] <= 2).all()
    assert (seen[:, 40:] >= 253).all()
    flat = torch.full((30, 20, 3), 255, dtype=torch.uint8)
    assert (View(32, 0.875, Interpolation.bicubic)(flat) == 255).all()


def test_a_random_view_takes_the_same_box_in_either_interpolation():
    box = CROP.resized_crop
    assert box
    for pixels in pictures():
        seen = {way: RandomView(24, box, way)(pixels, random.Random(3)) for way in Interpolation}
        top, left, height, width = RandomView(24, box).box(pixels.shape[0], pixels.shape[1], random.Random(3))
        cut = Image.fromarray(pixels[top : top + height, left : left + width].numpy())
        for way, found in seen.items():
            expected = torch.from_numpy(np.array(cut.resize((24, 24), PILLOWS[way])))
            assert (found.int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", list(Interpolation))
def test_a_box_resized_into_its_place_in_a_batch_is_the_same_to_the_bit(interpolation, channels):
    batch = torch.full((3, 24, 24, channels), 7, dtype=torch.uint8)
    view = RandomView(24, ResizedCropSettings(), interpolation)
    for pixels in [*pictures(), torch.full((24, 24, 3), 90, dtype=torch.uint8)]:
        alone = view(pixels[..., :channels].contiguous(), random.Random(3))
        view(pixels[..., :channels].contiguous(), random.Random(3), batch[1])
        assert torch.equal(batch[1], alone)
        assert batch[0].eq(7).all()
        assert batch[2].eq(7).all()


@pytest.mark.parametrize("loader", [LoaderKind.stream, LoaderKind.memory])
def test_each_split_is_seen_as_the_settings_say_whatever_the_loader(root, loader):
    data = build(root, loader=loader, interpolation=Interpolation.bicubic, crop=1.0, eval_size=20)
    assert (data.interpolation, data.crop) == (Interpolation.bicubic, 1.0)
    files = sorted((root / "val").rglob("*.png"))
    expected = torch.stack([View(20, 1.0, Interpolation.bicubic)(read_image(file, 3)) for file in files])
    assert torch.equal(content(data.val), expected.permute(0, 3, 1, 2))
    assert data.view(20) == View(20, 1.0, Interpolation.bicubic)
    files = sorted((root / "train").rglob("*.png"))
    for split, size in ((data.train, 16), (data.probe, 20)):
        seen = {View(size, 1.0, Interpolation.bicubic)(read_image(file, 3)).numpy().tobytes() for file in files}
        assert {image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in content(split)} <= seen


def test_random_crops_of_files_follow_the_interpolation_and_not_the_crop(root):
    plain, whole = (content(build(root, CROP, crop=crop).train, 1) for crop in (None, 1.0))
    bicubic = content(build(root, CROP, interpolation=Interpolation.bicubic).train, 1)
    assert torch.equal(plain, whole)
    assert not torch.equal(plain, bicubic)
    assert (plain.float() - bicubic.float()).abs().mean() < 30
    for crop in (None, 1.0):  # in memory, there is room around what validation sees
        assert content(build(root, CROP, crop=crop, loader=LoaderKind.memory).train).shape[2:] == (18, 18)


def test_of_files_the_default_is_128_pixels_of_the_central_part_in_bilinear(root):
    data = build(root, image_size=None)
    assert (data.image_size, data.eval_size) == (128, 128)
    assert data.view(128) == View(128, 0.875, Interpolation.bilinear)


def test_images_in_memory_are_resized_whole_in_the_interpolation_of_the_settings():
    images = scenes(3, 12, 12)
    for way, pillows in PILLOWS.items():
        expected = [
            np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((30, 30), pillows)) for image in images
        ]
        found = resize_batch(images, 30, way).permute(0, 2, 3, 1)
        assert (found.int() - torch.from_numpy(np.stack(expected)).int()).abs().max() <= 2
    plain, bicubic = (
        build("", name="digits", image_size=32, interpolation=way, crop=crop)
        for way, crop in ((None, None), (Interpolation.bicubic, 0.5))
    )
    assert (bicubic.interpolation, bicubic.crop) == (Interpolation.bicubic, 1.0)
    assert not torch.equal(content(plain.test), content(bicubic.test))
    raw = content(build("", name="digits", image_size=8).test)
    assert torch.equal(content(bicubic.test), resize_batch(raw, 32, Interpolation.bicubic))
