"""What torch's operations (`aten`) do to receptive fields."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from cnntrain.inspect.summary import receptive_field
from cnntrain.inspect.summary.receptive_field import WHOLE, Field, Untracked

Shape: TypeAlias = tuple[int, ...]

_TAPS = {"linear": 2, "bilinear2d": 2, "trilinear3d": 2, "bicubic2d": 4}


@dataclass(frozen=True)
class Call:
    """One operation.

    Attributes:
        name: its name in torch, such as `convolution`.
        arguments: by the names of torch's schema.
        inputs: those of its tensors that depend on the image.
        fields: the fields of such tensors.
        outputs: the shapes of its results.
    """

    name: str
    arguments: dict[str, Any]
    inputs: list[Tensor]
    fields: WeakTensorKeyDictionary
    outputs: list[Shape]

    @property
    def field(self) -> Field:
        return self.fields[self.inputs[0]]

    @property
    def shape(self) -> Shape:
        return tuple(self.inputs[0].shape)

    @property
    def dim(self) -> int:
        return self.arguments["dim"] % len(self.field.dims)

    @property
    def borders(self) -> list[int]:
        """Elements that a padding adds before and after, from the last dimension on."""
        return list(self.arguments["pad" if "pad" in self.arguments else "padding"])

    def sides(self, key: str, count: int, default: Any = 1) -> list[int]:
        """An argument with a number for each side of a window, or one for all."""
        value = self.arguments.get(key, default)
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return values * count if len(values) == 1 else values


Rule: TypeAlias = Callable[[Call], Field | list[Field]]


def rule_of(func: Any, name: str) -> Rule | None:
    """How an operation changes receptive fields; None where this module does not know it."""
    if torch.Tag.pointwise in func.tags:  # `max` of two tensors, but not `max` of one
        return _pointwise
    return _upsample if "upsample" in name else RULES.get(name.removesuffix("_"))


def fields_after(rule: Rule | None, call: Call) -> list[Field]:
    """The field of each result of a call."""
    fields = [call.fields[item] for item in call.inputs]
    after: Field | list[Field]
    if any(field.is_whole for field in fields):
        after = WHOLE
    elif lost := [field for field in fields if field.lost]:
        after = lost[0]
    elif "dot_product_attention" in call.name or (rule is _product and len(fields) > 1):
        after = _attention(call, fields)
    else:
        try:
            after = rule(call) if rule else Field.unknown(call.name)
        except Untracked:
            after = Field.unknown(call.name)
    return after if isinstance(after, list) else [after] * len(call.outputs)


# --- windows ---------------------------------------------------------------------------------------------------------


def window_rule(call: Call) -> Field:
    """A convolution or a pooling over the last dimensions."""
    shape, weight, sides = call.outputs[0], call.arguments.get("weight"), window_sides(call)
    step = (
        receptive_field.through_transposed_window
        if call.arguments.get("transposed")
        else receptive_field.through_window
    )
    field, first = call.field, len(shape) - len(sides)
    if weight is not None:
        field = receptive_field.sum_over(field, [1]).with_dim(1, *receptive_field.opaque(shape[1]))
    for dim, (kernel, stride, padding, dilation) in enumerate(sides, first):
        if "count_include_pad" in call.arguments and shape[dim] == 1 and kernel >= call.shape[dim] > 1:
            field = receptive_field.through_adaptive_pool(field, dim, 1)  # an average of the whole map
        else:
            field = step(field, dim, kernel, stride, padding, dilation, shape[dim])
    return field


def window_sides(call: Call) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, padding and dilation along each dimension of the window."""
    weight = call.arguments.get("weight")
    count = int(call.name.partition("pool")[2][0]) if weight is None else weight.dim() - 2  # the 2 of max_pool2d
    kernel = call.sides("kernel_size", count) if weight is None else list(weight.shape[2:])
    stride = call.sides("stride", count) or kernel  # a pool without one takes its kernel
    return list(zip(kernel, stride, call.sides("padding", count), call.sides("dilation", count), strict=True))


def _adaptive(call: Call) -> Field:
    field, shape = call.field, call.outputs[0]
    for dim in range(len(shape) - len(call.arguments["output_size"]), len(shape)):
        field = receptive_field.through_adaptive_pool(field, dim, shape[dim])
    return field


def pad_rule(call: Call) -> Field:
    """A border of any kind; what it holds is taken from inside or is nothing, and makes no field larger."""
    field, shape = call.field, call.outputs[0]
    for back, before in enumerate(call.borders[::2]):
        dim = len(shape) - 1 - back
        field = receptive_field.through_slice(field, dim, -before, 1, shape[dim])
    return field


def _upsample(call: Call) -> Field:
    field, shape = call.field, call.outputs[0]
    taps = next((taps for kind, taps in _TAPS.items() if kind in call.name), 1)
    for dim in range(2, len(shape)):
        shrinks = math.ceil(call.shape[dim] / shape[dim]) if call.name.endswith("_aa") else 1
        field = receptive_field.through_interpolation(field, dim, shape[dim], taps * shrinks)
    return field


def _pixel_shuffle(call: Call) -> Field:
    field, shape = call.field, call.outputs[0]
    for dim in (-2, -1):
        field = receptive_field.through_interpolation(field, len(shape) + dim, shape[dim], 1)
    return field.with_dim(len(shape) - 3, *receptive_field.opaque(shape[-3]))


def _pixel_unshuffle(call: Call) -> Field:
    field, shape, factor = call.field, call.outputs[0], call.arguments["downscale_factor"]
    for dim in (len(shape) - 2, len(shape) - 1):
        field = receptive_field.through_window(field, dim, factor, factor, 0, 1, shape[dim])
    return field.with_dim(len(shape) - 3, *receptive_field.opaque(shape[-3]))


# --- element by element, products, sums ------------------------------------------------------------------------------


def _pointwise(call: Call) -> Field:
    return receptive_field.merge([(call.fields[item], tuple(item.shape)) for item in call.inputs], call.outputs[0])


def _softmax(call: Call) -> Field:
    summed = receptive_field.sum_over(call.field, [call.dim])
    return replace(summed, dims=call.field.dims)


def _cat(call: Call) -> Field:
    """The images side by side in channels; class tokens may also join the pixels."""
    dim, shape = call.dim, call.outputs[0]
    merged = receptive_field.merge([(call.fields[item], shape) for item in call.inputs], shape)
    placed = [part for part in merged.dims[dim] if part.axis is not None]
    if not placed:
        return merged.with_dim(dim, *receptive_field.opaque(shape[dim]))
    if len(call.inputs) > 1:
        raise Untracked
    return merged.with_dim(
        dim, replace(placed[0], extent=shape[dim]), *(replace(part, extent=1) for part in placed[1:])
    )


def _stack(call: Call) -> Field:
    shapes = [(call.fields[item], call.shape) for item in call.inputs]
    dim = call.arguments["dim"] % len(call.outputs[0])
    merged = receptive_field.merge(shapes, call.shape)
    return replace(merged, dims=(*merged.dims[:dim], receptive_field.opaque(len(shapes)), *merged.dims[dim:]))


def _attention(call: Call, fields: list[Field]) -> Field:
    """Attention sees the whole image, unless its matrices are parts of it, such as the windows of a Swin."""
    batch = [part for field in fields for dim in field.dims[:-2] for part in dim]
    return WHOLE if all(part.axis is None for part in batch) else Field.unknown("attention in windows")


def _product(call: Call) -> Field:
    """A matrix product with weights."""
    shape = call.outputs[0]
    right = call.arguments.get("mat2", call.arguments.get("batch2"))
    gone, new = (-2, len(shape) - 2) if right is call.inputs[0] else (-1, len(shape) - 1)
    return receptive_field.sum_over(call.field, [gone]).with_dim(new, *receptive_field.opaque(shape[new]))


def _reduce(call: Call) -> Field:
    count = len(call.field.dims)
    dim = call.arguments.get("dim")
    dims = range(count) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    gone = {dim % count for dim in dims}
    field = receptive_field.sum_over(call.field, gone)
    if call.arguments.get("keepdim"):
        return field
    return receptive_field.permute(field, [dim for dim in range(count) if dim not in gone])


# --- other places for the same elements ------------------------------------------------------------------------------


def _reshape(call: Call) -> Field:
    return receptive_field.reshape(call.field, call.outputs[0])


def _permute(call: Call) -> Field:
    return receptive_field.permute(call.field, call.arguments["dims"])


def _transpose(call: Call) -> Field:
    order = list(range(len(call.field.dims)))
    one, two = call.arguments.get("dim0", 0), call.arguments.get("dim1", -1)
    if order:
        order[one], order[two] = order[two], order[one]
    return receptive_field.permute(call.field, order)


def _slice(call: Call) -> Field:
    dim = call.dim
    extent = call.shape[dim]
    start, _, stride = slice(call.arguments["start"], None, call.arguments.get("step", 1)).indices(extent)
    return receptive_field.through_slice(call.field, dim, start, stride, call.outputs[0][dim])


def _split(call: Call) -> list[Field]:
    dim, start, fields = call.dim, 0, []
    for shape in call.outputs:
        fields.append(receptive_field.through_slice(call.field, dim, start, 1, shape[dim]))
        start += shape[dim]
    return fields


def _select(call: Call) -> Field | list[Field]:
    """One element of a dimension, which then goes; `unbind` gives all of them."""
    dim = call.dim
    order = [other for other in range(len(call.field.dims)) if other != dim]

    def element(index: int) -> Field:
        return receptive_field.permute(
            receptive_field.through_slice(call.field, dim, index % call.shape[dim], 1, 1), order
        )

    index = call.arguments.get("index")
    return [element(place) for place in range(len(call.outputs))] if index is None else element(index)


def _resize(call: Call) -> Field:
    """`expand`, `repeat` and gated linear units: only dimensions that are no place in the image change."""
    field, shape = call.field, call.outputs[0]
    new = len(shape) - len(field.dims)
    field = replace(field, dims=((),) * new + field.dims)
    for dim, (before, after) in enumerate(zip((1,) * new + call.shape, shape, strict=True)):
        if before != after:
            if before > 1 and any(part.axis is not None for part in field.dims[dim]):
                raise Untracked
            field = field.with_dim(dim, *receptive_field.opaque(after))
    return field


def _roll(call: Call) -> Field:
    dims = call.arguments["dims"] or range(len(call.field.dims))
    if any(part.axis is not None for dim in dims for part in call.field.dims[dim]):
        raise Untracked
    return call.field


_NAMES: dict[Any, str] = {
    window_rule: "convolution max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices"
    " avg_pool1d avg_pool2d avg_pool3d",
    _adaptive: "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d"
    " adaptive_max_pool1d adaptive_max_pool2d",
    pad_rule: "pad constant_pad_nd _pad_circular reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d",
    _pixel_shuffle: "pixel_shuffle",
    _pixel_unshuffle: "pixel_unshuffle",
    # The statistics of group and instance norms come from the whole map; what is meant by a field leaves them out.
    _pointwise: "clone _to_copy alias detach copy_ lift_fresh native_batch_norm _native_batch_norm_legit"
    " _native_batch_norm_legit_no_training native_group_norm native_layer_norm batch_norm cudnn_batch_norm"
    " instance_norm native_dropout hardswish channel_shuffle native_channel_shuffle",
    _softmax: "softmax log_softmax _softmax _log_softmax _safe_softmax cumsum",
    _cat: "cat",
    _stack: "stack",
    _product: "mm addmm bmm baddbmm",
    _reduce: "mean sum amax amin max min var std var_mean std_mean norm linalg_vector_norm argmax prod logsumexp",
    _reshape: "view _unsafe_view reshape flatten unflatten squeeze unsqueeze",
    _permute: "permute",
    _transpose: "transpose t",
    _slice: "slice narrow",
    _split: "split split_with_sizes chunk",
    _select: "select unbind",
    _resize: "expand repeat glu",
    _roll: "roll flip",
}
RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
