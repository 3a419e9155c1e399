"""AugMix: mixtures of an image with versions of itself (arXiv 1912.02781)."""

import numpy as np
import torch
from torch import Tensor

from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.layout import column, in_parts, levels
from cnntrain.augment.per_image import Floats
from cnntrain.augment.sampling import PLACES, Chooser, Draws, Size, perform
from cnntrain.augment.spaces import AUGMIX, BLENDS
from cnntrain.config.schema.pieces import AugMixSettings

_ALL = Chooser(AUGMIX, 10)
_FEWER = Chooser({name: item for name, item in AUGMIX.items() if name not in BLENDS}, 10)
DEEPEST = 3  # operations in a chain of random depth, at most


class AugMix:
    """Chains of random operations start at each image; the image and their ends are mixed by random weights.

    Draws and mixes as torchvision.transforms.v2 does, but for each image.
    """

    def __init__(self, settings: AugMixSettings) -> None:
        self.settings = settings
        self.mixtures = 2 if settings.jsd else 1
        self.chooser = _ALL if settings.all_ops else _FEWER

    def __call__(self, images: Tensor, context: BatchContext) -> Tensor:
        """Mixtures of uint8 images (N, C, H, W); with jsd the images, mixtures and again mixtures, (3 * N, C, H, W)."""
        settings, count = self.settings, len(images)
        draws = self.draws(count, (images.shape[2], images.shape[3]), context.host)
        weights = context.send(self.weights(count, context.host))
        ends = perform(images, draws, context, interpolation=settings.interpolation, fill=settings.fill).split(count)
        width = settings.width
        mixtures = [mix(images, weights[i], *ends[i * width : (i + 1) * width]) for i in range(self.mixtures)]
        return torch.cat([images, *mixtures]) if settings.jsd else mixtures[0]

    def draws(self, count: int, size: Size, random: np.random.Generator) -> Draws:
        """The chains of `count` images: all first ones, then all second ones and so on, mixture after mixture."""
        depth = self.settings.depth
        shape = (depth or DEEPEST, self.mixtures * self.settings.width * count)
        operations = self.chooser.operations(shape, random)
        if depth is None:
            short = np.arange(DEEPEST)[:, None] >= random.integers(1, DEEPEST + 1, size=shape[1])
            operations[short] = PLACES["Identity"]
        level = random.integers(self.settings.severity, size=shape).astype(np.float64)
        return self.chooser.draws(operations, level, size, random)

    def weights(self, count: int, random: np.random.Generator) -> Floats:
        """Shares of an image and of each of its chains, float64 (mixtures, count, 1 + width); each row adds up to 1."""
        alpha, shape = self.settings.alpha, (self.mixtures, count)
        chains = random.beta(alpha, alpha, size=(*shape, 1))
        return np.concatenate(
            [1 - chains, chains * random.dirichlet([alpha] * self.settings.width, size=shape)], axis=2
        )


@in_parts
def mix(images: Tensor, weights: Tensor, /, *ends: Tensor) -> Tensor:
    """Weighted sums of uint8 images (N, C, H, W) and the ends of their chains, rounded down.

    Args:
        weights: float32 (N, 1 + width), of the images and of each of the ends.
        ends: as many uint8 (N, C, H, W).
    """
    first, *others = weights.unbind(1)
    total = images * column(first)
    for end, weight in zip(ends, others, strict=True):
        total += end * column(weight)
    return levels(total)
