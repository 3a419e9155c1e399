"""What drops at random while training: shares, shapes and expectations against the papers, rates over a run."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from cnntrain.config.schema.cnn import CnnArgs
from cnntrain.models.drop import (
    DropBlock2d,
    DropConnectConv2d,
    DropConnectLinear,
    DropPath,
    drop_layers,
    set_drop_factor,
)
from cnntrain.models.zoo.cnn import build_cnn

LAYERS = [
    DropBlock2d(0.3, 3),
    DropPath(0.3),
    DropConnectConv2d(4, 5, 3, p=0.3),
]


def kept(layer: nn.Module, *shape: int) -> torch.Tensor:
    """Which values of ones a layer keeps, True or False."""
    torch.manual_seed(0)
    return layer(torch.ones(shape)) != 0


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_evaluation_and_rate_0_change_nothing(layer):
    images = torch.randn(6, 4, 8, 8)
    expected = functional.conv2d(images, layer.weight, layer.bias) if isinstance(layer, nn.Conv2d) else images
    assert not torch.equal(layer.train()(images), expected)
    assert torch.equal(layer.eval()(images), expected)
    set_drop_factor(layers := drop_layers(layer), 0.0)
    assert torch.equal(layer.train()(images), expected)
    set_drop_factor(layers, 1.0)


@pytest.mark.parametrize(("p", "size", "side"), [(0.1, 3, 16), (0.1, 7, 14), (0.3, 1, 8), (0.2, 5, 12)])
def test_dropblock_drops_the_share_of_its_formula(p, size, side):
    places = side - size + 1
    chance = p * side**2 / (size**2 * places**2)  # gamma, equation 1 of the paper
    along = [sum(0 <= at - back < places for back in range(size)) for at in range(side)]
    covered = torch.tensor(along).outer(torch.tensor(along))  # squares that a value lies in
    expected = 1 - ((1 - chance) ** covered).mean().item()
    assert expected == pytest.approx(p, rel=0.1 if p <= 0.1 else 0.2)
    share = 1 - kept(DropBlock2d(p, size), 200, 40, side, side).float().mean().item()
    assert share == pytest.approx(expected, rel=0.03)


def test_dropblock_drops_whole_squares_in_each_channel_others():
    alive = kept(DropBlock2d(0.1, 3), 4, 8, 12, 12)
    dead = (~alive).float()
    squares = functional.avg_pool2d(dead, 3, stride=1) == 1
    covered = functional.max_pool2d(functional.pad(squares.float(), (2, 2, 2, 2)), 3, stride=1)
    assert torch.equal(covered, dead)
    assert not torch.equal(alive[:, 0], alive[:, 1])


def test_dropblock_on_a_map_smaller_than_its_square_drops_the_whole_map():
    alive = kept(DropBlock2d(0.25, 7), 400, 10, 4, 3).flatten(2).float()
    assert set(alive.mean(2).flatten().tolist()) == {0.0, 1.0}
    assert alive.mean().item() == pytest.approx(0.75, abs=0.02)


def test_dropblock_keeps_the_mean_of_the_batch():
    torch.manual_seed(0)
    assert DropBlock2d(0.3, 3)(torch.ones(4, 4, 9, 9)).mean().item() == pytest.approx(1, abs=1e-5)


def test_droppath_drops_whole_images_and_keeps_the_expectation():
    torch.manual_seed(0)
    values = DropPath(0.25)(torch.ones(20_000, 2, 1, 1)).flatten(1)
    assert torch.equal(values[:, 0], values[:, 1])
    assert sorted(set(values[:, 0].tolist())) == pytest.approx([0, 1 / 0.75])
    assert values.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", [DropConnectLinear, DropConnectConv2d])
def test_dropconnect_drops_weights_in_training_only(kind):
    torch.manual_seed(0)
    layer = kind(50, 40, p=0.3) if kind is DropConnectLinear else kind(50, 40, 1, p=0.3)
    inputs = torch.eye(50) if kind is DropConnectLinear else torch.eye(50)[:, :, None, None]
    weight = layer.weight.flatten(1).T

    def seen() -> torch.Tensor:
        return layer(inputs).flatten(1) - layer.bias

    torch.testing.assert_close(layer.eval()(inputs).flatten(1) - layer.bias, weight)
    layer.train()
    alive = seen() / weight
    assert alive.isclose(torch.tensor(0.0), atol=1e-3).logical_or(alive.isclose(torch.tensor(1 / 0.7), atol=1e-3)).all()
    assert (alive > 0.5).float().mean().item() == pytest.approx(0.7, abs=0.05)
    assert not torch.equal(seen(), seen())
    mean = torch.stack([seen() for _ in range(2000)]).mean(0)
    assert (mean - weight).abs().max() < 6 * (0.3 / 0.7 / 2000) ** 0.5 * weight.abs().max()


def test_dropconnect_layers_are_those_of_torch_to_whoever_looks():
    layer = DropConnectConv2d(3, 4, 3, p=0.2, padding=1, padding_mode="reflect")
    assert isinstance(layer, nn.Conv2d)
    assert layer.state_dict().keys() == nn.Conv2d(3, 4, 3).state_dict().keys()
    assert "padding_mode=reflect, p=0.2" in repr(layer)
    assert layer(torch.zeros(1, 3, 5, 5)).shape == (1, 4, 5, 5)


def test_every_rate_of_the_described_network_follows_the_factor():
    rates: dict[str, Any] = {
        "drop_unit": 0.1,
        "drop_channel": 0.2,
        "drop_block": 0.3,
        "drop_path": 0.4,
        "drop_connect": 0.05,
    }
    args = CnnArgs(blocks=[4, 4], padding="same", residual=True, hidden=[5], hidden_drop_connect=0.15, **rates)
    layers = drop_layers(build_cnn(args, classes=3, channels=1, image_size=8))
    assert sorted(found.base for found in layers) == sorted([*rates.values(), *rates.values(), 0.15, 0.5])
    for factor in (0.5, 0.0, 1.0):
        set_drop_factor(layers, factor)
        assert [found.layer.p for found in layers] == [found.base * factor for found in layers]


def test_rate_0_is_no_rate():
    assert drop_layers(nn.Sequential(nn.Dropout(0.0), nn.Linear(2, 2), DropPath(0.0))) == []


def test_rates_of_torch_and_torchvision_are_found():
    from torchvision import models
    from torchvision.ops import DropBlock2d as TorchvisionDropBlock

    with torch.device("meta"):
        network = models.efficientnet_b0(stochastic_depth_prob=0.2, dropout=0.3)
        dense = models.densenet121(drop_rate=0.1)
    kinds = [type(found.layer).__name__ for found in drop_layers(network)]
    assert kinds.count("StochasticDepth") == 15  # the first of the sixteen has rate 0
    assert kinds.count("Dropout") == 1
    assert len(drop_layers(dense)) == 58
    assert drop_layers(nn.MultiheadAttention(4, 2, dropout=0.1))[0].attribute == "dropout"
    assert drop_layers(TorchvisionDropBlock(0.1, 7))[0].attribute == "p"
    images = torch.ones(64, 1, 1, 1)
    layer = network.features[7][0].stochastic_depth
    set_drop_factor(drop_layers(network), 0.0)
    assert torch.equal(layer(images), images)


def test_rates_of_timm_are_found():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model("resnet18", drop_rate=0.1, drop_path_rate=0.2, drop_block_rate=0.3)
    found = drop_layers(network)
    assert {type(part.layer).__name__ for part in found} == {"ResNet", "DropPath", "DropBlock2d"}
    set_drop_factor(found, 0.5)
    assert network.drop_rate == 0.05
    assert network.layer4[1].drop_path.drop_prob == pytest.approx(0.1)
