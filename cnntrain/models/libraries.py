"""The networks of torchvision and timm by name, with random weights, for any number of classes and channels."""

import contextlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from cnntrain.config.schema.model import DROPS, Library, ModelSettings
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.errors import ConfigError
from cnntrain.registry import unknown_argument
from cnntrain.text import hint, nearest, one_line

ALIASES = {"xception": "legacy_xception", "nasnet": "nasnetalarge", "mobilenet_v1": "mobilenetv1_100"}  # timm's names
_DROP_ARGUMENTS = {
    Library.torchvision: {"dropout": "dropout", "drop_path": "stochastic_depth_prob"},
    Library.timm: {"dropout": "drop_rate", "drop_path": "drop_path_rate", "drop_block": "drop_block_rate"},
}
_SIZES = ("image_size", "input_size", "img_size")
# What build() gives itself, and what no config file can hold.
_RESERVED = {"self", "weights", "progress", "pretrained", "num_classes", "in_chans", "aux_logits", "device", "dtype"}


class LibraryNetwork:
    """One network of a library.

    Attributes:
        name: as the user wrote it.
        arguments: what model.args can hold.
        native: the image size that it was made for.
        size_key: the argument for the image size, of networks that are built for one; else None.
        has_auxiliary: whether it has auxiliary classifiers.

    Raises:
        ConfigError: neither library has the name, or not the one that was asked for.
    """

    def __init__(self, name: str, library: Library) -> None:
        self.name = name
        self.library = library_of(name, library)
        if self.library is Library.torchvision:
            from torchvision import models

            self.native = 299 if name == "inception_v3" else 224
            self._builder: Callable[..., nn.Module] = models.get_model_builder(name)
            known = _signature(inspect.signature(self._builder).return_annotation)
        else:
            import timm

            self._builder = partial(timm.create_model, ALIASES.get(name, name))
            blank = self._blank()
            self.native = blank.default_cfg["input_size"][-1]
            known = _signature(type(blank))
        # timm's Inception-v3 gives their logits in evaluation too, where a network must give one answer.
        self.has_auxiliary = "aux_logits" in known and self.library is Library.torchvision
        self.takes_init = "init_weights" in known and self.library is Library.torchvision
        self.arguments = [key for key in known if key not in _RESERVED]
        self.size_key = next((key for key in _SIZES if key in known), None)

    def with_drops(self, settings: ModelSettings) -> tuple[dict[str, Any], bool]:
        """model.args with the arguments that mean model.dropout, drop_path and drop_block; whether dropout is there.

        Raises:
            ConfigError: stochastic depth or DropBlock for a network that has no argument for it.
        """
        args, places = dict(settings.args), self.drop_arguments()
        for setting in DROPS:
            rate = getattr(settings, setting)
            if rate is None:
                continue
            if setting in places:
                args[places[setting]] = rate
            elif setting != "dropout":
                raise ConfigError(self._no_place(setting, rate, settings.library))
        return args, "dropout" in places

    def drop_arguments(self) -> dict[str, str]:
        """The arguments that mean model.dropout, drop_path and drop_block, of those that it has."""
        known = _DROP_ARGUMENTS[self.library]
        return {setting: argument for setting, argument in known.items() if argument in self.arguments}

    def _blank(self) -> Any:
        """The network without arguments, on the meta device."""
        try:
            with torch.device("meta"):
                return self._builder()
        except RuntimeError as error:
            raise ConfigError(
                f"model.name: {self.name!r} ({one_line(error)}); leave out what follows the dot"
            ) from error

    def _no_place(self, setting: str, rate: float, asked: Library) -> str:
        advice = f"set model.{setting}=null"
        if asked is Library.auto and self.library is Library.torchvision:
            with contextlib.suppress(ConfigError):
                if setting in LibraryNetwork(self.name, Library.timm).drop_arguments():
                    advice = f"timm's takes it: model=timm model.name={self.name}"
        has = ", ".join(dict.fromkeys(["dropout", *self.drop_arguments()]))
        return f"model.{setting}: {self.name} of {self.library.name} takes {has} only (given {rate}); {advice}"

    def build(self, args: dict[str, Any], *, classes: int, channels: int, image_size: int, aux: bool) -> nn.Module:
        """Float (N, channels, S, S) to logits (N, classes), or with `aux` in training mode a tuple, the logits first.

        Raises:
            ConfigError: an argument that it does not take.
            RuntimeError, ValueError, AssertionError: an image size that it cannot be built for.
        """
        given = self.builder_arguments(args, classes=classes, channels=channels, image_size=image_size, aux=aux)
        try:
            model = self._call(given)
        except (TypeError, AttributeError, KeyError, ArithmeticError) as error:
            twice = "multiple values" in str(error)  # the network's function hands it to its class itself
            advice = "leave out what it sets itself" if twice else "correct model.args"
            raise ConfigError(f"model.args: {self.name} refuses {args} ({one_line(error)}); {advice}") from error
        if channels != 3 and self.library is Library.torchvision:
            set_channels(model, channels)
        return model

    def builder_arguments(
        self, args: dict[str, Any], *, classes: int, channels: int, image_size: int, aux: bool
    ) -> dict[str, Any]:
        """What the library's own function is given, see build."""
        given = {**args, "num_classes": classes}
        if self.size_key and self.size_key not in args:
            given[self.size_key] = (image_size, image_size) if self.size_key == "input_size" else image_size
        if self.has_auxiliary:
            given["aux_logits"] = aux
        if self.library is Library.timm:
            given["in_chans"] = channels
        if self.takes_init:
            given["init_weights"] = True  # left unset, it warns about its default
        return given

    def check(self, args: dict[str, Any]) -> None:
        """Refuse arguments that the network does not have."""
        for key, value in args.items():
            if key == "aux_logits" and self.has_auxiliary:
                raise ConfigError(
                    f"model.args.aux_logits: follows model.aux_weight (given {value}); set model.aux_weight=0.3 for "
                    "auxiliary classifiers and 0 for none"
                )
            if key not in self.arguments:
                raise ConfigError(unknown_argument(self.name, key, value, self.arguments))

    def _call(self, given: dict[str, Any]) -> nn.Module:
        try:
            return self._builder(**given)
        except NotImplementedError:  # RegNet computes its widths with tensors, which the meta device cannot
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                return self._builder(**given).to("meta")


def set_channels(model: nn.Module, channels: int) -> None:
    """Let the first convolution take images of `channels` channels in place of 3, in place.

    For one channel its kernel is summed over the three: a grey image gives what it gave as three equal channels, and
    random weights keep the spread of the output (He's rule, arXiv 1502.01852). Above three, the channels share the
    three kernels in turn, divided by how many share one.
    """
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == 3)
    shares = torch.zeros(channels, 3, device=first.weight.device, dtype=first.weight.dtype)
    for index in range(max(channels, 3)):
        shares[index % channels, index % 3] = 1
    with torch.no_grad():
        first.weight = nn.Parameter(torch.einsum("oihw,ci->ochw", first.weight, shares / shares.sum(0)))
    first.in_channels = channels


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set the rate of a network's dropouts, or put one before its last linear layer, in place."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.p = rate
    if not layers:
        path, last = [item for item in model.named_modules() if isinstance(item[1], nn.Linear)][-1]
        parent, _, key = path.rpartition(".")
        setattr(model.get_submodule(parent), key, nn.Sequential(nn.Dropout(rate), last))


def library_of(name: str, library: Library) -> Library:
    """The library that has the network of a name; ConfigError where none has, with the nearest name."""
    from torchvision import models

    names = models.list_models(module=models)
    if name in names and library is not Library.timm:
        return Library.torchvision
    if library is Library.torchvision:
        raise ConfigError(_unknown(name, "torchvision has no such network", names, []))
    import timm

    more = [*ALIASES, *timm.list_models()]
    if name in ALIASES or timm.is_model(name):
        return Library.timm
    if library is Library.timm:
        raise ConfigError(_unknown(name, "timm has no such network", more, []))
    raise ConfigError(_unknown(name, "not known", [*NETWORKS, *names], more))


def _unknown(name: str, what: str, names: list[str], more: list[str]) -> str:
    module, _, function = name.rpartition(".")
    if module and module not in (*names, *more):
        return f"model.name: {name!r}: {what}; write a function of your own as {module}:{function}"
    meant = nearest(name, names, cutoff=0.75) or nearest(name, [*names, *more])
    return f"model.name: {name!r}: {what}" + hint(meant, "`cnntrain models` lists the names")


def _signature(kind: type) -> list[str]:
    """The arguments of a class that a config file can hold: neither classes nor functions."""
    found: dict[str, inspect.Parameter] = {}
    for owner in kind.__mro__:
        own = inspect.signature(owner).parameters
        found = {**own, **found}
        if not any(item.kind is item.VAR_KEYWORD for item in own.values()):
            break
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [key for key, item in found.items() if item.kind not in kinds and _is_plain(str(item.annotation))]


def _is_plain(annotation: str) -> bool:
    return "str" in annotation or not any(kind in annotation for kind in ("Callable", "Module", "type[", "Type["))
