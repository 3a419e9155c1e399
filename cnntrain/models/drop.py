"""Layers that drop something at random while a network trains, and their rates over a run.

Each scales what it keeps, so that the expected output stays the same and evaluation changes nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropBlock2d(nn.Module):
    """Zeroes squares of (N, C, H, W), in each channel others (arXiv 1810.12890).

    Args:
        p: the share of values that go, 0 <= p < 1; where squares overlap it is a little less.
        size: side of a square in pixels; on a smaller map, the map's own.
    """

    def __init__(self, p: float, size: int = 7) -> None:
        super().__init__()
        self.p = p
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        images, channels, height, width = x.shape
        tall, wide = min(self.size, height), min(self.size, width)
        places = (height - tall + 1, width - wide + 1)  # of a square's first corner, so that none is cut off
        chance = self.p * height * width / (tall * wide * places[0] * places[1])
        corners = (torch.rand((images, channels, *places), device=x.device) < chance).to(x.dtype)
        corners = functional.pad(corners, (wide - 1, wide - 1, tall - 1, tall - 1))
        mask = 1 - functional.max_pool2d(corners, (tall, wide), stride=1)
        return x * mask * (mask.numel() / mask.sum(dtype=torch.float32).clamp(min=1)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}, size={self.size}"


class DropPath(nn.Module):
    """Zeroes the whole (C, H, W) of an image with chance `p`: a residual block's shortcut alone is left.

    Stochastic depth (arXiv 1603.09382), drawn for each image of the batch.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = torch.rand((len(x), *[1] * (x.ndim - 1)), device=x.device) >= self.p
        return x * (mask / (1 - self.p)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _DropConnect(nn.Module):
    """Drops each weight with chance `p` (Wan et al. 2013, ICML 28(3)); biases stay.

    One draw serves the whole batch, and evaluation takes the mean of the weights: the paper draws for each image and
    samples the output of a layer in evaluation.
    """

    p: float
    weight: nn.Parameter

    def kept_weight(self) -> Tensor:
        return functional.dropout(self.weight, self.p, self.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


class DropConnectLinear(_DropConnect, nn.Linear):
    """nn.Linear that drops weights with chance `p`."""

    def __init__(self, *args: Any, p: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.kept_weight(), self.bias)


class DropConnectConv2d(_DropConnect, nn.Conv2d):
    """nn.Conv2d that drops weights with chance `p`."""

    def __init__(self, *args: Any, p: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.kept_weight(), self.bias)


@dataclass(frozen=True)
class DropLayer:
    """A layer with a rate: the attribute that holds it, and its value when the network was built."""

    layer: nn.Module
    attribute: str
    base: float


_OURS = (DropBlock2d, DropPath, _DropConnect)
_TORCH = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_TORCHVISION = ("StochasticDepth", "DropBlock2d", "DropBlock3d")
# Of timm's layers and of modules that call the function: torchvision's DenseNet and attention.
_ATTRIBUTES = ("drop_prob", "drop_rate", "dropout", "attention_dropout")


def drop_layers(model: nn.Module) -> list[DropLayer]:
    """Every rate above 0 in a network, of torch's layers, torchvision's, timm's and ours."""
    return [drop for layer in model.modules() for drop in _rates(layer)]


def _rates(layer: nn.Module) -> list[DropLayer]:
    if isinstance(layer, (*_OURS, *_TORCH)) or type(layer).__name__ in _TORCHVISION:
        names: tuple[str, ...] = ("p", "drop_prob")
    else:
        names = _ATTRIBUTES
    values = [(name, getattr(layer, name, None)) for name in names]
    return [DropLayer(layer, name, value) for name, value in values if isinstance(value, float) and value > 0]


def set_drop_factor(layers: list[DropLayer], factor: float) -> None:
    """Set every rate to `factor` times its value when the network was built, 0 <= factor <= 1."""
    for layer in layers:
        setattr(layer.layer, layer.attribute, layer.base * factor)
