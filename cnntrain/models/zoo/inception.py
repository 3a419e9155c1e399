"""GoogLeNet (Inception-v1) and BN-Inception (Inception-v2)."""

from typing import NamedTuple

from torch import Tensor, nn

from cnntrain.config.schema.network_args import BnInceptionArgs, InceptionArgs
from cnntrain.models.blocks import Branches, conv_norm_act, start_quiet
from cnntrain.models.layers import activation, chain, initialise


class GoogLeNetBlock(NamedTuple):
    """Channels of a block of arXiv 1409.4842, a row of its table 1; `_reduce` are the 1x1 convolutions before."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    @property
    def leaving(self) -> int:
        return self.one + self.three + self.five + self.pool


GOOGLENET = {
    "inception_3a": GoogLeNetBlock(64, 96, 128, 16, 32, 32),
    "inception_3b": GoogLeNetBlock(128, 128, 192, 32, 96, 64),
    "inception_4a": GoogLeNetBlock(192, 96, 208, 16, 48, 64),
    "inception_4b": GoogLeNetBlock(160, 112, 224, 24, 64, 64),
    "inception_4c": GoogLeNetBlock(128, 128, 256, 24, 64, 64),
    "inception_4d": GoogLeNetBlock(112, 144, 288, 32, 64, 64),
    "inception_4e": GoogLeNetBlock(256, 160, 320, 32, 128, 128),
    "inception_5a": GoogLeNetBlock(256, 160, 320, 32, 128, 128),
    "inception_5b": GoogLeNetBlock(384, 192, 384, 48, 128, 128),
}


class BnInceptionBlock(NamedTuple):
    """Channels of a block of arXiv 1502.03167; `double` is the branch of two 3x3 convolutions.

    A block without 1x1 branch halves the map, and its pool passes on what enters.
    """

    one: int
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    pool: int
    pool_kind: type[nn.Module]

    def leaving(self, entering: int) -> int:
        return self.one + self.three + self.double + (self.pool or entering)


BN_INCEPTION = {
    "inception_3a": BnInceptionBlock(64, 64, 64, 64, 96, 32, nn.AvgPool2d),
    "inception_3b": BnInceptionBlock(64, 64, 96, 64, 96, 64, nn.AvgPool2d),
    "inception_3c": BnInceptionBlock(0, 128, 160, 64, 96, 0, nn.MaxPool2d),
    "inception_4a": BnInceptionBlock(224, 64, 96, 96, 128, 128, nn.AvgPool2d),
    "inception_4b": BnInceptionBlock(192, 96, 128, 96, 128, 128, nn.AvgPool2d),
    "inception_4c": BnInceptionBlock(160, 128, 160, 128, 160, 128, nn.AvgPool2d),
    "inception_4d": BnInceptionBlock(96, 128, 192, 160, 192, 128, nn.AvgPool2d),
    "inception_4e": BnInceptionBlock(0, 128, 192, 192, 256, 0, nn.MaxPool2d),
    "inception_5a": BnInceptionBlock(352, 192, 320, 160, 224, 128, nn.AvgPool2d),
    "inception_5b": BnInceptionBlock(352, 192, 320, 192, 224, 128, nn.MaxPool2d),
}


class Inception(nn.Module):
    """A trunk, global average pooling, dropout and one linear layer, with auxiliary classifiers on the way.

    In training mode with auxiliary classifiers it gives (logits, auxiliary logits, ...), else logits (N, classes).
    """

    def __init__(
        self, features: nn.Sequential, leaving: int, classes: int, dropout: float, auxiliary: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.features = features
        self.auxiliary = nn.ModuleDict(auxiliary)  # by the name of the layer that each looks at
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(leaving, classes)
        initialise(self, "he")
        for head in (self.head, *(side.head for side in auxiliary.values())):
            start_quiet(head)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        side = []
        for name, layer in self.features.named_children():
            x = layer(x)
            if self.training and name in self.auxiliary:
                side.append(self.auxiliary[name](x))
        logits: Tensor = self.head(self.drop(self.flatten(self.pool(x))))
        return (logits, *side) if side else logits


def googlenet(args: InceptionArgs, *, classes: int, channels: int, aux: bool) -> Inception:
    """GoogLeNet (arXiv 1409.4842): convolutions with biases, 5x5 branches, local response norms.

    6,998,552 parameters for 1,000 classes, 13,378,280 with the two auxiliary classifiers on blocks 4a and 4d. The paper
    names no initialisation: He's (arXiv 1502.01852) keeps the signal through 22 layers without batch norm.
    """
    act = args.activation
    layers: dict[str, nn.Module] = {
        "conv1": _conv_act(channels, 64, 7, act, stride=2),
        "pool1": _halve(),
        "norm1": _response_norm(),
        "conv2_reduce": _conv_act(64, 64, 1, act),
        "conv2": _conv_act(64, 192, 3, act),
        "norm2": _response_norm(),
        "pool2": _halve(),
    }
    entering = 192
    for name, block in GOOGLENET.items():
        layers[name] = _googlenet_block(entering, block, act)
        entering = block.leaving
        if name in ("inception_3b", "inception_4e"):
            layers[f"pool{name[10]}"] = _halve()
    watched = ("inception_4a", "inception_4d") if aux else ()
    auxiliary = {name: _auxiliary(GOOGLENET[name].leaving, classes, act) for name in watched}
    return Inception(chain(layers), entering, classes, args.dropout, auxiliary)


def bn_inception(args: BnInceptionArgs, *, classes: int, channels: int) -> Inception:
    """BN-Inception (arXiv 1502.03167, figure 5), in the form of the weights that were published for it.

    11,285,224 parameters for 1,000 classes, and those weights 10,016 biases more, which the norms make idle (section
    3.2). That form has a plain 7x7 convolution first where the paper has a separable one, and pool branches of 128
    channels in blocks 4c and 4d where the paper has 96.
    """
    act = args.activation
    layers: dict[str, nn.Module] = {
        "conv1": conv_norm_act(channels, 64, 7, act, stride=2),
        "pool1": _halve(),
        "conv2_reduce": conv_norm_act(64, 64, 1, act),
        "conv2": conv_norm_act(64, 192, 3, act),
        "pool2": _halve(),
    }
    entering = 192
    for name, block in BN_INCEPTION.items():
        layers[name] = _bn_inception_block(entering, block, act)
        entering = block.leaving(entering)
    return Inception(chain(layers), entering, classes, args.dropout, {})


def _conv_act(entering: int, leaving: int, kernel: int, act: str, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(entering, leaving, kernel, stride, padding=kernel // 2)
    return chain({"conv": conv, "act": activation(act)})


def _halve() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1)


def _response_norm() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)  # of the published weights; the paper gives none


def _googlenet_block(entering: int, block: GoogLeNetBlock, act: str) -> nn.Module:
    def branch(reduce: int, leaving: int, kernel: int) -> nn.Module:
        return chain({"reduce": _conv_act(entering, reduce, 1, act), "conv": _conv_act(reduce, leaving, kernel, act)})

    pool = {"pool": nn.MaxPool2d(3, stride=1, padding=1), "conv": _conv_act(entering, block.pool, 1, act)}
    return Branches(
        one=_conv_act(entering, block.one, 1, act),
        three=branch(block.three_reduce, block.three, 3),
        five=branch(block.five_reduce, block.five, 5),
        pool=chain(pool),
    )


def _auxiliary(entering: int, classes: int, act: str) -> nn.Module:
    """The classifier on the way (section 5), whose 5x5/3 pool of a 14x14 map always ends at 4x4 here."""
    return chain(
        {
            "pool": nn.AdaptiveAvgPool2d(4),
            "conv": _conv_act(entering, 128, 1, act),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(128 * 4 * 4, 1024),
            "act": activation(act),
            "drop": nn.Dropout(0.7),
            "head": nn.Linear(1024, classes),
        }
    )


def _bn_inception_block(entering: int, block: BnInceptionBlock, act: str) -> nn.Module:
    stride = 1 if block.one else 2
    three = {
        "reduce": conv_norm_act(entering, block.three_reduce, 1, act),
        "conv": conv_norm_act(block.three_reduce, block.three, 3, act, stride=stride),
    }
    stacked = {
        "reduce": conv_norm_act(entering, block.double_reduce, 1, act),
        "conv1": conv_norm_act(block.double_reduce, block.double, 3, act),
        "conv2": conv_norm_act(block.double, block.double, 3, act, stride=stride),
    }
    pool: dict[str, nn.Module] = {"pool": block.pool_kind(3, stride=stride, padding=1)}
    if block.pool:
        pool["conv"] = conv_norm_act(entering, block.pool, 1, act)
    one = {"one": conv_norm_act(entering, block.one, 1, act)} if block.one else {}
    return Branches(**one, three=chain(three), stacked=chain(stacked), pool=chain(pool))
