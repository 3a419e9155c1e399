"""The kernels of a GPU, run on the CPU: the bytes of the CPU's own, in few launches."""

from typing import Any

import numpy as np
import pytest
import torch
from launches import launches
from scenes import layouts, same_layout, scenes
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cnntrain.augment import batch_context, color, layout
from cnntrain.augment.accelerator import known_tables, turn_hues
from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.build import build_augment
from cnntrain.augment.erase import build_noise
from cnntrain.augment.kernels import KINDS
from cnntrain.augment.mix import Mix
from cnntrain.augment.pieces import build_affine, build_color
from cnntrain.augment.policies import build_policies
from cnntrain.augment.sampling import PLACES, Draws, perform
from cnntrain.augment.spaces import OPERATIONS
from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.pieces import Resampling

INDICES = {count: torch.arange(count) for count in (200, 512)}


def context(count: int = 200) -> BatchContext:
    return BatchContext(torch.device("cpu"), 0, 0, 0, image_size=17, indices=INDICES[count])


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU passes for a device where launching costs."""
    monkeypatch.setattr(layout, "launching_costs", lambda device: True)


def random_draws(rounds: int, count: int, seed: int) -> Draws:
    """All operations, magnitudes and signs, in every order."""
    random = np.random.default_rng(seed)
    operations = random.integers(len(OPERATIONS), size=(rounds, count))
    strongest = np.array([{"Posterize": 8, "Rotate": 135, "Solarize": 1}.get(name, 0.9) for name in OPERATIONS])
    strongest[[PLACES["TranslateX"], PLACES["TranslateY"]]] = 14
    magnitudes = strongest[operations] * random.random(operations.shape)
    magnitudes = np.where(operations == PLACES["Posterize"], np.rint(magnitudes), magnitudes)
    signed = ~np.isin(operations, [PLACES["Posterize"], PLACES["Solarize"]])
    return Draws(operations, np.where(signed & (random.random(operations.shape) < 0.5), -magnitudes, magnitudes))


@pytest.mark.parametrize("fill", [0.0, 128.0])
@pytest.mark.parametrize("interpolation", Resampling)
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 17, 40), (1, 20, 20), (3, 2, 5)], ids=str)
def test_rounds_in_few_launches_give_the_bytes_of_the_kernels_one_by_one(shape, interpolation, fill, monkeypatch):
    images = scenes(*shape).repeat(20, 1, 1, 1)
    draws = random_draws(3, len(images) * 2, 1)
    for batch in layouts(images):
        before = batch.clone()
        results = []
        for costs in (False, True):
            monkeypatch.setattr(layout, "launching_costs", lambda device, costs=costs: costs)
            results.append(perform(batch, draws, context(), interpolation=interpolation, fill=fill))
        assert torch.equal(*results)
        assert results[1].is_contiguous() == batch.is_contiguous()
        assert torch.equal(batch, before)


@pytest.mark.usefixtures("costly")
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_round_of_one_operation_alone_and_of_one_image_does(name):
    for images in (scenes(3, 16, 16), scenes(3, 16, 16)[1:2]):
        draws = Draws(
            np.full((1, len(images)), PLACES[name]), np.full((1, len(images)), 0.5 if name != "Posterize" else 3)
        )
        result = perform(images, draws, context(), interpolation=Resampling.nearest, fill=0.0)
        assert result.shape == images.shape


def test_tables_of_what_is_known_beforehand_are_those_kernels_on_all_levels():
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256)
    for bits in range(9):
        (table,) = known_tables(np.array([KINDS.index("Posterize")]), np.array([float(bits)]))
        assert torch.equal(torch.from_numpy(table), color.posterize(ramp, torch.tensor([bits])).view(-1))
    for threshold in (0.0, 0.3, 99.5, 255.0):
        (table,) = known_tables(np.array([KINDS.index("Solarize")]), np.array([threshold]))
        assert torch.equal(torch.from_numpy(table), color.solarize(ramp, torch.tensor([threshold])).view(-1))
    assert known_tables(np.array([KINDS.index("Invert")]), np.zeros(1))[0].tolist() == list(range(255, -1, -1))


def test_hues_turn_as_on_the_cpu_but_for_a_level_in_few_pixels():
    images = torch.cat([scenes(3, 64, 64), torch.randint(256, (40, 3, 64, 64), dtype=torch.uint8)])
    turns = torch.linspace(-0.5, 0.5, len(images))
    off = turn_hues(images.float(), turns.view(-1, 1, 1, 1)).to(torch.uint8).int() - color.hue(images, turns).int()
    assert off.abs().max() <= 1
    assert (off != 0).float().mean() < 1e-3


@pytest.mark.parametrize(
    "words",
    [
        ["augment=flip_crop"],
        ["augment=[flip_crop,vflip]", "augment.pad_crop.mode=reflect"],
        ["augment=[flip_crop,alternating_flip]", "augment.pad_crop.padding=40"],
        ["augment=vflip", "augment.vflip.p=0.3"],
        ["augment=resized_crop"],
        ["augment=[flip_crop,cutmix,mixup]", "augment.mix.mode=element"],
    ],
    ids=str,
)
def test_geometry_normalisation_and_mixing_in_few_launches_give_the_same_bits(words, monkeypatch):
    settings = compose_settings(["data=digits", *words]).augment
    labels = torch.arange(10).repeat(20)
    for batch in layouts(scenes(3, 17, 24).repeat(20, 1, 1, 1)):
        results = []
        for costs in (False, True):
            monkeypatch.setattr(layout, "launching_costs", lambda device, costs=costs: costs)
            numbers = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
            augment = build_augment(settings, channels=3, image_size=17, channels_last=True, cropped=False, **numbers)
            inputs = augment(batch, context())
            results += [inputs, *(Mix(settings, 10)(inputs, labels, context()) if settings.mixes else ())]
        half = len(results) // 2
        assert all(torch.equal(one, other) for one, other in zip(results[:half], results[half:], strict=True))


def test_color_jitter_in_few_launches_keeps_each_images_order(monkeypatch):
    settings = compose_settings(["data=digits", "augment=color_jitter", "augment.color_jitter.p=0.8"]).augment
    ((_, operation),) = build_color(settings, 3, 24)
    images = scenes(3, 24, 24).repeat(20, 1, 1, 1)
    expected = operation(images, context())
    monkeypatch.setattr(layout, "launching_costs", lambda device: True)
    off = (operation(images, context()).int() - expected.int()).abs()
    # A level of hue may be another, and later operations may make more of it.
    assert off.max() <= 3
    assert (off != 0).float().mean() < 2e-3


def preparation(words: list[str]) -> Any:
    """What happens to a batch of CIFAR's size between loader and network."""
    settings = compose_settings(["data=digits", *words]).augment
    augment = build_augment(
        settings, channels=3, image_size=32, mean=[0.5] * 3, std=[0.2] * 3, channels_last=True, cropped=False
    )
    mix = Mix(settings, 10) if settings.mixes else None
    images = torch.randint(256, (512, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.zeros(512, dtype=torch.int64)

    def work() -> Tensor:
        at = context(512)
        inputs = augment(images, at)
        return mix(inputs, labels, at)[0] if mix else inputs

    work()
    return work


LIMITS = {
    "[flip_crop]": 7,
    "[flip_crop,mixup,cutmix]": 13,
    "[flip_crop,randaugment]": 89,
    "[flip_crop,trivialaugment]": 49,
    "[flip_crop,color_jitter]": 107,
    "[flip_crop,augmix]": 157,
}


@pytest.mark.usefixtures("costly")
@pytest.mark.parametrize("pieces", LIMITS)
def test_a_batch_is_augmented_in_few_launches(pieces):
    counts = launches(preparation([f"augment={pieces}"]))
    assert counts.total() <= LIMITS[pieces], counts


ON_FAKE_CUDA = ["randaugment", "augmix", "color_jitter", "equalize", "sharpness", "affine", "blur", "cutout"]


@pytest.mark.parametrize("piece", ON_FAKE_CUDA)
def test_on_cuda_all_numbers_are_sent_to_the_images_and_the_layout_stays(piece, monkeypatch):
    """Fake tensors know their device and have no values."""
    cuda = torch.device("cuda:0")
    monkeypatch.setattr(batch_context, "send", lambda values, device: values.to(device))  # without pinned memory
    settings = compose_settings(["data=digits", f"augment={piece}"]).augment
    pieces = [*build_policies(settings), *build_color(settings, 3, 16), *build_noise(settings, [0.5] * 3)]
    pieces += [("affine", build_affine(settings.affine))] if settings.affine else []
    ((_, operation),) = pieces
    operation(torch.zeros(200, 3, 16, 16, dtype=torch.uint8), context())  # works out the magnitudes for this size
    with FakeTensorMode():
        for images in layouts(torch.empty(64, 3, 16, 16, dtype=torch.uint8, device=cuda)):
            result = operation(images, BatchContext(cuda, 0, 0, 0, image_size=16, indices=INDICES[200]))
            assert result.device == cuda
            assert same_layout(result, images)
