"""The user's own network, named `pkg.module:function`."""

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from cnntrain.errors import ConfigError
from cnntrain.registry import call_user_function, describe_failure
from cnntrain.runtime.faults import refused_setting
from cnntrain.runtime.seeds import restore_rng_state, rng_state


def build_user_model(name: str, args: dict[str, Any], *, classes: int, channels: int, image_size: int) -> nn.Module:
    """Call the function (or class) with `args` and those of num_classes, in_channels, image_size that it accepts.

    A function with `**kwargs` gets all three; `args` wins over them. The network is tried once on two blank images.
    """
    offered = {"num_classes": classes, "in_channels": channels, "image_size": image_size}
    model = call_user_function("model", name, args, **offered)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name: {name} gave {type(model).__name__} back; it must return a torch.nn.Module")
    _try_out(model, name, classes, channels, image_size)
    return model


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
        if line := refused_setting(error):
            raise ConfigError(line) from error
        fits = "let it take in_channels and image_size, or set data.channels and data.image_size"
        raise ConfigError(
            f"model.name: {name} fails on a batch of images {shape}{mode} ({describe_failure(error)}); "
            + ("correct it" if model.training or not isinstance(error, RuntimeError) else f"correct it, or {fits}")
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
