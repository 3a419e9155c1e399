"""Our own deep networks: counts and maps against the papers and known implementations, and the power to learn."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.network_args import EfficientnetArgs
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.errors import ConfigError, ResourceError
from cnntrain.models.build import build_model
from cnntrain.models.drop import DropPath
from cnntrain.models.zoo.build import build_own
from cnntrain.models.zoo.resnet_cifar import BasicUnit, FreeShortcut, PreactUnit

CONF = Path(__file__).parents[2] / "conf" / "model"
IMAGENET = {
    "inception_v1": (1000, 3, 224),
    "inception_v2": (1000, 3, 224),
    "inception_resnet_v1": (1000, 3, 299),
    "efficientnet": (1000, 3, 224),
}
SMALL = ("resnet20", "resnet56", "resnet110", "airbench")  # below 3 million parameters
CIFAR = (*SMALL, "preact_resnet18", "wrn28_10", "resnet9")
DEEP = (*CIFAR, *IMAGENET)


def meta(name: str, classes: int = 10, channels: int = 3, *, aux: bool = False, **args: object) -> nn.Module:
    """Shapes only."""
    with torch.device("meta"):
        return build_own(name, args, classes=classes, channels=channels, image_size=32, aux=aux)


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def conv(entering: int, leaving: int, kernel: int = 3) -> int:
    """Weights of a convolution, and the scale and shift of the norm behind it."""
    return kernel**2 * entering * leaving + 2 * leaving


@pytest.mark.parametrize("name", NETWORKS)
def test_conf_file_shows_the_defaults_of_the_code(name):
    settings = ModelSettings(**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")))
    assert settings.name == name
    assert settings.args == asdict(NETWORKS[name].settings())
    assert settings.faults() == []


def test_only_some_networks_are_for_imagenet():
    sizes = {name: (entry.classes, entry.channels, entry.image_size) for name, entry in NETWORKS.items()}
    assert {name: size for name, size in sizes.items() if size[0] == 1000} == IMAGENET


@pytest.mark.parametrize(
    ("depth", "published", "exact"), [(20, 0.27, 269_722), (56, 0.85, 853_018), (110, 1.7, 1_727_962)]
)
def test_cifar_resnets_have_the_parameters_of_the_paper(depth, published, exact):
    # arXiv 1512.03385, table 6; the exact figures are those of its many reimplementations with option A.
    units = (depth - 2) // 6
    stages = sum(
        conv(before, after) + (2 * units - 1) * conv(after, after) for before, after in [(16, 16), (16, 32), (32, 64)]
    )
    assert parameters(meta(f"resnet{depth}")) == conv(3, 16) + stages + 65 * 10 == exact
    assert exact / 1e6 == pytest.approx(published, rel=0.02)


def test_depth_is_an_argument():
    # arXiv 1512.03385, table 6: 0.66 M with 44 layers.
    assert parameters(meta("resnet20", depth=44)) / 1e6 == pytest.approx(0.66, abs=0.005)
    # arXiv 1605.07146, table 4: 11.0 M for WRN-16-8, 8.9 M for WRN-40-4.
    assert parameters(meta("wrn28_10", depth=16, width=8)) / 1e6 == pytest.approx(11.0, abs=0.05)
    assert parameters(meta("wrn28_10", depth=40, width=4)) / 1e6 == pytest.approx(8.9, abs=0.05)


def test_wrn28_10_has_36479194_parameters():
    # arXiv 1605.07146, table 4: 36.5 M; the exact figure is that of the authors' code.
    stages = 0
    for before, after in [(16, 160), (160, 320), (320, 640)]:
        stages += 2 * before + before * after + 9 * (before * after + 7 * after**2) + 7 * 2 * after
    assert parameters(meta("wrn28_10")) == 27 * 16 + stages + 2 * 640 + 641 * 10 == 36_479_194


def test_preact_resnet18_is_the_known_cifar_port_with_the_last_norm_of_the_paper():
    # The port that most use (kuangliu/pytorch-cifar) has 11,171,146 and leaves out the norm before the pooling.
    assert parameters(meta("preact_resnet18")) == 11_171_146 + 2 * 512


def test_inception_v1_has_the_parameters_of_the_published_caffe_weights():
    # BVLC GoogLeNet: 6,998,552, and the two auxiliary classifiers.
    auxiliary = sum((maps + 1) * 128 + (128 * 16 + 1) * 1024 + 1025 * 1000 for maps in (512, 528))
    assert parameters(meta("inception_v1", 1000)) == 6_998_552
    assert parameters(meta("inception_v1", 1000, aux=True)) == 6_998_552 + auxiliary == 13_378_280


def test_inception_v2_is_the_published_bn_inception_without_idle_biases():
    # 11,295,240 in the published weights, with a bias for each channel of each convolution although a norm follows.
    model = meta("inception_v2", 1000)
    biases = sum(layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert parameters(model) == 11_295_240 - biases


def test_inception_resnet_v1_is_the_known_port_without_its_additions():
    # The port in pytorchcv has 23,995,624: a sixth unit in the last stage and a layer of 512 units before the logits.
    branches = conv(1792, 192, 1) * 2 + 2 * (3 * 192 * 192 + 2 * 192)
    sixth = branches + (2 * 192 + 1) * 1792
    theirs, ours = 1792 * 512 + 2 * 512 + 513 * 1000, 1793 * 1000
    assert parameters(meta("inception_resnet_v1", 1000)) == 23_995_624 - sixth - theirs + ours


@pytest.mark.parametrize(("phi", "reference"), [(0, "efficientnet_b0"), (1, "efficientnet_b2"), (2, "efficientnet_b3")])
def test_compound_scaling_meets_the_published_efficientnets(phi, reference):
    from torchvision import models

    with torch.device("meta"):
        expected = models.get_model(reference)
    scaled = meta("efficientnet", 1000, phi=phi)
    assert [tuple(weights.shape) for weights in scaled.parameters()] == [
        tuple(weights.shape) for weights in expected.parameters()
    ]
    assert phi > 0 or parameters(scaled) == 5_288_548


def test_compound_scaling_gives_the_published_image_sizes_and_dropout():
    # arXiv 1905.11946, section 5.2; B1 to B3 are trained at 240, 260 and 300 pixels.
    for phi, published in [(0, 224), (0.5, 240), (1, 260), (2, 300)]:
        assert EfficientnetArgs(phi=phi).recommended_size() == pytest.approx(published, rel=0.02)
    rates = [
        next(layer.p for layer in meta("efficientnet", phi=phi).classifier if isinstance(layer, nn.Dropout))
        for phi in (0, 3.5, 7)
    ]
    assert rates == pytest.approx([0.2, 0.35, 0.5])


MAPS = {
    "inception_v1": {"pool1": (64, 56), "pool2": (192, 28), "inception_3b": (480, 28), "inception_4a": (512, 14),
                     "inception_4e": (832, 14), "inception_5b": (1024, 7)},
    "inception_v2": {"pool1": (64, 56), "pool2": (192, 28), "inception_3b": (320, 28), "inception_3c": (576, 14),
                     "inception_4e": (1056, 7), "inception_5b": (1024, 7)},
    "inception_resnet_v1": {"stem": (256, 35), "inception_a": (256, 35), "reduction_a": (896, 17),
                            "inception_b": (896, 17), "reduction_b": (1792, 8), "inception_c": (1792, 8)},
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_sizes_of_the_papers(name):
    # arXiv 1409.4842, table 1; 1502.03167, figure 5; 1602.07261, figures 14 and 15.
    model, found = meta(name).eval(), {}
    x = torch.empty(1, 3, IMAGENET[name][2], IMAGENET[name][2], device="meta")
    for layer, module in model.features.named_children():
        x = module(x)
        found[layer] = (x.shape[1], x.shape[2])
    assert {layer: found[layer] for layer in MAPS[name]} == MAPS[name]


@pytest.mark.parametrize(
    ("name", "channels"),  # of one family, the first layer is the same
    [*((name, 1) for name in DEEP if name not in ("resnet56", "resnet110")), *((name, 3) for name in DEEP)],
)
def test_every_net_works_at_its_native_size_and_at_32_pixels(name, channels):
    native = NETWORKS[name].image_size
    for size in {native, 32} if channels == 3 else {32}:  # only the first layer differs
        with torch.device("meta"):
            model, _ = build_model(ModelSettings(name=name), classes=7, channels=channels, image_size=size)
            for training in (True, False):
                assert model.train(training)(torch.empty(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", DEEP)
def test_last_linear_layer_is_found_by_name(name):
    model = meta(name, classes=7)
    head = model.classifier[-1] if name == "efficientnet" else model.head
    assert isinstance(head, nn.Linear)
    assert head.out_features == 7


def test_auxiliary_classifiers_add_their_logits_in_training_mode_only():
    model = meta("inception_v1", classes=7, aux=True)
    for size in (32, 224):
        images = torch.empty(2, 3, size, size, device="meta")
        assert [logits.shape for logits in model.train()(images)] == [(2, 7)] * 3
        assert model.eval()(images).shape == (2, 7)


def test_auxiliary_classifiers_are_refused_where_the_paper_has_none():
    with pytest.raises(ConfigError, match=r"^model\.aux_weight: inception_v2 has no .*model=inception_v1$"):
        meta("inception_v2", aux=True)


def memorise(name: str, image_size: int, *, lr: float, steps: int, **args: object) -> None:
    """Learn random labels of noise, with a gradient for every weight that is not frozen."""
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, image_size, image_size), torch.arange(8)
    model, _ = build_model(ModelSettings(name=name, args=args), classes=10, channels=3, image_size=image_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        if loss < 0.1:
            return
        loss.backward()
        assert all((weights.grad is not None) == weights.requires_grad for weights in model.parameters())
        optimizer.step()
    pytest.fail(f"loss {loss:.2f} after {steps} steps")


@pytest.mark.parametrize(("name", "image_size"), [("resnet20", 16), ("airbench", 32)])
def test_small_nets_memorise_a_batch_of_noise(name, image_size):
    memorise(name, image_size, lr=3e-3, steps=80)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet20", "resnet56", "resnet110", "preact_resnet18", "wrn28_10", "resnet9", *IMAGENET]
)
def test_large_nets_memorise_a_batch_of_noise(name):
    rates = {"efficientnet": 3e-3, "inception_v1": 3e-4, "resnet20": 3e-3, "resnet56": 3e-3, "resnet110": 3e-3}
    args = {"dropout": 0.0} if "dropout" in asdict(NETWORKS[name].settings()) else {}
    memorise(name, 32, lr=rates.get(name, 1e-3), steps=80, **args)


@pytest.mark.parametrize("name", ["resnet56", "preact_resnet18", "wrn28_10", "inception_resnet_v1"])
def test_drop_path_rises_linearly_over_depth(name):
    rates = [layer.p for layer in meta(name, drop_path=0.4).modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.4 * number / len(rates) for number in range(1, len(rates) + 1)])


def test_activation_reaches_every_place():
    for name in DEEP:
        if "activation" in asdict(NETWORKS[name].settings()):
            kinds = {type(layer) for layer in meta(name, activation="Hardswish").modules()}
            assert nn.Hardswish in kinds
            assert not kinds & {nn.ReLU, nn.GELU}


def test_free_shortcut_takes_every_second_pixel_and_adds_maps_of_zeros():
    x = torch.randn(2, 3, 8, 8)
    out = FreeShortcut(3, 6)(x)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def test_residual_units_of_cifar_resnets_start_as_the_identity():
    x = torch.rand(2, 16, 8, 8)
    for zero in (True, False):
        model = build_own("resnet20", {"zero_init_residual": zero}, classes=10, channels=3, image_size=32)
        unit = next(layer for layer in model.modules() if isinstance(layer, BasicUnit))
        assert torch.equal(unit(x), x) == zero


def test_without_residual_a_cifar_resnet_is_the_plain_net_of_the_same_layers():
    residual, plain = (
        build_own("resnet20", {"depth": 8, "residual": residual}, classes=10, channels=3, image_size=32).eval()
        for residual in (True, False)
    )
    plain.load_state_dict(residual.state_dict())  # the same names and shapes
    x = torch.rand(2, 3, 32, 32)
    expected = plain.stem(x)
    for unit in (layer for stage in residual.stages for layer in stage):
        expected = unit.norm2(unit.conv2(unit.conv1(expected))).relu()
    assert torch.equal(plain.stages(plain.stem(x)), expected)
    fresh = build_own("resnet20", {"residual": False}, classes=10, channels=3, image_size=32)
    assert fresh.stages[0][0].norm2.weight.all(), "a plain unit is not zeroed, or nothing would come through"


def test_only_the_first_preact_unit_of_a_stage_activates_its_shortcut():
    x = -torch.rand(2, 4, 8, 8)
    for first in (True, False):
        unit = PreactUnit(4, 4, 1, first=first, dropout=0.0, drop_path=0.0, act="relu").eval()
        nn.init.zeros_(unit.conv2.weight)
        assert torch.equal(unit(x), torch.zeros_like(x) if first else x)


def test_a_network_beyond_the_memory_is_told_as_such():
    with pytest.raises(ResourceError, match=r"^model: the network needs more memory than there is; make it smaller$"):
        build_model(ModelSettings(name="cnn", args={"blocks": [10**14]}), classes=10, channels=3, image_size=32)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mlp", {"hidden": [10**12, 10**12]}),
        ("mlp", {"hidden": [10**30]}),
        ("cnn", {"blocks": [8], "padding": 10**9}),
        ("resnet9", {"width": 10**30}),
    ],
)
def test_sizes_beyond_what_a_tensor_holds_are_an_error_of_one_line(name, args):
    with torch.device("meta"), pytest.raises(ConfigError) as caught:
        build_model(ModelSettings(name=name, args=args), classes=10, channels=3, image_size=32)
    assert str(caught.value).startswith(f"model.args: {name} is too large for any machine (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "args", "rule"),
    [
        ("resnet20", {"depth": 21}, "of the form 6n + 2"),
        ("resnet20", {"depth": 2}, "of the form 6n + 2"),
        ("wrn28_10", {"depth": 20}, "of the form 6n + 4"),
        ("preact_resnet18", {"units": [2, 2]}, "4 whole numbers"),
        ("airbench", {"widths": [64, 0, 256]}, "3 whole numbers"),
        ("efficientnet", {"phi": "big"}, "a number from -4 to 10"),
        ("efficientnet", {"phi": float("nan")}, "a number from -4 to 10"),
        ("efficientnet", {"dropout": 1}, "a number >= 0 and < 1, or null"),
        ("inception_v1", {"dropout": True}, "a number >= 0 and < 1"),
        ("resnet20", {"zero_init_residual": 1}, "true or false"),
        ("resnet56", {"residual": "no"}, "true or false"),
        ("resnet56", {"drop_path": 0.1, "residual": False}, "0 without residual: true"),
    ],
)
def test_bad_argument_is_refused_with_its_key_and_rule(name, args, rule):
    with pytest.raises(ConfigError) as caught:
        build_model(ModelSettings(name=name, args=args), classes=10, channels=3, image_size=32)
    assert str(caught.value).startswith(f"model.args.{next(iter(args))}: must be ")
    assert rule in str(caught.value)
