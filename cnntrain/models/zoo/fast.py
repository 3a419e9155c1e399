"""Two networks made to learn CIFAR-10 in seconds: ResNet-9 and airbench."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.config.schema.network_args import AirbenchArgs, Resnet9Args
from cnntrain.models.blocks import conv_norm_act
from cnntrain.models.layers import GlobalMaxPool2d, activation, chain, initialise


class Residual(nn.Module):
    """x + layers(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.layers(x)
        return added


class Scale(nn.Module):
    """x times a fixed factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor:g}"


def resnet9(args: Resnet9Args, *, classes: int, channels: int) -> nn.Sequential:
    """The ResNet-9 of the DAWNBench entries (David Page, "How to train your ResNet", 2018).

    Three stages that double the width and halve the map, the first and the last with a residual pair behind; the
    largest value of each map goes into one linear layer without bias, whose logits are divided by 8. 6,573,120
    parameters for ten classes.
    """
    width, act = args.width, args.activation

    def conv(entering: int, leaving: int) -> nn.Module:
        return conv_norm_act(entering, leaving, 3, act)

    def pair(at: int) -> nn.Module:
        return Residual(conv(at, at), conv(at, at))

    model = chain(
        {
            "stem": conv(channels, width),
            "stage1": nn.Sequential(conv(width, 2 * width), nn.MaxPool2d(2), pair(2 * width)),
            "stage2": nn.Sequential(conv(2 * width, 4 * width), nn.MaxPool2d(2)),
            "stage3": nn.Sequential(conv(4 * width, 8 * width), nn.MaxPool2d(2), pair(8 * width)),
            "pool": GlobalMaxPool2d(),
            "flatten": nn.Flatten(),
            "head": nn.Linear(8 * width, classes, bias=False),
            "scale": Scale(1 / 8),
        }
    )
    initialise(model, "he")
    return model


class Whitening(nn.Conv2d):
    """A frozen 2x2 convolution whose outputs have about spread 1 in all directions; its shift learns."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 8 * channels, 2)
        with torch.no_grad():
            self.weight.copy_(whitening_filters(channels))
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the filters from images: the eigenvectors of their patches, each with its negative.

        Args:
            images: float32 (N, C, H, W), normalised.
        """
        patches = functional.unfold(images, 2).transpose(0, 1).flatten(1).double()
        covariance = (patches @ patches.T / patches.shape[1]).cpu()
        spreads, directions = torch.linalg.eigh(covariance)
        filters = directions.T / (spreads.clamp_min(0) + 5e-4).sqrt()[:, None]  # the paper's 5e-4 tames the finest
        self.weight.copy_(torch.cat([filters, -filters]).view_as(self.weight))


def airbench(args: AirbenchArgs, *, classes: int, channels: int) -> nn.Sequential:
    """The network of airbench94 (arXiv 2404.00498, section 3.1 to 3.3): 1,972,792 parameters for ten classes.

    A frozen 2x2 convolution that whitens, then three stages of two 3x3 convolutions with a halving pool after the
    first one; batch norms that shift but do not scale; the largest value of each map into one linear layer without
    bias, whose logits are divided by 9. Convolutions start as the identity on their first maps. With a depth of 3 a
    third convolution ends each stage, and what enters the second one is added (that of airbench96).
    """
    act = args.activation
    whiten = Whitening(channels)
    widths = pairwise([whiten.out_channels, *args.widths])
    stages = [_airbench_stage(entering, leaving, args.depth, act) for entering, leaving in widths]
    return chain(
        {
            "whiten": whiten,
            "act": activation(act),
            "stages": nn.Sequential(*stages),
            "pool": GlobalMaxPool2d(),
            "flatten": nn.Flatten(),
            "head": nn.Linear(args.widths[-1], classes, bias=False),
            "scale": Scale(1 / 9),
        }
    )


def _airbench_stage(entering: int, leaving: int, depth: int, act: str) -> nn.Sequential:
    second = {"conv2": _identity_conv(leaving, leaving), "norm2": _shift_norm(leaving)}
    if depth == 3:
        third = [activation(act), _identity_conv(leaving, leaving), _shift_norm(leaving)]
        second = {"pair": Residual(*second.values(), *third)}
    return chain(
        {
            "conv1": _identity_conv(entering, leaving),
            "pool": nn.MaxPool2d(2),
            "norm1": _shift_norm(leaving),
            "act1": activation(act),
            **second,
            "act2": activation(act),
        }
    )


def _identity_conv(entering: int, leaving: int) -> nn.Conv2d:
    conv = nn.Conv2d(entering, leaving, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[:entering])
    return conv


def _shift_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.4)  # few steps, so statistics that follow fast
    norm.weight.requires_grad_(False)
    return norm


# Spread of the cosine patterns of 2x2 patches of CIFAR-10, standardised by channel: a row for the brightness and for
# each difference of colours; flat, across, down, both.
_SPREADS = ((3.18, 0.59, 0.64, 0.24), (0.88, 0.064, 0.078, 0.015), (0.43, 0.041, 0.047, 0.012))


def whitening_filters(channels: int) -> Tensor:
    """Filters (8 channels, channels, 2, 2) that give the patches of photos about spread 1 in all directions.

    On CIFAR-10, the eigenvectors of the patches are the cosine patterns in colour and place (their spreads agree within
    11 %), so these need no data: with them begins a network that has seen none.
    """
    colors, places = _cosines(channels), _cosines(2)
    patterns = torch.einsum("ac,bh,dw->abdchw", colors, places, places).reshape(-1, channels, 2, 2)
    spreads = torch.tensor([spread for color in range(channels) for spread in _SPREADS[min(color, 2)]])
    filters = patterns / (spreads**2 + 5e-4).sqrt().view(-1, 1, 1, 1)  # the paper's 5e-4 tames the finest patterns
    return torch.cat([filters, -filters])


def _cosines(size: int) -> Tensor:
    """The orthonormal cosine basis of `size` values, one in each row, the constant one first."""
    place = (torch.arange(size) + 0.5) * torch.pi / size
    rows = torch.cos(torch.arange(size)[:, None] * place) * (2 / size) ** 0.5
    rows[0] /= 2**0.5
    return rows
