"""Receptive fields: which pixels of the image can change an element of a tensor, followed through every operation.

The arithmetic is that of "Computing Receptive Fields of Convolutional Neural Networks" (doi 10.23915/distill.00021): a
window of F elements, D apart, over elements that see r pixels, j pixels apart, sees r + D(F - 1)j pixels; after stride
S these lie Sj pixels apart. Where branches meet, the field is the hull of theirs, so the largest path counts.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

Number = Fraction | float  # exact, or infinite


@dataclass(frozen=True)
class Part:
    """A factor of one dimension of a tensor; along an axis of the image, neighbours lie `step` pixels apart."""

    extent: int
    axis: int | None = None  # 0: rows, 1: columns, None: neither (batch, channels)
    step: Fraction = Fraction(0)


@dataclass(frozen=True)
class Field:
    """What the elements of one tensor see of the image.

    Attributes:
        dims: the factors of each dimension, the slowest first; a flattened map keeps its rows and columns in one.
        low: the first row and column that element 0 sees.
        size: how many rows and columns each element sees; infinite for the whole image.
        lost: the operation that this module cannot follow; empty as long as the field is known.
    """

    dims: tuple[tuple[Part, ...], ...]
    low: tuple[Number, Number]
    size: tuple[Number, Number]
    lost: str = ""

    @staticmethod
    def unknown(lost: str) -> "Field":
        """A field that was lost in the named operation."""
        return Field((), (Fraction(0), Fraction(0)), (Fraction(0), Fraction(0)), lost)

    @property
    def is_whole(self) -> bool:
        return all(math.isinf(size) for size in self.size)

    def step(self, axis: int) -> Fraction | None:
        """Pixels between neighbours; None where nothing is left of the axis."""
        steps = [part.step for dim in self.dims for part in dim if part.axis == axis]
        return None if math.isinf(self.size[axis]) else min(steps, default=None)

    def with_dim(self, dim: int, *parts: Part) -> "Field":
        return replace(self, dims=(*self.dims[:dim], parts, *self.dims[dim + 1 :]))

    def grow(self, axis: int, pixels: Number, low: Number = Fraction(0)) -> "Field":
        """The field with `pixels` more of an axis, its first pixel moved by `low`."""
        both = [(self.low[0], self.size[0]), (self.low[1], self.size[1])]
        if math.isinf(pixels):
            both[axis] = (-math.inf, math.inf)
        else:
            both[axis] = (both[axis][0] + low, both[axis][1] + pixels)
        return replace(self, low=(both[0][0], both[1][0]), size=(both[0][1], both[1][1]))


WHOLE = Field((), (-math.inf, -math.inf), (math.inf, math.inf))


class Untracked(Exception):
    """An operation moves pixels in a way that a Field cannot tell."""


def image_field(shape: Sequence[int]) -> Field:
    """The field of the image itself, (N, C, H, W)."""
    images, channels, height, width = shape
    rows, columns = Part(height, 0, Fraction(1)), Part(width, 1, Fraction(1))
    ones = (Fraction(1), Fraction(1))
    # The batch keeps a part even if it is one image: a view of a map of one pixel would mistake it for a row.
    return Field(((Part(images),), opaque(channels), (rows,), (columns,)), (Fraction(0), Fraction(0)), ones)


def opaque(extent: int) -> tuple[Part, ...]:
    """A dimension that is no place in the image."""
    return (Part(extent),) if extent > 1 else ()


def single(field: Field, dim: int) -> tuple[Part, int] | None:
    """The one part that a dimension is, and its image axis; None where it is no place in the image.

    Raises:
        Untracked: it is a part of one, or more than one.
    """
    places = [(part, part.axis) for part in field.dims[dim] if part.axis is not None]
    if not places:
        return None
    if len(field.dims[dim]) > 1 or sum(part.axis == places[0][1] for parts in field.dims for part in parts) > 1:
        raise Untracked
    return places[0]


def through_window(field: Field, dim: int, kernel: int, stride: int, before: int, dilation: int, extent: int) -> Field:
    """After a convolution or a pooling over one dimension that has `before` elements of padding in front."""
    if (place := single(field, dim)) is None:
        return field.with_dim(dim, *opaque(extent))
    part, axis = place
    reach = dilation * (kernel - 1) * part.step
    return field.with_dim(dim, Part(extent, axis, part.step * stride)).grow(axis, reach, -before * part.step)


def through_transposed_window(
    field: Field, dim: int, kernel: int, stride: int, before: int, dilation: int, extent: int
) -> Field:
    """After a transposed convolution over one dimension."""
    if (place := single(field, dim)) is None:
        return field.with_dim(dim, *opaque(extent))
    part, axis = place
    reach = dilation * (kernel - 1)
    step = part.step / stride
    grown = field.grow(axis, reach // stride * part.step, (before - reach) * step)
    return grown.with_dim(dim, Part(extent, axis, step))


def through_interpolation(field: Field, dim: int, extent: int, taps: int) -> Field:
    """After an interpolation over `taps` neighbours in one dimension (1: nearest, 2: linear, 4: cubic)."""
    if (place := single(field, dim)) is None or place[0].extent == extent:
        return field
    part, axis = place
    step = part.step * Fraction(part.extent, extent)
    reach = (taps - 1) * part.step
    low = (step - part.step - reach) / 2 if taps > 1 else Fraction(0)
    return field.with_dim(dim, Part(extent, axis, step)).grow(axis, reach, low)


def through_adaptive_pool(field: Field, dim: int, extent: int) -> Field:
    """After adaptive pooling of one dimension to `extent` bins; one bin sees the whole image."""
    if (place := single(field, dim)) is None:
        return field.with_dim(dim, *opaque(extent))
    part, axis = place
    if extent == 1:
        return field.with_dim(dim).grow(axis, math.inf)
    if part.extent == extent:
        return field
    widest = max(-(-(index + 1) * part.extent // extent) - index * part.extent // extent for index in range(extent))
    step = part.step * Fraction(part.extent, extent)
    return field.with_dim(dim, Part(extent, axis, step)).grow(axis, (widest - 1) * part.step)


def sum_over(field: Field, dims: Iterable[int]) -> Field:
    """After a sum over whole dimensions: what is summed over the last of an axis sees all of the image."""
    summed = {dim % len(field.dims) for dim in dims}
    gone = [part for dim in summed for part in field.dims[dim]]
    for dim in summed:
        field = field.with_dim(dim)
    for part in gone:
        if part.axis is not None:
            left = any(other.axis == part.axis for parts in field.dims for other in parts)
            field = field.grow(part.axis, (part.extent - 1) * part.step if left else math.inf)
    return field


def through_slice(field: Field, dim: int, start: int, stride: int, extent: int) -> Field:
    """After taking every `stride`-th element from `start` on; `start` is negative where elements were put in front."""
    parts = field.dims[dim]
    if all(part.axis is None for part in parts):
        return field.with_dim(dim, *opaque(extent))
    if math.prod(part.extent for part in parts) == extent:
        return field
    if len(parts) > 1:
        raise Untracked
    ((part, axis),) = [(part, part.axis) for part in parts if part.axis is not None]
    shifted = field.grow(axis, Fraction(0), start * part.step)
    return shifted.with_dim(dim, Part(extent, axis, part.step * stride))


def permute(field: Field, order: Sequence[int]) -> Field:
    return replace(field, dims=tuple(field.dims[dim] for dim in order))


def reshape(field: Field, shape: Sequence[int]) -> Field:
    """After a view as another shape: the factors are dealt out anew, in their order."""
    pending = [part for parts in field.dims for part in parts]
    dims = []
    for index, extent in enumerate(shape):
        parts, need = [], extent
        while need > 1:
            if not pending:
                raise Untracked
            part = pending.pop(0)
            if need % part.extent == 0:
                parts.append(part)
                need //= part.extent
            elif part.extent % need == 0:
                rest = part.extent // need
                parts.append(replace(part, extent=need, step=part.step * rest))
                pending.insert(0, replace(part, extent=rest))
                need = 1
            else:
                raise Untracked
        # A row or column of one pixel has a dimension to itself where there is one of size 1, else it joins the last.
        following = shape[index + 1] if index + 1 < len(shape) else None
        while pending and pending[0].extent == 1 and (following != 1 or (extent == 1 and not parts)):
            parts.append(pending.pop(0))
        dims.append(tuple(parts))
    return replace(field, dims=tuple(dims))


def merge(fields: Sequence[tuple[Field, tuple[int, ...]]], shape: tuple[int, ...]) -> Field:
    """Where tensors of the given fields and shapes meet element by element: the hull of what they see."""
    if any(field.is_whole for field, _ in fields):
        return WHOLE
    like = next((field for field, its in fields if its == shape), None)
    if like is None:
        raise Untracked
    for axis in (0, 1):
        low = min(field.low[axis] for field, _ in fields)
        if math.isinf(low):
            like = like.grow(axis, math.inf)
            continue
        high = max(field.low[axis] + field.size[axis] for field, _ in fields)
        like = like.grow(axis, high - low - like.size[axis], low - like.low[axis])
    return like
