"""The last step before mixing and the network: bytes to normalised floats."""

import torch
from torch import Tensor

from cnntrain.augment import layout


class Normalize:
    """uint8 images to float32: divided by 255, minus the mean, by the standard deviation, per channel.

    Args:
        mean, std: per channel, on the 0..1 scale.
        channels_last: memory layout of the result.
    """

    def __init__(self, mean: list[float], std: list[float], channels_last: bool) -> None:
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        centre, spread = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.factors = (1 / (255 * spread)).float(), (-centre / spread).float()
        self._ready: tuple[torch.device, int, Tensor, Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 (N, C, H, W) on the same device."""
        # One new tensor, filled and changed in place: large temporaries cost more here than the arithmetic.
        result = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=self.layout)
        scale, shift = self._on(images.device, images.shape[3])
        if layout.launching_costs(images.device):
            return torch.mul(images, scale, out=result).add_(shift)
        result.copy_(images)
        if self.layout is torch.channels_last:
            # Whole rows of pixels, three times as fast on a CPU as a broadcast over three channels.
            result.permute(0, 2, 3, 1).view(len(images), images.shape[2], -1).mul_(scale).add_(shift)
        else:
            result.mul_(scale).add_(shift)
        return result

    def _on(self, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
        """Scale and shift on the device: (C, 1, 1), or (W * C,) for channels_last on a CPU."""
        if self._ready is None or self._ready[:2] != (device, width):
            rows = self.layout is torch.channels_last and not layout.launching_costs(device)
            scale, shift = (x.repeat(width) if rows else x.view(-1, 1, 1) for x in self.factors)
            self._ready = device, width, scale.to(device), shift.to(device)
        return self._ready[2:]
