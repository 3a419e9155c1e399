"""Settings as plain containers and as YAML: what a run folder and a checkpoint keep."""

import enum
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from cnntrain.config.schema.settings import Settings


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as plain dicts, lists, numbers and strings; enums as their names."""
    return {item.name: _plain(getattr(settings, item.name)) for item in fields(settings)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_plain(value)
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return {str(name): _plain(part) for name, part in value.items()} if isinstance(value, dict) else value


def to_yaml(settings: Settings) -> str:
    """Settings as YAML, in the order of the settings classes."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(settings)))
