"""The weights of classes in a loss: by name, as a list, or by how many images there are."""

from typing import Any

import torch
from torch import Tensor

from cnntrain.config.schema.loss import LossSettings
from cnntrain.data.labels import class_counts
from cnntrain.errors import ConfigError
from cnntrain.text import hint, nearest, printable


def class_weights(settings: LossSettings, labels: Tensor, classes: list[str]) -> Tensor | None:
    """The factor of each class in the loss, float32 (K,) on the host; None where the settings ask for none.

    `balanced` is N / (K n_c), `effective` (1 - beta) / (1 - beta ** n_c) (arXiv 1901.05555), n_c being the images of a
    class. A class without images has nothing to balance and gets 0. All are scaled so that their mean over the training
    images is 1: the gradient keeps its size, and the learning rate its meaning, whatever the weights.

    Args:
        labels: int64 (N,), or bool (N, K), of the training images.
        classes: K names.

    Raises:
        ConfigError: weights that are not one per class.
    """
    setting = settings.class_weights
    if setting is None:
        return None
    counts = class_counts(labels.cpu(), len(classes)).double()
    weights = _given("class_weights", setting, classes)
    if weights is None:
        weights = _by_count(setting, settings.beta, counts)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def pos_weight(settings: LossSettings, labels: Tensor, classes: list[str]) -> Tensor | None:
    """The factor of the terms of images that have a class, float32 (K,) on the host; None where none is asked for.

    `balanced` is the images without the class by those with it: both sides weigh alike. A class without images has 1.

    Args:
        labels: int64 (N,), or bool (N, K), of the training images.
        classes: K names.

    Raises:
        ConfigError: weights that are not one per class.
    """
    setting = settings.pos_weight
    if setting is None:
        return None
    if isinstance(setting, (int, float)):
        return torch.full((len(classes),), float(setting))
    weights = _given("pos_weight", setting, classes)
    if weights is None:
        counts = class_counts(labels.cpu(), len(classes)).double()
        weights = torch.where(counts > 0, (len(labels) - counts) / counts, 1.0).clamp(min=1 / len(labels))
    return weights.float()


def _given(key: str, setting: Any, classes: list[str]) -> Tensor | None:
    """Weights that are given in numbers, by name or as a list, float64 (K,); None: they are not."""
    if isinstance(setting, dict):
        setting = _order_weights(key, {_spelt(name): weight for name, weight in setting.items()}, classes)
    return _weights_of_list(key, setting, classes) if isinstance(setting, list) else None


def _order_weights(key: str, weights: dict[str, float], classes: list[str]) -> list[float]:
    """Weights by name in the order of the classes."""
    if strangers := [name for name in weights if name not in classes]:
        otherwise = hint(nearest(strangers[0], classes), f"there are {_names(classes)}")
        raise ConfigError(f"loss.{key}: no class {strangers[0]!r} (given {weights[strangers[0]]}){otherwise}")
    if gaps := [name for name in classes if name not in weights]:
        raise ConfigError(f"loss.{key}: no weight for {_names(gaps)}; give one to every class, 1 for most")
    return [weights[name] for name in classes]


def _spelt(name: object) -> str:
    """A name of a class that the command line has read as a value."""
    return str(name).lower() if isinstance(name, bool) else "null" if name is None else printable(str(name))


def _weights_of_list(key: str, weights: list[Any], classes: list[str]) -> Tensor:
    if len(weights) != len(classes):
        raise ConfigError(
            f"loss.{key}: {len(weights)} numbers for {len(classes)} classes; "
            f"give {len(classes)}, in the order {_names(classes)}"
        )
    return torch.tensor(weights, dtype=torch.float64)


def _names(classes: list[str]) -> str:
    return ", ".join(classes if len(classes) <= 10 else [*classes[:3], "...", classes[-1]])


def _by_count(kind: str, beta: float, counts: Tensor) -> Tensor:
    sizes = counts if kind == "balanced" else 1 - torch.tensor(beta, dtype=torch.float64) ** counts
    return torch.where(counts > 0, 1 / sizes, 0)
