"""The networks: our own, torchvision's and timm's by name, and the user's by `pkg.module:function`.

Every network maps float (N, channels, S, S) to logits (N, classes); with auxiliary classifiers it gives a tuple in
training mode, (logits, auxiliary logits, ...).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import unknown_arguments
from cnntrain.config.schema.model import DROPS, ModelSettings
from cnntrain.config.schema.networks import NETWORKS, NetworkEntry
from cnntrain.errors import ConfigError, ResourceError
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.text import one_line

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Recipe:
    """How to make a network.

    Attributes:
        make: from an image size to the network, with the right classes and channels.
        native: the image size that it was made for.
        sized: whether it is built for one image size.
        notes: a line on each thing changed.
    """

    make: Callable[[int], "nn.Module"]
    native: int
    sized: bool = False
    notes: list[str] = field(default_factory=list)


def build_model(
    settings: ModelSettings, *, classes: int, channels: int, image_size: int, head: str | None = None
) -> tuple["nn.Module", list[str]]:
    """The network of `settings` for `classes` classes of square images, and a line on each thing changed for them.

    Weights are drawn from torch's global generator. Inside `with torch.device("meta")` only shapes are made.

    Args:
        head: a pattern of the module that makes the logits, which `settings.head` may replace; None: found by rule.

    Raises:
        ConfigError: an unknown name or argument, a setting that the network has no place for, or images too small.
        ResourceError: it does not fit into memory.
    """
    try:
        model, notes = _build(settings, classes=classes, channels=channels, image_size=image_size)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise ResourceError("model: the network needs more memory than there is; make it smaller") from error
        raise
    from cnntrain.models.head import replace_head

    replace_head(model, settings.head, classes, head)
    return model, notes


def _build(settings: ModelSettings, *, classes: int, channels: int, image_size: int) -> tuple["nn.Module", list[str]]:
    """The network with the head of its authors."""
    sizes = {"classes": classes, "channels": channels}
    entry = settings.entry
    if entry is NETWORKS.user:
        _refuse_faults(settings)
        return entry.build(settings.name, settings.args, image_size=image_size, **sizes), []
    recipe = _own(entry, settings, **sizes) if entry else _library(settings, **sizes)
    if entry and entry.is_sized:
        return recipe.make(image_size), recipe.notes
    from cnntrain.models.small_images.fit import Fitter

    fitter = Fitter(
        settings.name, settings.stem, recipe.make, recipe.native, recipe.sized, classes, channels, image_size
    )
    model, changes = fitter.fit()
    return model, recipe.notes + changes


def _refuse_faults(settings: ModelSettings) -> None:
    wrong = [f"model.{key}: must be {rule} (given {value})" for key, value, rule in settings.faults()]
    if found := unknown_arguments(settings) + wrong:
        raise ConfigErrors(found)


def _own(entry: NetworkEntry, settings: ModelSettings, *, classes: int, channels: int) -> Recipe:
    _refuse_faults(settings)
    takes_norm = settings.norm is not None and "norm" in {item.name for item in fields(entry.settings)}
    settings = replace(settings, args=own_arguments(entry, settings))
    _refuse_faults(settings)
    from cnntrain.models.zoo.build import build_own

    def make(image_size: int) -> "nn.Module":
        sizes = {"classes": classes, "channels": channels, "image_size": image_size}
        try:
            model = build_own(settings.name, settings.args, **sizes, aux=settings.aux_weight > 0)
        except (RuntimeError, TypeError) as error:
            if "verflow" not in str(error):
                raise
            raise ConfigError(
                f"model.args: {settings.name} is too large for any machine ({one_line(error)}); correct model.args"
            ) from error
        return model if takes_norm else _with_norm(model, settings)

    return Recipe(make, entry.image_size)


def own_arguments(entry: NetworkEntry, settings: ModelSettings) -> dict[str, Any]:
    """The arguments of a network of ours: model.args, and those of the other settings that it has a place for."""
    given = {key: getattr(settings, key) for key in DROPS if getattr(settings, key) is not None}
    if settings.norm is not None and "norm" in {item.name for item in fields(entry.settings)}:
        given["norm"] = settings.norm.name
    return settings.args | given


def _library(settings: ModelSettings, *, classes: int, channels: int) -> Recipe:
    from cnntrain.models.libraries import LibraryNetwork, set_dropout

    network = LibraryNetwork(settings.name, settings.library)
    network.check(settings.args)
    aux = settings.aux_weight > 0
    if aux and not network.has_auxiliary:
        raise ConfigError(
            f"model.aux_weight: {settings.name} of {network.library.name} has no auxiliary classifiers to train (given "
            f"{settings.aux_weight}); set model.aux_weight=0 or choose a network that has them: inception_v1, or "
            "torchvision's googlenet or inception_v3"
        )
    args, has_place = network.with_drops(settings)
    notes = [f"first convolution for {channels}-channel images in place of 3"] if channels != 3 else []

    def make(image_size: int) -> "nn.Module":
        model = network.build(args, classes=classes, channels=channels, image_size=image_size, aux=aux)
        if settings.dropout is not None and not has_place:
            set_dropout(model, settings.dropout)
        return _with_norm(model, settings)

    return Recipe(make, network.native, network.size_key is not None, notes)


def _with_norm(model: "nn.Module", settings: ModelSettings) -> "nn.Module":
    from cnntrain.models.norms import replace_norms

    if settings.norm is not None and not replace_norms(model, settings.norm):
        raise ConfigError(
            f"model.norm: {settings.name} has no batch norm to replace (given {settings.norm.name}); "
            "set model.norm=null"
        )
    return model
