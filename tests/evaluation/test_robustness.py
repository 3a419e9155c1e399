"""Corrupted images: against scipy and Pillow, seeded, and never what the loader gives."""

import io
import types
from typing import Any

import numpy as np
import pytest
import torch
from forged import CPU
from PIL import Image
from scenes import scenes
from scipy.ndimage import gaussian_filter
from torch import nn

from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import MemoryLoader
from cnntrain.evaluation.robustness import STRENGTHS, corrupt, score_corrupted, strengths_of
from cnntrain.training.scoring import Scorer

IMAGES, ROWS = scenes(3, 40, 40), torch.arange(10)


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("images", [IMAGES, scenes(1, 20, 20), IMAGES.contiguous(memory_format=torch.channels_last)])
def test_each_strength_takes_the_images_further_from_what_they_were_and_leaves_these_alone(name, images):
    before, noisy = images.clone(), images[1:2]
    strengths = strengths_of(name, images.shape[2])
    results = [corrupt(name, noisy, strength, torch.tensor([1])) for strength in strengths]
    assert all(result.dtype == torch.uint8 and result.shape == noisy.shape for result in results)
    distances = [(result.float() - noisy.float()).abs().mean().item() for result in results]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]
    assert torch.equal(images, before)


def test_strengths_are_those_of_the_papers_for_small_and_large_images_and_blur_grows_with_these():
    assert strengths_of("noise", 32) == [0.04, 0.06, 0.08, 0.09, 0.10]
    assert strengths_of("jpeg", 224) == [25, 18, 15, 10, 7]
    assert strengths_of("blur", 32) == [0.4, 0.6, 0.7, 0.8, 1]
    assert strengths_of("blur", 448) == [2, 4, 6, 8, 12]
    assert strengths_of("contrast", 64) != strengths_of("contrast", 63)


def test_blur_is_that_of_scipy():
    for strength in (0.4, 1.0, 6.0):
        result = corrupt("blur", IMAGES, strength, ROWS)
        reference = gaussian_filter(IMAGES.double().numpy(), (0, 0, strength, strength), mode="nearest", truncate=4)
        assert np.abs(result.numpy() - reference).max() < 0.51


def test_contrast_is_reduced_around_the_mean_of_each_channel():
    values = IMAGES.double()
    mean = values.mean((2, 3), keepdim=True)
    assert (corrupt("contrast", IMAGES, 0.4, ROWS) - (0.4 * (values - mean) + mean)).abs().max() < 0.51


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_jpeg_is_that_of_pillow(channels, mode):
    images = scenes(channels, 40, 40)
    for image, result in zip(images, corrupt("jpeg", images, 25, ROWS), strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy().squeeze()).save(file, "JPEG", quality=25)
        reference = torch.from_numpy(np.array(Image.open(file).convert(mode))).view(40, 40, channels).permute(2, 0, 1)
        lost, apart = ((values.double() - reference).abs().mean().item() for values in (image, result))
        assert apart <= 0.1 * lost  # a coefficient or two is rounded the other way


def test_the_noise_of_an_image_depends_on_its_index_alone_and_has_the_strength_that_is_told():
    gray = torch.full((4, 3, 40, 40), 128, dtype=torch.uint8)
    rows = torch.tensor([3, 7, 11, 12])
    noisy = corrupt("noise", gray, 0.1, rows)
    assert torch.equal(corrupt("noise", gray[2:3], 0.1, rows[2:3])[0], noisy[2])
    assert not torch.equal(noisy[0], noisy[1])
    assert (noisy.double() - 128).std().item() == pytest.approx(25.5, rel=0.03)


def test_a_split_is_scored_at_every_strength_in_one_pass():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 4)).eval()
    labels = torch.arange(10) % 4
    loader = MemoryLoader(IMAGES, labels, batch_size=4, device=CPU, seed=0, train=False, resident=True)

    def normalize(images):
        return images.float() / 255

    job: Any = types.SimpleNamespace(
        device=CPU,
        temperature=2.0,
        data=types.SimpleNamespace(scored_splits={"test": loader}, eval_size=40, multi_label=False),
        scorer=lambda views=None: Scorer(model, normalize, CPU, Precision.fp32, views=views),
    )
    told = []
    scores = score_corrupted(job, "test", ["noise", "jpeg"], advance=told.append)
    assert told == [4, 4, 2]
    assert list(scores) == ["noise", "jpeg"]
    assert list(score_corrupted(job, "test", ["all"])) == list(STRENGTHS)
    for name, rows in scores.items():
        assert [row["strength"] for row in rows] == strengths_of(name, 40)
        for row in rows:
            with torch.no_grad():
                logits = model(normalize(corrupt(name, IMAGES, row["strength"], ROWS))) / 2
            assert row["top1"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
            assert row["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
