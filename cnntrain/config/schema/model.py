"""Which network, and how it meets the size of the images."""

import enum
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from cnntrain.config.schema.arguments import ACTIVATIONS, TORCH_ACTIVATIONS
from cnntrain.config.schema.limits import number, typed_value
from cnntrain.config.schema.networks import NETWORKS, NetworkEntry, argument_faults
from cnntrain.config.schema.titles import title_faults, title_of
from cnntrain.registry import is_dotted

DROPS = ("dropout", "drop_path", "drop_block")
# What whoever asks for a drop that a network of ours has not can do.
INSTEAD = {
    "dropout": "set model.head.dropout, which every network has before its last layer",
    "drop_path": "choose a network that has it, such as model=resnet20 or model=efficientnet_b0",
    "drop_block": "choose a network that has it, such as model=timm model.name=resnet18, or model=cnn",
}
NO_SYNC_BN = (
    "model.sync_bn: torch has no batch norm over several processes on {} (given True); leave it out, or train on GPUs"
)


class Library(enum.Enum):
    auto = "auto"  # our own networks, else torchvision's, else timm's
    torchvision = "torchvision"
    timm = "timm"


class Stem(enum.Enum):
    auto = "auto"  # early strides go until the last feature map has at least 4x4 pixels
    imagenet = "imagenet"  # the network as published
    small = "small"  # the first two halvings go, whatever the image size


class Norm(enum.Enum):
    batch = "batch"
    layer = "layer"
    instance = "instance"
    group = "group"


class DropSchedule(enum.Enum):
    constant = "constant"
    linear = "linear"  # from 0 at the first step to the full rate at the end


class Pool(enum.Enum):
    avg = "avg"
    max = "max"
    avgmax = "avgmax"  # the mean of both


class HeadInit(enum.Enum):
    default = "default"  # torch's
    zero = "zero"  # all classes equally likely at first; the encoder gets no gradient in the first step


@dataclass
class HeadSettings:
    """What stands in place of the network's last layer; with the defaults, a layer like it."""

    hidden: list[int] = field(default_factory=list)  # widths of layers before the last one: [256]
    activation: str = "relu"  # after each of them: any of model=cnn
    dropout: float = number(0.0, ge=0, lt=1)  # before each layer of the head
    pool: Optional[Pool] = None  # how the last map becomes a vector; null: as published
    init: HeadInit = HeadInit.default

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        faults: list[tuple[str, Any, str]] = []
        if any(width < 1 for width in self.hidden):
            faults.append(("hidden", self.hidden, "a list of widths from 1 up, such as [256]"))
        if self.activation not in (*ACTIVATIONS, *TORCH_ACTIVATIONS):
            rule = f"one of {', '.join(ACTIVATIONS)}, or an activation class of torch.nn such as Hardswish"
            faults.append(("activation", self.activation, rule))
        return faults


@dataclass
class ModelSettings:
    name: str = "???"  # a name of `cnntrain models`, or my_pkg.nets:build
    title: str = ""  # what heads the runs, and the folder that they lie in
    library: Library = Library.auto  # where the name is looked up
    args: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the network: model.args.hidden=256
    stem: Stem = Stem.auto  # auto removes early strides until the last map has 4x4 pixels
    norm: Optional[Norm] = None  # in place of the network's batch norms; null: as published
    sync_bn: bool = False  # of several processes on GPUs, batch norms normalise by the images of all
    # where the network has it, else before its last layer; null: as published
    dropout: Optional[float] = number(None, ge=0, lt=1)
    # stochastic depth (arXiv 1603.09382), where the network has it
    drop_path: Optional[float] = number(None, ge=0, lt=1)
    drop_block: Optional[float] = number(None, ge=0, lt=1)  # arXiv 1810.12890, where the network has it
    # of all drop rates, over the steps of the run; linear: from 0 up
    drop_schedule: DropSchedule = DropSchedule.constant
    aux_weight: float = number(0.0, ge=0)  # weight of each auxiliary classifier's loss; 0: built without them
    pretrained: bool = False  # start from the library's own weights, fetched once
    weights: Optional[str] = None  # start from these instead: .safetensors, .pt, .pth, a checkpoint or a run folder
    new_head: Optional[bool] = None  # null: unless the weights are those of a run on the same classes
    allow_missing: list[str] = field(default_factory=list)  # patterns of tensors that the weights may lack
    # patterns of tensors in the file that may find no place in the network
    allow_unused: list[str] = field(default_factory=list)
    head: HeadSettings = field(default_factory=HeadSettings)  # in place of the last layer

    @property
    def heading(self) -> str:
        """What heads a run: the title, which runs of older versions do not have."""
        return self.title or title_of(self.name)

    @property
    def entry(self) -> NetworkEntry | None:
        """The network of ours, or of the user's; None where a library is asked for it."""
        is_ours = self.library is Library.auto or is_dotted(self.name)
        return NETWORKS.find(self.name) if is_ours else None

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        entry = self.entry
        faults = title_faults(self.title)
        faults += [(f"args.{key}", value, rule) for key, value, rule in argument_faults(self.name, self.args)]
        if self.stem is Stem.small and entry and entry.is_sized:
            faults.append(("stem", "small", f"auto for {self.name}, whose strides are its own"))
        drops = [key for key in DROPS if getattr(self, key) is not None]
        if entry is NETWORKS.user:
            drops += ["norm"] * (self.norm is not None) + ["aux_weight"] * (self.aux_weight > 0)
            rule = f"left alone for {self.name}, which model.args reaches"
            faults += [(key, typed_value(getattr(self, key)), rule) for key in drops]
        elif entry:
            faults += self._own_faults(entry, drops)
        return faults

    def _own_faults(self, entry: NetworkEntry, drops: list[str]) -> list[tuple[str, Any, str]]:
        """Settings that a network of ours has no place for."""
        names = [item.name for item in fields(entry.settings)]
        has = ", ".join(key for key in DROPS if key in names) or "none of the drops"
        faults: list[tuple[str, Any, str]] = [
            (key, getattr(self, key), f"null for {self.name}, which has {has}: {INSTEAD[key]}")
            for key in drops
            if key not in names
        ]
        if self.aux_weight > 0 and not entry.has_auxiliary:
            faults.append(("aux_weight", self.aux_weight, f"0 for {self.name}, which has no auxiliary classifiers"))
        return faults
