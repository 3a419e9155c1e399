"""What of a network learns in which epoch, how fast, and the proof that it was so."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from cnntrain.config.schema.finetune import FinetuneSettings, Mode, NormPolicy
from cnntrain.errors import CheckpointError, ConfigError, FrozenError
from cnntrain.finetune.batch_norms import keeps_statistics
from cnntrain.finetune.encoder import module_and_above
from cnntrain.finetune.layer_groups import LayerGroup, layer_groups
from cnntrain.finetune.proofs import FrozenCopy, GradientWatch, fixed_tensors, moved_names
from cnntrain.models.name_patterns import require
from cnntrain.optim.parameter_groups import Learner
from cnntrain.text import counted

# Steps before a group without gradient is a fault: a head of zeros hands none down in the first step, nor in the second
# where the rate begins at zero, nor after steps that the loss scaler skips.
LEAST_STEPS = 5
MOST_NAMES = 4  # in a message


class Tuning:
    """The modes of transfer learning. All that holds in an epoch is a function of settings, groups and that epoch.

    Args:
        model: with the head that it will train with.
        groups: its layer groups, low to high; the last one is the head.
        settings: of finetune.

    Attributes:
        opens: the first epoch, from 0, in which each group learns; None: it never does.
        lr_factors, wd_factors: of learning rate and weight decay, one per group.
        frozen: single parameters that never learn.
        norm: what the batch norms of groups that learn do.

    Raises:
        ConfigError: factors that do not fit the groups, or nothing of the head would learn.
    """

    def __init__(self, model: nn.Module, groups: Sequence[LayerGroup], settings: FinetuneSettings) -> None:
        self.groups = list(groups)
        self.settings = settings
        self.norm = settings.norm or (NormPolicy.frozen if settings.mode is Mode.A else NormPolicy.train)
        self.model = model
        self._tensors = dict(model.named_parameters())
        self.frozen_names = require("finetune.freeze", settings.freeze, list(self._tensors), "parameter")
        self.lr_factors = _factors("lr", settings.lr_decay, settings.lr_factors, self.groups)
        self.wd_factors = _factors("wd", settings.wd_decay, settings.wd_factors, self.groups)
        self.opens = [
            None if factor == 0 or (group.parameters and self.frozen_names.issuperset(group.parameters)) else epoch
            for epoch, factor, group in zip(_openings(settings, self.groups), self.lr_factors, self.groups, strict=True)
        ]
        if self.opens[-1] is None:
            raise ConfigError(_dead_head(settings, self.groups[-1], self.lr_factors[-1]))
        self._homes = _homes(self.groups)
        learnable = set(_with_parents(self._tensors.keys() - self.frozen_names))
        self._frozen_modules = set(_with_parents(self.frozen_names)) - learnable  # all of their parameters are frozen
        self._epoch = -1  # entered last
        self._learns = [False] * len(self.groups)  # in that epoch
        self._frozen = FrozenCopy({})
        self._gradients = GradientWatch({})

    @property
    def parameters(self) -> int:
        """How many numbers ever learn."""
        return sum(parameter.numel() for learner in self.learners() for parameter in learner.parameters)

    def learners(self) -> list[Learner]:
        """The learners that the optimizer holds: the parameters of each group that ever learns, the head first."""
        rows = zip(self.groups, self.opens, self.lr_factors, self.wd_factors, strict=True)
        return [
            Learner(group.name, [self._tensors[name] for name in self._learnable(group)], lr_factor, wd_factor)
            for group, opens, lr_factor, wd_factor in reversed(list(rows))
            if opens is not None
        ]

    def learns_in(self, epoch: int) -> list[bool]:
        """Whether each group learns in an epoch, counted from 0."""
        return [opens is not None and epoch >= opens for opens in self.opens]

    def home(self, path: str) -> int:
        """The group of a module; of several, the lowest."""
        return min(self._homes[path])

    def trains(self, path: str, module: nn.Module, flags: Sequence[bool]) -> bool:
        """Whether a module is in training mode while these groups learn.

        A module around several groups follows the encoder's alone: some networks look at the mode of the whole for
        their dropout, and a frozen encoder must answer the same each time.
        """
        homes = self._homes.get(path, set())
        encoder = homes - {len(self.groups) - 1}
        if path in self._frozen_modules or not any(flags[home] for home in encoder or homes):
            return False
        # A head has no statistics from elsewhere worth keeping.
        return not (self.norm is NormPolicy.frozen and encoder and keeps_statistics(module))

    def enter(self, epoch: int) -> list[str]:
        """Set requires_grad and the mode of each module as an epoch, from 0, wants it; call it after model.train().

        Returns:
            Lines to say, where another set of groups learns than in the epoch before.
        """
        flags = self.learns_in(epoch)
        groups = [group for group, learns in zip(self.groups, flags, strict=True) if learns]
        names = {name for group in groups for name in self._learnable(group)}
        for name, parameter in self._tensors.items():
            parameter.requires_grad_(name in names)
            if name not in names:
                parameter.grad = None
        for path, module in self.model.named_modules():
            module.training = self.trains(path, module, flags)

        before, self._epoch, self._learns = self._learns, epoch, flags
        if flags == before:
            return []
        self._frozen = FrozenCopy(fixed_tensors(self.model))
        self._gradients = GradientWatch(
            {group.name: [self._tensors[name] for name in self._learnable(group)] for group in groups}
        )
        return self._news(epoch, before)

    def watch(self) -> None:
        """Look at the gradients of a step: once in each, before the optimizer takes and clears them."""
        self._gradients.look()

    def check(self) -> None:
        """Make sure that nothing frozen has moved, and that all that learns has received a gradient.

        Raises:
            FrozenError: a frozen tensor has other bits than when its group was frozen.
            ConfigError: in all steps since the set of learning groups changed, one of them had no gradient.
        """
        if names := self._frozen.moved_names(self.model):
            cause = "writes to it" if names[0] in self._tensors else "calls train()"
            raise FrozenError(
                f"{self._describe(names)} changed by the end of epoch {self._epoch + 1}: see what in the code of "
                f"the network or its optimizer {cause}; correct that and resume"
            )
        if self._gradients.steps < LEAST_STEPS:
            return
        if groups := self._gradients.groups_without():
            raise ConfigError(
                f"finetune: no gradient reached {_join(groups)} in {self._gradients.steps} steps up to epoch "
                f"{self._epoch + 1}; name layers that the network does not use in finetune.freeze, or let their "
                "gradient through"
            )

    def norms(self) -> list[str]:
        """Paths of the batch norms whose running statistics move in the epoch entered last."""
        return [path for path, module in self.model.named_modules() if module.training and keeps_statistics(module)]

    def state(self) -> dict[str, Any]:
        """The epoch entered last, what learned in it, the digest of each tensor that did not; what ever learns."""
        names = self._names(self._learns)
        return {
            "epoch": self._epoch,
            "learning": names,
            "digests": dict(self._frozen.digests),
            "learners": self.learner_names(),
        }

    def restore(self, state: dict[str, Any], *, is_changed: bool = False) -> None:
        """Compare a saved state with what the settings say, and with the weights, which must be loaded by now.

        Nothing of it is taken over: `enter` derives everything from the epoch.

        Args:
            is_changed: these are other settings than those of the save, so that other groups may learn in an epoch.

        Raises:
            CheckpointError: by the settings, other groups learned in the epoch of the save, or other parameters ever
                learn, for which the saved state of the optimizer is none.
            FrozenError: a tensor that was frozen has other bits than it had then.
        """
        if state["learners"] != self.learner_names():
            raise CheckpointError(
                "finetune: by the settings other parameters learn than in the checkpoint, or in other groups; take the "
                "change back, or start a new run from these weights, model.weights=RUN"
            )
        epoch, names = state["epoch"], state["learning"]
        now = self._names(self.learns_in(epoch))
        if names != now and not is_changed:
            raise CheckpointError(
                f"finetune: {_join(names)} learned in epoch {epoch + 1} by the checkpoint, {_join(now)} by the "
                "settings; resume with the settings and the network of the run"
            )
        if moved := moved_names(self.model, state["digests"]):
            raise FrozenError(
                f"{self._describe(moved)} has other bits in the checkpoint than when it was frozen; "
                "go on from an older checkpoint, or start a new run"
            )

    def learner_names(self) -> list[list[str]]:
        """The names of what the optimizer holds, learner by learner."""
        names = {id(parameter): name for name, parameter in self._tensors.items()}
        return [[names[id(parameter)] for parameter in learner.parameters] for learner in self.learners()]

    def _learnable(self, group: LayerGroup) -> list[str]:
        return [name for name in group.parameters if name not in self.frozen_names]

    def _names(self, flags: Iterable[bool]) -> list[str]:
        return [group.name for group, learns in zip(self.groups, flags, strict=True) if learns]

    def _news(self, epoch: int, before: Sequence[bool]) -> list[str]:
        """What changes with an epoch; with the first one entered, what will never learn."""
        if any(before):
            pairs = zip(self._learns, before, strict=True)
            names = self._names(learns and not learned_before for learns, learned_before in pairs)
            return [f"epoch {epoch + 1}: {_join(names)} learn{'s' * (len(names) == 1)} from now on"] if names else []
        epochs, idle_groups = self.settings.unfreeze, self._names(opens is None for opens in self.opens)
        if epochs is None or not idle_groups:
            return []
        return [f"never learn: {_join(idle_groups)}; finetune.unfreeze={epochs} opens {len(epochs)} below the head"]

    def _describe(self, names: Sequence[str]) -> str:
        """A tensor, its group, why it is frozen, and how many more there are."""
        name = names[0]
        group = self.groups[self.home(name.rpartition(".")[0])].name
        why = "named in finetune.freeze" if name in self.frozen_names else f"of layer group {group}"
        tail = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        return f"{name}: this frozen tensor {why}{tail}"


def _openings(settings: FinetuneSettings, groups: Sequence[LayerGroup]) -> list[int | None]:
    """The first epoch, from 0, in which each group may learn; None: it never does."""
    below = len(groups) - 1  # the head
    if settings.mode is Mode.A:
        return [*[None] * below, 0]
    if settings.unfreeze is None:
        return [*[settings.head_epochs] * below, 0]
    if len(settings.unfreeze) > below:
        epochs_told, groups_told = counted(len(settings.unfreeze), "epoch"), counted(below, "group")
        raise ConfigError(
            f"finetune.unfreeze: {epochs_told}, and {groups_told} below the head to open "
            f"({_join([group.name for group in groups[:-1]])}); leave some out, or make more groups (finetune.unit, "
            "finetune.groups)"
        )
    epochs = [epoch - 1 for epoch in reversed(settings.unfreeze)]
    return [*[None] * (below - len(epochs)), *epochs, 0]


def _factors(kind: str, decay: float | None, factors: list[float] | None, groups: Sequence[LayerGroup]) -> list[float]:
    """Of each group; a decay counts from the head down."""
    if factors is None:
        return [(1.0 if decay is None else decay) ** distance for distance in reversed(range(len(groups)))]
    if len(factors) != len(groups):
        fewer = f", or set finetune.groups={len(factors)}" if 1 < len(factors) < len(groups) else ""
        raise ConfigError(
            f"finetune.{kind}_factors: {counted(len(factors), 'number')} for {counted(len(groups), 'group')} "
            f"({_join([group.name for group in groups])}); give one per group{fewer}"
        )
    return list(factors)


def _dead_head(settings: FinetuneSettings, head: LayerGroup, factor: float) -> str:
    if factor == 0:
        return "finetune.lr_factors: 0 for the head, which must learn; end the list with a number above 0"
    return (
        f"finetune.freeze: {settings.freeze} freezes the whole head ({_join(head.parameters)}), which must learn; "
        "take its parameters out"
    )


def _homes(groups: Sequence[LayerGroup]) -> dict[str, set[int]]:
    """Of each module the groups that it holds something of."""
    homes: dict[str, set[int]] = defaultdict(set)
    for index, group in enumerate(groups):
        for path in _with_parents([*(name.rpartition(".")[0] for name in group.parameters), *group.leaves]):
            homes[path].add(index)
    return dict(homes)


def _with_parents(paths: Iterable[str]) -> Iterator[str]:
    return (above for path in paths for above in module_and_above(path))


def _join(names: Sequence[str]) -> str:
    """All of a few names, the ends of many."""
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{names[0]}, {names[1]}, ..., {names[-1]}"


def build_tuning(model: nn.Module, settings: FinetuneSettings) -> Tuning | None:
    """The tuning that says what of the network learns when; None where it is trained from scratch."""
    if settings.mode is Mode.none:
        return None
    return Tuning(model, layer_groups(model, settings), settings)
