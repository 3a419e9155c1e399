"""Every operation of a network's forward pass: the window it looks through, its multiply-adds, its receptive field."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from cnntrain.inspect.summary.aten import Call, Rule, Shape, fields_after, pad_rule, rule_of, window_rule, window_sides
from cnntrain.inspect.summary.receptive_field import Field, image_field
from cnntrain.models.map_sizes import Window


@dataclass(frozen=True)
class Look:
    """The window of a convolution, a pooling or a padding, and the maps (height, width) before and after it."""

    window: Window
    before: tuple[int, int]
    after: tuple[int, int]
    groups: int = 1
    is_transposed: bool = False
    extra: tuple[int, int] = (0, 0)  # output padding of a transposed convolution
    ceil: bool = False
    is_window: bool = True  # not a padding alone


@dataclass(frozen=True)
class Operation:
    """One call into torch.

    Attributes:
        name: its name there, such as `convolution`.
        inputs: the shapes of its tensors.
        output: the shape of its (first) result.
        macs: its multiply-adds: half of what torch.utils.flop_counter counts.
        look: its window, where it has one over height and width.
        field: what its result sees of the image; None where no image is involved.
        is_view: its result is made of the memory of an input.
        joins: how many of its tensors depend on the image.
    """

    name: str
    inputs: tuple[Shape, ...]
    output: Shape
    macs: int
    look: Look | None
    field: Field | None
    is_view: bool
    joins: int

    @property
    def is_window(self) -> bool:
        return self.look is not None and self.look.is_window


class Tracer(TorchDispatchMode):
    """Follows the tensors that depend on `images`; `record` is called with each operation that one goes through.

    To be entered inside `torch.inference_mode()`, where operations arrive as the network calls them.

    Args:
        images: float (N, C, H, W), the input of the network.
        record: takes an Operation. Those without images, such as the norm of a weight, come only where they multiply.
    """

    def __init__(self, images: Tensor, record: Callable[[Operation], object]) -> None:
        super().__init__()
        self.fields = WeakTensorKeyDictionary()
        self.fields[images] = image_field(images.shape)
        self._record = record

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        rule, count = rule_of(func, name), flop_registry.get(func._overloadpacket)
        if rule is None and count is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        schema = func._schema.arguments
        arguments = {item.name: item.default_value for item in schema if item.has_default_value()}
        arguments |= dict(zip((item.name for item in schema), args, strict=False)) | kwargs
        flops = count(*args, **kwargs, out_val=result) if count else 0
        self._follow(name, rule, arguments, tensors(result), flops)
        return result

    def _follow(
        self, name: str, rule: Rule | None, arguments: dict[str, Any], results: list[Tensor], flops: int
    ) -> None:
        inputs = tensors(arguments)
        seen = [item for item in inputs if item in self.fields]
        if not results or not (seen or flops):
            return
        call = Call(name, arguments, seen, self.fields, [tuple(item.shape) for item in results])
        if seen:
            for item, field in zip(results, fields_after(rule, call), strict=True):
                self.fields[item] = field
        shapes = tuple(tuple(item.shape) for item in inputs)
        field = self.fields.get(results[0])
        is_view = shares_memory(results[0], inputs)
        self._record(
            Operation(name, shapes, call.outputs[0], flops // 2, look_of(call, rule), field, is_view, len(seen))
        )


def tensors(tree: Any) -> list[Tensor]:
    return [item for item in tree_leaves(tree) if isinstance(item, Tensor)]


def shares_memory(tensor: Tensor, others: list[Tensor]) -> bool:
    memory = tensor.untyped_storage()._cdata
    return any(memory == other.untyped_storage()._cdata for other in others)


def look_of(call: Call, rule: Rule | None) -> Look | None:
    """The window of an operation over height and width; None where it has none."""
    if not call.inputs or len(call.shape) < 3:
        return None
    before, after = (call.shape[-2], call.shape[-1]), (call.outputs[0][-2], call.outputs[0][-1])
    if rule is pad_rule:
        left, right, top, bottom, *others = [*call.borders, 0, 0][: max(4, len(call.borders))]
        window = Window((1, 1), borders=((top, bottom), (left, right)))
        return None if any(others) or not any(call.borders) else Look(window, before, after, is_window=False)
    if rule is not window_rule or len(sides := window_sides(call)) != 2:
        return None
    kernel, stride, padding, dilation = zip(*sides, strict=True)
    window = Window(kernel, stride, ((padding[0],) * 2, (padding[1],) * 2), dilation)
    arguments = call.arguments
    extra = call.sides("output_padding", 2, 0)
    return Look(
        window,
        before,
        after,
        groups=arguments.get("groups", 1),
        is_transposed=arguments.get("transposed", False),
        extra=(extra[0], extra[1]),
        ceil=arguments.get("ceil_mode", False),
    )
