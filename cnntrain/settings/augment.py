"""Augmentation pieces; null switches a piece off. Each has a file in conf/augment/."""

from dataclasses import dataclass
from typing import Any, Optional

from cnntrain.settings.limits import number


@dataclass
class PadCropSettings:
    """Pad each side, then cut the original size at a random place (arXiv 1512.03385, section 4.2)."""

    padding: int = number(4, ge=1)  # pixels on each side
    mode: str = "zeros"  # zeros | reflect

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        return [] if self.mode in ("zeros", "reflect") else [("mode", self.mode, "zeros or reflect")]


@dataclass
class ResizedCropSettings:
    """A random part of random shape, resized to the image size (arXiv 1409.4842, section 6)."""

    scale: list[float] = number([0.08, 1.0], gt=0, le=1)  # smallest and largest part of the area
    ratio: list[float] = number([0.75, 1.3333333333333333], gt=0)  # smallest and largest width / height

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        pairs = {"scale": self.scale, "ratio": self.ratio}
        return [
            (key, pair, "two numbers, the smaller first")
            for key, pair in pairs.items()
            if len(pair) != 2 or pair[0] > pair[1]
        ]


@dataclass
class FlipSettings:
    p: float = number(0.5, ge=0, le=1)  # probability of a flip


@dataclass
class AugmentSettings:
    pad_crop: Optional[PadCropSettings] = None
    resized_crop: Optional[ResizedCropSettings] = None
    hflip: Optional[FlipSettings] = None
    vflip: Optional[FlipSettings] = None
