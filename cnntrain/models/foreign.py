"""The user's own network, named `pkg.module:function`."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from cnntrain.device import restore_rng_state, rng_state
from cnntrain.errors import ConfigError
from cnntrain.faults import hint, nearest, unknown_argument
from cnntrain.guard import brief


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
            f"model.name: cannot import {module_name!r} of {name} ({brief(error)}); "
            f"it must lie in the current folder {here} or be installed"
        ) from error
    build = getattr(module, attribute, None)
    if build is None:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        where = module.__file__ or module_name
        advice = hint(nearest(attribute, functions), f"it has {', '.join(functions) or 'no function at all'}")
        raise ConfigError(f"model.name: {where} has no {attribute!r}{advice}")
    if not callable(build):
        raise ConfigError(f"model.name: {name} is of type {type(build).__name__}; it must be a function or class")
    return build


def _call(build: Callable[..., Any], name: str, args: dict[str, Any], offered: dict[str, int]) -> Any:
    parameters = inspect.signature(build).parameters
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    for key, value in args.items():
        if key not in parameters and not takes_all:
            raise ConfigError(unknown_argument(name, key, value, parameters))
    accepted = {key: value for key, value in offered.items() if takes_all or key in parameters}
    try:
        return build(**(accepted | args))
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in (accepted | args).items())
        raise ConfigError(f"model.name: {name}({given}) failed ({brief(error)}); correct it or model.args") from error


def _try_out(model: nn.Module, name: str, classes: int, channels: int, image_size: int) -> None:
    """Refuse a network that does not map (2, channels, S, S) to (2, classes), in evaluation and in training mode.

    Its mode and buffers and the random streams stay as they are.
    """
    weights = next(model.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device
    images = torch.zeros((2, channels, image_size, image_size), device=device)
    training, streams = model.training, rng_state(device)
    try:
        with torch.no_grad():
            _try_mode(model.eval(), name, images, classes)
            _try_mode(model.train(), name, images, classes)
    finally:
        model.train(training)
        restore_rng_state(streams, device)


def _try_mode(model: nn.Module, name: str, images: torch.Tensor, classes: int) -> None:
    shape = tuple(images.shape)
    mode = " in training mode" if model.training else ""
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers() if not is_lazy(buffer)}
    try:
        logits = model(images)
    except Exception as error:
        fits = "let it take in_channels and image_size, or set data.channels and data.image_size"
        raise ConfigError(
            f"model.name: {name} fails on a batch of images {shape}{mode} ({brief(error)}); "
            + ("correct it" if model.training else fits)
        ) from error
    finally:
        for key, buffer in model.named_buffers():
            if key in buffers:
                buffer.copy_(buffers[key])
    given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if given != (2, classes):
        raise ConfigError(
            f"model.name: {name} maps {shape} to {given} instead of {(2, classes)}{mode}; "
            "let it take num_classes and return logits alone"
        )
