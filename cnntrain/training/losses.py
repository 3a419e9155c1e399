"""What training minimises: cross-entropy, weighted by class where asked for, with AugMix's consistency loss."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.config.schema.loss import LossSettings
from cnntrain.errors import ConfigError
from cnntrain.registry import call_user_function, check_arguments, describe_failure, import_function
from cnntrain.runtime.device import launching_costs
from cnntrain.text import hint, nearest, printable


class Loss:
    """Cross-entropy in float32, summed over images: a short last micro-batch then weighs what its images weigh.

    Args:
        label_smoothing: this part of every target is spread evenly over all classes (arXiv 1512.00567, section 7).
        class_weights: float32 (K,) on the device of the logits, factors of the classes' terms; None: 1.
        jsd: weight of the Jensen-Shannon divergence between three versions of each image (arXiv 1912.02781); 0: none.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None, jsd: float = 0.0) -> None:
        self.label_smoothing, self.class_weights, self.jsd = label_smoothing, class_weights, jsd

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a micro-batch, ().

        Args:
            logits: (N, K) of any float dtype; with `jsd` above 0 (3 N, K): the clean images, then two mixtures of each.
            targets: labels, int64 (N,), or probabilities, float32 (N, K).
        """
        logits = logits.float()
        loss = self.loss_sum(logits[: len(targets)] if self.jsd else logits, targets)
        return loss + self.jsd * jensen_shannon(logits) if self.jsd else loss

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of unmixed or mixed images, one row of float32 logits for each, ()."""
        if self.label_smoothing and targets.ndim == 1 and self.class_weights is None and launching_costs(logits.device):
            # As probabilities: 14 launches with the backward pass, where torch takes 22 for smoothed labels.
            even = self.label_smoothing / logits.shape[1]
            smooth = torch.full_like(logits, even).scatter_(1, targets.unsqueeze(1), 1 - self.label_smoothing + even)
            return functional.cross_entropy(logits, smooth, reduction="sum")
        return functional.cross_entropy(
            logits, targets, self.class_weights, label_smoothing=self.label_smoothing, reduction="sum"
        )


class UserLoss(Loss):
    """A function of the user's in place of the cross-entropy: `function(logits, targets, **args)`.

    `logits` are float32 (N, K), `targets` labels, int64 (N,), or with mixup or cutmix probabilities, float32 (N, K). It
    gives the loss of each image, (N,), or their mean, (). A class is made with `args` first, and the object is called.

    Raises:
        ConfigError: no such function, or an argument that it does not take.
    """

    def __init__(self, name: str, args: dict[str, Any], jsd: float = 0.0) -> None:
        super().__init__(jsd=jsd)
        self.name, self.args = name, args
        function = import_function("loss", name)
        check_arguments("loss", name, function, args)
        self.instance = call_user_function("loss", name, args) if isinstance(function, type) else None

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See Loss.

        Raises:
            ConfigError: it fails, or gives something else back.
        """
        if self.instance is None:
            loss = call_user_function("loss", self.name, self.args, logits, targets)
        else:
            if isinstance(self.instance, nn.Module):
                self.instance.to(logits.device)
            try:
                loss = self.instance(logits, targets)
            except (Exception, SystemExit) as error:
                raise ConfigError(f"loss.name: {self.name} failed ({describe_failure(error)}); correct it") from error
        if not isinstance(loss, Tensor) or loss.shape not in ((), (len(logits),)):
            kind = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(
                f"loss.name: {self.name} gave {kind} back for {tuple(logits.shape)} logits; "
                f"it must return the loss of each image, {(len(logits),)}, or their mean, ()"
            )
        if logits.requires_grad and not loss.requires_grad:
            raise ConfigError(f"loss.name: {self.name} gave a loss back without a gradient; compute it from the logits")
        return loss.sum() if loss.ndim else loss * len(logits)


# --- the builders of the entries: settings, weights of the classes, weight of AugMix's consistency loss ---------------


def cross_entropy(settings: LossSettings, weights: Tensor | None, jsd: float) -> Loss:
    """See Loss."""
    return Loss(settings.label_smoothing, weights, jsd)


def user_loss(settings: LossSettings, weights: Tensor | None, jsd: float) -> Loss:
    """See UserLoss, which smooths and weighs as it sees fit."""
    return UserLoss(settings.name, settings.args, jsd)


# --- their parts -----------------------------------------------------------------------------------------------------


def jensen_shannon(logits: Tensor) -> Tensor:
    """Summed over images, the mean Kullback-Leibler divergence of three outputs from their mean; 0 to N log 3.

    Args:
        logits: float32 (3 N, K), three versions of the same images one after the other.
    """
    outputs = logits.view(3, -1, logits.shape[1]).log_softmax(2)
    mean = outputs.logsumexp(0) - math.log(3)
    return (outputs.exp() * (outputs - mean)).sum() / 3


def class_weights(settings: LossSettings, labels: Tensor, classes: list[str]) -> Tensor | None:
    """The factor of each class in the loss, float32 (K,) on the host; None where the settings ask for none.

    `balanced` is N / (K n_c), `effective` (1 - beta) / (1 - beta ** n_c) (arXiv 1901.05555), n_c being the images of a
    class. A class without images has nothing to balance and gets 0. All are scaled so that their mean over the training
    images is 1: the gradient keeps its size, and the learning rate its meaning, whatever the weights.

    Args:
        labels: int64 (N,) of the training images.
        classes: K names.

    Raises:
        ConfigError: weights that are not one per class.
    """
    setting = settings.class_weights
    if setting is None:
        return None
    counts = torch.bincount(labels.cpu(), minlength=len(classes)).double()
    if isinstance(setting, dict):
        setting = _order_weights({_spelt(name): weight for name, weight in setting.items()}, classes)
    weights = (
        _weights_of_list(setting, classes) if isinstance(setting, list) else _by_count(setting, settings.beta, counts)
    )
    return (weights * counts.sum() / (weights * counts).sum()).float()


def _order_weights(weights: dict[str, float], classes: list[str]) -> list[float]:
    """Weights by name in the order of the classes."""
    if strangers := [name for name in weights if name not in classes]:
        otherwise = hint(nearest(strangers[0], classes), f"there are {_names(classes)}")
        raise ConfigError(f"loss.class_weights: no class {strangers[0]!r} (given {weights[strangers[0]]}){otherwise}")
    if gaps := [name for name in classes if name not in weights]:
        raise ConfigError(f"loss.class_weights: no weight for {_names(gaps)}; give one to every class, 1 for most")
    return [weights[name] for name in classes]


def _spelt(name: object) -> str:
    """A name of a class that the command line has read as a value."""
    return str(name).lower() if isinstance(name, bool) else "null" if name is None else printable(str(name))


def _weights_of_list(weights: list[Any], classes: list[str]) -> Tensor:
    if len(weights) != len(classes):
        raise ConfigError(
            f"loss.class_weights: {len(weights)} numbers for {len(classes)} classes; "
            f"give {len(classes)}, in the order {_names(classes)}"
        )
    return torch.tensor(weights, dtype=torch.float64)


def _names(classes: list[str]) -> str:
    return ", ".join(classes if len(classes) <= 10 else [*classes[:3], "...", classes[-1]])


def _by_count(kind: str, beta: float, counts: Tensor) -> Tensor:
    sizes = counts if kind == "balanced" else 1 - torch.tensor(beta, dtype=torch.float64) ** counts
    return torch.where(counts > 0, 1 / sizes, 0)
