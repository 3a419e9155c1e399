"""A small network with all that makes freezing hard, and its layer groups."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cnntrain.config.schema.finetune import FinetuneSettings
from cnntrain.finetune.layer_groups import LayerGroup
from cnntrain.finetune.tuning import Tuning

CLASSES = 3


class NormAct(nn.BatchNorm2d):
    """A batch norm with children, as timm has them."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Dropout(0.2)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x)))


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = NormAct(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x + self.bn(self.conv(x)), 0.1, self.training)


class Net(nn.Module):
    """Stem, two blocks, a classifier whose dropout belongs to the encoder; (N, 3, 8, 8) to logits (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, CLASSES))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.bn1(self.conv1(x)).relu()).mean((2, 3))
        return functional.dropout(x, 0.1, self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def make_net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def groups_of(net: nn.Module) -> list[LayerGroup]:
    """stem, blocks.0, blocks.1 (with the dropout before the head) and head."""
    parts = {
        "stem": ("conv1", "bn1"),
        "blocks.0": ("blocks.0",),
        "blocks.1": ("blocks.1", "classifier.0"),
        "head": ("classifier.1",),
    }
    parameters = [name for name, _ in net.named_parameters()]
    leaves = [path for path, module in net.named_modules() if not list(module.children())]
    return [
        LayerGroup(
            name, *(tuple(one for one in every if f"{one}.".startswith(below)) for every in (parameters, leaves))
        )
        for name, below in ((name, tuple(f"{path}." for path in paths)) for name, paths in parts.items())
    ]


def make_tuning(net: nn.Module, **settings: Any) -> Tuning:
    return Tuning(net, groups_of(net), FinetuneSettings(**settings))


def images(seed: int, count: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 + 1
