"""Scoring a network on a split."""

import math
from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor
from torch.nn import functional

from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import Loader
from cnntrain.errors import NonFiniteError
from cnntrain.runtime import device as machine
from cnntrain.runtime.distributed import ALONE, World
from cnntrain.runtime.signals import StopFlag, asked_for, interrupted
from cnntrain.training.metrics import Window
from cnntrain.training.tta import Views, averaged


@torch.no_grad()  # not inference_mode: a loader may decode its images at first use and keep them
def evaluate(
    model: torch.nn.Module,
    loader: Loader,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
    precision: Precision,
    *,
    stop: StopFlag | None = None,
    advance: Callable[[int], None] | None = None,
    collect: Callable[[Tensor, Tensor], None] | None = None,
    views: Views | None = None,
    world: World = ALONE,
) -> dict[str, float]:
    """Score a model on all images of a split: `loss`, `top1` and `top5`, the plain cross-entropy and fractions.

    Args:
        collect: is given the float32 logits (N, C) and labels (N,) of each micro-batch.
        views: the probabilities are those of several views, averaged; `plain_loss`, `plain_top1` and `plain_top5` then
            tell of the first of them alone.
        world: the processes among which the loader shares the images; the scores are those of all of them.
    """
    model.eval()
    window, plain = (Window(device, top5=True, world=world) for _ in range(2))

    def forward(images: Tensor) -> Tensor:
        with machine.autocast(precision, device):
            logits: Tensor = model(normalise(images))
        return logits.float()

    def score(images: Tensor, labels: Tensor) -> None:
        if views:
            first, logits = averaged(forward, views(images))
            plain.add(functional.cross_entropy(first, labels, reduction="sum"), first, labels)
        else:
            logits = forward(images)
        window.add(functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)
        if collect:
            collect(logits, labels)

    with closing(loader.batches()) as batches:
        for images, labels, *_ in batches:
            if len(labels):  # of a short last micro-batch, some processes may have no images
                score(images, labels)
            if advance:
                advance(len(labels))
            (signum,) = world.most(asked_for(stop)) if stop else (0,)
            if signum:
                raise interrupted(signum)
    return window.read() | ({f"plain_{key}": value for key, value in plain.read().items()} if views else {})


def need_finite(value: float, what: str, precision: Precision) -> None:
    """Refuse what a network of finite weights has answered, where that is no number.

    Raises:
        NonFiniteError: the value is NaN or infinite.
    """
    if math.isfinite(value):
        return
    if precision.is_half:
        advice = "try trainer.precision=fp32"
    else:
        advice = "its weights or statistics are too large to be used: train with a lower optimizer.lr"
    raise NonFiniteError(f"{what} is {value}, though all weights are finite; {advice}")
