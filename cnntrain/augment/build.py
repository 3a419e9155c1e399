"""Batch augmentations on the training device: uint8 images in, normalised float32 images out.

The stages follow each other in a fixed order, whatever the order of `augment=[...]`: geometry, policy, colour, noise,
then normalisation, then mixing (`mix.Mix`, which needs the labels).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from cnntrain.augment import geometry
from cnntrain.augment.batch_context import BatchContext, Operation
from cnntrain.augment.erase import build_noise
from cnntrain.augment.normalize import Normalize
from cnntrain.augment.pieces import build_affine, build_color
from cnntrain.augment.pixel_moves import PixelMoves
from cnntrain.augment.policies import build_policies
from cnntrain.augment.user_function import UserFunction
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.errors import ConfigError

__all__ = ["Augment", "BatchContext", "Stage", "build_augment", "build_normalize"]

Piece = tuple[str, Operation]


@dataclass
class Stage:
    """Pieces of one kind, in the order in which they are applied."""

    name: str
    pieces: list[Piece]


class Augment:
    """The chosen pieces in their fixed order, then normalisation."""

    def __init__(self, stages: list[Stage], normalize: Callable[[Tensor], Tensor]) -> None:
        self.stages = [stage for stage in stages if stage.pieces]
        self.normalize = normalize

    def __call__(self, images: Tensor, context: BatchContext) -> Tensor:
        """Augment a micro-batch.

        Args:
            images: uint8 (N, C, H, W).
            context: decides, and nothing else does, what happens.

        Returns:
            float32 (V * N, C, S, S), normalised; V is 3 with augmix.jsd (clean, mixture, mixture), else 1.
        """
        for stage in self.stages:
            for _, operation in stage.pieces:
                images = operation(images, context)
        return self.normalize(images)

    def trace(self, images: Tensor, context: BatchContext) -> list[tuple[str, list[str], Tensor]]:
        """What `__call__` does, step by step: name, names of the pieces and uint8 images after each stage."""
        steps = []
        for stage in self.stages:
            for _, operation in stage.pieces:
                images = operation(images, context)
            steps.append((stage.name, [name for name, _ in stage.pieces], images))
        return steps


def build_augment(
    settings: AugmentSettings,
    *,
    channels: int,
    image_size: int,
    mean: list[float],
    std: list[float],
    channels_last: bool,
    cropped: bool,
) -> Augment:
    """The training pipeline that the settings describe.

    Args:
        settings: which pieces are on.
        channels: of the images, 1 or 3.
        image_size: the smallest that the images have in any epoch.
        mean, std: per channel, on the 0..1 scale.
        channels_last: memory layout of the result.
        cropped: the loader has already cut the random resized crops while decoding (`Loader.crops`).

    Raises:
        ConfigError: a reflecting pad as wide as the image, a piece that does nothing to grey images, a function of the
            user that cannot be called.
    """
    stages = [
        Stage("geometry", _geometry(settings, image_size, cropped)),
        Stage("policy", build_policies(settings)),
        Stage("colour", build_color(settings, channels, image_size)),
        Stage("noise", [*build_noise(settings, mean), *_user_function(settings)]),
    ]
    return Augment(stages, build_normalize(mean, std, channels_last))


def build_normalize(mean: list[float], std: list[float], channels_last: bool) -> Normalize:
    """What validation, test and prediction apply to uint8 images: (x / 255 - mean) / std as float32."""
    return Normalize(mean, std, channels_last)


def _user_function(settings: AugmentSettings) -> list[Piece]:
    return [] if settings.own is None else [("own", UserFunction(settings.own))]


def _geometry(settings: AugmentSettings, image_size: int, cropped: bool) -> list[Piece]:
    pieces: list[Piece] = []
    if settings.progressive is not None and (settings.resized_crop is None or cropped):
        pieces.append(("progressive", lambda images, context: geometry.resize(images, context.image_size)))
    if (crop := settings.resized_crop) is not None:
        pieces.append(("resized_crop", _leave if cropped else _resized_crop(crop.scale, crop.ratio)))
    if (pad := settings.pad_crop) is not None and pad.mode == "reflect" and pad.padding >= image_size:
        raise ConfigError(
            f"augment.pad_crop.padding: {pad.padding} cannot mirror images of {image_size} pixels; "
            f"choose a number below {image_size}, or augment.pad_crop.mode=zeros"
        )
    moves: Operation = PixelMoves(settings.pad_crop, settings.hflip, settings.vflip)
    for name in ("pad_crop", "hflip", "vflip"):
        if getattr(settings, name) is not None:
            pieces.append((name, moves))
            moves = _leave  # the first of them does them all
    if settings.affine is not None:
        pieces.append(("affine", build_affine(settings.affine)))
    return pieces


def _resized_crop(scale: list[float], ratio: list[float]) -> Operation:
    return lambda images, context: geometry.resized_crop(images, context.image_size, scale, ratio, context.host_draws)


def _leave(images: Tensor, context: BatchContext) -> Tensor:
    """Done already: by the loader, or together with the piece before."""
    return images
