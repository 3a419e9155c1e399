"""Batch augmentations on the training device: uint8 images in, normalised float32 images out."""

from collections.abc import Callable

import torch
from torch import Tensor

from cnntrain.augment.ops import Normalise, flip, pad_crop, resized_crop
from cnntrain.errors import ConfigError
from cnntrain.settings.augment import AugmentSettings

__all__ = ["Augment", "build_augment", "build_normalise"]

Operation = Callable[[Tensor, torch.Generator], Tensor]


class Augment:
    """The chosen operations in their fixed order, then normalisation."""

    def __init__(self, operations: list[Operation], normalise: Normalise) -> None:
        self.operations = operations
        self.normalise = normalise

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: uint8 (N, C, H, W).
            generator: on the device of the images; nothing else decides what happens.

        Returns:
            float32 (N, C, S, S), normalised.
        """
        for operation in self.operations:
            images = operation(images, generator)
        return self.normalise(images)


def build_augment(
    settings: AugmentSettings,
    *,
    image_size: int,
    mean: list[float],
    std: list[float],
    channels_last: bool,
    cropped: bool,
) -> Augment:
    """The training pipeline: resized crop, pad-and-crop, flips, normalise.

    Args:
        settings: which pieces are on.
        image_size: pixels a side of the result.
        mean, std: per channel, on the 0..1 scale.
        channels_last: memory layout of the result.
        cropped: the loader has already cut the random resized crops while decoding (`Loader.crops`).

    Raises:
        ConfigError: a reflecting pad as wide as the image.
    """
    operations: list[Operation] = []
    if (crop := settings.resized_crop) is not None and not cropped:
        operations.append(lambda images, draw: resized_crop(images, image_size, crop.scale, crop.ratio, draw))
    if (pad := settings.pad_crop) is not None:
        if pad.mode == "reflect" and pad.padding >= image_size:
            raise ConfigError(
                f"augment.pad_crop.padding: {pad.padding} cannot mirror images of {image_size} pixels; "
                f"choose a number below {image_size}, or augment.pad_crop.mode=zeros"
            )
        operations.append(lambda images, draw: pad_crop(images, pad.padding, pad.mode, draw))
    if (hflip := settings.hflip) is not None:
        operations.append(lambda images, draw: flip(images, hflip.p, 3, draw))
    if (vflip := settings.vflip) is not None:
        operations.append(lambda images, draw: flip(images, vflip.p, 2, draw))
    return Augment(operations, build_normalise(mean, std, channels_last))


def build_normalise(mean: list[float], std: list[float], channels_last: bool) -> Normalise:
    """What validation, test and prediction apply to uint8 images: (x / 255 - mean) / std as float32."""
    return Normalise(mean, std, channels_last)
