"""The head of a network, the module that makes the logits: where it is, and what can stand in its place."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain.config.schema.model import HeadInit, HeadSettings, Pool
from cnntrain.errors import ConfigError
from cnntrain.models.layers import GlobalMaxPool2d, activation, largest
from cnntrain.models.name_patterns import require

_NAMES = ("fc", "classifier", "head", "heads")  # what torchvision calls it, most of timm, and we
_AUXILIARY = "aux"  # how the names of classifiers on the way begin
_LISTS = (nn.ModuleList, nn.ModuleDict)
_GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class Head(nn.Sequential):
    """[DROP -> FC -> ACT] * hidden layers -> DROP -> FC in place of one linear layer, or of one 1x1 convolution."""


class AvgMaxPool2d(nn.Module):
    """The mean of average and largest value of each map: (N, C, H, W) to (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3), keepdim=True) + largest(x)) / 2


def find_head(model: nn.Module, pattern: str | None = None) -> str:
    """The path of the module that makes the logits.

    By rule it is, in this order: a `Head`; what timm calls the classifier, and in it the layer that gives the classes;
    the last linear layer or convolution of an attribute fc, classifier, head or heads, unless it feeds the last one of
    the network; the last one of the network. Of heads side by side, whose logits are averaged, it is the first.

    Args:
        pattern: of names of modules, in place of the rule; it may take in several layers, such as VGG's `classifier`.

    Raises:
        ConfigError: the pattern matches no module or more than one, or there is no such layer.
    """
    return head_paths(model, pattern)[0]


def head_paths(model: nn.Module, pattern: str | None = None) -> list[str]:
    """All modules whose outputs are logits: heads, the first of which find_head names, and last auxiliary layers."""
    heads = _heads(model) if pattern is None else [_match_one(model, pattern)]
    return heads + [layers[-1] for path in auxiliary_paths(model) if (layers := _layers(model, path))]


def auxiliary_paths(model: nn.Module) -> list[str]:
    """The classifiers on the way, each with all its layers: torchvision's aux1, aux2, AuxLogits, and ours."""
    path, core = unwrap(model)
    paths = []
    for name, child in core.named_children():
        if name.lower().startswith(_AUXILIARY):
            parts = [key for key, _ in child.named_children()] if isinstance(child, _LISTS) else [""]
            paths += [_join(path, name, part) for part in parts]
    return paths


def unwrap(model: nn.Module) -> tuple[str, nn.Module]:
    """The network inside of what only wraps it, such as one that enlarges the images, and its path."""
    path = ""
    while True:
        inner = [(name, child) for name, child in model.named_children() if next(child.parameters(), None) is not None]
        alone = len(inner) == 1 and not model._parameters and next(inner[0][1].children(), None) is not None
        if not alone or hasattr(model, "get_classifier"):
            return path, model
        path, model = _join(path, inner[0][0]), inner[0][1]


def replace_head(model: nn.Module, settings: HeadSettings, classes: int, pattern: str | None = None) -> None:
    """Put the head that the settings describe in the place of the network's own, in place; by default nothing changes.

    Its layers are named `fc1`, `fc2`, ... below the path of the old head. Heads side by side are replaced alike;
    auxiliary classifiers stay.

    Args:
        pattern: as for find_head; of several layers that it takes in, the last one is replaced.

    Raises:
        ConfigError: the network has no layer, or no pooling layer, that could be replaced.
    """
    if settings == HeadSettings():
        return
    paths = _heads(model) if pattern is None else _layers(model, _match_one(model, pattern))[-1:]
    if not paths:
        raise ConfigError(
            f"model.head: {pattern}, the head by finetune.head, has no linear layer and no convolution that could be "
            "replaced or filled with zeros; leave out model.head, and set model.head.init=default"
        )
    if settings.hidden or settings.dropout:
        for path in paths:
            _set(model, path, _made(model, path, settings, classes))
    if settings.pool is not None:
        _set_pool(model, paths[0], settings.pool)
    if settings.init is HeadInit.zero:
        for path in paths:
            _zero(model.get_submodule(path))


# --- where it is -----------------------------------------------------------------------------------------------------


def _heads(model: nn.Module) -> list[str]:
    """By rule: one path, or several whose logits are averaged."""
    if made := [path for path, module in model.named_modules() if isinstance(module, Head)]:
        return made
    root, core = unwrap(model)
    if hasattr(core, "get_classifier"):
        return _timm_heads(model, core)
    side = tuple(f"{path}." for path in auxiliary_paths(model))
    layers = [path for path in _layers(model, root) if not path.startswith(side)]
    if not layers:
        raise ConfigError(
            f"finetune.head: {type(core).__name__} has no linear layer and no convolution for a head; name the module "
            "that makes the logits, finetune.head=NAME"
        )
    below = len(root) + 1 if root else 0
    with_usual_name = [path for path in layers if path[below:].partition(".")[0] in _NAMES]
    if with_usual_name and _sizes(model, with_usual_name[-1])[1] != _sizes(model, layers[-1])[0]:
        return with_usual_name[-1:]
    return layers[-1:]


def _timm_heads(model: nn.Module, core: Any) -> list[str]:
    classifier = core.get_classifier()
    parts = classifier if isinstance(classifier, (tuple, list, nn.ModuleList)) else (classifier,)
    paths = {id(module): path for path, module in model.named_modules()}
    heads = []
    for part in parts:
        layers = _layers(model, paths[id(part)])
        heads += [path for path in layers if _sizes(model, path)[1] == core.num_classes] or layers[-1:]
    if not heads:
        raise ConfigError(
            f"finetune.head: the classifier of {type(core).__name__} has no linear layer; name the module that makes "
            "the logits, finetune.head=NAME"
        )
    return heads


def _layers(model: nn.Module, root: str) -> list[str]:
    """Linear layers and convolutions at or below a path, in module order."""
    below = model.get_submodule(root).named_modules()
    return [_join(root, path) for path, layer in below if isinstance(layer, (nn.Linear, nn.Conv2d))]


def _sizes(model: nn.Module, path: str) -> tuple[int, int]:
    """Features that enter and leave a layer."""
    layer: Any = model.get_submodule(path)
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _match_one(model: nn.Module, pattern: str) -> str:
    names = [path for path, _ in model.named_modules() if path]
    matched = require("finetune.head", [pattern], names, "module")
    outer = [path for path in names if path in matched and path.rpartition(".")[0] not in matched]
    if len(outer) > 1:
        some = ", ".join(outer[:3]) + (", ..." if len(outer) > 3 else "")
        raise ConfigError(
            f"finetune.head: {pattern!r} matches {len(outer)} modules ({some}); name the one that makes the logits"
        )
    if next(model.get_submodule(outer[0]).parameters(), None) is None:
        raise ConfigError(f"finetune.head: {outer[0]} has no parameters to learn; name the layer that makes the logits")
    return outer[0]


# --- what stands in its place ----------------------------------------------------------------------------------------


def _made(model: nn.Module, path: str, settings: HeadSettings, classes: int) -> Head:
    old: Any = model.get_submodule(path)
    entering, leaving = _sizes(model, path)
    plain = isinstance(old, nn.Linear) or max(old.kernel_size) == old.groups == 1
    if leaving != classes or not plain:
        what = f"gives {leaving} values and not the {classes} classes" if plain else "is a convolution above 1x1"
        raise ConfigError(
            f"model.head: {path}, taken for the head of {type(unwrap(model)[1]).__name__}, {what}; name the head by "
            "finetune.head, or leave out model.head and build such a head in the network's own code"
        )
    widths = [entering, *settings.hidden, classes]
    head = Head()
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        last = number == len(widths) - 1
        if settings.dropout:
            head.add_module(f"drop{number}", nn.Dropout(settings.dropout))
        head.add_module(f"fc{number}", _layer_like(old, before, after, bias=not last or old.bias is not None))
        if not last:
            head.add_module(f"act{number}", activation(settings.activation))
    return head


def _layer_like(old: Any, entering: int, leaving: int, *, bias: bool) -> nn.Module:
    same: dict[str, Any] = {"bias": bias, "device": old.weight.device, "dtype": old.weight.dtype}
    if isinstance(old, nn.Linear):
        return nn.Linear(entering, leaving, **same)
    return nn.Conv2d(entering, leaving, 1, **same)


def _set_pool(model: nn.Module, head: str, pool: Pool) -> None:
    """Replace the last global pool among the modules beside the head and beside what holds it.

    Those elsewhere are parts of the encoder, such as the pools of squeeze and excitation.
    """
    around = {head[:end] for end, letter in enumerate(head) if letter == "."} | {""}
    beside = [
        (path, layer)
        for path, layer in model.named_modules()
        if path and path.rpartition(".")[0] in around and _is_global_pool(layer)
    ]
    if not beside:
        raise ConfigError(
            f"model.head.pool: {type(unwrap(model)[1]).__name__} has no global pooling layer beside its head that "
            f"{pool.name} could replace (it pools elsewhere, in its code or not at all); set model.head.pool=null"
        )
    path, old = beside[-1]
    _set(model, path, _pool_like(old, pool))


def _is_global_pool(layer: Any) -> bool:
    if type(layer).__name__ == "SelectAdaptivePool2d":  # timm's
        return layer.pool_type in ("fast", "fastavg", "avg", "max", "avgmax", "fastmax", "fastavgmax")
    return isinstance(layer, _GLOBAL_POOLS) and layer.output_size in (1, (1, 1))


def _pool_like(old: Any, pool: Pool) -> nn.Module:
    if not isinstance(old, _GLOBAL_POOLS):
        flattens = isinstance(old.flatten, nn.Flatten) or getattr(old.pool, "flatten", False)
        layout = "NHWC" if tuple(getattr(old.pool, "dim", ())) == (1, 2) else "NCHW"  # dim: height and width
        made: nn.Module = type(old)(pool_type=pool.name, flatten=flattens, input_fmt=layout)
        return made
    match pool:
        case Pool.avg:
            return nn.AdaptiveAvgPool2d(1)
        case Pool.max:
            return GlobalMaxPool2d()
        case Pool.avgmax:
            return AvgMaxPool2d()


def _zero(head: nn.Module) -> None:
    last: Any = [layer for layer in head.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]
    with torch.no_grad():
        for tensor in last.parameters(recurse=False):
            tensor.zero_()


def _set(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, key = path.rpartition(".")
    setattr(model.get_submodule(parent), key, new)


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
