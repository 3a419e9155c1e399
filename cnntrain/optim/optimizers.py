"""Optimizers, parameter groups, and the learning rate as a pure function of the step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cnntrain.config.schema.optimizer import (
    AdamSettings,
    AdamWSettings,
    OptimizerSettings,
    RmspropSettings,
    SgdSettings,
)
from cnntrain.config.schema.schedule import (
    ConstantSettings,
    CosineSettings,
    ExponentialSettings,
    MultistepSettings,
    OneCycleSettings,
    PlateauSettings,
    PolynomialSettings,
    ScheduleSettings,
    StepSettings,
)
from cnntrain.data.epoch_plan import Plan
from cnntrain.models.name_patterns import is_below
from cnntrain.runtime.device import supports_fused

# In torchvision's transformers, whose recipes leave them without decay.
_EMBEDDINGS = ("class_token", "pos_embedding", "relative_position_bias_table")


@dataclass
class Learner:
    """A part of the network that learns at a pace of its own."""

    name: str
    parameters: list[nn.Parameter]
    lr_factor: float = 1.0  # of the learning rate
    wd_factor: float = 1.0  # of each weight decay


def parameter_groups(
    model: nn.Module, settings: OptimizerSettings, learners: Sequence[Learner] | None = None
) -> list[dict[str, Any]]:
    """Weights, the parameters of norms, biases and embeddings of each learner, each with a weight decay of its own.

    Those share a group whose decay is the same: by default all but the weights have none (arXiv 1812.01187). Scales of
    single channels, which have one dimension too, go with the norms. Embeddings are what a network wants no decay for.

    Args:
        learners: parts of the network with factors of rate and decay; None: the whole network, at factors of 1.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of_norms = {id(p) for module in model.modules() if _is_norm(module) for p in module.parameters(recurse=False)}
    apart = settings.norm_weight_decay != settings.bias_weight_decay
    decays = {
        "weights": settings.weight_decay,
        "plain": settings.norm_weight_decay,
        "biases": settings.bias_weight_decay,
        "embeddings": settings.embedding_weight_decay or 0.0,
    }
    of_embeddings = _embeddings(model) if settings.embedding_weight_decay is not None else set()
    home = "plain" if settings.embedding_weight_decay == settings.norm_weight_decay else "embeddings"
    groups: list[dict[str, Any]] = []
    for learner in learners or [Learner("model", list(model.parameters()))]:
        found: dict[str, list[Tensor]] = {kind: [] for kind in decays}
        for parameter in learner.parameters:
            if parameter.ndim > 1 and id(parameter) not in of_norms:
                found[home if id(parameter) in of_embeddings else "weights"].append(parameter)
            elif apart and names[id(parameter)].rpartition(".")[2] == "bias" and id(parameter) not in of_norms:
                found["biases"].append(parameter)
            else:
                found["plain"].append(parameter)
        groups += [
            {"params": found[kind], "weight_decay": decay * learner.wd_factor, "lr_factor": learner.lr_factor}
            for kind, decay in decays.items()
            if found[kind]
        ]
    return groups


def _is_norm(module: nn.Module) -> bool:
    """Whether the name says so: libraries bring norms of their own beside torch's."""
    return "Norm" in type(module).__name__


def _embeddings(model: nn.Module) -> set[int]:
    """Ids of the parameters that the networks of timm list in `no_weight_decay()`, and those of torchvision like them.

    Of a network inside another, such as one that enlarges its images, the list of the outer one counts, if it has one.
    """
    found: set[int] = set()
    listing: list[str] = []
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torchvision."):
            found |= {id(part) for name, part in module.named_parameters(recurse=False) if name in _EMBEDDINGS}
        if is_below(path, listing) or not callable(listed := getattr(module, "no_weight_decay", None)):
            continue
        listing.append(path)
        patterns = list(listed())
        for name, parameter in module.named_parameters():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                found.add(id(parameter))
    return found


def build_optimizer(
    settings: OptimizerSettings,
    model: nn.Module,
    lr: float,
    device: torch.device,
    learners: Sequence[Learner] | None = None,
) -> Optimizer:
    """The torch optimizer that the settings name, with `lr` as its first rate, for what learns (None: everything)."""
    groups = parameter_groups(model, settings, learners)
    fused = supports_fused(device)
    match settings:
        case SgdSettings():
            nesterov = settings.nesterov and settings.momentum > 0
            sgd = torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=nesterov, fused=fused)
            fill_momentum(sgd)
            return sgd
        case AdamSettings():
            adam = torch.optim.AdamW if isinstance(settings, AdamWSettings) else torch.optim.Adam
            return adam(groups, lr=lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=fused)
        case RmspropSettings():
            return torch.optim.RMSprop(
                groups, lr=lr, alpha=settings.alpha, momentum=settings.momentum, eps=settings.eps
            )
    raise TypeError(f"no optimizer for {type(settings).__name__}")


def fill_momentum(optimizer: Optimizer) -> None:
    """Give each parameter of SGD that has no momentum yet one of zeros; the next step is the same."""
    # The fused step leaves a new buffer unfilled when the loss scaler skips the first step, and then reads it.
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def needed_state(optimizer: Optimizer) -> set[str]:
    """What each step expects to find of a parameter that has learned before; what else there is may be missing."""
    match optimizer:
        case torch.optim.Adam() | torch.optim.AdamW():
            return {"step", "exp_avg", "exp_avg_sq"}
        case torch.optim.RMSprop():
            return {"step", "square_avg"} | ({"momentum_buffer"} if optimizer.param_groups[0]["momentum"] else set())
    return set()


def scaled_rate(settings: OptimizerSettings, batch: int) -> tuple[float, str]:
    """The rate for `batch` images per step, and how it came about in words.

    Linear in the batch for SGD and RMSProp (arXiv 1706.02677), its square root for the Adams (arXiv 2205.10287).
    """
    base = settings.lr_base_batch
    if base is None or base == batch:
        return settings.lr, f"{settings.lr:g}"
    lr = settings.lr * batch_factor(settings, batch / base)
    rule = "square root of " if isinstance(settings, AdamSettings) else ""
    return lr, f"{lr:.4g} ({settings.lr:g} x {rule}{batch}/{base})"


def batch_factor(settings: OptimizerSettings, ratio: float) -> float:
    """What the rate is multiplied with for `ratio` times as many images per step; 1 where it is not to be scaled."""
    if settings.lr_base_batch is None:
        return 1.0
    return math.sqrt(ratio) if isinstance(settings, AdamSettings) else ratio


@dataclass
class Plateau:
    """The state of the plateau schedule: all other schedules have none."""

    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def update(self, settings: PlateauSettings, loss: float) -> None:
        """Look at one validation loss; drop the factor after `patience` epochs without gain."""
        if loss < self.best * (1 - settings.threshold):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > settings.patience:
            self.factor, self.waited = max(self.factor * settings.factor, settings.end), 0


@dataclass
class Rates:
    """The learning rate of every step of a run."""

    lr: float  # with a factor of 1, at the full batch size
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    plan: Plan

    def at(self, step: int, steps: int, plateau: Plateau) -> float:
        """The rate of `step`, counted from 0, in a run of so many steps."""
        plan = self.plan
        full_steps = plan.steps(plan.epochs)  # of an epoch
        shape = factor(self.schedule, plan.at_full_size(step), plan.at_full_size(steps), full_steps, plateau)
        return self.lr * batch_factor(self.optimizer, plan.stage_at(step).batch_size / plan.batch_size) * shape


def factor(settings: ScheduleSettings, step: float, total: float, steps_per_epoch: float, plateau: Plateau) -> float:
    """What `optimizer.lr` is multiplied with at `step` (0-based) of `total`.

    A pure function: nothing but the plateau's own state is remembered between steps.
    """
    warmup = min(settings.warmup * steps_per_epoch, total)
    if step < warmup:
        high = factor(settings, math.ceil(warmup), total, steps_per_epoch, plateau)  # where the schedule takes over
        low = min(settings.warmup_start, high)
        return low + (high - low) * step / warmup
    # Drops stand at epochs of the run; curves run from the end of the warm-up to the end of the run, where the step
    # after the last one would stand: with an end of 0, as torch has it, the last step still learns.
    epoch = step / steps_per_epoch + 1e-9
    step, total = max(step - math.ceil(warmup), 0), max(total - math.ceil(warmup), 1)
    match settings:
        case ConstantSettings():
            return 1.0
        case CosineSettings():
            return settings.end + (1 - settings.end) * (1 + math.cos(math.pi * step / total)) / 2
        case PolynomialSettings():
            return settings.end + (1 - settings.end) * (1 - step / total) ** settings.power
        case ExponentialSettings():
            return settings.decay ** (step / steps_per_epoch)
        case StepSettings():
            return settings.factor ** int(epoch / settings.every)
        case MultistepSettings():
            return settings.factor ** sum(epoch >= milestone for milestone in settings.milestones)
        case OneCycleSettings():
            return _onecycle(settings, step, total)
        case PlateauSettings():
            return plateau.factor
    raise TypeError(f"no schedule for {type(settings).__name__}")


def _onecycle(settings: OneCycleSettings, step: float, total: float) -> float:
    peak, last = max(settings.peak * total - 1, 0), max(total - 1, 1)
    if step < peak:
        low, high, part = settings.start, 1.0, step / peak
    else:
        low, high, part = 1.0, settings.end, (step - peak) / (last - peak) if last > peak else 1.0
    if settings.linear:
        return low + (high - low) * part
    return high + (low - high) * (1 + math.cos(math.pi * part)) / 2


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group the rate `lr`, or its part of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
