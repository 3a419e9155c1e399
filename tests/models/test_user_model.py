"""The user's own network, named pkg.module:function."""

import sys

import pytest
import torch

from cnntrain.config.schema.model import ModelSettings
from cnntrain.errors import ConfigError
from cnntrain.models.build import build_model

SOURCE = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, num_classes, in_channels=3, width=4):
        super().__init__()
        self.width = width
        self.body = nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(self.body(images).flatten(1))

def linear(num_classes, image_size, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

def anything(**given):
    net = Tiny(given["num_classes"], given["in_channels"], given["width"])
    net.given = given
    return net

def thousand():
    return Tiny(1000)

def colour(num_classes):
    return Tiny(num_classes, 3)

def number(num_classes):
    return num_classes

def broken(num_classes):
    raise RuntimeError("no such luck\\nand a second line")

class Auxiliary(Tiny):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits

class Untrainable(Tiny):
    def forward(self, images):
        if self.training:
            raise ValueError("not today")
        return super().forward(images)

class Counting(Tiny):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        torch.nn.utils.spectral_norm(self.head)

    def forward(self, images):
        self.calls = self.calls + 1
        return nn.functional.dropout(super().forward(images))

class Lazy(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(num_classes))

constant = 3
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Builds a network of the module own_nets, which lies in the current folder."""
    (tmp_path / "own_nets.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "bad_nets.py").write_text("import not_there_at_all\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def build(name, channels=3, **args):
        settings = ModelSettings(name=name, args=args)
        return build_model(settings, classes=5, channels=channels, image_size=16)[0]

    yield build
    for name in ("own_nets", "bad_nets"):
        sys.modules.pop(name, None)


def test_class_of_the_current_folder_gets_what_it_accepts(build):
    model = build("own_nets:Tiny", channels=1, width=6)
    assert model.width == 6
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 5)


def test_the_current_folder_is_searched_last_when_the_function_is_found(build, tmp_path):
    assert str(tmp_path) not in sys.path
    for name in ("own_nets:Tiny", "own_nets:Lazy"):
        build(name)
        assert sys.path.count(str(tmp_path)) == 1
        assert sys.path[-1] == str(tmp_path)  # what torch imports later is not a random.py that lies there


def test_function_gets_classes_channels_and_image_size(build):
    assert build("own_nets:linear", channels=2)[1].weight.shape == (5, 2 * 16 * 16)


def test_open_keywords_get_all_three_and_the_arguments(build):
    assert build("own_nets:anything", width=2).given == {
        "num_classes": 5,
        "in_channels": 3,
        "image_size": 16,
        "width": 2,
    }


def test_trying_out_leaves_mode_and_batch_statistics_alone(build):
    model = build("own_nets:Tiny")
    assert all(module.training for module in model.modules())
    assert model.body[1].num_batches_tracked == 0
    assert torch.equal(model.body[1].running_mean, torch.zeros(4))


def test_trying_out_leaves_weights_buffers_and_random_streams_alone(build, monkeypatch):
    def state():
        torch.manual_seed(3)
        model = build("own_nets:Counting")
        return [*model.state_dict().values(), model.calls, torch.rand(3)]

    tried = state()
    monkeypatch.setattr("cnntrain.models.user_model._try_out", lambda *given: None)
    assert all(torch.equal(one, other) for one, other in zip(tried, state(), strict=True))


def test_lazy_layers_get_their_shapes_and_keep_fresh_statistics(build):
    model = build("own_nets:Lazy")
    assert model[3].in_features == 4 * 14 * 14
    assert model[1].num_batches_tracked == 0


def test_network_is_built_on_the_meta_device_too(build):
    with torch.device("meta"):
        assert all(weights.is_meta for weights in build("own_nets:Tiny").parameters())


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("nowhere.nets:build", {}, r"^model\.name: cannot import 'nowhere\.nets' .*No module named.*; it must lie in"),
        ("bad_nets:build", {}, r"^model\.name: cannot import 'bad_nets' .*not_there_at_all"),
        ("own_nets:Tinny", {}, r"^model\.name: .*own_nets\.py has no 'Tinny'; .*did you mean Tiny\?"),
        ("own_nets:constant", {}, r"^model\.name: own_nets:constant is of type int; it must be a function or class"),
        ("own_nets:number", {}, r"^model\.name: own_nets:number gave int back; it must return a torch\.nn\.Module"),
        (
            "own_nets:broken",
            {},
            r"^model\.name: own_nets:broken\(num_classes=5\) failed \(RuntimeError: no such luck, in own_nets\.py:",
        ),
        ("own_nets:thousand", {}, r"^model\.name: own_nets:thousand maps .* to \(2, 1000\) instead of \(2, 5\)"),
        ("own_nets:Tiny", {"widht": 3}, r"^model\.args\.widht: .* did you mean model\.args\.width\?"),
        (
            "own_nets:Auxiliary",
            {},
            r"^model\.name: own_nets:Auxiliary maps .* to tuple instead of \(2, 5\) in training mode; ",
        ),
        (
            "own_nets:Untrainable",
            {},
            r"^model\.name: own_nets:Untrainable fails on .* in training mode \(ValueError: not today, in own_nets\.py",
        ),
        ("own_nets:Tiny", {"width": "wide"}, r"^model\.name: own_nets:Tiny\(.*width='wide'\) failed"),
        ("own_nets:", {}, r"^model\.name: .* has no ''"),
    ],
)
def test_fault_is_one_line_that_names_the_key(build, name, args, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build(name, **args)
    assert "\n" not in str(caught.value)


def test_network_that_cannot_take_the_channels_is_refused(build):
    with pytest.raises(ConfigError, match=r"^model\.name: own_nets:colour fails on a batch of images \(2, 1, 16, 16\)"):
        build("own_nets:colour", channels=1)
