"""The pieces that our own deep networks share."""

import torch
from torch import Tensor, nn

from cnntrain.models.layers import activation, chain

KernelSize = int | tuple[int, int]


def conv_norm_act(
    entering: int, leaving: int, kernel: KernelSize, act: str, *, stride: int = 1, padding: KernelSize | None = None
) -> nn.Sequential:
    """Convolution -> batch norm -> activation; the shift of the norm stands for the bias.

    Args:
        padding: pixels on each side, one number or (height, width); None keeps the size of the map at stride 1.
    """
    return chain(
        {
            "conv": nn.Conv2d(
                entering, leaving, kernel, stride, same(kernel) if padding is None else padding, bias=False
            ),
            "norm": nn.BatchNorm2d(leaving),
            "act": activation(act),
        }
    )


def same(kernel: KernelSize) -> KernelSize:
    """The padding that keeps the size of a map under an odd kernel at stride 1."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


class Branches(nn.Module):
    """Layers side by side on the same (N, C, H, W), their maps stacked: (N, sum of their channels, H', W')."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def rising_rates(last: float, count: int) -> list[float]:
    """Rates of `count` units in a row that rise linearly from last / count to `last` (arXiv 1603.09382, section 4)."""
    return [last * number / count for number in range(1, count + 1)]


def start_quiet(head: nn.Linear) -> None:
    """Small first weights: the first loss is that of a guess, however loud the last maps."""
    nn.init.normal_(head.weight, std=0.01)
