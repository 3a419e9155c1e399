"""The arguments of the network that is described in YAML, `model=cnn`: blocks of convolutions, then linear layers."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Optional, Union

from cnntrain.config.schema.arguments import (
    activation,
    are_counts,
    argument,
    dropout,
    hidden,
    is_count,
    is_number,
    one_of,
)

Fault = tuple[str, Any, str]

CONVOLUTIONS = ("full", "depthwise_separable", "spatially_separable")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
NORMS = ("none", "batch", "layer", "instance", "group")
POOLS = ("max", "avg", "weighted", "global", "stride", "none")
INITS = ("default", "he", "glorot", "normal")

MOST_REPEATS = 1000  # of a block; many more take minutes to build

Pair = tuple[int, int]


def pair(size: int | list[int]) -> Pair:
    """A size as (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def flat(rows: list[Any]) -> list[Any]:
    """The numbers of a list, or of a list of rows, one after another."""
    return [number for row in rows for number in (row if isinstance(row, list) else [row])]


def _is_size(value: Any) -> bool:
    return is_count(value) or (are_counts(value) and len(value) == 2)


def _size(default: int) -> Any:
    return argument(default, _is_size, "a whole number >= 1, or a pair [height, width] of them")


def _is_padding(value: Any) -> bool:
    numbers = value if isinstance(value, list) and len(value) == 2 else [value]
    return value in ("valid", "same") or all(type(number) is int and number >= 0 for number in numbers)


def _is_weight(value: Any) -> bool:
    return is_number(value) and 0 <= value < float("inf")


def _are_weights(value: Any) -> bool:
    weights = flat(value) if isinstance(value, list) else []
    return value is None or (bool(weights) and all(map(_is_weight, weights)) and sum(weights) > 0)


@dataclass
class BlockDefaults:
    """The values that every block has unless it says otherwise: [CONV -> NORM -> ACT -> DROP] * repeat -> POOL.

    A size is one number or a pair [height, width].
    """

    repeat: int = argument(
        1, lambda value: is_count(value) and value <= MOST_REPEATS, f"a whole number from 1 to {MOST_REPEATS}"
    )  # convolutions of the block
    kernel: Union[int, list[int]] = _size(3)
    stride: Union[int, list[int]] = _size(1)  # of the first convolution; the others have 1
    padding: Union[int, str, list[int]] = argument(
        "valid",
        _is_padding,
        "valid, same, or a number of pixels >= 0 for all sides, or [top and bottom, left and right]",
    )
    padding_mode: str = one_of("zeros", *PADDING_MODES)
    dilation: Union[int, list[int]] = _size(1)
    groups: int = argument(1, is_count, "a whole number >= 1")
    conv: str = one_of("full", *CONVOLUTIONS)
    bias: Optional[bool] = argument(
        None,
        lambda value: value is None or isinstance(value, bool),
        "true, false, or null for only where no norm follows",
    )
    norm: str = one_of("none", *NORMS)
    activation: str = activation("relu", "none")
    residual: bool = argument(False, lambda value: isinstance(value, bool), "true or false")
    drop_unit: float = dropout(0.0)  # single values
    drop_channel: float = dropout(0.0)  # whole channels
    drop_block: float = dropout(0.0)  # squares of a map
    drop_block_size: int = argument(7, is_count, "a whole number >= 1")  # side of the squares
    drop_path: float = dropout(0.0)  # the convolutions of a residual block, so that its shortcut alone is left
    drop_connect: float = dropout(0.0)  # weights of the convolutions
    pool: str = one_of("max", *POOLS)
    pool_size: Union[int, list[int]] = _size(2)
    pool_stride: Optional[Union[int, list[int]]] = argument(
        None,
        lambda value: value is None or _is_size(value),
        "a whole number >= 1, a pair of them, or null for pool_size",
    )
    pool_weights: Optional[list[Any]] = argument(
        None, _are_weights, "a list of pool_size numbers >= 0, not all 0, or null for weights that are learned"
    )


@dataclass
class Block(BlockDefaults):
    """A block with all that holds for it."""

    filters: int = field(kw_only=True, metadata={"fits": is_count, "rule": "a whole number >= 1"})

    def faults(self) -> Iterator[Fault]:
        """Values that do not go together."""
        if self.groups > 1 and self.conv == "depthwise_separable":
            yield "groups", self.groups, "1 with conv: depthwise_separable, which has a group for each channel already"
        if self.pool_weights is not None and self.pool == "weighted":
            height, width = pair(self.pool_size)
            rows = [len(row) for row in self.pool_weights if isinstance(row, list)]
            if len(flat(self.pool_weights)) != height * width or rows not in ([], [width] * height):
                rule = f"{height * width} numbers for pool_size {height}x{width}, or {height} rows of {width}"
                yield "pool_weights", self.pool_weights, rule


@dataclass
class CnnArgs(BlockDefaults):
    """Blocks of convolutions, then linear layers: [FC -> ACT -> DROP] * len(hidden) -> FC."""

    blocks: list[Any] = argument(
        [32, 64], lambda value: isinstance(value, list), "a list of blocks, such as [32,{filters:64,repeat:2}]"
    )
    hidden: list[int] = hidden([])
    hidden_activation: Optional[str] = activation(None, "none")  # null: that of the blocks
    hidden_drop_connect: float = dropout(0.0)  # weights of the linear layers but the last
    dropout: float = dropout(0.5)  # after each hidden layer; without one, before the last
    init: str = one_of("default", *INITS)  # default: torch's own
    init_std: float = argument(0.01, lambda value: _is_weight(value) and value > 0, "a number > 0")  # of init: normal

    def layout(self) -> list[Block]:
        """The blocks, each with its own values and these ones for the rest."""
        defaults = {item.name: getattr(self, item.name) for item in fields(BlockDefaults)}
        return [Block(**(defaults | _as_mapping(block))) for block in self.blocks]

    def faults(self) -> list[Fault]:
        """The broken rules inside the blocks, as (key, value, rule); the values beside them must be right."""
        faults = [
            fault for index, block in enumerate(self.blocks) for fault in _block_faults(f"blocks[{index}]", block)
        ]
        if faults:
            return faults
        layout = self.layout()
        for index, (block, keys) in enumerate(zip(layout, map(_as_mapping, self.blocks), strict=True)):
            block_faults = [*block.faults(), *_idle_values(keys, [block])]
            faults += [(f"blocks[{index}].{name}", value, rule) for name, value, rule in block_faults]
        faults += _idle_values(vars(self), layout)
        if self.hidden_drop_connect and not self.hidden:
            faults.append(("hidden_drop_connect", self.hidden_drop_connect, "0 without hidden layers"))
        return faults


# Values that do nothing in a block without something else.
_NEEDS: tuple[tuple[str, Callable[[Block], bool], str], ...] = (
    ("drop_path", lambda block: block.residual, "0 without residual: true"),
    ("pool_weights", lambda block: block.pool == "weighted", "null without pool: weighted"),
    ("pool_size", lambda block: block.pool not in ("none", "global"), "left out with pool: none or global"),
    ("pool_stride", lambda block: block.pool not in ("none", "global"), "left out with pool: none or global"),
    ("padding_mode", lambda block: block.padding not in ("valid", 0, [0, 0]), "zeros without padding"),
)
_DEFAULTS = {item.name: item.default for item in fields(BlockDefaults)}


def _idle_values(values: dict[str, Any], layout: list[Block]) -> list[Fault]:
    """Values that were given and do nothing in any block of `layout`."""
    return [
        (name, values[name], rule)
        for name, acts, rule in _NEEDS
        if values.get(name, _DEFAULTS[name]) != _DEFAULTS[name] and not any(map(acts, layout))
    ]


def _as_mapping(block: int | dict[str, Any]) -> dict[str, Any]:
    return block if isinstance(block, dict) else {"filters": block}


def _block_faults(key: str, block: Any) -> Iterator[Fault]:
    """Keys that a block does not have, and values that break their rule."""
    if not is_count(block) and not isinstance(block, dict):
        yield key, block, "its number of filters, or a mapping such as {filters: 32, repeat: 2}"
        return
    rules = {item.name: item.metadata for item in fields(Block)}
    names = ["filters", *(name for name in rules if name != "filters")]
    for name, value in ({"filters": "nothing"} | _as_mapping(block)).items():
        place = f"{key}.{name}"
        if name not in rules:
            suggestions = difflib.get_close_matches(str(name), names, n=1)
            rule = f"spelt {suggestions[0]}" if suggestions else f"one of the keys of a block, {', '.join(names)}"
            yield place, value, rule
        elif not rules[name]["fits"](value):
            yield place, value, rules[name]["rule"]
