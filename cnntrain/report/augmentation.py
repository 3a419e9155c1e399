"""What augmentation does, in words: its pieces with their numbers, and the labels of mixed images."""

from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from cnntrain.config.schema.augment import AugmentSettings

if TYPE_CHECKING:
    from torch import Tensor

NO_LABEL = "no label"
LEAST = 0.005  # a smaller weight would be written as 0.00


def mixing(settings: AugmentSettings) -> list[str]:
    """The pieces that mix images, and what they share."""
    names = [name for name in ("mixup", "cutmix") if getattr(settings, name) is not None]
    return [*names, "mix"] if names else []


def describe(settings: AugmentSettings, piece: str) -> str:
    """A piece with those of its numbers that do something: `pad_crop padding=4 mode=reflect`."""
    numbers = getattr(settings, piece)
    values = {item.name: getattr(numbers, item.name) for item in fields(numbers) if item.name != "interpolation"}
    if piece == "mix" and (settings.mixup is None or settings.cutmix is None):
        del values["switch_p"]
    words = [f"{key}={_value(value)}" for key, value in values.items() if _acts(key, value)]
    return " ".join([piece, *words])


def describe_all(settings: AugmentSettings) -> str:
    """All pieces, those that mix and what they share at the end; `none` where none is on."""
    last = mixing(settings)
    pieces = [*(name for name in settings.pieces if name not in last), *last]
    return ", ".join(describe(settings, piece) for piece in pieces) or "none"


def class_name(name: str) -> str:
    """The name of a class, recognisable as one: a bare 7 could mean anything."""
    return f"class {name}" if name.isdecimal() else name


def shares(targets: "Tensor", classes: Sequence[str]) -> list[tuple[str, ...]]:
    """The classes of each target, float (N, K) or int64 (N,), by falling weight: `0.62 cat`, `+ 0.38 dog`.

    Weights that would be written as 0.00 are left out; of sets nothing may remain, `no label`.
    """
    captions = []
    for target in targets.tolist():
        weights = {target: 1.0} if isinstance(target, int) else dict(enumerate(target))
        labels = sorted((label for label in weights if weights[label] >= LEAST), key=lambda label: -weights[label])
        words = [f"{weights[label]:.2f} {class_name(classes[label])}" for label in labels] or [NO_LABEL]
        captions.append((words[0], *(f"+ {more}" for more in words[1:])))
    return captions


def label_names(labels: "Tensor", classes: Sequence[str]) -> list[str]:
    """The class of each image, int64 (N,), or its set of classes, bool (N, K), in words."""
    if labels.ndim == 1:
        return [classes[label] for label in labels.tolist()]
    sets = ([name for name, has in zip(classes, row, strict=True) if has] for row in labels.tolist())
    return [", ".join(names) or NO_LABEL for names in sets]


def _acts(key: str, value: Any) -> bool:
    idle = {"p": 1.0, "scale": [1.0, 1.0], "all_ops": True}
    return value not in (None, 0, {}) and value != idle.get(key)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    return f"{value:.4g}" if isinstance(value, float) else str(value)
