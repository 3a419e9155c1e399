"""The audit: what of each layer group learns, and how fast, as it will be and not as it was asked for."""

from dataclasses import dataclass

from cnntrain.config.schema.finetune import NormPolicy
from cnntrain.finetune.batch_norms import keeps_statistics
from cnntrain.finetune.tuning import Tuning
from cnntrain.models.catalogue import short


@dataclass(frozen=True)
class GroupRow:
    """A layer group.

    Attributes:
        name: of the group.
        layers: paths of its modules with parameters of their own, in the order of the network.
        parameters: numbers in them.
        learnable: how many of these ever learn.
        opens: the first epoch, from 1, in which they do; None where none does.
        lr: the rate from then on, where the schedule's factor is 1; None where none learns.
        weight_decay: of its weights; None where none learns.
        norm: what its batch norms divide by once it learns: `batch statistics`, `recalibrated` (the same, and measured
            anew for validation), `frozen` statistics, or `mixed`; `-` where it has none.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int
    learnable: int
    opens: int | None
    lr: float | None
    weight_decay: float | None
    norm: str

    @property
    def trainable(self) -> str:
        """`yes`, `no`, `from epoch 3`; where finetune.freeze takes a part `all but 960`, `1.2M from epoch 3`."""
        if self.opens is None:
            return "no"
        remainder = self.parameters - self.learnable
        if self.opens > 1:
            return f"{short(self.learnable) if remainder else ''} from epoch {self.opens}".strip()
        if remainder > self.learnable:
            return f"{short(self.learnable)} of {short(self.parameters)}"
        return f"all but {short(remainder)}" if remainder else "yes"


def audit(tuning: Tuning, lr: float, weight_decay: float) -> list[GroupRow]:
    """A row for each layer group, low to high.

    Args:
        lr: the rate at a factor of 1.
        weight_decay: of weights, at a factor of 1.
    """
    sizes = {name: parameter.numel() for name, parameter in tuning.model.named_parameters()}
    modes = _norm_modes(tuning)
    rows = []
    for index, group in enumerate(tuning.groups):
        opens = tuning.opens[index]
        learnable = set(group.parameters) - tuning.frozen_names if opens is not None else set()
        rows.append(
            GroupRow(
                name=group.name,
                layers=tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in group.parameters)),
                parameters=sum(sizes[name] for name in group.parameters),
                learnable=sum(sizes[name] for name in learnable),
                opens=None if opens is None else opens + 1,
                lr=None if opens is None else lr * tuning.lr_factors[index],
                weight_decay=None if opens is None else weight_decay * tuning.wd_factors[index],
                norm=modes[index],
            )
        )
    return rows


def _norm_modes(tuning: Tuning) -> list[str]:
    """Of each group, what its batch norms divide by when all groups learn that ever do."""
    flags = [opens is not None for opens in tuning.opens]
    mode_sets: list[set[str]] = [set() for _ in tuning.groups]
    train_mode = "recalibrated" if tuning.norm is NormPolicy.recalibrate else "batch statistics"
    for path, module in tuning.model.named_modules():
        if keeps_statistics(module):
            mode_sets[tuning.home(path)].add(train_mode if tuning.trains(path, module, flags) else "frozen")
    return [modes.pop() if len(modes) == 1 else "mixed" if modes else "-" for modes in mode_sets]
