"""Softmax regression, the perceptron and the LeNets: counts against the papers, any size, and the power to learn."""

import pytest
import torch
from samples import digits
from torch import nn
from torch.nn import functional

from cnntrain.config.schema.model import ModelSettings, Stem
from cnntrain.errors import ConfigError
from cnntrain.models.build import build_model

NAMES = ("softmax", "mlp", "lenet1", "lenet4", "lenet5")


def build(name: str, classes: int = 10, channels: int = 1, image_size: int = 32, **args: object) -> nn.Module:
    settings = ModelSettings(name=name, args=args)
    return build_model(settings, classes=classes, channels=channels, image_size=image_size)[0]


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def test_softmax_regression_has_a_weight_for_each_pixel_and_class():
    assert parameters(build("softmax", image_size=28)) == (784 + 1) * 10


def test_mlp_parameters_are_the_sum_over_its_layers():
    assert parameters(build("mlp", image_size=28)) == (784 + 1) * 256 + 257 * 128 + 129 * 10


def test_lenet1_is_the_2578_parameters_of_the_paper_with_all_maps_joined_and_plain_pools():
    # LeCun et al. 1989: 20 of the 48 pairs of maps are joined, and each pool map has a weight and a bias.
    assert parameters(build("lenet1", image_size=28)) == 2_578 + (48 - 20) * 25 - 2 * (4 + 12)


def test_lenet4_parameters_are_the_sum_over_its_layers():
    # LeCun et al. 1998, section III.C.3: 4 and 16 maps, 120 units; its sparse table of connections is not published.
    convolutions = (25 + 1) * 4 + (4 * 25 + 1) * 16
    assert parameters(build("lenet4")) == convolutions + (16 * 25 + 1) * 120 + 121 * 10


def test_lenet5_is_the_paper_with_all_maps_joined_plain_pools_and_logits():
    # LeCun et al. 1998, section II.B: C1 156, S2 12, C3 1,516 for 60 of 96 pairs of maps, S4 32, C5 48,120, F6 10,164.
    paper = 156 + 12 + 1_516 + 32 + 48_120 + 10_164
    assert paper == 60_000
    assert parameters(build("lenet5")) == paper - 12 - 32 + (96 - 60) * 25 + 85 * 10 == 61_706


@pytest.mark.parametrize(("name", "size"), [("lenet4", 28), ("lenet5", 28), ("lenet1", 24)])
def test_images_four_pixels_smaller_give_the_same_maps(name, size):
    assert parameters(build(name, image_size=size)) == parameters(build(name, image_size=size + 4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "image_size"), [(1, 12), (3, 28), (4, 33), (3, 96)])
def test_small_nets_take_any_size_and_channels(name, channels, image_size):
    model = build(name, classes=7, channels=channels, image_size=image_size)
    assert model(torch.zeros(2, channels, image_size, image_size)).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_meta_device_counts_parameters_without_memory(name):
    with torch.device("meta"):
        model = build(name)
    assert all(weights.is_meta for weights in model.parameters())
    assert parameters(model) == parameters(build(name))


@pytest.mark.parametrize("name", NAMES)
def test_small_nets_memorise_a_batch_of_digits(name):
    images, labels = digits(64, 16)
    torch.manual_seed(0)
    model = build(name, image_size=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert (model.eval()(images).argmax(1) == labels).all()


@pytest.mark.parametrize("name", ["lenet1", "lenet4", "lenet5"])
def test_too_small_image_names_the_smallest_size_that_works(name):
    with pytest.raises(ConfigError, match=r"^data.image_size: 11 .* smallest is 12;"):
        build(name, image_size=11)
    assert build(name, image_size=12)(torch.zeros(2, 1, 12, 12)).shape == (2, 10)


def test_lenet_of_the_paper_has_average_pools_and_tanh():
    kinds = {type(layer) for layer in build("lenet5", pooling="avg", activation="tanh")}
    assert kinds == {nn.Conv2d, nn.Tanh, nn.AvgPool2d, nn.Flatten, nn.Linear}


@pytest.mark.parametrize("name", NAMES)
def test_last_linear_layer_is_the_head(name):
    assert build(name, classes=7).head.out_features == 7


@pytest.mark.parametrize(
    ("name", "args", "key", "words"),
    [
        ("mlp", {"hiden": [10]}, "model.args.hiden", "did you mean model.args.hidden?"),
        ("mlp", {"hidden": 10}, "model.args.hidden", "a list of whole numbers"),
        ("lenet5", {"activation": "rleu"}, "model.args.activation", "relu"),
        ("softmax", {"hidden": [10]}, "model.args.hidden", "softmax takes none"),
    ],
)
def test_bad_argument_is_refused_with_its_key_and_rule(name, args, key, words):
    with pytest.raises(ConfigError) as caught:
        build(name, **args)
    assert str(caught.value).startswith(key)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_small_stem_is_refused_for_a_net_without_a_large_one():
    with pytest.raises(ConfigError, match=r"^model\.stem: "):
        build_model(ModelSettings(name="lenet5", stem=Stem.small), classes=10, channels=1, image_size=32)


def test_dropout_stands_after_each_hidden_layer_and_before_the_only_linear_one():
    deep = build("mlp", hidden=[8, 8], dropout=0.5)
    assert [type(layer).__name__ for layer in deep] == ["Flatten", *["Linear", "ReLU", "Dropout"] * 2, "Linear"]
    flat = build("mlp", hidden=[], dropout=0.5)
    assert [type(layer).__name__ for layer in flat] == ["Flatten", "Dropout", "Linear"]
