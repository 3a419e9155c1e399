"""Changes of layers that leave a network a larger last feature map, or a classifier for a smaller one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from cnntrain.models.small_images.shape_trace import Trace, Visit, largest
from cnntrain.text import counted


@dataclass(frozen=True)
class Edit:
    """A change of one layer."""

    path: str
    change: Callable[[Any], nn.Module]  # the old layer, which it may alter, to the new one
    new: str = "removed"  # the layer in words, such as 3x3/1: kernel and stride
    old: str = ""

    def apply(self, model: nn.Module) -> None:
        parent, _, key = self.path.rpartition(".")
        setattr(model.get_submodule(parent), key, self.change(model.get_submodule(self.path)))


def keeps_pools(trace: Trace) -> bool:
    """Whether nothing but pools makes the map smaller, or the classifier reads it flattened."""
    return all(visit.is_pool() for visit in trace.strided()) or bool(flattening_layers(trace))


def relax(trace: Trace, pools_stay: bool) -> list[Edit]:
    """The next step towards a larger last map; [] where nothing is left to relax.

    Layers with a stride that see maps of the same size lie side by side (the convolution of a residual block and its
    shortcut, the branches of an Inception reduction); the first such group is relaxed as a whole.
    """
    strided = [visit for visit in trace.strided() if not (pools_stay and visit.is_pool())]
    if not strided:
        stuck = [visit for visit in trace.visits[-1:] if visit.is_pool() and visit.lacks_pixels()]
        return [Edit(visit.path, _nothing) for visit in stuck]
    group = {visit.path: visit for visit in strided if visit.side == strided[0].side}
    convolutions = [visit for visit in group.values() if not visit.is_pool()]
    if not convolutions:
        return [Edit(path, _nothing) for path in group]
    first = trace.visits[0].layer
    keeps_size = all(map(_keeps_size, convolutions))
    return [_relax_layer(visit, visit.layer is first, keeps_size) for visit in group.values()]


def flattening_layers(trace: Trace) -> list[Visit]:
    """The pool that brings the last map to the size of a flattening classifier, and its linear layers; or []."""
    pools = [index for index, visit in enumerate(trace.visits) if visit.is_adaptive()]
    if not pools:
        return []
    pool, *linear = trace.visits[pools[-1] :]
    if pool.out > 1 and linear and all(isinstance(visit.layer, nn.Linear) for visit in linear):
        return [pool, *linear]
    return []


def shrink_classifier(trace: Trace) -> tuple[list[Edit], str]:
    """A classifier for the last map as it is, no hidden layer wider than that map has values; and it in words."""
    visits = flattening_layers(trace)
    if not visits or visits[0].side >= visits[0].out:
        return [], ""
    pool, *linear = visits
    features = pool.shape[1] * pool.side**2
    widths = [features, *(min(features, visit.layer.out_features) for visit in linear[:-1])]
    widths.append(linear[-1].layer.out_features)
    edits = [Edit(pool.path, lambda layer: nn.AdaptiveAvgPool2d(pool.side))]
    for visit, inputs, outputs in zip(linear, widths, widths[1:], strict=False):
        edits.append(Edit(visit.path, partial(_linear, inputs=inputs, outputs=outputs)))
    old = [linear[0].layer.in_features, *(visit.layer.out_features for visit in linear)]
    return edits, f"{'-'.join(map(str, widths))} instead of {'-'.join(map(str, old))}"


def with_border(layer: nn.Conv2d) -> nn.Module:
    """The convolution with the padding that keeps the size of its map at stride 1."""
    return _set_padding(layer, *(side // 2 for side in layer.kernel_size))


def in_words(steps: list[list[Edit]]) -> str:
    """The steps, one after the other; of one with many layers side by side, the first layer stands for all."""
    changes: dict[str, tuple[str, str, int]] = {}
    for step in steps:
        named = step if len(step) <= 2 else step[:1]
        for edit in named:
            _, old, _ = changes.get(edit.path, ("", edit.old, 0))
            changes[edit.path] = (edit.new, old, len(step) - len(named))
    lines = []
    for path, (new, old, others) in changes.items():
        beside = f" with {counted(others, 'layer')} beside it" if others else ""
        lines.append(f"{path} {new}" + (f" instead of {old}" if old else "") + beside)
    return ", ".join(lines)


def _relax_layer(visit: Visit, is_first: bool, keeps_size: bool) -> Edit:
    """Half the stride; a large kernel at the input shrinks with it, as in the CIFAR nets of arXiv 1512.03385, 4.2."""
    stride, kernel = visit.stride() // 2, visit.kernel()
    if visit.is_pool():
        if kernel % 2 == 0:
            return Edit(visit.path, _nothing)
        return Edit(visit.path, partial(_pool, stride=stride, keeps_size=keeps_size), f"at stride {stride}")
    if not is_first:
        return Edit(visit.path, partial(_stride, stride=stride), f"at stride {stride}")
    old = f"{kernel}x{kernel}/{visit.stride()}"
    if kernel in (1, 3):
        return Edit(visit.path, partial(_stride, stride=stride), f"{kernel}x{kernel}/{stride}", old)
    is_patch = kernel == visit.stride() and stride > 1
    new = 3 if stride == 1 else stride if is_patch else 2 * (kernel // 4) + 1
    change = partial(_kernel, kernel=new, stride=stride, padding=0 if is_patch else new // 2)
    return Edit(visit.path, change, f"{new}x{new}/{stride}", old)


def _keeps_size(visit: Visit) -> bool:
    """Whether the convolution will keep the size of its map once its stride is 1."""
    return visit.kernel() % 2 == 0 or visit.out == math.ceil(visit.side / visit.stride())


def _nothing(layer: nn.Module) -> nn.Module:
    return nn.Identity()


def _stride(layer: nn.Conv2d, *, stride: int) -> nn.Module:
    layer.stride = (stride, stride)
    if stride == 1 and layer.kernel_size[0] % 2 == 0:
        layer.dilation = (2, 2)  # so that an even kernel has a middle, and keeps the size of the map
        _set_padding(layer, *(side - 1 for side in layer.kernel_size))
    return layer


def _pool(layer: Any, *, stride: int, keeps_size: bool) -> nn.Module:
    layer.stride = (stride, stride)
    if keeps_size and type(layer) in (nn.MaxPool2d, nn.AvgPool2d):
        layer.padding = largest(layer.kernel_size) // 2
    return layer


def _kernel(layer: nn.Conv2d, *, kernel: int, stride: int, padding: int) -> nn.Module:
    """A new random kernel, its spread that of the old one corrected for the number of weights (He's rule)."""
    old = layer.weight
    new = old.new_empty((*old.shape[:2], kernel, kernel))
    with torch.no_grad():
        new.normal_().mul_(old.std() * (old[0, 0].numel() ** 0.5 / kernel))
    layer.weight = nn.Parameter(new)
    layer.kernel_size, layer.stride = (kernel, kernel), (stride, stride)
    return _set_padding(layer, padding)


def _set_padding(layer: nn.Conv2d, height: int, width: int | None = None) -> nn.Module:
    width = height if width is None else width
    layer.padding = (height, width)
    layer._reversed_padding_repeated_twice = [width, width, height, height]  # what other padding modes than zeros read
    return layer


def _linear(layer: nn.Linear, *, inputs: int, outputs: int) -> nn.Module:
    if (layer.in_features, layer.out_features) == (inputs, outputs):
        return layer
    new = nn.Linear(inputs, outputs, bias=layer.bias is not None, device=layer.weight.device, dtype=layer.weight.dtype)
    with torch.no_grad():
        new.weight.normal_().mul_(layer.weight.std() * (layer.in_features / inputs) ** 0.5)
        if layer.bias is not None:
            new.bias.copy_(layer.bias[:outputs])
    return new
