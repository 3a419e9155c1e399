"""AutoAugment, RandAugment and TrivialAugment; AugMix has a file of its own.

Operations, magnitudes and signs are drawn as torchvision.transforms.v2 draws them, but for each image.
"""

from collections.abc import Callable

import numpy as np

from cnntrain.augment.augmix import AugMix
from cnntrain.augment.batch_context import Operation
from cnntrain.augment.sampling import PLACES, Chooser, Draws, Size, perform
from cnntrain.augment.spaces import AUTOAUGMENT, PAIRS, RANDAUGMENT, TRIVIALAUGMENT
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.pieces import Policy, RandAugmentSettings, Resampling

_AUTOAUGMENT = Chooser(AUTOAUGMENT, 10)
_RANDAUGMENT = Chooser(RANDAUGMENT, 31)
_TRIVIALAUGMENT = Chooser(TRIVIALAUGMENT, 31)

Draw = Callable[[int, Size, np.random.Generator], Draws]  # for that many images


def build_policies(settings: AugmentSettings) -> list[tuple[str, Operation]]:
    """The policies that are on, with their names, in the order of the settings.

    AugMix with jsd gives three times as many images: all of them clean, then all mixed, then all mixed once more.
    """
    policies: list[tuple[str, Operation]] = []
    if (auto := settings.autoaugment) is not None:
        policies.append(("autoaugment", _operation(autoaugment(auto.policy), auto.interpolation, auto.fill)))
    if (rand := settings.randaugment) is not None:
        policies.append(("randaugment", _operation(randaugment(rand), rand.interpolation, rand.fill)))
    if (trivial := settings.trivialaugment) is not None:
        policies.append(("trivialaugment", _operation(trivialaugment, trivial.interpolation, trivial.fill)))
    if settings.augmix is not None:
        policies.append(("augmix", AugMix(settings.augmix)))
    return policies


def _operation(draw: Draw, interpolation: Resampling, fill: float) -> Operation:
    return lambda images, context: perform(
        images,
        draw(len(images), (images.shape[2], images.shape[3]), context.host),
        context,
        interpolation=interpolation,
        fill=fill,
    )


def autoaugment(policy: Policy) -> Draw:
    """A pair of operations of the learned policy, each done with its own probability (arXiv 1805.09501)."""
    pairs = np.array([[(PLACES[name], p, level) for name, p, level in pair] for pair in PAIRS[policy]])

    def draw(count: int, size: Size, random: np.random.Generator) -> Draws:
        operations, p, level = pairs[random.integers(len(pairs), size=count)].transpose(2, 1, 0)
        done = random.random(p.shape) < p
        operations = np.where(done, operations, PLACES["Identity"]).astype(np.int64)
        return _AUTOAUGMENT.draws(operations, level, size, random)

    return draw


def randaugment(settings: RandAugmentSettings) -> Draw:
    """n operations of level m, or of levels scattered about it, within 0..30 (arXiv 1909.13719)."""

    def draw(count: int, size: Size, random: np.random.Generator) -> Draws:
        operations = _RANDAUGMENT.operations((settings.n, count), random)
        level = settings.m + settings.spread * random.standard_normal(operations.shape)
        return _RANDAUGMENT.draws(operations, np.clip(level, 0, 30), size, random)

    return draw


def trivialaugment(count: int, size: Size, random: np.random.Generator) -> Draws:
    """One operation, all levels equally likely (arXiv 2103.10158)."""
    operations = _TRIVIALAUGMENT.operations((1, count), random)
    level = random.integers(31, size=operations.shape).astype(np.float64)
    return _TRIVIALAUGMENT.draws(operations, level, size, random)
