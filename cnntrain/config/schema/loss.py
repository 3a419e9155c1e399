"""What training minimises."""

import math
from dataclasses import dataclass, field
from typing import Any

from cnntrain.config.schema.limits import number
from cnntrain.registry import Entry, Registry


@dataclass
class LossSettings:
    name: str = "cross_entropy"  # or a function of yours, my_pkg.losses:focal, called with logits and targets
    args: dict[str, Any] = field(default_factory=dict)  # keyword arguments of that function
    label_smoothing: float = number(0.0, ge=0, lt=1)  # arXiv 1512.00567, section 7
    # null | balanced | effective (arXiv 1901.05555) | {name: weight} | a list, in the order of the classes
    class_weights: Any = None
    beta: float = number(0.999, ge=0, lt=1)  # of class_weights=effective: 0 is null, near 1 is balanced

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        weights = self.class_weights
        if weights in (None, "balanced", "effective"):
            return []
        numbers = list(weights.values()) if isinstance(weights, dict) else weights
        if isinstance(numbers, list) and numbers and all(_positive(weight) for weight in numbers):
            return []
        rule = "null, balanced, effective, or a list of numbers above 0, one per class, or {name: number}"
        return [("class_weights", weights, rule)]


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


_HOME = "cnntrain.training.losses"
LOSSES = Registry(
    "loss",
    (Entry("cross_entropy", LossSettings, f"{_HOME}:cross_entropy"),),
    user=Entry("own", LossSettings, f"{_HOME}:user_loss"),
    has_files=False,
)
