"""The network described in YAML: counts, keys, faults, what does not fit, and its power to learn."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from samples import digits
from torch import nn
from torch.nn import functional

from cnntrain.config import overrides
from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.arguments import ACTIVATIONS, TORCH_ACTIVATIONS
from cnntrain.config.schema.cnn import INITS, NORMS, POOLS, CnnArgs
from cnntrain.config.schema.networks import argument_faults
from cnntrain.errors import ConfigError
from cnntrain.models.zoo.cnn import build_cnn

CONF = Path(__file__).parents[2] / "conf" / "model"


def preset(name: str) -> CnnArgs:
    """The arguments of a file in conf/model."""
    return CnnArgs(**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))["args"])


def build(args: CnnArgs, classes: int = 10, channels: int = 1, image_size: int = 16) -> nn.Sequential:
    assert args.faults() == []
    return build_cnn(args, classes=classes, channels=channels, image_size=image_size)


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def fault(image_size: int = 16, channels: int = 3, **args) -> str:
    """The error of a network that does not fit."""
    with pytest.raises(ConfigError) as caught:
        build(CnnArgs(**args), channels=channels, image_size=image_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The networks of the lectures


def test_cnn_has_the_34826_parameters_of_the_keras_example():
    assert parameters(build(preset("cnn"), image_size=28)) == 34_826


def test_cnn3_parameters_are_the_sum_over_its_layers():
    pairs = [(3, 32), (32, 64), (64, 128)]
    convolutions = sum(9 * before * after + 2 * after for before, after in pairs)
    assert parameters(build(preset("cnn3"), channels=3, image_size=32)) == convolutions + 2049 * 128 + 129 * 10


def test_conf_file_shows_the_defaults_of_the_code():
    assert preset("cnn") == CnnArgs()


def test_cnn3_conf_file_names_every_argument():
    named = yaml.safe_load((CONF / "cnn3.yaml").read_text(encoding="utf-8"))["args"]
    assert list(named) == list(yaml.safe_load((CONF / "cnn.yaml").read_text(encoding="utf-8"))["args"])
    assert named.keys() == asdict(CnnArgs()).keys()


def test_layers_have_the_names_of_the_description():
    args = CnnArgs(blocks=[{"filters": 4, "repeat": 2, "norm": "batch", "drop_unit": 0.1}, 8], hidden=[6])
    names = [name for name, layer in build(args).named_modules() if not list(layer.children())]
    assert names == [
        *("blocks.0.conv1", "blocks.0.norm1", "blocks.0.act1", "blocks.0.drop_unit1"),
        *("blocks.0.conv2", "blocks.0.norm2", "blocks.0.act2", "blocks.0.drop_unit2", "blocks.0.pool"),
        *("blocks.1.conv1", "blocks.1.act1", "blocks.1.pool"),
        *("head.flatten", "head.fc1", "head.act1", "head.drop1", "head.fc2"),
    ]


def test_dropout_stands_before_the_only_linear_layer_and_else_after_each_hidden_one():
    assert list(build(CnnArgs())._modules["head"]._modules) == ["flatten", "drop", "fc1"]
    layers = build(CnnArgs(hidden=[8, 8])).head._modules
    assert list(layers) == ["flatten", "fc1", "act1", "drop1", "fc2", "act2", "drop2", "fc3"]


def test_network_without_blocks_is_softmax_regression():
    assert parameters(build(CnnArgs(blocks=[]), channels=3, image_size=8)) == 3 * 64 * 10 + 10


# A block's own keys and the defaults beside them


def test_keys_beside_the_blocks_hold_for_all_and_a_blocks_own_win():
    args = CnnArgs(blocks=[8, {"filters": 8, "kernel": [3, 1]}], kernel=5, padding="same")
    kernels = [layer.kernel_size for layer in build(args).modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == [(5, 5), (3, 1)]


def test_stride_belongs_to_the_first_convolution_of_a_block():
    block = build(CnnArgs(blocks=[{"filters": 4, "repeat": 3}], stride=2, padding="same"))
    assert [layer.stride for layer in block.modules() if isinstance(layer, nn.Conv2d)] == [(2, 2), (1, 1), (1, 1)]


def test_description_comes_through_the_command_line():
    words = ["data=digits", "model=cnn", "model.args.blocks=[{filters:32,repeat:2,kernel:[3,1]},64]"]
    args = compose_settings(overrides.for_hydra([*words, "model.args.kernel=5"])).model.args
    assert [(block.filters, block.repeat, block.kernel) for block in CnnArgs(**args).layout()] == [
        (32, 2, [3, 1]),
        (64, 1, 5),
    ]


@pytest.mark.parametrize(
    ("args", "key", "rule"),
    [
        ({"kernel": 0}, "kernel", "a whole number >= 1, or a pair [height, width] of them"),
        ({"kernel": [3, 3, 3]}, "kernel", "a whole number >= 1, or a pair [height, width] of them"),
        ({"padding": -1}, "padding", "pixels >= 0"),
        ({"padding": False}, "padding", "pixels >= 0"),
        ({"padding": [1, 0.0]}, "padding", "pixels >= 0"),
        ({"padding": "full"}, "padding", "valid, same, or"),
        ({"norm": "bach"}, "norm", "one of none, batch, layer, instance, group"),
        ({"activation": "Softmax"}, "activation", "one of relu, leaky_relu,"),
        ({"dropout": 1.0}, "dropout", "a number >= 0 and < 1"),
        ({"dropout": True}, "dropout", "a number >= 0 and < 1"),
        ({"init_std": 0}, "init_std", "a number > 0"),
        ({"pool_weights": [0, 0, 0, 0]}, "pool_weights", "not all 0"),
        ({"blocks": 32}, "blocks", "a list of blocks"),
        ({"blocks": [32, [8, 8]]}, "blocks[1]", "its number of filters, or a mapping"),
        ({"blocks": [32, 0]}, "blocks[1]", "its number of filters, or a mapping"),
        ({"blocks": [32, {"filters": 0}]}, "blocks[1].filters", "a whole number >= 1"),
        ({"blocks": [{"kernel": 3}]}, "blocks[0].filters", "a whole number >= 1"),
        ({"blocks": [8, 8, {"filters": 8, "kernel": "3"}]}, "blocks[2].kernel", "a whole number >= 1, or a pair"),
        ({"blocks": [{"filters": 8, "kernal": 3}]}, "blocks[0].kernal", "spelt kernel"),
        ({"blocks": [{"filters": 8, "colour": 3}]}, "blocks[0].colour", "one of the keys of a block, filters, repeat,"),
        ({"blocks": [{"filters": 8, "drop_path": 0.1}]}, "blocks[0].drop_path", "residual: true"),
        ({"drop_path": 0.1}, "drop_path", "residual: true"),
        ({"pool_weights": [1, 1, 1, 1]}, "pool_weights", "pool: weighted"),
        ({"pool": "weighted", "pool_weights": [1, 2]}, "blocks[0].pool_weights", "4 numbers for pool_size 2x2"),
        ({"pool": "weighted", "pool_weights": [[1, 2, 3], [4]]}, "blocks[0].pool_weights", "or 2 rows of 2"),
        (
            {"pool": "weighted", "pool_size": [2, 3], "pool_weights": [[1, 2], [3, 4], [5, 6]]},
            "blocks[0].pool_weights",
            "6 numbers for pool_size 2x3, or 2 rows of 3",
        ),
        ({"pool": "none", "pool_size": 3}, "pool_size", "left out with pool: none or global"),
        ({"blocks": [{"filters": 8, "pool": "global", "pool_stride": 2}]}, "blocks[0].pool_stride", "left out with"),
        ({"padding_mode": "reflect"}, "padding_mode", "zeros without padding"),
        ({"padding": 0, "padding_mode": "reflect"}, "padding_mode", "zeros without padding"),
        ({"hidden_drop_connect": 0.1}, "hidden_drop_connect", "0 without hidden layers"),
        ({"conv": "depthwise_separable", "groups": 2}, "blocks[0].groups", "1 with conv: depthwise_separable"),
    ],
)
def test_wrong_value_is_named_with_its_block_and_rule(args, key, rule):
    found = argument_faults("cnn", args)
    assert found[0][0] == key
    assert rule in found[0][2]


def test_a_value_that_one_block_uses_may_stand_beside_all():
    blocks = [8, {"filters": 8, "padding": "same"}, {"filters": 8, "pool": "none"}]
    args = {"blocks": blocks, "pool_size": 3, "pool_stride": 2, "padding_mode": "circular"}
    assert argument_faults("cnn", args) == []
    assert argument_faults("cnn", {"blocks": [{"filters": 8, "padding_mode": "zeros", "pool_size": 2}]}) == []


def test_every_faulty_block_is_named():
    blocks = [{"filters": 8, "stride": 0}, 8, {"filters": 8, "norm": "x", "repeet": 2}]
    keys = [key for key, _, _ in argument_faults("cnn", {"blocks": blocks})]
    assert keys == ["blocks[0].stride", "blocks[2].norm", "blocks[2].repeet"]


# What does not fit


FORMULA = "floor((H + 2P - D(F-1) - 1)/S) + 1"


def test_kernel_larger_than_its_map_is_named_with_the_formula_and_the_smallest_image_size():
    blocks = [8, 8, {"filters": 8, "kernel": 7, "padding": "valid"}]
    assert fault(blocks=blocks, padding="same") == (
        f"model.args.blocks[2]: kernel 7x7 on a map of 4x4: H' = {FORMULA} = floor((4 + 0 - 1*6 - 1)/1) + 1 = -2, and "
        "a map needs 1 pixel; the smallest image size that works is 32: set data.image_size=32, or take a smaller "
        "kernel or padding: same"
    )


def test_block_that_no_image_size_helps_gets_another_advice():
    assert fault(blocks=[{"filters": 8, "pool": "global"}, 8]) == (
        f"model.args.blocks[1]: kernel 3x3 on a map of 1x1: H' = {FORMULA} = floor((1 + 0 - 1*2 - 1)/1) + 1 = -1, and "
        "a map needs 1 pixel; take a smaller kernel or padding: same"
    )


@pytest.mark.parametrize(
    ("args", "smallest", "words"),
    [
        ({}, 10, "blocks[1]: pool_size 2x2 on a map of 1x1: H' ="),
        ({"padding": "same"}, 4, "blocks[1]: pool_size 2x2 on a map of 1x1"),
        ({"kernel": 5, "repeat": 2, "blocks": [8, 8, {"filters": 8, "repeat": 1}]}, 48, "blocks[2]: pool_size 2x2"),
        ({"blocks": [{"filters": 8, "kernel": [1, 9]}]}, 10, "blocks[0]: pool_size 2x2 on a map of 9x1: W' ="),
        ({"kernel": 5, "padding": "same", "padding_mode": "reflect"}, 6, "reflect adds 2 pixels and needs a map of 3"),
        (
            {"kernel": 5, "padding": "same", "padding_mode": "circular"},
            4,
            "circular adds 2 pixels and needs a map of 2",
        ),
        ({"padding": "same", "norm": "instance"}, 4, "instance needs more than one pixel"),
        ({"padding": "same", "norm": "instance", "pool": "stride"}, 8, "instance needs more than one pixel"),
    ],
)
def test_too_small_image_is_told_the_smallest_size_that_works(args, smallest, words):
    message = fault(image_size=smallest - 1, **args)
    assert words in message
    assert f"; the smallest image size that works is {smallest}: set data.image_size={smallest}, or take " in message
    logits = build(CnnArgs(**args), image_size=smallest)(torch.zeros(2, 1, smallest, smallest))
    assert logits.shape == (2, 10)


def test_groups_that_do_not_divide_are_named_with_those_that_do():
    assert fault(blocks=[12, {"filters": 8, "groups": 3}]) == (
        "model.args.blocks[1]: groups 3 must divide the 8 filters, and 8 = 3*2 + 2; groups can be 1, 2 or 4"
    )
    assert fault(blocks=[12], groups=2) == (
        "model.args.blocks[0]: groups 2 must divide the 3 channels that enter, and 3 = 2*1 + 1; groups can be 1 or 3"
    )


def test_sum_of_unlike_shapes_names_both():
    assert fault(blocks=[{"filters": 8, "residual": True}]) == (
        "model.args.blocks[0]: residual: the convolutions give 14x14 pixels and the shortcut 16x16, and a sum needs "
        "the same; take padding: same"
    )


# Any size, and the power to learn


@pytest.mark.parametrize("name", ["cnn", "cnn3"])
@pytest.mark.parametrize(("channels", "image_size"), [(1, 16), (3, 28), (4, 33), (3, 96)])
def test_lecture_nets_take_any_size_and_channels(name, channels, image_size):
    model = build(preset(name), classes=7, channels=channels, image_size=image_size)
    assert model(torch.zeros(2, channels, image_size, image_size)).shape == (2, 7)


def test_meta_device_counts_parameters_without_memory():
    args = CnnArgs(pool="weighted", norm="group", conv="spatially_separable", init="he")
    with torch.device("meta"):
        model = build(args)
    assert all(weights.is_meta for weights in model.parameters())
    assert parameters(model) == parameters(build(args))


def deep() -> CnnArgs:
    """Eleven layers of many kinds."""
    blocks = [
        {"filters": 16, "kernel": 5, "pool": "none"},
        {"filters": 16, "repeat": 2, "residual": True, "drop_path": 0.1, "pool": "weighted"},
        {"filters": 24, "repeat": 3, "residual": True, "stride": 2, "conv": "depthwise_separable", "pool": "none"},
        {"filters": 32, "repeat": 2, "kernel": 2, "norm": "group", "activation": "swish", "padding_mode": "reflect"},
        {"filters": 32, "conv": "spatially_separable", "padding_mode": "circular", "pool": "global"},
    ]
    return CnnArgs(blocks=blocks, padding="same", norm="batch", hidden=[32], dropout=0.1, init="he")


@pytest.mark.slow
@pytest.mark.parametrize("args", [preset("cnn"), preset("cnn3"), deep()], ids=["cnn", "cnn3", "deep"])
def test_network_memorises_a_batch_of_digits(args):
    images, labels = digits(64, 16)
    torch.manual_seed(0)
    model = build(args)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model.eval()(images).argmax(1) == labels).all()


CHOICES = [
    *({"activation": name} for name in (*ACTIVATIONS, *TORCH_ACTIVATIONS, "none")),
    *({"norm": name} for name in NORMS),
    *({"pool": name} for name in POOLS),
    *({"init": name} for name in INITS),
    *({"conv": name} for name in ("depthwise_separable", "spatially_separable")),
    *({key: 0.2} for key in ("drop_unit", "drop_channel", "drop_block", "drop_connect", "hidden_drop_connect")),
    {"residual": True, "drop_path": 0.2, "norm": "batch"},
    {"residual": True, "stride": 2, "repeat": 2},
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(f"{key}_{choice[key]}" for key in choice))
def test_every_choice_trains_a_step(choice):
    torch.manual_seed(0)
    model = build(CnnArgs(blocks=[8, 8], padding="same", hidden=[8], **choice))
    images = 8 * torch.randn(4, 1, 16, 16)  # far enough from 0 for the activations that shrink
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = next(model.parameters())
    before = first.clone()
    functional.cross_entropy(model(images), torch.arange(4)).backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters())
    optimizer.step()
    assert not torch.equal(first, before)
    assert model.eval()(images).isfinite().all()
