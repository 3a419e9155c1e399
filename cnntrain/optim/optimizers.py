"""The optimizers, each built from its settings and the parameter groups."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cnntrain.config.schema.optimizer import (
    AdamSettings,
    MuonSettings,
    OptimizerSettings,
    RmspropSettings,
    SgdSettings,
    UserOptimizerSettings,
)
from cnntrain.errors import ConfigError
from cnntrain.optim.eager import eager
from cnntrain.optim.muon import Muon
from cnntrain.optim.parameter_groups import Learner, parameter_groups, part_filters
from cnntrain.registry import call_user_function
from cnntrain.runtime.device import supports_fused

Groups = list[dict[str, Any]]
OUR_OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, Muon)


def build_optimizer(
    settings: OptimizerSettings,
    model: nn.Module,
    lr: float,
    device: torch.device,
    learners: Sequence[Learner] | None = None,
) -> Optimizer:
    """The torch optimizer that the settings name, with `lr` as its first rate, for what learns (None: everything).

    Raises:
        ConfigError: a function of the user's that makes none.
    """
    groups = parameter_groups(model, settings, learners)
    if isinstance(settings, MuonSettings):
        groups = part_filters(groups, model)
    optimizer: Optimizer = settings.entry.build(settings, groups, lr, supports_fused(device))
    return optimizer


# --- the builders of the entries: settings, parameter groups, first rate, whether the device has fused steps ----------


def sgd(settings: SgdSettings, groups: Groups, lr: float, fused: bool) -> Optimizer:
    """SGD whose momentum is there from the start."""
    nesterov = settings.nesterov and settings.momentum > 0
    optimizer = eager(torch.optim.SGD)(groups, lr=lr, momentum=settings.momentum, nesterov=nesterov, fused=fused)
    fill_momentum(optimizer)
    return optimizer


def adam(settings: AdamSettings, groups: Groups, lr: float, fused: bool) -> Optimizer:
    """Adam (arXiv 1412.6980)."""
    return eager(torch.optim.Adam)(groups, lr=lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=fused)


def adamw(settings: AdamSettings, groups: Groups, lr: float, fused: bool) -> Optimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101)."""
    return eager(torch.optim.AdamW)(
        groups, lr=lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=fused
    )


def rmsprop(settings: RmspropSettings, groups: Groups, lr: float, fused: bool) -> Optimizer:
    """RMSProp, of which torch has no fused step."""
    return eager(torch.optim.RMSprop)(groups, lr=lr, alpha=settings.alpha, momentum=settings.momentum, eps=settings.eps)


def user_optimizer(settings: UserOptimizerSettings, groups: Groups, lr: float, fused: bool) -> Optimizer:
    """Call the user's function as the classes of torch.optim are called: `function(groups, lr=..., **args)`.

    Each group is a dict of `params`, `weight_decay` and `lr_factor`. The rate of each step is set in the groups.

    Raises:
        ConfigError: it gives no optimizer of these groups back.
    """
    name = settings.name
    optimizer = call_user_function("optimizer", name, settings.args, groups, lr=lr)
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise ConfigError(f"optimizer.name: {name} gave {kind} back; it must return a torch.optim.Optimizer")
    ids = {id(parameter) for group in groups for parameter in group["params"]}
    ids_back = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if ids_back != ids or any("lr_factor" not in group for group in optimizer.param_groups):
        raise ConfigError(f"optimizer.name: {name} leaves parameter groups out; it must pass on all that it is given")
    return optimizer


# --- their state -----------------------------------------------------------------------------------------------------


def fill_momentum(optimizer: Optimizer) -> None:
    """Give each parameter of SGD that has no momentum yet one of zeros; the next step is the same."""
    # The fused step leaves a new buffer unfilled when the loss scaler skips the first step, and then reads it.
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def plain_state(optimizer: Optimizer) -> dict[str, Any]:
    """The state as a checkpoint takes it: without the dtypes among the numbers of a group, which its settings say."""
    state = optimizer.state_dict()
    groups = [
        {key: value for key, value in group.items() if not isinstance(value, torch.dtype)}
        for group in state["param_groups"]
    ]
    return state | {"param_groups": groups}


def needed_state(optimizer: Optimizer) -> set[str]:
    """The keys of the state that each step needs of a parameter that has learned before; all others may be missing."""
    match optimizer:
        case torch.optim.Adam() | torch.optim.AdamW():
            return {"step", "exp_avg", "exp_avg_sq"}
        case torch.optim.RMSprop():
            return {"step", "square_avg"} | ({"momentum_buffer"} if optimizer.param_groups[0]["momentum"] else set())
    return set()


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group the rate `lr`, or its part of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
