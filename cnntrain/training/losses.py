"""What training minimises: cross-entropy of one class or of each, weighted by class, with AugMix's consistency loss."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.augment.mix import as_targets
from cnntrain.config.schema.loss import LossSettings
from cnntrain.errors import ConfigError
from cnntrain.registry import call_user_function, check_arguments, describe_failure, import_function
from cnntrain.runtime.device import launching_costs

TINY = 1e-12  # no power of less has a finite gradient


@dataclass(frozen=True)
class LossFacts:
    """What a loss must know besides its settings.

    Attributes:
        class_weights: float32 (K,) on the device of the logits, factors of the classes' terms; None: 1.
        pos_weight: the same, of the terms of images that have the class alone.
        jsd: weight of AugMix's consistency loss; 0: none.
        multi_label: each image has a set of labels.
    """

    class_weights: Tensor | None = None
    pos_weight: Tensor | None = None
    jsd: float = 0.0
    multi_label: bool = False


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
            targets: labels, int64 (N,), or sets of them, bool (N, K); of mixed images probabilities, float32 (N, K).
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


class FocalLoss(Loss):
    """Cross-entropy in which a class counts less the surer it is, by (1 - p) ** gamma (arXiv 1708.02002)."""

    def __init__(self, gamma: float, label_smoothing: float, class_weights: Tensor | None, jsd: float) -> None:
        super().__init__(label_smoothing, class_weights, jsd)
        self.gamma = gamma

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See Loss."""
        shares = _smoothed(as_targets(targets, logits.shape[1]), self.label_smoothing, 1 / logits.shape[1])
        logs = logits.log_softmax(1)
        terms = shares * _damped(logs, self.gamma) * logs
        return -(terms if self.class_weights is None else terms * self.class_weights).sum()


class BinaryLoss(Loss):
    """Binary cross-entropy of each class by itself, summed over them: of sets of labels, or of one (arXiv 2110.00476).

    Args:
        pos_weight: float32 (K,), factors of the terms of images that have the class.
        gammas: what is sure counts less by (1 - p) ** gamma, for classes that an image has and that it has not (arXiv
            1708.02002 with both alike, 2009.14119).
        clip: this much of the probability of an absent class costs nothing (arXiv 2009.14119).
    """

    def __init__(
        self, facts: LossFacts, label_smoothing: float, gammas: tuple[float, float] = (0.0, 0.0), clip: float = 0.0
    ) -> None:
        super().__init__(label_smoothing, facts.class_weights, facts.jsd)
        self.pos_weight, self.gammas, self.clip = facts.pos_weight, gammas, clip
        self.multi_label = facts.multi_label

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See Loss."""
        even = 0.5 if self.multi_label else 1 / logits.shape[1]
        shares = _smoothed(as_targets(targets, logits.shape[1]), self.label_smoothing, even)
        if not (any(self.gammas) or self.clip):
            return functional.binary_cross_entropy_with_logits(
                logits, shares, self.class_weights, pos_weight=self.pos_weight, reduction="sum"
            )
        has, lacks = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        if self.clip:
            lacks = (lacks.exp() + self.clip).clamp(max=1).log()
        terms = shares * _damped(has, self.gammas[0]) * has + (1 - shares) * _damped(lacks, self.gammas[1]) * lacks
        return -(terms if self.class_weights is None else terms * self.class_weights).sum()


def _smoothed(shares: Tensor, smoothing: float, even: float) -> Tensor:
    return shares * (1 - smoothing) + smoothing * even if smoothing else shares


def _damped(logs: Tensor, gamma: float) -> Tensor | float:
    """(1 - p) ** gamma of logarithms of p; its gradient is finite at p = 1 too."""
    return (-torch.expm1(logs)).clamp(min=TINY) ** gamma if gamma else 1.0


class UserLoss(Loss):
    """A function of the user's in place of the cross-entropy: `function(logits, targets, **args)`.

    `logits` are float32 (N, K), `targets` labels, int64 (N,), or with mixup or cutmix probabilities, float32 (N, K); of
    data.multi_label always float32 (N, K), 1 for each label that an image has. It
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
        if targets.dtype is torch.bool:
            targets = targets.float()
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


# --- the builders of the entries -------------------------------------------------------------------------------------


def cross_entropy(settings: LossSettings, facts: LossFacts) -> Loss:
    """See Loss."""
    return Loss(settings.label_smoothing, facts.class_weights, facts.jsd)


def focal(settings: LossSettings, facts: LossFacts) -> Loss:
    """See FocalLoss; of sets of labels BinaryLoss with the same gamma for both sides."""
    if facts.multi_label:
        return BinaryLoss(facts, settings.label_smoothing, (settings.gamma, settings.gamma))
    return FocalLoss(settings.gamma, settings.label_smoothing, facts.class_weights, facts.jsd)


def bce(settings: LossSettings, facts: LossFacts) -> Loss:
    """See BinaryLoss."""
    return BinaryLoss(facts, settings.label_smoothing)


def asymmetric(settings: LossSettings, facts: LossFacts) -> Loss:
    """See BinaryLoss."""
    return BinaryLoss(facts, settings.label_smoothing, (settings.gamma_pos, settings.gamma_neg), settings.clip)


def user_loss(settings: LossSettings, facts: LossFacts) -> Loss:
    """See UserLoss, which smooths and weighs as it sees fit."""
    return UserLoss(settings.name, settings.args, facts.jsd)


# --- their parts -----------------------------------------------------------------------------------------------------


def jensen_shannon(logits: Tensor) -> Tensor:
    """Summed over images, the mean Kullback-Leibler divergence of three outputs from their mean; 0 to N log 3.

    Args:
        logits: float32 (3 N, K), three versions of the same images one after the other.
    """
    outputs = logits.view(3, -1, logits.shape[1]).log_softmax(2)
    mean = outputs.logsumexp(0) - math.log(3)
    return (outputs.exp() * (outputs - mean)).sum() / 3
