"""The arguments (`model.args`) of our own networks, checked without torch; networks.py says whose each class is."""

from dataclasses import dataclass
from typing import Any, Optional

from cnntrain.config.schema.arguments import (
    activation,
    are_counts,
    argument,
    dropout,
    hidden,
    is_count,
    is_number,
    is_share,
    one_of,
)


@dataclass
class SoftmaxArgs:
    """Softmax regression: one linear layer, nothing to choose."""


@dataclass
class MlpArgs:
    """The multi-layer perceptron."""

    hidden: list[int] = hidden([256, 128])  # units of each hidden layer
    dropout: float = dropout(0.0)
    activation: str = activation("relu")


@dataclass
class LenetArgs:
    """LeNet-1, LeNet-4 and LeNet-5 in the modern reading; `tanh` and `avg` are closer to the papers."""

    activation: str = activation("relu")
    pooling: str = one_of("max", "max", "avg")


@dataclass
class HogArgs:
    """Histograms of oriented gradients, with the arguments of scikit-image's `hog`."""

    orientations: int = argument(9, is_count, "a whole number >= 1")  # bins over 180 degrees
    pixels_per_cell: Optional[int] = argument(
        None, lambda value: value is None or is_count(value), "a whole number >= 1, or null for an eighth of the image"
    )
    cells_per_block: int = argument(2, is_count, "a whole number >= 1")
    block_norm: str = one_of("L2-Hys", "L2-Hys", "L2")


@dataclass
class InceptionArgs:
    """GoogLeNet, whose dropout stands before the last linear layer."""

    dropout: float = dropout(0.4)
    activation: str = activation("relu")


@dataclass
class BnInceptionArgs(InceptionArgs):
    """BN-Inception; the paper drops nothing."""

    dropout: float = dropout(0.0)


@dataclass
class InceptionResnetArgs:
    """Inception-ResNet-v1."""

    drop_path: float = dropout(0.0)  # of the last unit, rising linearly from the first
    dropout: float = dropout(0.2)  # before the last linear layer
    activation: str = activation("relu")


def _depth(default: int, rest: int) -> Any:
    rule = f"a whole number of layers of the form 6n + {rest} with n >= 1, such as {6 + rest} or {default}"
    return argument(default, lambda value: is_count(value) and value > rest and value % 6 == rest, rule)


def _count(default: int) -> Any:
    return argument(default, is_count, "a whole number >= 1")


def _counts(default: list[int], entries: int) -> Any:
    rule = f"{entries} whole numbers >= 1, one for each stage"
    return argument(default, lambda value: are_counts(value) and len(value) == entries, rule)


def _switch(default: bool) -> Any:
    return argument(default, lambda value: isinstance(value, bool), "true or false")


@dataclass
class Resnet20Args:
    """The CIFAR ResNets: three stages of maps with width, 2 width and 4 width channels."""

    depth: int = _depth(20, 2)
    width: int = _count(16)
    residual: bool = _switch(True)  # False: the same layers without shortcuts
    zero_init_residual: bool = _switch(True)  # of residual units
    drop_path: float = dropout(0.0)  # of the last unit, rising linearly from the first
    activation: str = activation("relu")

    def faults(self) -> list[tuple[str, Any, str]]:
        """Values that do not go together, as (key, value, rule)."""
        if self.drop_path and not self.residual:
            return [("drop_path", self.drop_path, "0 without residual: true")]
        return []


@dataclass
class Resnet56Args(Resnet20Args):
    depth: int = _depth(56, 2)


@dataclass
class Resnet110Args(Resnet20Args):
    depth: int = _depth(110, 2)


@dataclass
class PreactResnetArgs:
    """ResNet-18 of pre-activation units, in the form for CIFAR."""

    units: list[int] = _counts([2, 2, 2, 2], 4)  # of each stage; [3, 4, 6, 3] makes 34 layers
    width: int = _count(64)  # channels of the first stage, doubled in each one after it
    drop_path: float = dropout(0.0)
    activation: str = activation("relu")


@dataclass
class WideResnetArgs:
    """WRN-depth-width."""

    depth: int = _depth(28, 4)
    width: int = _count(10)  # times the 16, 32 and 64 channels of a CIFAR ResNet
    drop_path: float = dropout(0.0)
    dropout: float = dropout(0.0)  # between the two convolutions of each unit
    activation: str = activation("relu")


def _coefficient(default: float) -> Any:
    return argument(default, lambda value: is_number(value) and 1 <= value <= 2, "a number from 1 to 2")


@dataclass
class EfficientnetArgs:
    """EfficientNet-B0 with depth alpha^phi, width beta^phi and image size gamma^phi times its own."""

    phi: float = argument(0, lambda value: is_number(value) and -4 <= value <= 10, "a number from -4 to 10")
    alpha: float = _coefficient(1.2)
    beta: float = _coefficient(1.1)
    gamma: float = _coefficient(1.15)
    drop_path: float = dropout(0.2)
    dropout: Optional[float] = argument(
        None, lambda value: value is None or is_share(value), "a number >= 0 and < 1, or null for 0.2 + 0.3 phi / 7"
    )

    def recommended_size(self) -> int:
        """Pixels a side of the images that this phi is meant for; 224 for phi = 0."""
        return round(224 * self.gamma**self.phi)


@dataclass
class Resnet9Args:
    """The ResNet-9 of the DAWNBench entries."""

    width: int = _count(64)  # channels of the first convolution; the stages have 2, 4 and 8 times as many
    activation: str = activation("relu")


@dataclass
class AirbenchArgs:
    """The network of airbench94."""

    widths: list[int] = _counts([64, 256, 256], 3)
    depth: int = argument(2, lambda value: value in (2, 3), "2, or 3 as in airbench96")  # convolutions of each stage
    activation: str = activation("gelu")
