"""The optimizers of timm and of torch by the names that they have there."""

import inspect
from typing import Any

import torch
from torch.optim import Optimizer

from cnntrain.config.library_optimizers import spelt
from cnntrain.config.schema.optimizer import TimmOptimizerSettings
from cnntrain.errors import ConfigError
from cnntrain.registry import check_arguments
from cnntrain.text import one_line

OURS = ("params", "lr", "weight_decay")  # arguments that are not the user's to give


def from_torch(settings: TimmOptimizerSettings, groups: list[dict[str, Any]], lr: float, fused: bool) -> Optimizer:
    """A class of torch.optim.

    Raises:
        ConfigError: no such class, an argument that it does not take or refuses, or no place for a weight decay.
    """
    classes: dict[str, Any] = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    kind = classes[spelt("torch", settings.name, classes)]
    return _made(settings, kind, kind, groups, lr)


def from_timm(settings: TimmOptimizerSettings, groups: list[dict[str, Any]], lr: float, fused: bool) -> Optimizer:
    """An optimizer of timm.optim, with the numbers that timm gives it by its name.

    Raises:
        ConfigError: see from_torch.
    """
    import timm.optim

    name = spelt("timm", settings.name, map(str, timm.optim.list_optimizers()))
    kind = timm.optim.get_optimizer_class(name, bind_defaults=False)

    def create(groups: list[dict[str, Any]], lr: float, **args: Any) -> Optimizer:
        made: Optimizer = timm.optim.create_optimizer_v2(groups, name, lr, **args)
        return made

    return _made(settings, kind, create, groups, lr)


def _made(
    settings: TimmOptimizerSettings, kind: Any, create: Any, groups: list[dict[str, Any]], lr: float
) -> Optimizer:
    name = f"{settings.library}'s {settings.name}"
    takes = inspect.signature(kind).parameters
    if taken := next((key for key in settings.args if key in OURS), None):
        raise ConfigError(
            f"optimizer.args.{taken}: cnntrain gives it to {name} itself (given {settings.args[taken]}); "
            f"set optimizer.{taken}"
        )
    check_arguments("optimizer", name, kind, settings.args, reserved=OURS)
    if "weight_decay" not in takes and (decay := max(group["weight_decay"] for group in groups)):
        raise ConfigError(f"optimizer.weight_decay: {name} has none (given {decay:g}); set it to 0")
    args = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.args.items()}
    try:
        optimizer: Optimizer = create(groups, lr=lr, **args)
    except (ValueError, TypeError, RuntimeError, AssertionError, ImportError) as error:
        raise ConfigError(
            f"optimizer.name: {name} cannot be made ({one_line(error)}); correct optimizer.args, or choose another"
        ) from error
    return optimizer
