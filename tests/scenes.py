"""Images on which kernels go wrong: noise, gradients, constants, few levels."""

import torch
from torch import Tensor


def scenes(channels: int, height: int, width: int) -> Tensor:
    """uint8 (10, channels, height, width), each image of another kind."""
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.rand(channels, height, width, generator=generator)

    slope = torch.linspace(30, 180, height).unsqueeze(1) + torch.linspace(0, 50, width)
    tints = torch.linspace(-20, 20, channels).view(-1, 1, 1)
    images = [
        noise() * 256,
        slope + tints + noise() * 16,
        slope / 4 + noise() * 4,
        slope.expand(channels, -1, -1) + (noise() * 3).floor() - 1,
        torch.zeros(channels, height, width),
        torch.full((channels, height, width), 255.0),
        100 + tints.expand(-1, height, width),
        (noise() < 0.3) * 255.0,
        17 + (noise() < 0.7) * 3.0,
        (noise() * 4).floor() * 85,
    ]
    return torch.stack(images).clamp(0, 255).to(torch.uint8)


def layouts(images: Tensor) -> list[Tensor]:
    """The same images contiguous and channels_last."""
    return [images, images.contiguous(memory_format=torch.channels_last)]


def same_layout(one: Tensor, other: Tensor) -> bool:
    """Whether two batches lie in memory in the same way."""
    return one.stride() == other.stride()
