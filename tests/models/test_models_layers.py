"""The layers of the described network: against torch, numpy.pad, sums by hand and the formulas of the papers."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from cnntrain.config.schema.arguments import TORCH_ACTIVATIONS
from cnntrain.config.schema.cnn import PADDING_MODES, CnnArgs, pair
from cnntrain.models.layers import WeightedAvgPool2d, convolution, make_repeatable, norm2d, norm_groups
from cnntrain.models.map_sizes import Window
from cnntrain.models.zoo.cnn import build_cnn


def one_block(channels: int = 2, image_size: int = 12, **keys) -> nn.Module:
    """The only block of a network; nothing but a convolution of 4 filters unless `keys` says so."""
    block = {"filters": 4, "pool": "none", "activation": "none"} | keys
    args = CnnArgs(blocks=[block])
    assert args.faults() == []
    return build_cnn(args, classes=10, channels=channels, image_size=image_size).blocks[0]


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


# Convolutions


def test_size_formula_agrees_with_torch():
    for height, kernel, stride, padding, dilation in itertools.product(
        (5, 8, 9), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        size = (height, height + 1)
        window = Window((kernel, 1), (stride, 1), ((padding, padding), (0, 0)), (dilation, 1))
        torch_size = functional.conv2d(
            torch.empty(1, 1, *size, device="meta"),
            torch.empty(1, 1, kernel, 1, device="meta"),
            stride=(stride, 1),
            padding=(padding, 0),
            dilation=(dilation, 1),
        ).shape[2:]
        assert window.output(size) == tuple(torch_size)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("kernel", [3, 4, [2, 5]])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_same_padding_is_numpys_padding_and_a_valid_convolution(mode, kernel, stride, dilation):
    images = torch.randn(2, 2, 11, 12)
    block = one_block(kernel=kernel, stride=stride, dilation=dilation, padding="same", padding_mode=mode, image_size=12)
    conv = next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    added = [dilation * (side - 1) for side in pair(kernel)]  # the extra pixel goes to the bottom and to the right
    sides = [(0, 0), (0, 0), *((total // 2, total - total // 2) for total in added)]
    named = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}.get(mode, mode)
    padded = torch.from_numpy(np.pad(images.numpy(), sides, mode=named))
    expected = functional.conv2d(padded, conv.weight, conv.bias, stride=stride, dilation=dilation)
    assert expected.shape[2:] == (-(-11 // stride), -(-12 // stride))
    torch.testing.assert_close(block(images), expected)


def test_same_padding_of_an_even_kernel_is_torchs_own_at_stride_1():
    images = torch.randn(2, 2, 9, 9)
    block = one_block(kernel=4, padding="same")
    conv = block.conv1.conv
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it copies
        expected = functional.conv2d(images, conv.weight, conv.bias, padding="same")
    torch.testing.assert_close(block(images), expected)


def test_padding_takes_a_number_or_a_pair():
    assert one_block(padding=2).conv1.padding == (2, 2)
    assert one_block(padding=[0, 1], kernel=[1, 3]).conv1.padding == (0, 1)


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({}, (3 * 3 * 6 + 1) * 4),
        ({"bias": False}, 3 * 3 * 6 * 4),
        ({"kernel": [3, 1]}, (3 * 6 + 1) * 4),
        ({"kernel": 1}, (6 + 1) * 4),
        ({"groups": 2}, (3 * 3 * 3 + 1) * 4),
        ({"conv": "depthwise_separable"}, 3 * 3 * 6 + (6 + 1) * 4),
        ({"conv": "spatially_separable"}, 3 * 6 * 4 + (3 * 4 + 1) * 4),
        ({"conv": "spatially_separable", "groups": 2}, 3 * 3 * 4 + (3 * 2 + 1) * 4),
        ({"norm": "batch"}, 3 * 3 * 6 * 4 + 2 * 4),
        ({"norm": "batch", "bias": True}, (3 * 3 * 6 + 1) * 4 + 2 * 4),
        ({"activation": "PReLU"}, (3 * 3 * 6 + 1) * 4 + 1),
    ],
)
def test_parameters_of_a_block_are_the_sum_by_hand(keys, count):
    assert parameters(one_block(channels=6, **keys)) == count


@pytest.mark.parametrize("kind", ["depthwise_separable", "spatially_separable"])
def test_separable_convolution_is_a_full_one_whose_weight_is_a_product(kind):
    window = Window((3, 5), (2, 1), ((1, 1), (2, 2)), (1, 2))
    parts = convolution(kind, 3, 4, window)
    full = convolution("full", 3, 4, window)
    if kind == "depthwise_separable":
        weight = torch.einsum("ihw,oi->oihw", parts.depthwise.weight[:, 0], parts.pointwise.weight[:, :, 0, 0])
        bias = parts.pointwise.bias
    else:
        weight = torch.einsum("mih,omw->oihw", parts.column.weight[..., 0], parts.row.weight[:, :, 0])
        bias = parts.row.bias
    images = torch.randn(2, 3, 9, 14)
    expected = full._conv_forward(images, weight, bias)
    torch.testing.assert_close(parts(images), expected, rtol=1e-4, atol=1e-5)


# Pools, norms, activations, first weights


def test_weighted_pool_starts_as_the_average_and_learns():
    pool = WeightedAvgPool2d((2, 3), (2, 3))
    images = torch.randn(2, 4, 8, 9)
    torch.testing.assert_close(pool(images), functional.avg_pool2d(images, (2, 3)))
    pool(images).square().sum().backward()
    assert pool.logits.grad.abs().sum() > 0


def test_fixed_pool_weights_are_those_of_a_weighted_mean():
    pool = one_block(pool="weighted", pool_weights=[[1, 2], [0, 5]]).pool
    assert not list(pool.parameters())
    torch.testing.assert_close(pool(torch.arange(4.0).view(1, 1, 2, 2)).item(), (0 * 1 + 1 * 2 + 3 * 5) / 8)
    flat = one_block(pool="weighted", pool_weights=[1, 2, 0, 5]).pool
    assert torch.equal(pool.weights(), flat.weights())


@pytest.mark.parametrize(
    ("keys", "kind", "size"),
    [
        ({"pool": "max"}, nn.MaxPool2d, 5),
        ({"pool": "max", "pool_size": 3, "pool_stride": 2}, nn.MaxPool2d, 4),
        ({"pool": "avg", "pool_size": 3}, nn.AvgPool2d, 3),
        ({"pool": "weighted"}, WeightedAvgPool2d, 5),
        ({"pool": "stride"}, nn.Conv2d, 5),
        ({"pool": "global"}, nn.AdaptiveAvgPool2d, 1),
    ],
)
def test_pool_is_the_layer_that_its_name_says(keys, kind, size):
    block = one_block(**keys)
    assert type(block.pool) is kind
    assert block(torch.zeros(2, 2, 12, 12)).shape == (2, 4, size, size)


def test_strided_convolution_in_place_of_a_pool_has_norm_and_activation():
    block = one_block(pool="stride", norm="batch", activation="relu")
    assert list(block._modules) == ["conv1", "norm1", "act1", "pool", "pool_norm", "pool_act"]


@pytest.mark.parametrize(("kind", "dims"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("instance", (2, 3))])
def test_norm_standardises_over_the_dimensions_of_its_paper(kind, dims):
    maps = norm2d(kind, 6)(torch.randn(5, 6, 7, 7) * 3 + 2)
    torch.testing.assert_close(maps.mean(dims), torch.zeros_like(maps.mean(dims)), rtol=0, atol=1e-5)
    torch.testing.assert_close(maps.var(dims, unbiased=False), torch.ones_like(maps.mean(dims)), rtol=0, atol=1e-3)


def test_group_norm_parts_any_number_of_channels():
    assert [norm_groups(channels) for channels in (1, 3, 7, 8, 24, 32, 64, 100, 512)] == [
        1,
        1,
        1,
        4,
        12,
        16,
        32,
        25,
        32,
    ]
    norm2d("group", 7)(torch.randn(1, 7, 2, 2))


def test_known_activations_are_those_of_torch_that_need_no_argument_and_keep_the_shape():
    kept = []
    for name in nn.modules.activation.__all__:
        try:
            shapes = [getattr(nn, name)()(torch.randn(shape)).shape for shape in [(2, 4, 4, 4), (2, 4)]]
        except (TypeError, ValueError, UserWarning):  # an argument is missing; Softmax warns about its dimension
            continue
        kept += [name] if shapes == [(2, 4, 4, 4), (2, 4)] else []
    assert sorted(kept) == sorted(TORCH_ACTIVATIONS)


@pytest.mark.parametrize(
    ("init", "spread"),
    [("he", (2 / (9 * 64)) ** 0.5), ("glorot", (2 / (9 * (64 + 64))) ** 0.5), ("normal", 0.05)],
)
def test_first_weights_have_the_spread_of_the_formula(init, spread):
    torch.manual_seed(0)
    args = CnnArgs(blocks=[{"filters": 64, "repeat": 2}], init=init, init_std=0.05)
    conv = build_cnn(args, classes=10, channels=1, image_size=8).blocks[0].conv2
    assert conv.weight.std().item() == pytest.approx(spread, rel=0.02)
    assert not conv.bias.any()


# Residual blocks


def test_residual_block_adds_its_input_before_the_last_activation():
    block = one_block(channels=4, repeat=2, padding="same", residual=True, activation="relu", norm="batch")
    images = torch.randn(3, 4, 12, 12)
    assert isinstance(block.residual.shortcut, nn.Identity)
    torch.testing.assert_close(block(images), functional.relu(images + block.residual.branch(images)))
    assert list(block.residual.branch._modules) == ["conv1", "norm1", "act1", "conv2", "norm2"]


@pytest.mark.parametrize("keys", [{"filters": 6}, {"stride": 2}, {"stride": [1, 2], "kernel": [2, 4]}])
def test_shortcut_is_a_1x1_convolution_where_the_shapes_differ(keys):
    block = one_block(channels=4, padding="same", residual=True, image_size=11, **keys)
    assert block.residual.shortcut.conv.kernel_size == (1, 1)
    block(torch.zeros(2, 4, 11, 11))


# Layers whose gradient repeats its bits on CUDA


class Named(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


POOLS = [nn.AdaptiveMaxPool2d(1), *map(nn.AdaptiveAvgPool2d, (1, 4, 7, (3, None), (2, 5)))]
NORMS = [nn.LocalResponseNorm(2), nn.LocalResponseNorm(3, alpha=0.5, beta=0.6, k=2.0)]


@pytest.mark.parametrize("own", [*POOLS, *NORMS])
def test_repeatable_layers_give_what_torchs_give_without_its_gradients(own):
    ends = []
    for layer in (own, copy.deepcopy(own)):
        if layer is not own:
            make_repeatable(layer)
        images = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with Named() as seen:
            maps = layer(images)
            (maps * torch.arange(maps.numel()).view(maps.shape)).sum().backward()
        ends.append((maps, images.grad))
    torch.testing.assert_close(*ends)
    assert not [name for name in seen.names if "adaptive" in name or "pool3d" in name]
