"""The user's own network, named `pkg.module:function`."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cnntrain.errors import ConfigError
from cnntrain.settings.nets import nearest


def build_foreign(name: str, args: dict[str, Any], *, classes: int, channels: int, image_size: int) -> nn.Module:
    """Call the function (or class) with `args` and those of num_classes, in_channels, image_size that it accepts.

    A function with `**kwargs` gets all three; `args` wins over them. The network is tried once on two blank images.
    """
    build = _find(name)
    offered = {"num_classes": classes, "in_channels": channels, "image_size": image_size}
    model = _call(build, name, args, offered)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name: {name} gave {type(model).__name__} back; it must return a torch.nn.Module")
    _try_out(model, name, classes, channels, image_size)
    return model


def _find(name: str) -> Callable[..., Any]:
    """What `pkg.module:function` names; the current folder is searched first, as `python -m` does."""
    module_name, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module can fail with anything
        raise ConfigError(
            f"model.name: cannot import {module_name!r} of {name} ({_brief(error)}); "
            f"it must lie in the current folder {here} or be installed"
        ) from error
    build = getattr(module, attribute, None)
    if build is None:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        where = module.__file__ or module_name
        raise ConfigError(f"model.name: {where} has no {attribute!r}; {nearest(attribute, functions)}")
    if not callable(build):
        raise ConfigError(f"model.name: {name} is of type {type(build).__name__}; it must be a function or class")
    return build


def _call(build: Callable[..., Any], name: str, args: dict[str, Any], offered: dict[str, int]) -> Any:
    parameters = inspect.signature(build).parameters
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    for key in args:
        if key not in parameters and not takes_all:
            raise ConfigError(f"model.args.{key}: {name} has no such parameter; {nearest(key, parameters)}")
    accepted = {key: value for key, value in offered.items() if takes_all or key in parameters}
    try:
        return build(**(accepted | args))
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in (accepted | args).items())
        raise ConfigError(f"model.name: {name}({given}) failed ({_brief(error)}); correct it or model.args") from error


def _try_out(model: nn.Module, name: str, classes: int, channels: int, image_size: int) -> None:
    """Refuse a network that does not map (2, channels, S, S) to (2, classes); evaluation mode: nothing changes."""
    weights = next(model.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device
    training = model.training
    shape = (2, channels, image_size, image_size)
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(shape, device=device))
    except Exception as error:
        raise ConfigError(
            f"model.name: {name} fails on a batch of images {shape} ({_brief(error)}); "
            "let it take in_channels and image_size, or set data.channels and data.image_size"
        ) from error
    finally:
        model.train(training)
    given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if given != (2, classes):
        raise ConfigError(
            f"model.name: {name} maps {shape} to {given} instead of {(2, classes)}; "
            "let it take num_classes and return logits"
        )


def _brief(error: Exception) -> str:
    """The kind and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
