"""Optimizers, each with its own numbers: choosing another never inherits a rate."""

import enum
from dataclasses import dataclass, field
from typing import Any, Optional

from cnntrain.config.schema.limits import number
from cnntrain.registry import Entry, Registry


@dataclass
class OptimizerSettings:
    name: str = "???"  # says which child class holds the numbers; chosen by `optimizer=NAME`
    lr: float = number("???", gt=0)
    weight_decay: float = number(0.0, ge=0)  # of the weights of convolutions and linear layers
    norm_weight_decay: float = number(0.0, ge=0)
    bias_weight_decay: float = number(0.0, ge=0)
    # Of what a network wants no decay for: embeddings of positions, class tokens. null: that of the weights.
    embedding_weight_decay: Optional[float] = number(None, ge=0)
    # The batch that `lr` is meant for: the rate in use is scaled from it to data.batch_size x trainer.accumulate,
    # linearly for SGD and RMSProp (arXiv 1706.02677), by the square root for the Adams (arXiv 2205.10287).
    # null: as given.
    lr_base_batch: Optional[int] = number("???", ge=1)
    # Patterns of parameter names, each with a factor of the rate, {"*.bias": 64}; the first that matches counts. What
    # weight decay takes off in a step stays.
    lr_factors: dict[str, float] = number({}, gt=0)

    @property
    def variant(self) -> str:
        """What says which of the child classes this is: the library that a name is looked up in, else the name."""
        return self.name

    @property
    def entry(self) -> "OptimizerEntry":
        """What builds it."""
        return OPTIMIZERS.entry(self.variant)


@dataclass
class SgdSettings(OptimizerSettings):
    name: str = "sgd"
    momentum: float = number("???", ge=0, lt=1)
    nesterov: bool = "???"  # type: ignore[assignment]


@dataclass
class AdamSettings(OptimizerSettings):
    """Adam (arXiv 1412.6980); weight decay is added to the gradient."""

    name: str = "adam"
    beta1: float = number("???", ge=0, lt=1)
    beta2: float = number("???", ge=0, lt=1)
    eps: float = number("???", gt=0)


@dataclass
class AdamWSettings(AdamSettings):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    name: str = "adamw"


@dataclass
class RmspropSettings(OptimizerSettings):
    name: str = "rmsprop"
    alpha: float = number("???", ge=0, lt=1)  # smoothing of the squared gradient
    momentum: float = number("???", ge=0, lt=1)
    eps: float = number("???", gt=0)


class Others(enum.Enum):
    adamw = "adamw"
    sgd = "sgd"  # with Nesterov momentum


@dataclass
class MuonSettings(OptimizerSettings):
    """Muon (kellerjordan.github.io/posts/muon): the momentum of filters and matrices, made orthogonal."""

    name: str = "muon"
    momentum: float = number("???", ge=0, lt=1)
    nesterov: bool = "???"  # type: ignore[assignment]
    ns_steps: int = number("???", ge=1, most=100)  # of the Newton-Schulz iteration
    # Keep each filter bank at the norm sqrt(outputs), of which `lr` is then a part (after airbench94_muon). Else the
    # steps are as large as those of AdamW (arXiv 2502.16982).
    unit_norm: bool = "???"  # type: ignore[assignment]
    others: Others = "???"  # type: ignore[assignment]  # what steps all else: norms, biases, depthwise filters, head
    others_lr: Optional[float] = number(None, gt=0)  # its rate, scaled as lr is; null: lr
    beta1: float = number("???", ge=0, lt=1)  # of AdamW; of SGD the momentum
    beta2: float = number("???", ge=0, lt=1)
    eps: float = number("???", gt=0)


@dataclass
class TimmOptimizerSettings(OptimizerSettings):
    """An optimizer of timm.optim, by the name that it has there: `optimizer=timm optimizer.name=lamb`."""

    library: str = "timm"
    args: dict[str, Any] = field(default_factory=dict)  # its keyword arguments

    @property
    def variant(self) -> str:
        """See OptimizerSettings."""
        return self.library


@dataclass
class TorchOptimizerSettings(TimmOptimizerSettings):
    """A class of torch.optim: `optimizer=torch optimizer.name=NAdam`."""

    library: str = "torch"


@dataclass
class UserOptimizerSettings(OptimizerSettings):
    """A function of the user's, `name: my_pkg.optim:Lion`; optim/optimizers.py says how it is called."""

    args: dict[str, Any] = field(default_factory=dict)  # its keyword arguments


@dataclass(frozen=True)
class OptimizerEntry(Entry):
    """An optimizer.

    Attributes:
        by_root: its rate follows the square root of the batch (arXiv 2205.10287), in place of the batch.
    """

    by_root: bool = False


_HOME = "cnntrain.optim.optimizers"
OPTIMIZERS = Registry(
    "optimizer",
    (
        OptimizerEntry("sgd", SgdSettings, f"{_HOME}:sgd"),
        OptimizerEntry("adam", AdamSettings, f"{_HOME}:adam", by_root=True),
        OptimizerEntry("adamw", AdamWSettings, f"{_HOME}:adamw", by_root=True),
        OptimizerEntry("rmsprop", RmspropSettings, f"{_HOME}:rmsprop"),
        OptimizerEntry("muon", MuonSettings, "cnntrain.optim.muon:muon", by_root=True),
        OptimizerEntry("timm", TimmOptimizerSettings, "cnntrain.optim.libraries:from_timm"),
        OptimizerEntry("torch", TorchOptimizerSettings, "cnntrain.optim.libraries:from_torch"),
    ),
    user=OptimizerEntry("own", UserOptimizerSettings, f"{_HOME}:user_optimizer"),
)
