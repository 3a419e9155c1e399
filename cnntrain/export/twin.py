"""The same network outside of cnntrain: the lines of Python by which a library, or the user's code, makes it."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from cnntrain.config.schema.model import Library, ModelSettings
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.models.build import own_arguments
from cnntrain.models.libraries import ALIASES, LibraryNetwork, set_channels
from cnntrain.models.weights.load import ENLARGED
from cnntrain.models.zoo.build import build_own
from cnntrain.registry import check_arguments, import_function
from cnntrain.training.job import Job

_PLAIN = (bool, int, float, str, type(None))
_CHANGED = ("stride", "padding", "dilation", "ceil_mode", "p", "drop_prob")  # what of a layer leaves its weights alone
_EFFICIENTNETS = [f"efficientnet_b{number}" for number in range(8)]  # ours is torchvision's, of any size


class NoTwin(Exception):
    """A part that no line of Python outside of cnntrain makes; the message names it."""


@dataclass
class Twin:
    """A network as it comes, and what is to be changed of it.

    Attributes:
        library: where it is from, such as timm.
        imports: the lines that its call needs.
        call: the expression that makes it.
        make: does that.
        edits: lines that change it before its weights are loaded, each with what does so.
        enlarged: pixels a side to which its images are brought; None: none.
    """

    library: str
    imports: tuple[str, ...]
    call: str
    make: Callable[[], nn.Module]
    edits: list[tuple[str, Callable[[nn.Module], None]]] = field(default_factory=list)
    enlarged: int | None = None

    @property
    def lines(self) -> list[str]:
        """What makes `network`, without its weights."""
        return [f"network = {self.call}", *(line for line, _ in self.edits)]

    @property
    def all_imports(self) -> list[str]:
        """The lines that all of this needs, but for torch."""
        text = " ".join([*self.lines, self.last_line])
        more = ["from collections import OrderedDict"] * ("OrderedDict(" in text) + ["from torch import nn"] * (
            " nn." in text
        )
        return [*more, *self.imports]

    @property
    def last_line(self) -> str:
        """What follows the loading of the weights; empty where nothing does."""
        if self.enlarged is None:
            return ""
        return (
            f'network = nn.Sequential(nn.Upsample(size=({self.enlarged}, {self.enlarged}), mode="bilinear"), network)'
        )

    def build(self, core: nn.Module) -> nn.Module:
        """The network with the edits that make it like `core`; these are kept.

        Raises:
            NoTwin: a layer of `core` is made nowhere else.
        """
        network = self.make()
        self.edits = list(_edits(core, network, ""))
        for _, apply in self.edits:
            apply(network)
        return network.eval()

    def finish(self, network: nn.Module) -> nn.Module:
        """Do what `last_line` says."""
        if self.enlarged is None:
            return network
        return nn.Sequential(nn.Upsample(size=(self.enlarged, self.enlarged), mode="bilinear"), network)


def core_of(job: Job) -> tuple[nn.Module, int | None]:
    """The network inside of what enlarges its images, and to how many pixels; see models/small_images/fit.py."""
    model: Any = job.model
    if [name for name, _ in model.named_children()] == ["enlarge", ENLARGED.rstrip(".")]:
        return model.net, int(model.enlarge.size[0])
    return model, None


def find_twin(job: Job) -> Twin:
    """The twin of a network of timm, of torchvision, of ours or of the user's, before its edits."""
    settings, (core, enlarged) = job.settings.model, core_of(job)
    size = enlarged or job.data.image_size
    entry = settings.entry
    if entry is NETWORKS.user:
        twin = _of_user(settings, job, size)
    elif entry is None:
        twin = _of_library(settings, job, size)
    else:
        published = _of_torchvision_efficientnet(core, job) if entry.name == "efficientnet" else None
        twin = published or _of_ours(settings, job, size)
    twin.enlarged = enlarged
    return twin


# --- where it comes from ---------------------------------------------------------------------------------------------


def _of_library(settings: ModelSettings, job: Job, size: int) -> Twin:
    network = LibraryNetwork(settings.name, settings.library)
    args = network.with_drops(settings)[0]
    given = network.builder_arguments(
        args,
        classes=len(job.data.classes),
        channels=job.data.channels,
        image_size=size,
        aux=settings.aux_weight > 0,
    )
    if "init_weights" in given:
        given["init_weights"] = False  # which others stand in for
    if given.get("in_chans") == 3:
        del given["in_chans"]
    words = "".join(f", {key}={value!r}" for key, value in given.items())
    if network.library is Library.torchvision:
        from torchvision.models import get_model

        call = f'torchvision.models.get_model("{settings.name}"{words})'
        return Twin("torchvision", ("import torchvision",), call, lambda: get_model(settings.name, **given))
    import timm

    name = ALIASES.get(settings.name, settings.name)
    return Twin(
        "timm", ("import timm",), f'timm.create_model("{name}"{words})', lambda: timm.create_model(name, **given)
    )


def _of_torchvision_efficientnet(core: nn.Module, job: Job) -> Twin | None:
    """The published one that has the same tensors; None where the compound coefficient is of the user's choice."""
    from torchvision.models import get_model

    classes = len(job.data.classes)
    shapes = {key: value.shape for key, value in core.state_dict().items()}
    for name in _EFFICIENTNETS:
        with torch.device("meta"):
            model = get_model(name, num_classes=classes)
            if job.data.channels != 3:
                set_channels(model, job.data.channels)
        if {key: value.shape for key, value in model.state_dict().items()} == shapes:
            call = f'torchvision.models.get_model("{name}", num_classes={classes})'
            return Twin("torchvision", ("import torchvision",), call, partial(get_model, name, num_classes=classes))
    return None


def _of_ours(settings: ModelSettings, job: Job, size: int) -> Twin:
    assert settings.entry
    args = own_arguments(settings.entry, settings)
    sizes: dict[str, Any] = {"classes": len(job.data.classes), "channels": job.data.channels, "image_size": size}
    if settings.aux_weight > 0:
        sizes["aux"] = True
    words = "".join(f", {key}={value!r}" for key, value in sizes.items())
    return Twin(
        "cnntrain",
        ("from cnntrain.models.zoo.build import build_own",),
        f'build_own("{settings.name}", {args!r}{words})',
        lambda: build_own(settings.name, args, **sizes),
    )


def _of_user(settings: ModelSettings, job: Job, size: int) -> Twin:
    module, _, name = settings.name.partition(":")
    function = import_function("model", settings.name)
    offered = {"num_classes": len(job.data.classes), "in_channels": job.data.channels, "image_size": size}
    known = check_arguments("model", settings.name, function, settings.args)
    given = {key: value for key, value in offered.items() if known is None or key in known} | settings.args
    words = ", ".join(f"{key}={value!r}" for key, value in given.items())
    return Twin(module, (f"from {module} import {name}",), f"{name}({words})", lambda: function(**given))


# --- what is to be changed -------------------------------------------------------------------------------------------


def _edits(ours: nn.Module, theirs: nn.Module, path: str) -> Iterator[tuple[str, Callable[[nn.Module], None]]]:
    """The lines that make of one network the other."""
    children = dict(ours.named_children())
    if type(ours) is not type(theirs) or list(children) != [name for name, _ in theirs.named_children()]:
        yield _replace(ours, path)
    elif ours.extra_repr() != theirs.extra_repr():
        yield from _change(ours, theirs, path)
    else:
        others = dict(theirs.named_children())
        for name, child in children.items():
            yield from _edits(child, others[name], f"{path}.{name}".lstrip("."))


def _change(ours: nn.Module, theirs: nn.Module, path: str) -> Iterator[tuple[str, Callable[[nn.Module], None]]]:
    """A line for each attribute that differs; where the weights have other shapes, one for a new layer."""
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (ours, theirs)]
    names = [name for name in _CHANGED if getattr(ours, name, None) != getattr(theirs, name, None)]
    if shapes[0] != shapes[1] or not names:
        yield _replace(ours, path)
        return
    for name in names:
        value = getattr(ours, name)

        def apply(network: nn.Module, name: str = name, value: Any = value) -> None:
            setattr(network.get_submodule(path), name, value)

        yield f"{_place(path, theirs)}.{name} = {_literal(value)}", apply


def _replace(module: nn.Module, path: str) -> tuple[str, Callable[[nn.Module], None]]:
    text, make = _expression(module)
    if not path:
        raise NoTwin(f"{type(module).__name__} is of another make")

    def apply(network: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, make())

    return f"{_place(path, module)} = {text}", apply


def _place(path: str, module: nn.Module) -> str:
    """`network.features[0].conv`."""
    return "network" + "".join(f"[{name}]" if name.isdecimal() else f".{name}" for name in path.split("."))


def _expression(module: nn.Module) -> tuple[str, Callable[[], nn.Module]]:
    """The call that makes a module of torch.nn anew, in words and as a function."""
    if isinstance(module, nn.Sequential):
        parts = {name: _expression(child) for name, child in module.named_children()}
        if list(parts) == [str(number) for number in range(len(parts))]:
            text = ", ".join(part for part, _ in parts.values())
        else:
            text = "OrderedDict(" + ", ".join(f"{name}={part}" for name, (part, _) in parts.items()) + ")"
        return f"nn.Sequential({text})", lambda: nn.Sequential(
            OrderedDict((name, make()) for name, (_, make) in parts.items())
        )
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        raise NoTwin(f"{kind.__name__} is no layer of torch.nn")
    needed, given = [], {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in ("device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(module, name)
        if isinstance(value, torch.Tensor) or (name == "bias" and value is None):
            value = value is not None
        if parameter.default is parameter.empty:
            needed.append(value)
        elif value not in (parameter.default, (parameter.default,) * 2):
            given[name] = value
    words = [*map(_literal, needed), *(f"{name}={_literal(value)}" for name, value in given.items())]
    return f"nn.{kind.__name__}({', '.join(words)})", lambda: kind(*needed, **given)


def _literal(value: Any) -> str:
    """A value as Python writes it; of nothing else than numbers, texts and tuples of them."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(type(part) in _PLAIN for part in parts):
        raise NoTwin(f"{type(value).__name__} cannot be written down")
    return repr(value)
