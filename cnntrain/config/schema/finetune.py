"""Transfer learning: what of a pretrained network learns, when, and how fast."""

import enum
import math
from dataclasses import dataclass, field
from typing import Any, Optional

from cnntrain.config.schema.limits import number


class Mode(enum.Enum):
    none = "none"  # from scratch
    A = "A"  # the encoder is frozen, a new head learns
    B = "B"  # everything learns, at one rate
    C = "C"  # each layer group learns at a rate of its own, lower layers more slowly


class Unit(enum.Enum):
    stage = "stage"  # layers between two halvings of the map, as the network's authors grouped them
    block = "block"  # layer-wise: a residual block, an inception module, a plain layer


class NormPolicy(enum.Enum):
    frozen = "frozen"  # batch norms keep the statistics of the pretrained network
    train = "train"  # those of groups that learn use the batch, and their running statistics move
    recalibrate = "recalibrate"  # as train, and measured anew before each validation (arXiv 2105.07576)


@dataclass
class FinetuneSettings:
    mode: Mode = Mode.none
    cache_features: Any = "auto"  # auto | true | false: run a frozen encoder once per image, where nothing augments
    head: Optional[str] = None  # the module that makes the logits; null: found by rule
    # null: by rule | a count, neighbours joined | patterns of parameter names from the lowest group up, the head left
    # out: ["conv1|bn1", "layer1|layer2", "layer3|layer4"]
    groups: Any = None
    unit: Unit = Unit.stage  # what a group is where the rule finds them
    freeze: list[str] = field(default_factory=list)  # patterns of parameters that never learn
    # mode C: the rate of a group is that of the one above times this
    lr_decay: Optional[float] = number(None, gt=0, le=1)
    lr_factors: Optional[list[float]] = None  # or one factor of optimizer.lr per group, the lowest first
    wd_decay: Optional[float] = number(None, gt=0, le=1)  # the same for optimizer.weight_decay
    wd_factors: Optional[list[float]] = None
    unfreeze: Optional[list[int]] = None  # epochs, from 1, with which the next lower group begins to learn: [3,6]
    head_epochs: int = number(0, ge=0)  # the head alone learns in the first epochs (arXiv 2202.10054)
    norm: Optional[NormPolicy] = None  # of batch norms; null: frozen in A, train in B and C

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        faults: list[tuple[str, Any, str]] = []
        if self.cache_features != "auto" and not isinstance(self.cache_features, bool):
            faults.append(("cache_features", self.cache_features, "auto, true or false"))
        elif self.cache_features is True and self.mode is not Mode.A:
            rule = f"auto or false with finetune.mode={self.mode.name}, whose encoder learns"
            faults.append(("cache_features", True, rule))
        return faults + self._factor_faults() + self._time_faults() + self._group_faults()

    def _factor_faults(self) -> list[tuple[str, Any, str]]:
        faults: list[tuple[str, Any, str]] = []
        for decay, factors in (("lr_decay", "lr_factors"), ("wd_decay", "wd_factors")):
            one, many = getattr(self, decay), getattr(self, factors)
            if self.mode is not Mode.C:
                rule = f"null with finetune.mode={self.mode.name}: rates by group are mode C"
                faults += [(key, value, rule) for key, value in ((decay, one), (factors, many)) if value is not None]
            elif one is not None and many is not None:
                faults.append((factors, many, f"null with finetune.{decay} ({one:g}); give one of the two"))
            elif many is not None and not (many and all(0 <= value < math.inf for value in many)):
                faults.append((factors, many, "a list of numbers from 0 up, one per group, the lowest group first"))
        return faults

    def _time_faults(self) -> list[tuple[str, Any, str]]:
        faults: list[tuple[str, Any, str]] = []
        if self.unfreeze is not None:
            if self.mode not in (Mode.B, Mode.C):
                faults.append(("unfreeze", self.unfreeze, f"null with finetune.mode={self.mode.name}"))
            elif self.head_epochs:
                faults.append(("unfreeze", self.unfreeze, "null with finetune.head_epochs; give one of the two"))
            elif self.unfreeze != sorted(set(self.unfreeze)) or min(self.unfreeze, default=0) < 2:
                faults.append(("unfreeze", self.unfreeze, "a rising list of epochs from 2 up, such as [3,6]"))
        if self.head_epochs and self.mode not in (Mode.B, Mode.C):
            faults.append(("head_epochs", self.head_epochs, f"0 with finetune.mode={self.mode.name}"))
        if self.norm not in (None, NormPolicy.frozen) and self.mode in (Mode.none, Mode.A):
            why = "whose encoder must not move" if self.mode is Mode.A else "which freezes nothing"
            faults.append(("norm", self.norm.name, f"null with finetune.mode={self.mode.name}, {why}"))
        return faults

    def _group_faults(self) -> list[tuple[str, Any, str]]:
        groups = self.groups
        if self.mode is Mode.none and self.freeze:
            return [("freeze", self.freeze, "empty with finetune.mode=none")]
        if groups is None or (isinstance(groups, int) and not isinstance(groups, bool) and groups > 1):
            return []
        if isinstance(groups, list) and groups and all(isinstance(item, str) and item for item in groups):
            return []
        rule = "null, a number of groups from 2 up, the head among them, or a list of patterns, the lowest group first"
        return [("groups", groups, rule)]
