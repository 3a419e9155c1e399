"""The config of a run that exists: read back from plain containers, with values changed."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cnntrain.config import overrides
from cnntrain.config.assign import apply, set_value
from cnntrain.config.check import settings_of
from cnntrain.config.messages import VARIANTS, ConfigErrors
from cnntrain.config.schema.settings import Settings


def settings_from_plain(plain: dict[str, Any], words: Sequence[str] = (), source: str = "config") -> Settings:
    """The settings of an earlier run, with values changed.

    Args:
        plain: what `to_plain` gave.
        words: overrides of values; a group choice would have to bring other numbers with it and is a fault.
        source: where `plain` comes from, for the faults.
    Raises:
        ConfigErrors: with all faults, one line each.
    """
    tree = OmegaConf.structured(Settings)
    OmegaConf.set_struct(tree, True)
    try:
        found = _graft(tree, plain, source)
    except RecursionError:
        raise ConfigErrors([f"{source}: nested more deeply than any settings; restore a copy"]) from None
    read, wrong = overrides.parse(list(words))
    found += wrong
    for override in read:
        key = override.key_or_group
        if override.is_sweep_override():
            found.append(f"{key}: takes one value here (given {overrides.given(override)})")
        elif (key in overrides.GROUPS and not isinstance(override.value(), dict)) or key.startswith("hydra"):
            advice = "switch pieces off with augment.PIECE=null, or " if key == "augment" else ""
            advice += f"start a new one with `cnntrain {key}=...`"
            found.append(f"{key}: cannot be chosen again for a run that exists; {advice}")
        else:
            found += apply(tree, override, saved=True)
    if found:
        raise ConfigErrors(found)
    return settings_of(tree)


def _graft(tree: DictConfig, plain: dict[str, Any], source: str) -> list[str]:
    """Put saved settings into the typed tree; the faults of keys and values that do not fit."""
    try:
        text = str(plain)
    except ValueError:  # a number of more digits than Python turns into text
        return [f"{source}: holds a number that no key takes; start a new run"]
    if "${" in text:
        return [f"{source}: holds an interpolation, which a saved run never does; start a new run"]
    for section, entries in VARIANTS.items():
        part = plain.get(section)
        name = part.get("name") if isinstance(part, dict) else None
        if not isinstance(name, str) or (entry := entries.find(name)) is None:
            return [f"{source}: {entries.unknown(name)}"]
        tree[section] = OmegaConf.structured(entry.settings(name=name))
    return [f"{source}: {line}" for name, value in plain.items() for line in set_value(tree, name, value, str(value))]
