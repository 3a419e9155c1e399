"""Residual nets for CIFAR's 32 pixels: ResNet-20 to 110, ResNet-18 of pre-activation units, Wide ResNets."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from cnntrain.config.schema.network_args import PreactResnetArgs, Resnet20Args, WideResnetArgs
from cnntrain.models.blocks import conv_norm_act, rising_rates
from cnntrain.models.drop import DropPath
from cnntrain.models.layers import activation, chain, initialise


class FreeShortcut(nn.Module):
    """Every second pixel, and maps of zeros after those of (N, C, H, W): no parameters (arXiv 1512.03385, option A)."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.subsample = nn.AvgPool2d(1, stride=2)
        self.added = leaving - entering

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(self.subsample(x), (0, 0, 0, 0, 0, self.added))


class PlainUnit(nn.Module):
    """Two 3x3 convolutions with batch norm and activation (arXiv 1512.03385, figure 3, middle).

    (N, entering, H, W) to (N, leaving, H / stride, W / stride).
    """

    def __init__(self, entering: int, leaving: int, stride: int, act: str) -> None:
        super().__init__()
        self.conv1 = conv_norm_act(entering, leaving, 3, act, stride=stride)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(leaving)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        active: Tensor = self.act(self.norm2(self.conv2(self.conv1(x))))
        return active


class BasicUnit(PlainUnit):
    """The same beside a shortcut, the second activation after their sum (arXiv 1512.03385, figure 2)."""

    def __init__(self, entering: int, leaving: int, stride: int, act: str, drop_path: float) -> None:
        super().__init__(entering, leaving, stride, act)
        self.drop_path = DropPath(drop_path)
        self.shortcut = nn.Identity() if entering == leaving else FreeShortcut(entering, leaving)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.act(self.shortcut(x) + self.drop_path(self.norm2(self.conv2(self.conv1(x)))))
        return added


class CifarResNet(nn.Module):
    """The ResNets of arXiv 1512.03385, section 4.2: three stages of (depth - 2) / 6 units, shortcuts of option A.

    For ten classes 269,722 parameters with 20 layers, 853,018 with 56 and 1,727,962 with 110. On top of He's
    initialisation, `zero_init_residual` starts each unit as the identity (arXiv 1706.02677, section 5.1): without it
    56 layers at a rate of 0.1 learn nothing in their first 60 steps. Without `residual` it is the paper's plain net.
    """

    def __init__(self, args: Resnet20Args, *, classes: int, channels: int) -> None:
        super().__init__()
        units, width, act = (args.depth - 2) // 6, args.width, args.activation
        rates = iter(rising_rates(args.drop_path, 3 * units))
        self.stem = conv_norm_act(channels, width, 3, act)
        stages = []
        for leaving in (width, 2 * width, 4 * width):
            made = []
            for number in range(units):
                entering, stride = (leaving, 1) if number or leaving == width else (leaving // 2, 2)
                made.append(
                    BasicUnit(entering, leaving, stride, act, next(rates))
                    if args.residual
                    else PlainUnit(entering, leaving, stride, act)
                )
            stages.append(nn.Sequential(*made))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4 * width, classes)
        initialise(self, "he")
        for unit in self.modules():
            if isinstance(unit, BasicUnit) and args.zero_init_residual:
                nn.init.zeros_(unit.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flatten(self.pool(self.stages(self.stem(x)))))
        return logits


class PreactUnit(nn.Module):
    """Norm and activation before each of two 3x3 convolutions, nothing after the sum (arXiv 1603.05027, figure 4e).

    (N, entering, H, W) to (N, leaving, H / stride, W / stride). The first unit of a stage activates before its two ways
    part (appendix, implementation details), with a 1x1 convolution as shortcut where the size changes.
    """

    def __init__(
        self, entering: int, leaving: int, stride: int, *, first: bool, dropout: float, drop_path: float, act: str
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(entering)
        self.act1 = activation(act)
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(leaving)
        self.act2 = activation(act)
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.drop_path = DropPath(drop_path)
        changes = stride != 1 or entering != leaving
        self.shortcut = nn.Conv2d(entering, leaving, 1, stride, bias=False) if changes else nn.Identity()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.norm1(x))
        change = self.conv2(self.drop(self.act2(self.norm2(self.conv1(active)))))
        added: Tensor = self.shortcut(active if self.first else x) + self.drop_path(change)
        return added


class PreactResNet(nn.Module):
    """A 3x3 convolution, stages of pre-activation units that halve the map from the second one on, norm, activation."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        units: Sequence[int],
        classes: int,
        *,
        dropout: float,
        drop_path: float,
        act: str,
    ) -> None:
        """`widths` are the channels of the stem and of each stage, `units` the units of each stage."""
        super().__init__()
        rates = iter(rising_rates(drop_path, sum(units)))
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        stages = []
        for stage, (entering, leaving) in enumerate(pairwise(widths)):
            made = []
            for number in range(units[stage]):
                first = number == 0
                unit = PreactUnit(
                    entering if first else leaving,
                    leaving,
                    2 if first and stage > 0 else 1,
                    first=first,
                    dropout=dropout,
                    drop_path=next(rates),
                    act=act,
                )
                made.append(unit)
            stages.append(nn.Sequential(*made))
        self.stages = nn.Sequential(*stages)
        self.tail = chain({"norm": nn.BatchNorm2d(widths[-1]), "act": activation(act)})
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[-1], classes)
        initialise(self, "he")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flatten(self.pool(self.tail(self.stages(self.stem(x))))))
        return logits


def preact_resnet(args: PreactResnetArgs, *, classes: int, channels: int) -> PreactResNet:
    """ResNet-18 of pre-activation units (arXiv 1603.05027) in the form for CIFAR, with a 3x3 stem and no pool.

    11,172,170 parameters for ten classes.
    """
    widths = [args.width, *(args.width * 2**stage for stage in range(len(args.units)))]
    return PreactResNet(
        channels, widths, args.units, classes, dropout=0.0, drop_path=args.drop_path, act=args.activation
    )


def wide_resnet(args: WideResnetArgs, *, classes: int, channels: int) -> PreactResNet:
    """WRN-depth-width (arXiv 1605.07146): 36,479,194 parameters for ten classes at 28 layers and width 10."""
    units = (args.depth - 4) // 6
    widths = [16, *(factor * args.width for factor in (16, 32, 64))]
    return PreactResNet(
        channels, widths, [units] * 3, classes, dropout=args.dropout, drop_path=args.drop_path, act=args.activation
    )
