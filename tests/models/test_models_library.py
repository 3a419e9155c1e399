"""The networks of torchvision and timm by name: counts, lookup, arguments, channels, auxiliary heads, drops, norms."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from cnntrain.config.schema.model import Library, ModelSettings, Norm, Stem
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.errors import ConfigError
from cnntrain.models.build import build_model
from cnntrain.models.catalogue import catalogue

CONF = Path(__file__).parents[2] / "conf" / "model"
# Parameters with 1,000 classes and auxiliary heads, as torchvision publishes them; test_catalogue.py has all others.
WITH_HEADS = {"googlenet": 13_004_888, "inception_v3": 27_161_264}


def preset(name: str) -> ModelSettings:
    """The settings of a file in conf/model."""
    return ModelSettings(**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")))


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def build(name, args=None, classes=10, channels=3, image_size=32, **settings):
    chosen = ModelSettings(name=name, args=args or {}, **settings)
    return build_model(chosen, classes=classes, channels=channels, image_size=image_size)


def on_meta(*words, **keys):
    with torch.device("meta"):
        return build(*words, **keys)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_parameter_counts_with_auxiliary_heads_are_the_published_ones(name):
    with torch.device("meta"):
        model, notes = build_model(preset(name), classes=1000, channels=3, image_size=299)
    assert parameters(model) == WITH_HEADS[name]
    assert notes == []


@pytest.mark.slow
def test_conf_files_show_the_defaults_of_the_library():
    for name in catalogue():
        shown = preset(name)
        if shown.name in NETWORKS:
            continue
        plain = ModelSettings(name=name, aux_weight=shown.aux_weight)
        with torch.device("meta"):
            models = [build_model(each, classes=5, channels=3, image_size=331)[0] for each in (shown, plain)]
        assert str(models[0]) == str(models[1]), name


def test_weights_and_random_state_are_those_of_torchvision_itself():
    from torchvision.models import resnet18

    torch.manual_seed(3)
    expected, state = resnet18(num_classes=10).state_dict(), torch.get_rng_state()
    torch.manual_seed(3)
    found = build("resnet18", stem=Stem.imagenet)[0].state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_shapes_of_a_regnet_draw_no_random_number():
    state = torch.get_rng_state()
    on_meta("regnet_x_400mf")
    assert torch.equal(state, torch.get_rng_state())


# Names


def test_torchvision_comes_before_timm_and_either_can_be_asked_for():
    assert type(on_meta("resnet18")[0]).__module__.startswith("torchvision")
    assert type(on_meta("resnet18", library=Library.timm)[0]).__module__.startswith("timm")
    assert type(on_meta("resnet18d")[0]).__module__.startswith("timm")


@pytest.mark.parametrize(
    ("name", "library", "words"),
    [
        ("resnet81", "auto", r"^model\.name: 'resnet81': not known; did you mean resnet18\?"),
        ("lenet", "auto", r"did you mean lenet5\?"),
        ("resnet18dd", "timm", r"^model\.name: 'resnet18dd': timm has no such network; did you mean resnet18d\?"),
        ("resnet18d", "torchvision", r"^model\.name: 'resnet18d': torchvision has no such network.* resnet18\?"),
        ("my_pkg.nets.build", "auto", r"my_pkg\.nets:build"),
        ("resnet18.nonsense", "timm", r"^model\.name: 'resnet18.nonsense' .*leave out what follows the dot"),
    ],
)
def test_unknown_name_is_shown_the_right_one(name, library, words):
    with pytest.raises(ConfigError, match=words) as caught:
        on_meta(name, library=Library[library])
    assert "\n" not in str(caught.value)


# Arguments


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        (
            "resnet18",
            {"zero_init_residul": True},
            r"^model\.args\.zero_init_residul: .* did you mean model\.args\.zero_init_residual\?",
        ),
        ("resnet18", {"num_classes": 5}, r"^model\.args\.num_classes: "),
        ("resnet18", {"layers": [1, 1, 1, 1]}, r"^model\.args: resnet18 .*layers.*; leave out what it sets itself$"),
        ("resnet18", {"replace_stride_with_dilation": [True]}, r"^model\.args: resnet18 "),
        ("inception_v3", {"aux_logits": True}, r"^model\.args\.aux_logits: follows model\.aux_weight \(given True\)"),
        ("alexnet", {"dropout": "much"}, r"^model\.args: alexnet "),
        ("resnet18d", {"stem_widht": 16}, r"^model\.args\.stem_widht: .* did you mean model\.args\.stem_width\?"),
        ("resnet18d", {"stem_width": "wide"}, r"^model\.args: resnet18d "),
        ("resnet18d", {"checkpoint_path": "x.pt"}, r"^model\.args\.checkpoint_path: no such argument"),
    ],
)
def test_bad_argument_is_one_line_that_names_it(name, args, words):
    with pytest.raises(ConfigError, match=words) as caught:
        on_meta(name, args, image_size=224)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_good_argument_reaches_the_network():
    assert not build("resnet18", {"zero_init_residual": True})[0].layer1[0].bn2.weight.any()
    assert on_meta("resnet18d", {"stem_width": 16})[0].conv1[0].out_channels == 16


@pytest.mark.slow
def test_networks_built_for_one_image_size_get_that_of_the_data():
    assert on_meta("vit_b_16", image_size=64)[0].encoder.pos_embedding.shape[1] == 1 + 4 * 4
    assert on_meta("deit_tiny_patch16_224", image_size=64)[0].pos_embed.shape[1] == 1 + 4 * 4
    assert on_meta("deit_tiny_patch16_224", {"img_size": 32}, image_size=32)[0].pos_embed.shape[1] == 1 + 2 * 2


# Channels


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "squeezenet1_1",
        pytest.param("vit_b_32", marks=pytest.mark.slow),
        "resnet18d",
    ],
)
@pytest.mark.parametrize("channels", [1, 4])
def test_first_convolution_takes_the_channels_of_the_data(name, channels):
    model, notes = on_meta(name, channels=channels)
    assert model(torch.empty(2, channels, 32, 32, device="meta")).shape == (2, 10)
    assert f"first convolution for {channels}-channel images in place of 3" in notes


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "alexnet"])
def test_grey_image_gives_what_its_three_equal_channels_gave(name):
    images = torch.randn(2, 1, 32, 32)
    models = []
    for channels in (1, 3):
        torch.manual_seed(0)
        models.append(build(name, channels=channels, stem=Stem.imagenet, image_size=64)[0].eval())
    images = nn.functional.interpolate(images, size=64)
    assert torch.allclose(models[0](images), models[1](images.expand(-1, 3, -1, -1)), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_change_of_channels_keeps_the_sum_of_the_kernels(channels):
    torch.manual_seed(0)
    changed = build("resnet18", channels=channels, stem=Stem.imagenet)[0].conv1
    torch.manual_seed(0)
    published = build("resnet18", stem=Stem.imagenet)[0].conv1
    assert changed.in_channels == changed.weight.shape[1] == channels
    assert torch.allclose(changed.weight.sum(1), published.weight.sum(1), atol=1e-6)


def test_grey_kernels_keep_the_spread_of_the_output():
    torch.manual_seed(0)
    model, _ = build("resnet18", stem=Stem.imagenet, channels=1)
    assert model.conv1.weight.std().item() == pytest.approx((3 * 2 / (64 * 49)) ** 0.5, rel=0.05)


# Auxiliary heads


@pytest.mark.parametrize(
    ("name", "heads"),
    [("googlenet", 2), pytest.param("inception_v3", 1, marks=pytest.mark.slow), ("inception_v1", 2)],
)
@pytest.mark.parametrize("image_size", [32, 299])
def test_auxiliary_heads_come_after_the_logits_and_only_in_training(name, heads, image_size):
    model, _ = on_meta(name, aux_weight=0.3, image_size=image_size)
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    assert [logits.shape for logits in model.train()(images)] == [(2, 10)] * (1 + heads)
    assert model.eval()(images).shape == (2, 10)
    without, _ = on_meta(name, image_size=image_size)
    assert without.train()(images).shape == (2, 10)


def test_first_of_the_tuple_is_what_the_last_layer_gives():
    torch.manual_seed(0)
    model, seen = build("googlenet", aux_weight=0.3)[0].train(), []
    model.fc.register_forward_hook(lambda layer, given, output: seen.append(output))
    assert model(torch.randn(2, 3, 32, 32))[0] is seen[0]


def test_network_without_auxiliary_heads_refuses_their_weight():
    with pytest.raises(ConfigError, match=r"^model\.aux_weight: resnet18 .*\(given 0\.3\); set model\.aux_weight=0 or"):
        on_meta("resnet18", aux_weight=0.3)
    with pytest.raises(ConfigError, match=r"^model\.aux_weight: must be 0 for resnet20, .*\(given 0\.3\)"):
        on_meta("resnet20", aux_weight=0.3)
    # It gives a tuple in evaluation too.
    with pytest.raises(ConfigError, match=r"^model\.aux_weight: inception_v3 of timm has no .*torchvision's"):
        on_meta("inception_v3", library=Library.timm, aux_weight=0.3)


# Drops


def rates(model: nn.Module, kind: str) -> set[Any]:
    found = [layer for layer in model.modules() if type(layer).__name__ == kind]
    return {getattr(layer, "p", getattr(layer, "drop_prob", None)) for layer in found}


@pytest.mark.parametrize("name", ["vgg11", "mobilenet_v2", "inception_resnet_v1"])
def test_dropout_reaches_the_argument_that_means_it(name):
    assert rates(on_meta(name, dropout=0.37, image_size=75)[0], "Dropout") == {0.37}


def test_dropout_of_timm_and_model_args_is_overruled_by_the_setting():
    assert on_meta("xception", dropout=0.37)[0].drop_rate == 0.37
    assert rates(on_meta("vgg11", {"dropout": 0.1}, dropout=0.37)[0], "Dropout") == {0.37}


def test_dropout_stands_before_the_last_layer_of_a_network_that_has_none():
    model, _ = on_meta("resnet18", dropout=0.37)
    assert [type(layer) for layer in model.fc] == [nn.Dropout, nn.Linear]
    assert model.fc[0].p == 0.37
    assert on_meta("densenet121", dropout=0.37)[0].classifier[0].p == 0.37


def test_stochastic_depth_reaches_both_libraries_and_our_own():
    assert max(rates(on_meta("convnext_tiny", drop_path=0.37)[0], "StochasticDepth")) == pytest.approx(0.37)
    assert max(rates(on_meta("resnet18d", drop_path=0.37)[0], "DropPath")) == pytest.approx(0.37)
    assert max(rates(on_meta("resnet20", drop_path=0.37)[0], "DropPath")) == pytest.approx(0.37)


def test_drop_block_reaches_timm():
    assert max(rates(on_meta("resnet18d", drop_block=0.37)[0], "DropBlock2d")) == pytest.approx(0.37)


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        (
            "resnet18",
            "drop_path",
            r"resnet18 of torchvision takes dropout only \(given 0\.2\); .*model=timm model\.name=r",
        ),
        ("convnext_tiny", "drop_block", r"takes dropout, drop_path only \(given 0\.2\); set model\.drop_block=null"),
        ("xception", "drop_path", r"xception of timm takes dropout only \(given 0\.2\); set model\.drop_path=null"),
        ("resnet20", "drop_block", r"must be null for resnet20, which has drop_path: choose a network that has it, "),
        ("softmax", "dropout", r"must be null for softmax, which has none of the drops: set model\.head\.dropout, "),
    ],
)
def test_drop_without_a_place_in_the_network_is_refused(name, setting, words):
    with pytest.raises(ConfigError, match=rf"^model\.{setting}: .*{words}") as caught:
        on_meta(name, **{setting: 0.2})
    assert "\n" not in str(caught.value)


# Norms


@pytest.mark.parametrize(
    ("name", "norm", "kind"),
    [
        ("resnet18", "group", nn.GroupNorm),
        ("mobilenet_v1", "group", nn.GroupNorm),
        ("resnet20", "layer", nn.GroupNorm),
        ("resnet18", "instance", nn.InstanceNorm2d),
    ],
)
def test_norm_replaces_every_batch_norm(name, norm, kind):
    published, _ = on_meta(name)
    model, _ = on_meta(name, norm=Norm[norm])
    old = [layer for layer in published.modules() if isinstance(layer, nn.BatchNorm2d)]
    new = [layer for layer in model.modules() if type(layer) is kind]
    assert len(new) == len(old) > 0
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    assert [layer.eps for layer in new] == [layer.eps for layer in old]
    assert parameters(model) == parameters(published)
    assert model.train()(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_group_norm_has_32_groups_and_layer_norm_one():
    assert on_meta("resnet18", norm=Norm.group)[0].bn1.num_groups == 32
    assert on_meta("resnet18", norm=Norm.layer)[0].bn1.num_groups == 1


def test_norm_keeps_the_weights_that_start_at_zero_and_the_activation_behind_it():
    model, _ = build("resnet18", {"zero_init_residual": True}, norm=Norm.group)
    assert not model.layer1[0].bn2.weight.any()
    behind = on_meta("mobilenet_v1", norm=Norm.group)[0].bn1
    assert [type(layer) for layer in behind] == [nn.GroupNorm, nn.ReLU6]


def test_batch_norm_where_it_is_already_changes_nothing():
    assert str(on_meta("resnet18", norm=Norm.batch)[0]) == str(on_meta("resnet18")[0])


@pytest.mark.parametrize("name", ["vgg11", "convnext_tiny", "mlp", "lenet5"])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_network_without_batch_norm_refuses_another_norm(name, norm):
    with pytest.raises(ConfigError, match=rf"^model\.norm: {name} has no batch norm .*\(given {norm}\); set"):
        on_meta(name, norm=Norm[norm])


def test_settings_that_cannot_reach_a_network_of_the_user_are_refused():
    settings = ModelSettings(name="my_pkg.nets:build", norm=Norm.group, dropout=0.1, aux_weight=0.3, stem=Stem.small)
    faults = {key: value for key, value, _ in settings.faults()}
    assert faults == {"norm": "group", "dropout": 0.1, "aux_weight": 0.3, "stem": "small"}
