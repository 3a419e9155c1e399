"""Fields with limits: a settings dataclass states the range of a number beside its default."""

import math
import operator
from dataclasses import field, fields, is_dataclass
from typing import Any


def number(
    default: Any, *, ge: float | None = None, gt: float | None = None, le: float | None = None, lt: float | None = None
) -> Any:
    """A dataclass field that holds a number (or None, where its type allows) within the given limits.

    For a list, the limits hold for each item.
    """
    limits = {">=": ge, ">": gt, "<=": le, "<": lt}
    metadata = {"limits": {sign: bound for sign, bound in limits.items() if bound is not None}}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def rule(limits: dict[str, float]) -> str:
    """The limits in words: `a number >= 0 and < 1`."""
    return " and ".join(
        f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}" for sign, bound in limits.items()
    )


_COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def out_of_range(settings: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """All numbers in a settings tree that break their limits, as (key, value, rule).

    NaN and infinity are refused everywhere: OmegaConf accepts them for any float.
    """
    faults = []
    for item in fields(settings):
        key, value = prefix + item.name, getattr(settings, item.name)
        if is_dataclass(value):
            faults += out_of_range(value, key + ".")
            continue
        limits = item.metadata.get("limits", {})
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, bool) or not isinstance(part, (int, float)):
                continue
            if not math.isfinite(part):
                faults.append((key, part, "a finite number"))
            elif not all(_COMPARE[sign](part, bound) for sign, bound in limits.items()):
                faults.append((key, part, rule(limits)))
    return faults
