"""Which network, and how it meets the size of the images."""

import enum
from dataclasses import dataclass, field
from typing import Any

from cnntrain.settings.nets import OWN_NETS, argument_faults


class Stem(enum.Enum):
    auto = "auto"  # small for images below 64 pixels, else imagenet
    imagenet = "imagenet"
    small = "small"


@dataclass
class ModelSettings:
    name: str = "???"  # a name of `cnntrain models`, or my_pkg.nets:build
    args: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the network's constructor
    stem: Stem = Stem.auto

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        found = [(f"args.{key}", value, rule) for key, value, rule in argument_faults(self.name, self.args)]
        if self.stem is Stem.small and (self.name in OWN_NETS or ":" in self.name):
            found.append(
                (
                    "stem",
                    "small",
                    f"auto for {self.name}, as small replaces the 7x7/2 convolution of torchvision's nets",
                )
            )
        return found
