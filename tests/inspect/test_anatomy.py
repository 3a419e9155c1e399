"""What a network's anatomy says of it, held against gradients, torch's own counter and the formulas themselves."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as library
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.inception import InceptionC
from torchvision.models.shufflenetv2 import InvertedResidual
from torchvision.models.vgg import VGG, make_layers

from cnntrain.config.schema.model import ModelSettings
from cnntrain.inspect.summary.formulas import size_formulas
from cnntrain.inspect.summary.rows import LayerRow, inspect
from cnntrain.models.build import build_model

VGG16 = [2, 2, "M", 2, 2, "M", 2, 2, 2, "M", 2, 2, 2, "M", 2, 2, 2, "M"]  # with two channels everywhere
FAMILIES = (
    "alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet50", "resnext50_32x4d", "densenet121",
    "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_0", "efficientnet_b0", "mnasnet0_5", "convnext_tiny",
    "vit_b_32", "swin_t",
)  # fmt: skip


class Functional(nn.Module):
    """A user's network that calls functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 5, padding=2)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.max_pool2d(functional.relu(self.one(images)), 2)
        maps = torch.cat([maps + self.two(maps), maps], dim=1)
        return self.head(functional.adaptive_avg_pool2d(maps, 1).flatten(1))


class Focus(nn.Module):
    """Every second pixel into channels, as YOLOv5 does."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images[..., row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=1)


class Patches(nn.Module):
    """Space to depth by views alone."""

    def forward(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        parts = images.view(count, channels, height // 3, 3, width // 3, 3).permute(0, 1, 3, 5, 2, 4)
        return parts.reshape(count, channels * 9, height // 3, width // 3)


class Bare(nn.Module):
    """Two convolutions without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.zeros(4, 3, 3, 3))
        self.two = nn.Parameter(torch.zeros(4, 4, 3, 3))

    def forward(self, images: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(images, self.one), self.two)


class Askew(nn.Module):
    """Branches that look in different directions: together they see more than each."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.ZeroPad2d((3, 1, 2, 0)), nn.Conv2d(3, 3, (3, 5)))
        self.middle = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.left(images) + self.middle(images)


class Gate(nn.Module):
    """Squeeze-and-excitation (arXiv 1709.01507), in short."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps * maps.mean((2, 3), keepdim=True).sigmoid()


class Shared(nn.Module):
    """One convolution used twice, and its weight once more by another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 2, 3, padding=1)
        self.two = nn.Conv2d(2, 2, 3, padding=1)
        self.two.weight = self.one.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.two(self.one(self.one(images)))


def meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def from_library(name: str) -> nn.Module:
    quick = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    return meta(lambda: library.get_model(name, weights=None, **quick))


def row_of(rows: list[LayerRow], path: str) -> LayerRow:
    """The last row of a layer, or of a block."""
    return [row for row in rows if f"{row.path}.".startswith(f"{path}.")][-1]


def ready_for_gradients(model: nn.Module) -> nn.Module:
    """Averages for maxima, no norms, positive weights: each pixel that can change an output then does."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, pool)
            elif isinstance(child, (nn.BatchNorm2d, nn.LayerNorm)):
                setattr(module, name, nn.Identity())
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1 / max(1, parameter[0].numel()))
    return model.double().eval()


def seen_pixels(model: nn.Module, path: str, channels: int, size: int, shift: int = 0) -> tuple[range, range]:
    """The rows and columns of the image that the centre of a layer's output depends on."""
    kept: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_hook(lambda module, args, output: kept.append(output))
    image = torch.ones((1, channels, size, size), dtype=torch.float64, requires_grad=True)
    model(image)
    hook.remove()
    maps = kept[-1]
    centre = maps[0, :, maps.shape[2] // 2 + shift, maps.shape[3] // 2 + shift].sum()
    (gradient,) = torch.autograd.grad(centre, image)
    found = gradient[0].abs().sum(0).nonzero()
    low, high = found.min(0).values.tolist(), found.max(0).values.tolist()
    assert min(low) > 0, "the image is too small for the test"
    assert max(high) < size - 1, "the image is too small for the test"
    return range(low[0], high[0] + 1), range(low[1], high[1] + 1)


def lenet5() -> nn.Module:
    return build_model(ModelSettings(name="lenet5"), classes=10, channels=1, image_size=64)[0]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "lenet5": (lenet5, "pool2", 64),
    "vgg16": (lambda: VGG(make_layers(VGG16), init_weights=False).features, "30", 288),
    "resnet18": (lambda: library.resnet18().float(), "layer2", 160),
    "inception": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), InceptionC(4, 4), InceptionC(768, 4)), "2", 96),
    "dilated": (
        lambda: nn.Sequential(*[nn.Conv2d(3, 3, (3, 5), dilation=rate, padding="same") for rate in (1, 2, 4)]),
        "2", 64,
    ),
    "lopsided": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, (1, 7), stride=(1, 2)), nn.Conv2d(3, 3, (4, 1), stride=(3, 1))), "1", 48,
    ),
    "convnext": (lambda: ConvNeXt([CNBlockConfig(4, 8, 1), CNBlockConfig(8, None, 1)]).features, "3", 128),
    "shuffled": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), InvertedResidual(8, 8, 2), InvertedResidual(8, 8, 1)), "2", 48
    ),
    "circular": (
        lambda: nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular") for _ in range(3)]), "2", 24
    ),
    "reflected": (
        lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 3, 5), nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2)),
        "3", 24,
    ),
    "askew": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1), Askew()), "1", 48),
    "focus": (lambda: nn.Sequential(Focus(), nn.Conv2d(12, 3, 3)), "1", 24),
    "patches": (lambda: nn.Sequential(Patches(), nn.Conv2d(27, 3, 3)), "1", 36),
    "unshuffled": (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 3), nn.PixelUnshuffle(2)), "2", 36),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "vgg16" else name for name in NETWORKS]
)
def test_receptive_fields_are_those_of_gradients(name: str) -> None:
    build, path, size = NETWORKS[name]
    model = ready_for_gradients(build())
    channels = 1 if name == "lenet5" else 3
    row = row_of(inspect(model, channels, size), path)
    rows, columns = seen_pixels(model, path, channels, size)
    assert row.field == (len(rows), len(columns))
    next_rows, next_columns = seen_pixels(model, path, channels, size, shift=1)
    assert row.jump == (next_rows.start - rows.start, next_columns.start - columns.start)


def test_vgg16_sees_212_pixels_and_others_what_is_published() -> None:
    """The figures of doi 10.23915/distill.00021, of networks that torchvision has as they are there."""
    known = {
        "vgg16": ("features.30", 212),
        "alexnet": ("features.12", 195),
        "inception_v3": ("Mixed_7c.branch3x3dbl_3b", 1311),
    }
    for name, (path, size) in known.items():
        row = row_of(inspect(from_library(name), 3, 299 if name == "inception_v3" else 224), path)
        assert row.field is not None
        assert max(row.field) == size
        assert row.jump == (32, 32)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "densenet121" else name for name in FAMILIES]
)
def test_counts_are_those_of_torch_and_of_their_sums(name: str) -> None:
    size = 299 if name == "inception_v3" else 224
    model = from_library(name)
    rows = inspect(model, 3, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty((1, 3, size, size), device="meta"))
    assert 2 * sum(row.macs for row in rows) == counter.get_total_flops()
    assert sum(row.parameters for row in rows) == sum(item.numel() for item in model.parameters())
    for row in rows:
        assert value(row.parameter_sum) == row.parameters
        assert value(row.mac_sum) == row.macs
        for axis, formula in enumerate(size_formulas(row.look) if row.look else []):
            text, _, result = formula.partition(" = ")[2].rpartition(" = ")
            assert value(text) == int(result) == row.look.after[axis]
        assert not row.lost or name == "swin_t"  # attends within windows


def value(text: str) -> int:
    """What a sum of the table comes to."""
    plain = text.replace("·", "*").replace("⌊", "math.floor(").replace("⌈", "math.ceil(")
    assert re.fullmatch(r"(math\.(floor|ceil)|[\d\s+*/()⌋⌉-])*", plain)
    return eval(plain.replace("⌋", ")").replace("⌉", ")"), {"math": math}) if plain else 0


def test_lenet5_is_the_lectures_table() -> None:
    rows = inspect(build_model(ModelSettings(name="lenet5"), classes=10, channels=1, image_size=32)[0], 1, 32)
    known = [(row.parameter_sum, row.parameters, row.output) for row in rows if row.parameters]
    assert known == [
        ("(5·5·1+1)·6", 156, (6, 28, 28)),
        ("(5·5·6+1)·16", 2416, (16, 10, 10)),
        ("(400+1)·120", 48120, (120,)),
        ("(120+1)·84", 10164, (84,)),
        ("(84+1)·10", 850, (10,)),
    ]
    assert rows[0].look
    assert size_formulas(rows[0].look) == ["H' = ⌊(32 + 2·0 - 1·(5-1) - 1)/1⌋ + 1 = 28"]
    assert rows[-1].field == (math.inf, math.inf)
    held = [math.prod(row.output or ()) for row in rows if row.kind != "Flatten"]  # a view takes no memory
    assert sum(row.memory for row in rows) == 4 * sum(held)


def test_sums_have_no_bias_where_there_is_none() -> None:
    rows = inspect(from_library("resnet50"), 3, 224)
    assert row_of(rows, "layer1.0.conv2").parameter_sum == "3·3·64·64"
    assert row_of(rows, "bn1").parameter_sum == "2·64"
    assert row_of(rows, "fc").parameter_sum == "(2048+1)·1000"
    assert row_of(rows, "relu").memory == 0  # in place
    assert row_of(inspect(from_library("resnext50_32x4d"), 3, 224), "layer1.0.conv2").parameter_sum == "3·3·4·128"


def test_functions_have_rows_of_their_own() -> None:
    rows = inspect(meta(Functional), 2, 16)
    assert [row.path for row in rows] == [
        "one", "relu", "max_pool2d", "two", "add", "cat", "adaptive_avg_pool2d", "head"
    ]  # fmt: skip
    sees = {row.path: (row.field, row.jump) for row in rows}
    assert sees["max_pool2d"] == ((4, 4), (2, 2))
    assert sees["add"] == sees["cat"] == ((12, 12), (2, 2))
    assert sees["adaptive_avg_pool2d"] == sees["head"] == ((math.inf, math.inf), (None, None))


def test_bare_parameters_have_rows_too() -> None:
    rows = inspect(meta(Bare), 3, 8)
    assert [(row.path, row.kind, row.parameter_sum) for row in rows if row.parameters] == [
        ("one", "Parameter", "4·3·3·3"), ("two", "Parameter", "4·4·3·3")
    ]  # fmt: skip
    assert [(row.kind, row.field) for row in rows if row.macs] == [("convolution", (3, 3)), ("convolution", (5, 5))]
    assert not any(row.is_idle for row in rows)


def test_a_gate_and_attention_see_the_whole_image() -> None:
    gated = inspect(meta(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Gate(), nn.Conv2d(4, 4, 3))), 3, 16)
    assert [row.field for row in gated if row.kind == "Conv2d"] == [(3, 3), (math.inf, math.inf)]
    rows = inspect(from_library("vit_b_32"), 3, 224)
    assert row_of(rows, "encoder.layers.encoder_layer_0.ln_1").field == (32, 32)
    assert row_of(rows, "encoder.layers.encoder_layer_0.self_attention").field == (math.inf, math.inf)


@pytest.mark.slow
def test_attention_within_windows_is_not_taken_for_the_whole_image() -> None:
    rows = inspect(from_library("swin_t"), 3, 224)
    assert row_of(rows, "features.1.0.norm1").field == (4, 4)
    row = row_of(rows, "features.1.0.attn")
    assert (row.field, row.lost) == (None, "attention in windows")


def test_strips_are_told_apart_from_squares() -> None:
    rows = inspect(meta(lambda: nn.Sequential(nn.Conv2d(3, 3, (1, 7)), nn.AdaptiveAvgPool2d((None, 1)))), 3, 16)
    assert [row.field for row in rows] == [(1, 7), (1, math.inf)]
    assert [row.output for row in rows] == [(3, 16, 10), (3, 16, 1)]


def test_an_enlarged_image_counts_in_its_own_pixels() -> None:
    rows = inspect(meta(lambda: nn.Sequential(nn.Upsample(scale_factor=4), nn.Conv2d(3, 3, 8, stride=8))), 3, 8)
    assert rows[-1].jump == (2, 2)
    assert rows[-1].field
    assert math.ceil(rows[-1].field[0]) == 3  # 8 of the enlarged pixels, which come from 2 or 3
    back = inspect(
        meta(lambda: nn.Sequential(nn.Conv2d(3, 3, 2, stride=2), nn.ConvTranspose2d(3, 3, 2, stride=2))), 3, 8
    )
    assert (back[-1].field, back[-1].jump, back[-1].output) == ((2, 2), (1, 1), (3, 8, 8))
    assert back[-1].look
    assert size_formulas(back[-1].look) == ["H' = (4-1)·2 - 2·0 + 1·(2-1) + 0 + 1 = 8"]


def test_shared_weights_count_once() -> None:
    rows = inspect(meta(Shared), 2, 8)
    assert [row.parameters for row in rows] == [3 * 3 * 2 * 2 + 2, 0, 2]
    assert [row.macs for row in rows] == [3 * 3 * 2 * 2 * 64] * 3


def test_auxiliary_heads_count_but_do_not_run() -> None:
    model = meta(lambda: library.googlenet(init_weights=False, aux_logits=True))
    rows = inspect(model, 3, 224)
    assert sum(row.parameters for row in rows) == sum(item.numel() for item in model.parameters()) == 13_004_888
    assert {row.output is None for row in rows if row.path.startswith("aux")} == {True}
    assert sum(row.macs for row in rows) == sum(row.macs for row in inspect(from_library("googlenet"), 3, 224))


def test_frozen_parameters_are_not_trainable() -> None:
    model = meta(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)))
    model[0].requires_grad_(False)
    assert [row.trainable for row in inspect(model, 3, 8)] == [0, 3 * 3 * 4 * 4 + 4]


def test_what_cannot_be_followed_is_said() -> None:
    (row,) = inspect(meta(lambda: nn.Sequential(nn.Unfold(3))), 3, 8)
    assert (row.field, row.lost) == (None, "im2col")


def test_inspection_leaves_the_network_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    first = inspect(model, 3, 8)
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert inspect(model, 3, 8) == first
    assert first == inspect(model.to("meta"), 3, 8)
