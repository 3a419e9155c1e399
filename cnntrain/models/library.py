"""torchvision's classification networks by name, fitted to the classes, channels and image size of the data."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from cnntrain.errors import ConfigError
from cnntrain.faults import hint, nearest, unknown_argument
from cnntrain.settings.model import Stem
from cnntrain.settings.nets import OWN_NETS

SMALL_IMAGE = 64  # pixels; below, a 7x7/2 convolution and a max-pool throw most of the image away
ROOMY = 448  # pixels; patches of 14, 16 and 32 and windows of 7 fit: what fails here fails at every size

# Auxiliary heads give a tuple in training mode; an unset init_weights only warns about its default.
_INCEPTION = {"aux_logits": False, "init_weights": True}
_PRESETS: dict[str, dict[str, Any]] = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}
_SIZE_FAULTS = (RuntimeError, ValueError, AssertionError)


def build_library(
    name: str, args: dict[str, Any], stem: Stem, *, classes: int, channels: int, image_size: int
) -> tuple[nn.Module, list[str]]:
    """torchvision's network `name` with random weights, and a line on each thing changed.

    Images below 64 pixels get a small stem (`stem=auto`): the 7x7/2 convolution becomes 3x3/1 and the max-pool goes, as
    in the CIFAR nets of arXiv 1512.03385, section 4.2. A network without such a stem stays as it is.
    """
    recipe = _Recipe(name, args, stem, classes, channels)
    try:
        model, notes = recipe.build(image_size)
        recipe.try_out(model, image_size)
    except _SIZE_FAULTS as error:
        larger = recipe.next_size(image_size)
        if larger is None:
            raise ConfigError(f"model.args: {name} with {args} fails ({_brief(error)}); correct model.args") from error
        raise ConfigError(
            f"data.image_size: {image_size} does not suit {name} ({_brief(error)}), the next larger size that does is "
            f"{larger}; set data.image_size={larger} or choose another model"
        ) from error
    return model, notes


@dataclass
class _Recipe:
    """How to build one network of torchvision, at any image size."""

    name: str
    args: dict[str, Any]
    stem: Stem
    classes: int
    channels: int

    def __post_init__(self) -> None:
        self.builder = _find(self.name)
        known = _arguments(self.builder)
        for key, value in self.args.items():
            if key not in known:
                raise ConfigError(unknown_argument(self.name, key, value, known))
        self.size_key = next((key for key in ("image_size", "input_size") if key in known), None)

    def build(self, size: int) -> tuple[nn.Module, list[str]]:
        """The network, made to fit, and a line on each change."""
        given = _PRESETS.get(self.name, {}) | self.args | {"num_classes": self.classes}
        if self.size_key and self.size_key not in self.args:
            given[self.size_key] = size if self.size_key == "image_size" else (size, size)
        try:
            model = self.builder(weights=None, **given)
        except NotImplementedError:  # RegNet computes its widths with tensors, which the meta device cannot
            with torch.device("cpu"):
                model = self.builder(weights=None, **given).to("meta")
        except TypeError as error:
            raise ConfigError(
                f"model.args: {self.name} refuses {self.args} ({_brief(error)}); correct model.args"
            ) from error
        notes = [_small_stem(model, size)] if self._wants_small_stem(model, size) else []
        if self.channels != 3:
            _set_channels(model, self.channels)
            notes.append(f"first convolution for {self.channels}-channel images in place of 3")
        return model, notes

    def try_out(self, model: nn.Module, size: int) -> None:
        """Send the shapes of two images through the network, on the meta device: no arithmetic, nothing changes."""
        state = {key: value.to("meta") for key, value in [*model.named_parameters(), *model.named_buffers()]}
        with torch.no_grad():
            logits = functional_call(model, state, (torch.empty(2, self.channels, size, size, device="meta"),))
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if given != (2, self.classes):
            raise ConfigError(
                f"model.args: {self.name} gives {given} instead of {(2, self.classes)} logits; correct model.args"
            )

    def next_size(self, size: int) -> int | None:
        """The smallest image size above `size` that works; None where no size would help."""
        model = None

        def works(side: int) -> bool:
            nonlocal model
            try:
                if model is None or self.size_key:  # most networks are the same at any size
                    model, _ = self.build(side if self.size_key else size)
                self.try_out(model, side)
            except _SIZE_FAULTS:
                return False
            return True

        with torch.device("meta"):
            if not works(ROOMY):
                return None
            return next((side for side in range(size + 1, ROOMY) if works(side)), ROOMY)

    def _wants_small_stem(self, model: nn.Module, size: int) -> bool:
        if self.stem is Stem.imagenet or (self.stem is Stem.auto and size >= SMALL_IMAGE):
            return False
        *_, convolution = _first(model, nn.Conv2d)
        suited = convolution.kernel_size == (7, 7) and convolution.stride == (2, 2)
        if self.stem is Stem.small and not suited:
            raise ConfigError(
                f"model.stem: small replaces a 7x7/2 convolution, and {self.name} has none; use model.stem=auto"
            )
        return suited


def _find(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    names = models.list_models(module=models)
    if name in names:
        return models.get_model_builder(name)
    if "." in name:
        module, _, function = name.rpartition(".")
        raise ConfigError(f"model.name: {name!r} is not known; write a function of your own as {module}:{function}")
    advice = hint(nearest(name, [*OWN_NETS, *names]), "`cnntrain models` lists the names")
    raise ConfigError(f"model.name: {name!r} is not known{advice}")


def _arguments(builder: Callable[..., nn.Module]) -> list[str]:
    """The arguments that a config file can hold: neither classes and functions nor the number of classes."""
    parameters = inspect.signature(inspect.signature(builder).return_annotation).parameters.values()
    kinds = ("Callable", "Module", "type[")
    plain = [item for item in parameters if not any(kind in str(item.annotation) for kind in kinds)]
    return [item.name for item in plain if item.kind is not item.VAR_KEYWORD and item.name != "num_classes"]


def _first(model: nn.Module, kind: type[nn.Module]) -> tuple[nn.Module, str, Any]:
    """The first layer of a kind, with the module that holds it and its name there."""
    path, layer = next((path, layer) for path, layer in model.named_modules() if isinstance(layer, kind))
    parent, _, key = path.rpartition(".")
    return model.get_submodule(parent), key, layer


def _small_stem(model: nn.Module, size: int) -> str:
    parent, key, old = _first(model, nn.Conv2d)
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's ResNet does
    setattr(parent, key, new)
    parent, key, _ = _first(model, nn.MaxPool2d)
    setattr(parent, key, nn.Identity())
    return (
        f"small stem for {size}-pixel images: 3x3/1 convolution, no max-pool (model.stem=imagenet keeps the original)"
    )


def _set_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for `channels` channels, with random weights of the same spread."""
    parent, key, old = _first(model, nn.Conv2d)
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, bias=old.bias is not None
    )
    with torch.no_grad():
        new.weight.normal_().mul_(old.weight.std())
        if old.bias is not None:
            new.bias = old.bias
    setattr(parent, key, new)


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
