"""Transfer learning. Only `none` does anything yet: the modes A, B and C are refused with a line that says so."""

import enum
from dataclasses import dataclass
from typing import Any


class Mode(enum.Enum):
    none = "none"
    A = "A"
    B = "B"
    C = "C"


@dataclass
class FinetuneSettings:
    mode: Mode = Mode.none

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        if self.mode is Mode.none:
            return []
        return [("mode", self.mode.value, "none, as this version trains from scratch only")]
