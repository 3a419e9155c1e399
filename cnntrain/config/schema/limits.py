"""Fields with limits: a settings dataclass states the range of a number beside its default."""

import enum
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Any, TypeVar

INT64 = 2**63 - 1
Given = TypeVar("Given", bound=int | str | None)
AT_MOST = "at most "
AUTO = "auto"  # a number that the run finds


def number(
    default: Any,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    most: int = INT64,
    words: Sequence[str] = (),
    help: str = "",
) -> Any:
    """A dataclass field that holds a number (or None, where its type allows) within the given limits.

    For a list or mapping, the limits hold for each item. `most` is what no machine has, told only to who goes beyond
    it; `words` stand for numbers that are found later; `help` is the line of a command's argument.
    """
    limits = {">=": ge, ">": gt, "<=": le, "<": lt}
    metadata = {"limits": {sign: bound for sign, bound in limits.items() if bound is not None}, "most": most}
    metadata |= {"help": help, "words": tuple(words)}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def rule(limits: dict[str, float]) -> str:
    """The limits in words: `a number >= 0 and < 1`."""
    return " and ".join(
        f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}" for sign, bound in limits.items()
    )


_COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers in a value, however deep they lie in lists and mappings."""
    if isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def out_of_range(settings: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """All numbers in a settings tree that break their limits, as (key, value, rule).

    NaN, infinity and whole numbers of more than 64 bits are refused everywhere: OmegaConf accepts them.
    """
    faults = []
    for item in fields(settings):
        key, value = prefix + item.name, getattr(settings, item.name)
        if is_dataclass(value):
            faults += out_of_range(value, key + ".")
            continue
        words = item.metadata.get("words")
        if words and isinstance(value, str) and value not in words:
            faults.append((key, value, ", ".join(words)))
        faults += [(key, part, rule) for part, rule in broken_limits(item.metadata, value)]
    return faults


def broken_limits(metadata: Mapping[str, Any], value: Any) -> Iterator[tuple[int | float, str]]:
    """The numbers in the value of one field that break its limits, each with the rule that it breaks."""
    limits = metadata.get("limits", {})
    for part in _numbers(value):
        if isinstance(part, float) and not math.isfinite(part):
            yield part, "a finite number"
        elif isinstance(part, int) and abs(part) > (most := metadata.get("most", INT64)):
            yield part, f"{AT_MOST}{most:,}"
        elif not all(_COMPARE[sign](part, bound) for sign, bound in limits.items()):
            yield part, rule(limits)


def whole_number(value: Given) -> Given | int:
    """The number that a text holds, as one out of the environment does; anything else as it is."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def typed_value(value: Any) -> Any:
    """A value as a user types it: an enum by its name."""
    return value.name if isinstance(value, enum.Enum) else value
