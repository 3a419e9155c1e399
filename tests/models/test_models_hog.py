"""Histograms of oriented gradients: the features of scikit-image, on real digits and photos, and logits from them."""

from typing import Any

import numpy as np
import pytest
import torch
from samples import digits
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor, nn
from torch.nn import functional

from cnntrain import cli
from cnntrain.config.schema.model import ModelSettings
from cnntrain.errors import ConfigError
from cnntrain.models.build import build_model
from cnntrain.models.zoo.hog import Blocks, Cells, Gradient

OPTIONS = [(9, 4, 2, "L2-Hys"), (9, 8, 3, "L2"), (8, 5, 2, "L2-Hys"), (12, 3, 1, "L2"), (1, 4, 4, "L2-Hys")]


def build(channels: int = 1, image_size: int = 28, **args: object) -> nn.Module:
    settings = ModelSettings(name="hog", args=args)
    return build_model(settings, classes=10, channels=channels, image_size=image_size)[0]


def descriptor(orientations: int = 9, cell: int = 4, block: int = 2, norm: str = "L2-Hys") -> nn.Module:
    return nn.Sequential(Gradient(), Cells(orientations, cell), Blocks(block, norm))


def features(images: Tensor, *options: Any) -> Tensor:
    """(N, features) in the order of scikit-image."""
    return descriptor(*options)(images).permute(0, 2, 3, 1).flatten(1)


def reference(images: np.ndarray, orientations: int, cell: int, block: int, norm: str) -> Tensor:
    """scikit-image's features of (N, H, W) or (N, H, W, 3)."""
    hog = pytest.importorskip("skimage.feature").hog
    axis = -1 if images.ndim == 4 else None
    found = [hog(image, orientations, (cell, cell), (block, block), norm, channel_axis=axis) for image in images]
    return torch.tensor(np.stack(found), dtype=torch.float32)


def real_digits() -> np.ndarray:
    """Bytes (60, 29, 29); enlarged, as real edges need more than 8 pixels, to a side that no cell divides."""
    images = torch.tensor(load_digits().images[:60])[:, None] * 15
    return functional.interpolate(images, size=29, mode="bilinear").round().byte()[:, 0].numpy()


def photos() -> Tensor:
    """Bytes (2, 3, 128, 128)."""
    crops = [load_sample_image(name)[100:228, 200:328] for name in ("china.jpg", "flower.jpg")]
    return torch.tensor(np.stack(crops)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("options", OPTIONS)
def test_features_of_normalised_digits_are_those_that_scikit_image_has_of_their_bytes(options):
    images = real_digits()
    normalised = (torch.tensor(images)[:, None].float() / 255 - 0.1307) / 0.3081
    assert torch.allclose(features(normalised, *options), reference(images, *options), atol=1e-4)


@pytest.mark.parametrize("options", OPTIONS)
def test_features_of_photos_are_those_of_scikit_image_but_where_two_channels_tie(options):
    found, expected = features(photos().float(), *options), reference(photos().permute(0, 2, 3, 1).numpy(), *options)
    near = (found - expected).abs() < 1e-5
    assert near.float().mean() > 0.98  # (57, 25) and (45, 43) are equally long: the last digit of its roots decides


@pytest.mark.parametrize("options", [(9, 8, 2, "L2-Hys"), (7, 5, 3, "L2")])
def test_features_of_normalised_photos_are_those_of_scikit_image(options):
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    images = (photos() / 255 - mean) / std
    assert torch.allclose(
        features(images, *options), reference(images.permute(0, 2, 3, 1).numpy(), *options), atol=1e-5
    )


def test_equal_channels_are_one_and_half_precision_changes_nothing():
    grey = digits(16, 28)[0]
    layer = descriptor()
    assert torch.equal(layer(grey.expand(-1, 3, -1, -1)), layer(grey))
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(grey)
    assert torch.equal(inside, layer(grey))


def test_a_flat_image_has_features_0_and_finite_gradients():
    images = torch.ones(2, 3, 28, 28, requires_grad=True)
    found = descriptor()(images)
    assert not found.any()
    (found.sum() + (found**2).sum()).backward()
    assert torch.isfinite(images.grad).all()


@pytest.mark.parametrize(
    ("channels", "image_size", "cell"), [(1, 4, 1), (1, 28, 4), (3, 32, 4), (3, 128, 16), (4, 61, 8)]
)
def test_a_cell_is_an_eighth_of_the_image(channels, image_size, cell):
    model = build(channels, image_size)
    assert model.cells.size == cell
    assert model.head.in_features == 36 * (image_size // cell - 1) ** 2
    assert model(torch.rand(2, channels, image_size, image_size)).shape == (2, 10)
    with torch.device("meta"):
        shapes = build(channels, image_size)(torch.empty(2, channels, image_size, image_size))
    assert shapes.is_meta


def test_only_the_linear_layer_learns_and_it_learns_digits():
    images, labels = digits(200, 28)
    torch.manual_seed(0)
    model = build()
    assert [name for name, _ in model.named_parameters()] == ["head.weight", "head.bias"] == list(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images[:150]), labels[:150])
        loss.backward()
        optimizer.step()
    assert (model(images[150:]).argmax(1) == labels[150:]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"pixels_per_cell": 0}, "model.args.pixels_per_cell: must be a whole number >= 1, or null"),
        ({"block_norm": "L1"}, "model.args.block_norm: must be one of L2-Hys, L2 (given L1)"),
        ({"orientation": 9}, "did you mean model.args.orientations?"),
        (
            {"pixels_per_cell": 15},
            "a block of 2x2 cells of 15x15 pixels is larger than the image (given data.image_size=28)",
        ),
        ({"cells_per_block": 8}, "make model.args.pixels_per_cell or model.args.cells_per_block smaller"),
    ],
)
def test_what_does_not_fit_is_refused(args, words):
    with pytest.raises(ConfigError) as caught:
        build(**args)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_is_exported_and_explained_as_far_as_it_goes(here, capsys):
    words = ["data=digits", "data.limit=300", "trainer.epochs=2", "trainer.threads=1", "trainer.tensorboard=false"]
    assert cli.main(["model=hog", *words, "hydra.run.dir=run"]) == 0
    pytest.importorskip("onnxruntime")
    for kind in ("onnx", "torchscript"):  # each proves that it answers as the network does, or is refused
        assert cli.main(["export", "run", f"format={kind}"]) == 0
    capsys.readouterr()
    assert cli.main(["explain", "run", "what=[features,gradcam,shift]", "images=4"]) == 0
    assert "features, gradcam: left out, no convolution gives a feature map" in capsys.readouterr().out


def test_summary_follows_the_features_to_the_pixels(capsys):
    assert cli.main(["summary", "model=hog"]) == 0
    rows = {row[0]: row[1:] for line in capsys.readouterr().out.splitlines() if (row := line.split())}
    assert rows["gradient"][1:4] == ["2x28x28", "3", "1"]
    assert rows["cells"][:6] == ["4", "4", "0", "9x7x7", "6", "4"]
    assert rows["blocks"][:3] == ["36x6x6", "10", "4"]  # two cells and a pixel on each side
