"""What training minimises."""

import math
from dataclasses import dataclass, field
from typing import Any

from cnntrain.config.schema.limits import number
from cnntrain.registry import Entry, Registry

_WEIGHTS = "a list of numbers above 0, one per class, or {name: number}"


@dataclass
class LossSettings:
    name: str = "cross_entropy"  # or a function of yours, my_pkg.losses:poly, called with logits and targets
    args: dict[str, Any] = field(default_factory=dict)  # keyword arguments of that function
    label_smoothing: float = number(0.0, ge=0, lt=1)  # arXiv 1512.00567, section 7
    # null | balanced | effective (arXiv 1901.05555) | {name: weight} | a list, in the order of the classes
    class_weights: Any = None
    beta: float = number(0.999, ge=0, lt=1)  # of class_weights=effective: 0 is null, near 1 is balanced
    # of bce, factors of the terms of images that have the label: null | balanced, as many as those without it | a
    # number | {name: number} | a list
    pos_weight: Any = None
    gamma: float = number(2.0, ge=0)  # of focal: what is certain counts less by (1 - p)^gamma (arXiv 1708.02002)
    gamma_pos: float = number(1.0, ge=0)  # of asymmetric, the same for labels that an image has (arXiv 2009.14119)
    gamma_neg: float = number(4.0, ge=0)  # and for those that it has not
    clip: float = number(0.05, ge=0, lt=1)  # of asymmetric, probabilities below cost nothing where the label is absent

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        faults: list[tuple[str, Any, str]] = []
        if self.class_weights not in (None, "balanced", "effective") and not _are_weights(self.class_weights):
            faults.append(("class_weights", self.class_weights, f"null, balanced, effective, or {_WEIGHTS}"))
        weights = self.pos_weight
        if weights not in (None, "balanced") and not _positive(weights) and not _are_weights(weights):
            faults.append(("pos_weight", weights, f"null, balanced, a number above 0, or {_WEIGHTS}"))
        return faults


def _are_weights(weights: Any) -> bool:
    numbers = list(weights.values()) if isinstance(weights, dict) else weights
    return isinstance(numbers, list) and bool(numbers) and all(_positive(weight) for weight in numbers)


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True)
class LossEntry(Entry):
    """A loss; its builder takes LossSettings and LossFacts (training/losses.py).

    Attributes:
        takes_sets: of images with several labels, or none.
    """

    takes_sets: bool = True


_HOME = "cnntrain.training.losses"
LOSSES = Registry(
    "loss",
    (
        LossEntry("cross_entropy", LossSettings, f"{_HOME}:cross_entropy", takes_sets=False),
        LossEntry("focal", LossSettings, f"{_HOME}:focal"),
        LossEntry("bce", LossSettings, f"{_HOME}:bce"),
        LossEntry("asymmetric", LossSettings, f"{_HOME}:asymmetric"),
    ),
    user=LossEntry("own", LossSettings, f"{_HOME}:user_loss"),
    takes_bare_names=True,
)
