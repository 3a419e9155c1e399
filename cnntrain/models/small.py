"""Our own small networks: [[CONV → (NORM) → ACT]*N → POOL]*M → [FC → ACT → DROPOUT]*K → FC, from lists."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from cnntrain.errors import ConfigError
from cnntrain.settings.nets import OWN_NETS, CnnArgs, Lenet5Args, MlpArgs

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
_POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def build_small(name: str, args: dict[str, Any], *, classes: int, channels: int, image_size: int) -> nn.Module:
    """Our own network `name`; `settings/nets.py` has the arguments of each, which must be without faults."""
    chosen = OWN_NETS[name](**args)
    if isinstance(chosen, MlpArgs):
        return _mlp(chosen, classes, channels * image_size**2)
    if isinstance(chosen, Lenet5Args):
        return _lenet5(chosen, classes, channels, image_size)
    return _cnn(chosen, classes, channels, image_size)


def _mlp(args: MlpArgs, classes: int, pixels: int) -> nn.Module:
    return nn.Sequential(*fully_connected(pixels, args.hidden, classes, args.activation, args.dropout))


def _lenet5(args: Lenet5Args, classes: int, channels: int, image_size: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998, Proceedings of the IEEE 86(11)) in the modern reading.

    Plain pooling, every map of S2 joined to every map of C3, and logits in place of the radial basis functions:
    61,706 parameters for ten classes of 32-pixel grey images. Smaller images get a border of two pixels, as the
    paper gives MNIST's 28 one.
    """
    blocks = [[6], [16]]
    padding = 2 if image_size < 32 else 0
    convolutions, features = convolutional(
        "lenet5", channels, image_size, blocks, 5, [padding, 0], args.activation, args.pooling, norm=False
    )
    return nn.Sequential(*convolutions, *fully_connected(features, [120, 84], classes, args.activation, 0.0))


def _cnn(args: CnnArgs, classes: int, channels: int, image_size: int) -> nn.Module:
    blocks = [[block] if isinstance(block, int) else block for block in args.filters]
    padding: int | str = "same" if args.padding == "same" else 0
    convolutions, features = convolutional(
        "cnn", channels, image_size, blocks, args.kernel, [padding] * len(blocks), args.activation, args.pooling,
        norm=args.norm == "batch",
    )  # fmt: skip
    return nn.Sequential(*convolutions, *fully_connected(features, args.hidden, classes, args.activation, args.dropout))


def convolutional(
    name: str,
    channels: int,
    image_size: int,
    blocks: Sequence[Sequence[int]],
    kernel: int,
    paddings: Sequence[int | str],
    activation: str,
    pooling: str,
    *,
    norm: bool,
) -> tuple[list[nn.Module], int]:
    """The layers of [[CONV → (NORM) → ACT]*N → POOL]*M, and the number of values that come out of them.

    `blocks` holds the filters of each convolution of each block, `paddings` the padding of each block's first
    convolution and of those after it. Each pooling halves the map, rounding down.
    """
    size = map_size(image_size, blocks, kernel, paddings)
    if size < 1:
        smallest = next(side for side in range(image_size, 10**6) if map_size(side, blocks, kernel, paddings) >= 1)
        raise ConfigError(
            f"data.image_size: {image_size} is too small for {name}, whose smallest is {smallest}; "
            f"set data.image_size={smallest} or choose another model"
        )
    layers: list[nn.Module] = []
    for filters, padding in zip(blocks, paddings, strict=True):
        for count in filters:
            layers.append(nn.Conv2d(channels, count, kernel, padding=padding, bias=not norm))
            layers += [nn.BatchNorm2d(count)] if norm else []
            layers.append(_ACTIVATIONS[activation]())
            channels = count
        layers.append(_POOLINGS[pooling](2))
    return layers, channels * size**2


def map_size(image_size: int, blocks: Sequence[Sequence[int]], kernel: int, paddings: Sequence[int | str]) -> int:
    """The side of the last feature map in pixels; 0 or less where the image is too small."""
    size = image_size
    for filters, padding in zip(blocks, paddings, strict=True):
        for _ in filters:
            size += 0 if padding == "same" else 2 * int(padding) - kernel + 1
            if size < 1:
                return 0
        size //= 2
    return size


def fully_connected(
    features: int, hidden: Sequence[int], classes: int, activation: str, dropout: float
) -> list[nn.Module]:
    """The layers of [FC → ACT → DROPOUT]*K → FC; without hidden layers the dropout stands before the only FC."""
    layers: list[nn.Module] = [nn.Flatten()]
    if dropout and not hidden:
        layers.append(nn.Dropout(dropout))
    for units in hidden:
        layers += [nn.Linear(features, units), _ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
        features = units
    return [*layers, nn.Linear(features, classes)]
