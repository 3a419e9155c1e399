"""A network taken apart: a row for every layer that it runs, with the sums behind its numbers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cnntrain.inspect.summary.aten import Shape
from cnntrain.inspect.summary.formulas import mac_product, parameter_sum
from cnntrain.inspect.summary.receptive_field import Field, Number
from cnntrain.inspect.summary.trace import Look, Operation, Tracer, shares_memory, tensors
from cnntrain.models.map_sizes import Borders

FLOAT32 = 4  # bytes
PARAMETER = "Parameter"  # the kind of a row for what a module learns itself, beside its layers


@dataclass(frozen=True)
class LayerRow:
    """One layer, or one operation that a module calls itself.

    Attributes:
        path: the layer's name in the network; of an operation that of the module, a point and its own (`layer1.0.add`).
        kind: the layer's class, or the operation's name in torch.
        input: the shape of its (first) input for one image, such as (3, 224, 224); None where it was not run.
        output: that of its (first) result.
        look: its window over height and width, where it has one.
        parameters: numbers that it learns; those shared with a row above are counted there.
        parameter_sum: how these come about, such as `(5·5·6+1)·16`.
        trainable: those of them that are to be trained.
        macs: multiply-adds for one image, as torch.utils.flop_counter has them (half its figure).
        mac_sum: how these come about.
        field: rows and columns of the image that an element of the result sees; infinite: all of them; None: unknown.
        jump: pixels between what neighbours see; None where the axis is gone.
        lost: the operation that the field could not be followed through.
        memory: bytes of the result for one image in float32; 0 where it is made in the memory of the input.
    """

    path: str
    kind: str
    input: Shape | None = None
    output: Shape | None = None
    look: Look | None = None
    parameters: int = 0
    parameter_sum: str = ""
    trainable: int = 0
    macs: int = 0
    mac_sum: str = ""
    field: tuple[Number, Number] | None = None
    jump: tuple[Fraction | None, Fraction | None] = (None, None)
    lost: str = ""
    memory: int = 0

    @property
    def is_idle(self) -> bool:
        """A layer that evaluation does not run, such as one of an auxiliary classifier."""
        return self.output is None and self.kind != PARAMETER


def inspect(model: nn.Module, channels: int, image_size: int) -> list[LayerRow]:
    """Run a network once in evaluation mode, and tell what each layer does.

    It runs where its weights lie; on the meta device that takes no arithmetic. Its mode is as before afterwards.
    Layers that evaluation leaves out, such as auxiliary heads, come last, without shapes.

    Args:
        model: maps float (N, channels, image_size, image_size) to anything.
    """
    weights = next(model.parameters(), torch.empty(0, device="meta"))
    images = torch.zeros((1, channels, image_size, image_size), device=weights.device, dtype=weights.dtype)
    modes = {module: module.training for module in model.modules()}
    recorder = _Recorder(images)
    try:
        recorder.watch(model.eval())
        with torch.inference_mode(), recorder.tracer:
            model(images)
    finally:
        recorder.unwatch()
        for module, mode in modes.items():
            module.training = mode
    counter = _Counter()
    rows = [row for event in recorder.events for row in _rows(event, counter)]
    idle = (row for path, module in model.named_modules() for row in _of_idle(path, module, counter))
    return [*rows, *idle]


# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass
class _Visit:
    """A call of one module."""

    path: str
    module: nn.Module
    input: Tensor | None
    parent: "_Visit | None"
    children: "list[_Visit]" = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    row: LayerRow | None = None  # shapes, field and memory, known at its end

    @cached_property
    def is_layer(self) -> bool:
        """One row says all: it looks through one window at most, and calls nothing else but, say, an activation."""
        if sum(operation.is_window for operation in self.operations) > 1:
            return False
        owns = next(self.module.parameters(recurse=False), None) is not None
        return not self.children or (owns and all(child.is_plain for child in self.children))

    @property
    def is_plain(self) -> bool:
        """Without parameters, windows and parts, as activations are."""
        has_weights = next(self.module.parameters(), None) is not None
        return not (self.children or has_weights or any(operation.is_window for operation in self.operations))

    @property
    def is_part(self) -> bool:
        """The row of the module that called it speaks for it."""
        return self.parent is not None and self.parent.is_layer


class _Recorder:
    """Notes calls of modules, and operations with the module that called them, in their order."""

    def __init__(self, images: Tensor) -> None:
        self.events: list[_Visit | tuple[_Visit, Operation]] = []
        self.tracer = Tracer(images, self._operation)
        self._open: list[_Visit] = []
        self._hooks: list[Any] = []

    def watch(self, model: nn.Module) -> None:
        for path, module in model.named_modules():
            self._hooks += [
                module.register_forward_pre_hook(self._entering(path), with_kwargs=True),
                module.register_forward_hook(self._leaving),
            ]

    def unwatch(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _entering(self, path: str) -> Any:
        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            parent = self._open[-1] if self._open else None
            visit = _Visit(path, module, next(iter(tensors((args, kwargs))), None), parent)
            if parent:
                parent.children.append(visit)
            self._open.append(visit)
            self.events.append(visit)

        return note

    def _leaving(self, module: nn.Module, args: Any, result: Any) -> None:
        visit = self._open.pop()
        output = next(iter(tensors(result)), None)
        sees = None if output is None else self.tracer.fields.get(output)
        row = LayerRow(visit.path, type(module).__name__)
        if output is not None:
            is_new = visit.input is None or not shares_memory(output, [visit.input])
            row = replace(row, output=_per_image(output.shape), memory=is_new * _bytes(output.shape), **_seen(sees))
        if visit.input is not None:
            row = replace(row, input=_per_image(visit.input.shape))
        visit.row, visit.input = row, None  # a tensor kept would keep its memory

    def _operation(self, operation: Operation) -> None:
        if self._open:
            self._open[-1].operations.append(operation)
            self.events.append((self._open[-1], operation))


def _per_image(shape: tuple[int, ...]) -> Shape:
    """The shape without the batch of one image."""
    return tuple(shape[1:]) if shape and shape[0] == 1 else tuple(shape)


def _bytes(shape: tuple[int, ...]) -> int:
    return FLOAT32 * math.prod(_per_image(shape))


def _seen(sees: Field | None) -> dict[str, Any]:
    if sees is None or sees.lost:
        return {"lost": sees.lost if sees else ""}
    return {"field": sees.size, "jump": (sees.step(0), sees.step(1))}


# --- rows ------------------------------------------------------------------------------------------------------------


class _Counter:
    """Counts every parameter once, where it is first met."""

    def __init__(self) -> None:
        self._met: set[int] = set()

    def fresh(self, module: nn.Module, *, recurse: bool) -> dict[str, nn.Parameter]:
        fresh = {
            name: parameter
            for name, parameter in module.named_parameters(recurse=recurse)
            if id(parameter) not in self._met and not is_lazy(parameter)
        }
        self._met |= {id(parameter) for parameter in fresh.values()}
        return fresh


def _rows(event: _Visit | tuple[_Visit, Operation], counter: _Counter) -> Iterator[LayerRow]:
    visit, operation = event if isinstance(event, tuple) else (event, None)
    if visit.is_part:
        return
    if operation:
        if not visit.is_layer and _matters(operation):
            yield _of_operation(visit.path, operation)
    elif visit.is_layer:
        yield _of_layer(visit, counter)
    else:
        yield from _of_parameters(visit.path, visit.module, counter)


def _matters(operation: Operation) -> bool:
    """Not a mere view: it computes, joins branches or makes a tensor."""
    is_join = operation.joins > 1
    return bool(operation.field and (operation.look or is_join or not operation.is_view)) or operation.macs > 0


def _of_layer(visit: _Visit, counter: _Counter) -> LayerRow:
    assert visit.row is not None
    own = counter.fresh(visit.module, recurse=True)
    counted = [operation for part in (visit, *visit.children) for operation in part.operations if operation.macs]
    return replace(
        visit.row,
        look=_look(visit.operations),
        **_counts(visit.module, own),
        macs=sum(operation.macs for operation in counted),
        mac_sum=" + ".join(map(mac_product, counted)),
    )


def _look(operations: list[Operation]) -> Look | None:
    """The one window of a layer; padding that the layer does just before is part of it."""
    look: Look | None = None
    for operation in operations:
        own = operation.look
        if own is None:
            continue
        if look and own.is_window and look.after == own.before:
            borders = _sum(look.window.borders, own.window.borders)
            own = replace(own, window=replace(own.window, borders=borders), before=look.before)
        look = own
        if own.is_window:
            break
    return look


def _sum(one: Borders, two: Borders) -> Borders:
    (top, bottom), (left, right) = one
    (above, below), (before, after) = two
    return (top + above, bottom + below), (left + before, right + after)


def _of_operation(path: str, operation: Operation) -> LayerRow:
    name = operation.name.strip("_").removesuffix("_with_indices")
    return LayerRow(
        f"{path}.{name}".removeprefix("."),
        name,
        _per_image(operation.inputs[0]) if operation.inputs else None,
        _per_image(operation.output),
        operation.look,
        macs=operation.macs,
        mac_sum=mac_product(operation) if operation.macs else "",
        memory=0 if operation.is_view else _bytes(operation.output),
        **_seen(operation.field),
    )


def _of_parameters(path: str, module: nn.Module, counter: _Counter) -> list[LayerRow]:
    """What a module learns itself, beside its layers."""
    return [
        LayerRow(f"{path}.{name}".removeprefix("."), PARAMETER, **_counts(module, {name: parameter}))
        for name, parameter in counter.fresh(module, recurse=False).items()
    ]


def _of_idle(path: str, module: nn.Module, counter: _Counter) -> list[LayerRow]:
    own = counter.fresh(module, recurse=False)
    return [LayerRow(path, type(module).__name__, **_counts(module, own))] if own else []


def _counts(module: nn.Module, own: dict[str, nn.Parameter]) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in own.values()),
        "parameter_sum": parameter_sum(module, own),
        "trainable": sum(parameter.numel() for parameter in own.values() if parameter.requires_grad),
    }
