"""Batch norms whose statistics are measured anew before each validation, on training images."""

from collections.abc import Callable
from contextlib import closing
from itertools import islice

import torch
from torch import Tensor, nn

from cnntrain.config.schema.finetune import NormPolicy
from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import Loader
from cnntrain.finetune.batch_norms import recalibrate
from cnntrain.finetune.tuning import Tuning
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.world import World

MOST_IMAGES = 2000  # training images that recalibrated statistics are averages over, at most


def recalibration(
    tuning: Tuning | None,
    train: Loader,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    precision: Precision,
    world: World,
) -> Callable[[nn.Module], None] | None:
    """A function that measures the statistics of a network in training; None where the settings do not ask for it.

    Args:
        train: images, also where the head trains on cached features.
        normalize: their evaluation transform.
    """
    if tuning is None or tuning.norm is not NormPolicy.recalibrate:
        return None
    paths = tuning.norms()

    def measure(model: nn.Module) -> None:
        with closing(train.batches()) as batches:  # shuffled: the first images of a folder are all of one class
            images = (batch.images for batch in islice(batches, -(-MOST_IMAGES // train.batch_size)))
            with autocast(precision, device):
                recalibrate(model, paths, images, lambda batch: model(normalize(batch)))
        # Of several processes each has measured images of its own, thousands of values in every channel: the spread
        # between their means, which this leaves out, is nothing beside the variance.
        norms = map(model.get_submodule, paths)
        world.mean_([part for norm in norms for part in (norm.running_mean, norm.running_var)])

    return measure
