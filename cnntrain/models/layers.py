"""The small makers of layers that our own networks share."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.config.schema.arguments import ACTIVATIONS
from cnntrain.config.schema.cnn import Pair, flat
from cnntrain.models.drop import DropConnectConv2d
from cnntrain.models.map_sizes import Window

_PADS: dict[str, type[nn.Module]] = {
    "zeros": nn.ZeroPad2d,
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "circular": nn.CircularPad2d,
}


def chain(layers: dict[str, nn.Module]) -> nn.Sequential:
    """The layers one after another, each under its name."""
    return nn.Sequential(OrderedDict(layers))


def activation(name: str) -> nn.Module:
    """The activation that a short name (`swish`) or a class of torch.nn (`Hardswish`) names."""
    made: nn.Module = getattr(nn, ACTIVATIONS.get(name, name))()
    return made


def norm2d(kind: str, channels: int, *, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """A norm of (N, C, H, W), if `affine` with a scale and a shift for each channel.

    batch (arXiv 1502.03167) over N, H, W; layer (arXiv 1607.06450) over C, H, W, as one group, so that its parameters
    do not depend on the size of the map; instance (arXiv 1607.08022) over H, W; group (arXiv 1803.08494) over H, W
    and the channels of a group, see `norm_groups`.
    """
    match kind:
        case "batch":
            return nn.BatchNorm2d(channels, eps, affine=affine)
        case "layer":
            return nn.GroupNorm(1, channels, eps, affine=affine)
        case "instance":
            return nn.InstanceNorm2d(channels, eps, affine=affine)
        case "group":
            return nn.GroupNorm(norm_groups(channels), channels, eps, affine=affine)
    raise ValueError(f"no norm {kind!r}")


def norm_groups(channels: int) -> int:
    """The most groups up to the 32 of the paper that part the channels evenly, two or more in each."""
    return next(groups for groups in range(min(32, max(1, channels // 2)), 0, -1) if channels % groups == 0)


class WeightedAvgPool2d(nn.Module):
    """The average of each window of (N, C, H, W), its places weighted: the same weights in all channels.

    Args:
        kernel_size, stride: (height, width) in pixels.
        weights: one number >= 0 for each place, in rows; they are divided by their sum. None: weights that are learned,
            the softmax of `logits`, at first all equal.
    """

    def __init__(self, kernel_size: Pair, stride: Pair, weights: list[float] | list[list[float]] | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = (0, 0)
        if weights is None:
            self.logits = nn.Parameter(torch.zeros(kernel_size[0] * kernel_size[1]))
        else:
            fixed = torch.tensor(flat(weights), dtype=torch.float32)
            self.register_buffer("fixed", fixed / fixed.sum())

    def weights(self) -> Tensor:
        """(height, width), of sum 1."""
        shares: Tensor = self.logits.softmax(0) if "logits" in self._parameters else self.fixed
        return shares.view(self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernels = self.weights().to(x.dtype).expand(channels, 1, *self.kernel_size)
        return functional.conv2d(x, kernels, stride=self.stride, groups=channels)

    def extra_repr(self) -> str:
        learned = "learned" if "logits" in self._parameters else "fixed"
        return f"kernel_size={self.kernel_size}, stride={self.stride}, weights={learned}"


def largest(maps: Tensor) -> Tensor:
    """The largest value of each map, (..., H, W) to (..., 1, 1), whose gradient goes to the first place that has it.

    That of amax goes to all values that equal the result: compiled it is NaN, where one of the two is rounded to bf16
    and the other not.
    """
    return maps.flatten(-2).max(-1, keepdim=True).values.unsqueeze(-1)


class GlobalMaxPool2d(nn.AdaptiveMaxPool2d):
    """The largest value of each map: (N, C, H, W) to (N, C, 1, 1).

    On CUDA, the gradient of torch's own does not repeat its bits.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return largest(x)


class RepeatableAvgPool2d(nn.AdaptiveAvgPool2d):
    """The same averages as torch's own, with a gradient that repeats its bits on CUDA too."""

    def forward(self, x: Tensor) -> Tensor:
        sides = self.output_size if isinstance(self.output_size, tuple) else (self.output_size, self.output_size)
        for dim, side in zip((-2, -1), sides, strict=True):
            count, extent = x.shape[dim] if side is None else side, x.shape[dim]
            edges = [(i * extent // count, -(-(i + 1) * extent // count)) for i in range(count)]
            x = torch.cat([x.narrow(dim, a, b - a).mean(dim, keepdim=True) for a, b in edges], dim)
        return x


class RepeatableLocalResponseNorm(nn.LocalResponseNorm):
    """The same as torch's own, with a gradient that repeats its bits on CUDA too, as neighbours lie in a plane."""

    def forward(self, x: Tensor) -> Tensor:
        squares = functional.pad(x.square().flatten(2).unsqueeze(1), (0, 0, self.size // 2, (self.size - 1) // 2))
        means = functional.avg_pool2d(squares, (self.size, 1), stride=1).view(x.shape)
        return x / (means * self.alpha + self.k).pow(self.beta)


def make_repeatable(model: nn.Module) -> None:
    """Let layers whose gradient does not repeat its bits on CUDA, and for which there is another way, take that."""
    for layer in model.modules():
        if type(layer) is nn.AdaptiveAvgPool2d and layer.output_size not in (1, (1, 1)):  # for one place, torch's does
            layer.__class__ = RepeatableAvgPool2d
        elif type(layer) is nn.AdaptiveMaxPool2d and layer.output_size in (1, (1, 1)):
            layer.__class__ = GlobalMaxPool2d
        elif type(layer) is nn.LocalResponseNorm:
            layer.__class__ = RepeatableLocalResponseNorm


def pool2d(kind: str, window: Window, weights: list[float] | list[list[float]] | None = None) -> nn.Module:
    """A pool by name: max, avg, weighted (with `weights`, or learned) or global, the average of the whole map."""
    match kind:
        case "max":
            return nn.MaxPool2d(*_typed_window(window))
        case "avg":
            return nn.AvgPool2d(*_typed_window(window))
        case "weighted":
            return WeightedAvgPool2d(window.kernel, window.stride, weights)
        case "global":
            return nn.AdaptiveAvgPool2d(1)
    raise ValueError(f"no pool {kind!r}")


def _typed_window(window: Window) -> tuple[int | Pair, int | Pair]:
    """Kernel and stride as torch's layers show them."""
    return _short(window.kernel), _short(window.stride)


def _short(value: Pair) -> int | Pair:
    """One number where both are the same, as people write it."""
    return value[0] if value[0] == value[1] else value


def convolution(
    kind: str,
    channels: int,
    filters: int,
    window: Window,
    *,
    padding_mode: str = "zeros",
    groups: int = 1,
    bias: bool = True,
    drop_connect: float = 0.0,
) -> nn.Module:
    """A convolution from `channels` to `filters` maps, of one of three kinds.

    full: one weight for each pair of maps and each place of the window.
    depthwise_separable: a window for each map, then 1x1 over the maps (arXiv 1610.02357).
    spatially_separable: a column of the window, then a row of it; both give `filters` maps (arXiv 1512.00567, 3.2).
    Nothing stands between the two parts, and the bias is that of the second.
    """

    def plain(entering: int, leaving: int, view: Window, parts: int, with_bias: bool) -> nn.Module:
        return _conv2d(entering, leaving, view, padding_mode, parts, with_bias, drop_connect)

    match kind:
        case "full":
            return plain(channels, filters, window, groups, bias)
        case "depthwise_separable":
            depthwise = plain(channels, channels, window, channels, False)
            return chain({"depthwise": depthwise, "pointwise": plain(channels, filters, Window((1, 1)), 1, bias)})
        case "spatially_separable":
            column = plain(channels, filters, window.along(0), groups, False)
            return chain({"column": column, "row": plain(filters, filters, window.along(1), groups, bias)})
    raise ValueError(f"no convolution {kind!r}")


def _conv2d(
    channels: int, filters: int, window: Window, padding_mode: str, groups: int, bias: bool, drop_connect: float
) -> nn.Module:
    """nn.Conv2d; where its two sides need unlike borders, after a layer that pads."""
    (top, bottom), (left, right) = window.borders
    even = top == bottom and left == right
    options = {
        "stride": window.stride,
        "padding": (top, left) if even else (0, 0),
        "padding_mode": padding_mode if even and (top or left) else "zeros",
        "dilation": window.dilation,
        "groups": groups,
        "bias": bias,
    }
    conv = (
        DropConnectConv2d(channels, filters, window.kernel, p=drop_connect, **options)
        if drop_connect
        else nn.Conv2d(channels, filters, window.kernel, **options)
    )
    return conv if even else chain({"pad": _PADS[padding_mode]((left, right, top, bottom)), "conv": conv})


def initialise(model: nn.Module, init: str, std: float = 0.01) -> None:
    """Draw the weights of all convolutions and linear layers anew; biases start at 0.

    Args:
        init: default (torch's own, nothing changes), he (arXiv 1502.01852, for ReLU), glorot (Glorot and Bengio 2010,
            uniform) or normal.
        std: spread of normal.
    """
    if init == "default":
        return
    for layer in model.modules():
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            continue
        match init:
            case "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            case "glorot":
                nn.init.xavier_uniform_(layer.weight)
            case "normal":
                nn.init.normal_(layer.weight, std=std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
