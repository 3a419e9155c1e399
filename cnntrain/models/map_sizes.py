"""The sizes of maps: convolutions and pools as windows, and whether a block of the described network fits its input."""

import math
from dataclasses import dataclass

from cnntrain.config.schema.cnn import Block, Pair, pair

FORMULA = "floor((H + 2P - D(F-1) - 1)/S) + 1"
LARGEST = 8192  # pixels a side; where that is too small, another image size is no advice

Borders = tuple[Pair, Pair]  # pixels added (top, bottom), (left, right)


@dataclass(frozen=True)
class Window:
    """What a convolution or a pool looks at; pairs are (height, width)."""

    kernel: Pair
    stride: Pair = (1, 1)
    borders: Borders = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    def output(self, size: Pair) -> Pair:
        """The size of the map that comes out; below 1 where the window does not fit."""
        height, width = (self._side(size, axis) for axis in (0, 1))
        return height, width

    def _side(self, size: Pair, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        return (size[axis] + sum(self.borders[axis]) - reach - 1) // self.stride[axis] + 1

    def arithmetic(self, size: Pair, axis: int) -> str:
        """The formula of the lectures with its numbers: `H' = floor(...) + 1 = floor((4 + 0 - 1*6 - 1)/1) + 1 = -2`."""
        added, reach = sum(self.borders[axis]), f"{self.dilation[axis]}*{self.kernel[axis] - 1}"
        filled = f"floor(({size[axis]} + {added} - {reach} - 1)/{self.stride[axis]}) + 1"
        formula = FORMULA if axis == 0 else FORMULA.replace("H", "W")
        return f"{'HW'[axis]}' = {formula} = {filled} = {self._side(size, axis)}"

    def along(self, axis: int) -> "Window":
        """The part of the window along one axis: the other one is left as it is."""

        def keep(value: Pair, rest: int) -> Pair:
            return (value[0], rest) if axis == 0 else (rest, value[1])

        borders = (self.borders[0], (0, 0)) if axis == 0 else ((0, 0), self.borders[1])
        return Window(keep(self.kernel, 1), keep(self.stride, 1), borders, keep(self.dilation, 1))


def convolution_window(block: Block, *, first: bool) -> Window:
    """The window of a block's first convolution, or of the others, which have stride 1."""
    kernel, dilation = pair(block.kernel), pair(block.dilation)
    stride = pair(block.stride) if first else (1, 1)
    return Window(kernel, stride, _borders(block.padding, kernel, dilation), dilation)


def pool_window(block: Block) -> Window:
    size = pair(block.pool_size)
    return Window(size, size if block.pool_stride is None else pair(block.pool_stride))


def _borders(padding: int | str | list[int], kernel: Pair, dilation: Pair) -> Borders:
    """Pixels added on each side.

    `same` adds D(F-1) in all, so that ceil(H / S) pixels come out whatever H is; where that is odd, bottom and right
    get the extra pixel, as torch has it for stride 1.
    """
    if padding == "same":
        height, width = (stretch * (side - 1) for stretch, side in zip(dilation, kernel, strict=True))
        return (height // 2, height - height // 2), (width // 2, width - width // 2)
    rows, columns = (0, 0) if isinstance(padding, str) else pair(padding)
    return (rows, rows), (columns, columns)


class Misfit(Exception):
    """A block that does not fit what enters it.

    Args:
        what: which numbers do not go together.
        advice: what to change.
        size: whether a larger image may help.
    """

    def __init__(self, what: str, advice: str, *, size: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice
        self.size = size
        self.block = 0


def through(block: Block, channels: int, size: Pair) -> Pair:
    """The size of the map after a block that `channels` maps of `size` enter.

    Raises:
        Misfit: a kernel or pool that is larger than its map, groups that do not divide, a sum of unlike shapes.
    """
    entered = size
    for number in range(block.repeat):
        _check_groups(block, block.filters if number else channels)
        window = convolution_window(block, first=number == 0)
        _check_border(block, window, size)
        size = _shrink("kernel", window, size)
        _check_norm(block, size)
    if block.residual:
        shortcut = shortcut_window(block, channels)
        _check_sum(size, shortcut.output(entered) if shortcut else entered)
    if block.pool == "global":
        return 1, 1
    if block.pool == "none":
        return size
    size = _shrink("pool_size", pool_window(block), size)
    if block.pool == "stride":
        _check_norm(block, size)
    return size


def shortcut_window(block: Block, channels: int) -> Window | None:
    """The 1x1 convolution that makes a residual block's input fit its output; None where it fits as it is."""
    stride = pair(block.stride)
    return None if channels == block.filters and stride == (1, 1) else Window((1, 1), stride)


def _shrink(key: str, window: Window, size: Pair) -> Pair:
    height, width = after = window.output(size)
    if height >= 1 and width >= 1:
        return after
    rows, columns = window.kernel
    raise Misfit(
        f"{key} {rows}x{columns} on a map of {size[0]}x{size[1]}: "
        f"{window.arithmetic(size, 0 if height < 1 else 1)}, and a map needs 1 pixel",
        "take fewer pools or pool: none" if key == "pool_size" else "take a smaller kernel or padding: same",
        size=True,
    )


def _check_groups(block: Block, channels: int) -> None:
    if block.conv == "depthwise_separable":
        return
    for number, name in ((channels, "channels that enter"), (block.filters, "filters")):
        if number % block.groups:
            shared = math.gcd(channels, block.filters)
            fitting = [count for count in range(1, shared + 1) if shared % count == 0]
            raise Misfit(
                f"groups {block.groups} must divide the {number} {name}, and {number} = "
                f"{block.groups}*{number // block.groups} + {number % block.groups}",
                f"groups can be {_words(fitting)}",
            )


def _words(numbers: list[int]) -> str:
    return " or ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def _check_border(block: Block, window: Window, size: Pair) -> None:
    """Reflection can add at most H - 1 pixels, going round at most H."""
    spare = {"reflect": 1, "circular": 0}.get(block.padding_mode)
    for axis, border in enumerate(window.borders):
        if spare is not None and max(border) > size[axis] - spare:
            raise Misfit(
                f"padding_mode: {block.padding_mode} adds {max(border)} pixels and needs a map of "
                f"{max(border) + spare}, and this one has {size[0]}x{size[1]}",
                "take padding_mode: replicate or zeros",
                size=True,
            )


def _check_norm(block: Block, size: Pair) -> None:
    if block.norm == "instance" and size == (1, 1):
        raise Misfit("norm: instance needs more than one pixel, and the map has 1x1", "take norm: layer", size=True)


def _check_sum(size: Pair, shortcut: Pair) -> None:
    if size != shortcut:
        raise Misfit(
            f"residual: the convolutions give {size[0]}x{size[1]} pixels and the shortcut {shortcut[0]}x{shortcut[1]}, "
            "and a sum needs the same",
            "take padding: same",
        )


def last_size(layout: list[Block], channels: int, image_size: int) -> Pair:
    """The size of the last map for square images of `channels` channels.

    Raises:
        Misfit: with the place of the block in `block`.
    """
    size = (image_size, image_size)
    for index, block in enumerate(layout):
        try:
            size = through(block, channels, size)
        except Misfit as misfit:
            misfit.block = index
            raise
        channels = block.filters
    return size


def next_size(layout: list[Block], channels: int, image_size: int) -> int | None:
    """The smallest image size above `image_size` that works; None where none does."""

    def works(side: int) -> bool:
        try:
            last_size(layout, channels, side)
        except Misfit:
            return False
        return True

    return next((side for side in range(image_size + 1, LARGEST) if works(side)), None)
