"""The config of a run that exists: read back from plain containers, with values changed."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cnntrain.config import overrides
from cnntrain.config.assign import apply, set_value
from cnntrain.config.changes import Change, find_changes
from cnntrain.config.check import make_settings, settings_of
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import VARIANTS
from cnntrain.config.schema.settings import Settings


@dataclass(frozen=True)
class RunConfig:
    """The config that a command works with: the settings of a run, and where they come from.

    Attributes:
        overrides: the words of the line that have made them.
        model_option: the file of conf/model/ that was chosen; empty for a run that exists.
        plain: of a run that exists, its config as it was saved.
        changes: of that, what the overrides have changed.
    """

    settings: Settings
    overrides: tuple[str, ...] = ()
    model_option: str = ""
    plain: Mapping[str, Any] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)


def restore_config(plain: dict[str, Any], words: Sequence[str] = (), source: str = "config") -> RunConfig:
    """The config of an earlier run, with values changed.

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
        faults = _graft(tree, plain, source)
    except RecursionError:
        raise ConfigErrors([f"{source}: nested more deeply than any settings; restore a copy"]) from None
    before = copy.deepcopy(tree) if words and not faults else None
    override_list, syntax_faults = overrides.parse(list(words))
    faults += syntax_faults
    for override in override_list:
        key = override.key_or_group
        if override.is_sweep_override():
            faults.append(f"{key}: takes one value here (given {overrides.value_text(override)})")
        elif (key in overrides.GROUPS and not isinstance(override.value(), dict)) or key.startswith("hydra"):
            advice = "switch pieces off with augment.PIECE=null, or " if key == "augment" else ""
            advice += f"start a new one with `cnntrain {key}=...`"
            faults.append(f"{key}: cannot be chosen again for a run that exists; {advice}")
        else:
            faults += apply(tree, override, is_saved=True)
    if faults:
        raise ConfigErrors(faults)
    settings = settings_of(tree)
    if before is None:
        return RunConfig(settings, tuple(words), plain=plain)
    settings_before = settings_of(before) if OmegaConf.missing_keys(before) else make_settings(before)
    return RunConfig(settings, tuple(words), plain=plain, changes=find_changes(settings_before, settings))


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
        name = part.get("library", part.get("name")) if isinstance(part, dict) else None
        if not isinstance(name, str) or (entry := entries.find(name)) is None:
            return [f"{source}: {entries.unknown_fault(name)}"]
        tree[section] = OmegaConf.structured(entry.settings(name=name))
    return [f"{source}: {line}" for name, value in plain.items() for line in set_value(tree, name, value, str(value))]
