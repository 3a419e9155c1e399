"""The nets before the deep ones: softmax regression, the multi-layer perceptron, LeNet-1, LeNet-4 and LeNet-5."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from cnntrain.config.schema.network_args import LenetArgs, MlpArgs, SoftmaxArgs
from cnntrain.errors import ConfigError
from cnntrain.models.layers import activation, chain


def softmax(args: SoftmaxArgs, *, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """Softmax regression on the pixels; the softmax itself is part of the loss."""
    return chain({"flatten": nn.Flatten(), "head": nn.Linear(channels * image_size**2, classes)})


def mlp(args: MlpArgs, *, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """The multi-layer perceptron: [FC -> ACT -> DROP] * len(hidden) -> FC."""
    return chain(_linear_layers(channels * image_size**2, args.hidden, classes, args.activation, args.dropout))


@dataclass(frozen=True)
class _Plan:
    name: str
    size: int  # pixels a side of the images it was made for
    maps: tuple[int, int]
    hidden: tuple[int, ...]


_POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def lenet1(args: LenetArgs, *, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """LeNet-1 (LeCun et al. 1989, NIPS 2); see _lenet."""
    return _lenet(_Plan("lenet1", 28, (4, 12), ()), args, classes, channels, image_size)


def lenet4(args: LenetArgs, *, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """LeNet-4 (LeCun et al. 1998, Proceedings of the IEEE 86(11)); see _lenet."""
    return _lenet(_Plan("lenet4", 32, (4, 16), (120,)), args, classes, channels, image_size)


def lenet5(args: LenetArgs, *, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998, Proceedings of the IEEE 86(11)); see _lenet."""
    return _lenet(_Plan("lenet5", 32, (6, 16), (120, 84)), args, classes, channels, image_size)


def _lenet(plan: _Plan, args: LenetArgs, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """A LeNet.

    All in the modern reading: plain pooling without weights of its own, every map joined to every map of the layer
    before, and logits in place of squashed units or radial basis functions. For ten classes of grey images these are
    3,246, 51,050 and 61,706 parameters; the papers' sparse tables of connections leave 2,578, about 17,000 and 60,000.
    Images smaller than those it was made for get a border of two pixels, as the paper gives MNIST's 28 one.

    Raises:
        ConfigError: images too small for the two convolutions of 5x5 and their pools.
    """
    padding = 2 if image_size < plan.size else 0
    side = _last_side(image_size, padding)
    if side < 1:
        smallest = next(size for size in range(image_size, plan.size) if _last_side(size, 2) >= 1)
        raise ConfigError(
            f"data.image_size: {image_size} is too small for {plan.name}, whose smallest is {smallest}; "
            f"set data.image_size={smallest} or choose another model"
        )
    first, second = plan.maps
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, first, 5, padding=padding),
        "act1": activation(args.activation),
        "pool1": _POOLS[args.pooling](2),
        "conv2": nn.Conv2d(first, second, 5),
        "act2": activation(args.activation),
        "pool2": _POOLS[args.pooling](2),
    }
    return chain(layers | _linear_layers(second * side**2, plan.hidden, classes, args.activation))


def _last_side(image_size: int, padding: int) -> int:
    return ((image_size + 2 * padding - 4) // 2 - 4) // 2


def _linear_layers(
    features: int, hidden: Sequence[int], classes: int, act: str, dropout: float = 0.0
) -> dict[str, nn.Module]:
    """Flatten -> [FC -> ACT -> DROP] * len(hidden) -> FC; without hidden layers the dropout goes before the only FC."""
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    if dropout and not hidden:
        layers["drop"] = nn.Dropout(dropout)
    for number, units in enumerate(hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(features, units)
        layers[f"fc{number}_act"] = activation(act)
        if dropout:
            layers[f"fc{number}_drop"] = nn.Dropout(dropout)
        features = units
    layers["head"] = nn.Linear(features, classes)
    return layers
