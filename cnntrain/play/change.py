"""What the page does to a picture before the network sees it: moved, turned, or with noise."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NOISE_SEED = 7  # one pattern, which grows with the slider instead of flickering
WHITE = 255.0


@dataclass(frozen=True)
class Change:
    """A change of one image; the defaults change nothing.

    Attributes:
        right, down: by how many pixels it moves.
        turn: by how many degrees it turns about its centre, counter-clockwise.
        noise: the standard deviation of what is added to each value, where white is 1.
    """

    right: float = 0.0
    down: float = 0.0
    turn: float = 0.0
    noise: float = 0.0

    def of(self, image: Tensor) -> Tensor:
        """The changed image, as the one that is given: uint8 (C, S, S); the border is repeated into the gaps."""
        if self == Change():
            return image
        values = image.float()
        if self.right or self.down or self.turn:
            values = self._moved(values)
        if self.noise:
            random = torch.Generator().manual_seed(NOISE_SEED)
            values = values + WHITE * self.noise * torch.randn(image.shape, generator=random).to(image.device)
        return values.round().clamp(0, WHITE).to(torch.uint8)

    def _moved(self, values: Tensor) -> Tensor:
        """Turned first, then moved: each place of the result is looked up where it came from."""
        height, width = values.shape[1:]
        angle = math.radians(self.turn)
        cos, sin = math.cos(angle), math.sin(angle)
        right, down = 2 * self.right / width, 2 * self.down / height  # a side is 2 long
        place = [
            [cos, -sin * height / width, -cos * right + sin * height / width * down],
            [sin * width / height, cos, -sin * width / height * right - cos * down],
        ]
        grid = F.affine_grid(torch.tensor([place], device=values.device), [1, *values.shape], align_corners=False)
        return F.grid_sample(values[None], grid, padding_mode="border", align_corners=False)[0]
