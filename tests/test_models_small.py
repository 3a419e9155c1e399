"""Our own small networks: counts against the papers, any size, and the power to learn."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from cnntrain.errors import ConfigError
from cnntrain.models import build_model
from cnntrain.settings.model import ModelSettings, Stem
from cnntrain.settings.nets import OWN_NETS

CONF = Path(__file__).parents[1] / "conf" / "model"
PRESETS = ("mlp", "lenet5", "cnn", "cnn3")


def preset(name: str) -> ModelSettings:
    """The settings of a file in conf/model."""
    return ModelSettings(**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")))


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def build(settings: ModelSettings, classes: int = 10, channels: int = 1, image_size: int = 32) -> nn.Module:
    return build_model(settings, classes=classes, channels=channels, image_size=image_size)[0]


def test_lenet5_has_the_61706_parameters_of_its_modern_reading():
    assert parameters(build(preset("lenet5"))) == 61_706


def test_lenet5_gives_28_pixel_images_the_same_map_as_32_pixel_ones():
    assert parameters(build(preset("lenet5"), image_size=28)) == 61_706


def test_cnn_has_the_34826_parameters_of_the_keras_example():
    assert parameters(build(preset("cnn"), image_size=28)) == 34_826


def test_cnn3_parameters_are_the_sum_over_its_layers():
    pairs = [(3, 32), (32, 64), (64, 128)]
    convolutions = sum(9 * before * after + 2 * after for before, after in pairs)
    assert parameters(build(preset("cnn3"), channels=3)) == convolutions + (128 * 4 * 4 + 1) * 128 + 129 * 10


def test_mlp_parameters_are_the_sum_over_its_layers():
    assert parameters(build(preset("mlp"), image_size=28)) == (784 + 1) * 256 + 257 * 128 + 129 * 10


@pytest.mark.parametrize("name", ["mlp", "lenet5", "cnn"])
def test_conf_file_shows_the_defaults_of_the_code(name):
    settings = preset(name)
    assert settings.args == asdict(OWN_NETS[settings.name]())
    assert settings.faults() == []


def test_cnn3_conf_file_names_every_argument():
    settings = preset("cnn3")
    assert settings.args.keys() == asdict(OWN_NETS["cnn"]()).keys()
    assert settings.faults() == []


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("channels", "image_size"), [(1, 16), (3, 28), (4, 33), (3, 96)])
def test_small_nets_take_any_size_and_channels(name, channels, image_size):
    model = build(preset(name), classes=7, channels=channels, image_size=image_size)
    assert model(torch.zeros(2, channels, image_size, image_size)).shape == (2, 7)


@pytest.mark.parametrize("name", PRESETS)
def test_meta_device_counts_parameters_without_memory(name):
    with torch.device("meta"):
        model = build(preset(name))
    assert all(weights.is_meta for weights in model.parameters())
    assert parameters(model) == parameters(build(preset(name)))


@pytest.mark.parametrize("name", PRESETS)
def test_small_nets_memorise_a_batch_of_digits(name):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = functional.interpolate(
        torch.tensor(digits.images[:64], dtype=torch.float32)[:, None] / 8 - 1, scale_factor=2
    )
    labels = torch.tensor(digits.target[:64])
    torch.manual_seed(0)
    model = build(preset(name), image_size=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model.eval()(images).argmax(1) == labels).all()


@pytest.mark.parametrize(
    ("name", "args", "smallest"),
    [
        ("lenet5", {}, 12),
        ("cnn", {}, 10),
        ("cnn", {"padding": "same"}, 4),
        ("cnn", {"filters": [[8, 8], [8, 8], [8]], "kernel": 5}, 48),
    ],
)
def test_too_small_image_names_the_smallest_size_that_works(name, args, smallest):
    settings = ModelSettings(name=name, args=args)
    with pytest.raises(ConfigError, match=rf"^data.image_size: {smallest - 1} .* smallest is {smallest};"):
        build(settings, image_size=smallest - 1)
    assert build(settings, image_size=smallest)(torch.zeros(2, 1, smallest, smallest)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "args", "key", "words"),
    [
        ("mlp", {"hiden": [10]}, "model.args.hiden", "did you mean model.args.hidden?"),
        ("mlp", {"hidden": 10}, "model.args.hidden", "a list of whole numbers"),
        ("cnn", {"dropout": 1.0}, "model.args.dropout", ">= 0 and < 1"),
        ("cnn", {"dropout": True}, "model.args.dropout", ">= 0 and < 1"),
        ("cnn", {"filters": [32, [64, 0]]}, "model.args.filters", "one entry for each block"),
        ("cnn", {"kernel": 0}, "model.args.kernel", ">= 1"),
        ("cnn", {"norm": "layer"}, "model.args.norm", "batch, none"),
        ("lenet5", {"activation": "rleu"}, "model.args.activation", "relu"),
    ],
)
def test_bad_argument_is_refused_with_its_key_and_rule(name, args, key, words):
    with pytest.raises(ConfigError) as caught:
        build(ModelSettings(name=name, args=args))
    assert str(caught.value).startswith(key)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_small_stem_is_refused_for_a_net_without_a_large_one():
    with pytest.raises(ConfigError, match=r"^model\.stem: "):
        build(ModelSettings(name="lenet5", stem=Stem.small))


def test_dropout_stands_before_the_only_linear_layer_and_else_after_each_hidden_one():
    bare = build(ModelSettings(name="cnn", args={"hidden": [], "dropout": 0.5}))
    assert [type(layer) for layer in list(bare)[-3:]] == [nn.Flatten, nn.Dropout, nn.Linear]
    hidden = build(ModelSettings(name="mlp", args={"hidden": [8, 8], "dropout": 0.5}))
    assert [type(layer).__name__ for layer in hidden] == ["Flatten", *["Linear", "ReLU", "Dropout"] * 2, "Linear"]
