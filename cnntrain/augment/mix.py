"""Images mixed with each other, and their labels likewise: mixup and CutMix."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.rows import as_images, as_rows, box_masks
from cnntrain.config.schema.augment import AugmentSettings, MixMode


class Mix:
    """mixup (arXiv 1710.09412), CutMix (arXiv 1905.04899), or one of the two by chance.

    Both are one thing here: each image is blended by a weight with a partner, inside a box. mixup draws the weight and
    its box is the whole image; CutMix draws the box and its weight is 1. The partner is the image before it in the
    micro-batch, the first one's the last, as the order of an epoch is random already; with mode=pair, images i and
    N - 1 - i are each other's partners, and the middle one of an odd number stays as it is.

    Args:
        settings: of which `mixup` or `cutmix` is on.
        classes: K.
    """

    def __init__(self, settings: AugmentSettings, classes: int) -> None:
        assert settings.mixes
        self.settings, self.mixup, self.cutmix = settings.mix, settings.mixup, settings.cutmix
        self.classes = classes

    def __call__(self, inputs: Tensor, labels: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Mix a micro-batch.

        Args:
            inputs: float32 (N, C, H, W), contiguous or channels_last, changed in place: they are to be the caller's
                own, as what `Augment` gives is.
            labels: int64 (N,), or sets of them, bool (N, K).

        Returns:
            The mixed inputs in their layout, and float32 (N, K) probabilities of their classes. One image alone, a
            micro-batch whose draw says so, or any from `off_epoch` on stays unmixed: its labels come back as they were.
        """
        count, _, height, width = inputs.shape
        off, mode = self.settings.off_epoch, self.settings.mode
        if count < 2 or (off is not None and context.epoch >= off):
            return inputs, labels
        groups = {MixMode.batch: 1, MixMode.pair: count // 2, MixMode.element: count}[mode]
        weights, boxes = self.draw(groups, height, width, context.host)
        if not weights.any():
            return inputs, labels

        shares = weights * (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (height * width)
        one_hot = as_targets(labels, self.classes)
        if mode is MixMode.batch:
            top, bottom, left, right = boxes[0].tolist()
            inside = inputs[:, :, top:bottom, left:right]
            inside.lerp_(self._partners(inside), float(weights[0]))
            return inputs, one_hot.lerp_(self._partners(one_hot), float(shares[0]))

        if mode is MixMode.pair:
            weights, boxes, shares = (_mirror_pairs(values, count) for values in (weights, boxes, shares))
        rows = as_rows(inputs)
        tall, wide = box_masks(boxes, rows, width)
        numbers = (weights[:, None, None, None] * tall, wide, shares)
        down, across, parts = context.send_all([values.astype(np.float32) for values in numbers])
        # One weight for every number: a lerp by 0 or 1 is exact.
        rows.lerp_(self._partners(rows), down * across)
        targets = one_hot.lerp_(self._partners(one_hot), parts.unsqueeze(1))
        return as_images(rows, inputs), targets

    def _partners(self, values: Tensor) -> Tensor:
        return values.flip(0) if self.settings.mode is MixMode.pair else values.roll(1, 0)

    def draw(
        self, groups: int, height: int, width: int, host: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """For each group of images the weight of the partner (groups,), 0 where unmixed, and the box (groups, 4).

        A box is top, bottom, left, right in pixels, bottom and right excluded.
        """
        weights, boxes = np.ones(groups), np.tile([0, height, 0, width], (groups, 1))
        if self.mixup is not None:
            weights = 1 - host.beta(self.mixup.alpha, self.mixup.alpha, groups)
        if self.cutmix is not None:
            cut = host.random(groups) < (1.0 if self.mixup is None else self.settings.switch_p)
            areas = 1 - host.beta(self.cutmix.alpha, self.cutmix.alpha, groups)
            weights[cut], boxes[cut] = 1.0, cutmix_boxes(areas, height, width, host)[cut]
        weights[host.random(groups) >= self.settings.p] = 0.0
        return weights, boxes


def as_targets(labels: Tensor, classes: int) -> Tensor:
    """What the network is to answer, float32 (N, K): 1 for the class, int64 (N,), or the classes, bool (N, K)."""
    if labels.ndim == 2:
        return labels.float()
    return torch.zeros(len(labels), classes, device=labels.device).scatter_(1, labels.unsqueeze(1), 1.0)


def cutmix_boxes(areas: NDArray[np.float64], height: int, width: int, host: np.random.Generator) -> NDArray[np.int64]:
    """Boxes of the shape of the image around any of its pixels, cut off at the edge (arXiv 1905.04899, section 3.1).

    Args:
        areas: (n,), as parts of the image's, of the boxes before they are cut off.

    Returns:
        (n, 4): top, bottom, left, right in pixels, bottom and right excluded.
    """
    half = np.sqrt(areas) / 2
    edges = []
    for size in (height, width):
        centre, reach = host.integers(size, size=len(areas)), (half * size).astype(np.int64)
        edges += [np.maximum(centre - reach, 0), np.minimum(centre + reach, size)]
    return np.stack(edges, axis=1)


def _mirror_pairs(values: NDArray[Any], count: int) -> NDArray[Any]:
    """What (count // 2, ...) says of the first half of the images, also for their partners; 0 for one in the middle."""
    middle = np.zeros((count % 2, *values.shape[1:]), values.dtype)
    return np.concatenate([values, middle, values[::-1]])
