"""ResNet-9 and airbench: counts against those known, and whitening without data."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cnntrain.models.zoo.build import build_own
from cnntrain.models.zoo.fast import Whitening, whitening_filters


def meta(name: str) -> nn.Module:
    """Shapes only."""
    with torch.device("meta"):
        return build_own(name, {}, classes=10, channels=3, image_size=32)


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def conv(entering: int, leaving: int) -> int:
    """Weights of a 3x3 convolution, and the scale and shift of the norm behind it."""
    return 9 * entering * leaving + 2 * leaving


def test_resnet9_has_6573120_parameters():
    # 6,573,130 is known from ports whose last layer has a bias.
    convolutions = (
        conv(3, 64) + conv(64, 128) + 2 * conv(128, 128) + conv(128, 256) + conv(256, 512) + 2 * conv(512, 512)
    )
    assert parameters(meta("resnet9")) == convolutions + 512 * 10 == 6_573_130 - 10


def test_airbench_has_2_million_parameters():
    # arXiv 2404.00498, section 3.1: 1.97 M.
    stages = sum(conv(before, after) + conv(after, after) for before, after in [(24, 64), (64, 256), (256, 256)])
    assert parameters(meta("airbench")) == (12 + 1) * 24 + stages + 256 * 10
    assert parameters(meta("airbench")) / 1e6 == pytest.approx(1.97, abs=0.005)


def test_whitening_evens_out_the_patches_of_photos():
    from sklearn.datasets import load_sample_image

    for name in ("china.jpg", "flower.jpg"):
        photo = torch.tensor(load_sample_image(name)).permute(2, 0, 1)[None].float()
        photo = functional.avg_pool2d(photo, 8)
        photo = (photo - photo.mean((2, 3), keepdim=True)) / photo.std((2, 3), keepdim=True)
        patches = functional.unfold(photo, 2)[0].T
        spreads = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).sqrt()
        assert spreads.max() / spreads.min() > 50
        white = functional.conv2d(photo, whitening_filters(3))[0].flatten(1)
        assert torch.equal(white[:12], -white[12:])
        assert white.std(1).max() / white.std(1).min() < 8


def test_whitening_fitted_to_images_makes_their_patches_white():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 20, 20)
    images = functional.avg_pool2d(images, 3, 1, 1) + images[:, :1]  # neighbours and colours go together
    layer = Whitening(3)
    layer.fit(images)
    maps = functional.conv2d(images, layer.weight).transpose(0, 1).flatten(1)
    assert torch.equal(layer.weight[:12], -layer.weight[12:])
    assert torch.allclose(maps[:12] @ maps[:12].T / maps.shape[1], torch.eye(12), atol=0.05)


def test_the_deep_airbench_has_the_9_7_million_parameters_of_airbench96():
    model = build_own("airbench", {"widths": [128, 384, 512], "depth": 3}, classes=10, channels=3, image_size=32)
    widths = [(24, 128), (128, 384), (384, 512)]
    stages = sum(conv(before, after) + 2 * conv(after, after) for before, after in widths)
    assert parameters(model) == (12 + 1) * 24 + stages + 512 * 10
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_airbench_trains_neither_its_whitening_filters_nor_the_scales_of_its_norms():
    model = meta("airbench")
    norms = [f"stages.{stage}.norm{number}.weight" for stage in range(3) for number in (1, 2)]
    assert [name for name, weights in model.named_parameters() if not weights.requires_grad] == [
        "whiten.weight",
        *norms,
    ]


def test_logits_are_scaled_down_as_in_the_papers():
    for name, factor in [("resnet9", 8), ("airbench", 9)]:
        model = build_own(name, {}, classes=10, channels=3, image_size=32).eval()
        images = torch.randn(2, 3, 32, 32)
        assert torch.allclose(model(images) * factor, model[:-1](images), rtol=1e-5)
