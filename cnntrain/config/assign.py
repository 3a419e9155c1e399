"""Values put into a composed tree, and the faults of those that do not fit, each with its key; without torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnntrain.config import messages, overrides
from cnntrain.config.messages import VARIANTS
from cnntrain.config.paths import own_options
from cnntrain.config.schema.data import DATASETS
from cnntrain.config.schema.model import Library
from cnntrain.registry import UNNAMED, Registry, is_dotted

CHOSEN = {"data.name": "data", "model.name": "model", "finetune.mode": "finetune"}  # by an option, which brings more


def apply(tree: DictConfig, override: Override, *, saved: bool = False) -> list[str]:
    """Set what one word says in the tree; the faults if that cannot be.

    Args:
        saved: the tree is that of a run that exists: no group can be chosen, but a mapping can switch a piece on.
    """
    key, text = override.key_or_group, overrides.value_text(override)
    if override.is_delete():
        return [f"{key}: keys cannot be taken away; set a value, such as null where it is allowed"]
    if not saved and (group := _chosen_by(tree, key, text)):
        return [f"{key}: more than the name belongs to it (given {text}); choose with {group}={text}"]
    known = messages.keys_of(variants_of(tree))
    if override.is_add() and not _is_open(key, known) and key in known:
        return [f"{key}: is there already; leave out the +"]
    if (
        isinstance(override.value(), dict)
        and key.startswith("augment.")
        and not key.startswith(overrides.OPEN_MAPPINGS)
        and not saved
        and OmegaConf.select(tree, key) is None
    ):
        return [_is_off(key, key, text, saved)]  # Hydra, which composes a new run again, cannot merge into null
    added = override.is_add() and key.startswith("hydra.")
    if added and OmegaConf.select(tree, key) is not None:
        return [f"{key}: is there already; leave out the +"]
    return set_value(tree, key, override.value(), text, saved=saved, added=added)


def _chosen_by(tree: DictConfig, key: str, value: str) -> str | None:
    """The group whose option of this name brings other values as well; None where it is right to set the name alone."""
    group = CHOSEN.get(key)
    if key == "data.name" and is_dotted(value) and OmegaConf.select(tree, "hydra.runtime.choices.data") in DATASETS:
        return f"{group}={DATASETS.user.name} {key}"
    if group is None or value not in own_options(group) or OmegaConf.is_missing(tree[group], key.partition(".")[2]):
        return None
    of_library = group == "model" and tree.model.library is not Library.auto
    now = OmegaConf.select(tree, key)
    return None if of_library or value == getattr(now, "name", now) else group


def _is_off(key: str, piece: str, text: str, saved: bool) -> str:
    group, _, name = piece.rpartition(".")
    way = f"with '{piece}={{{key[len(piece) + 1 :]}: {text}}}'" if saved else f"first, such as '{group}=[{name}]'"
    return f"{key}: {name} is off (given {text}); switch it on {way}"


def variants_of(tree: DictConfig) -> dict[str, str]:
    """The chosen name of each section whose keys depend on it."""
    return {section: _variant(tree[section], entries) for section, entries in VARIANTS.items()}


def _variant(part: DictConfig, entries: Registry[Any]) -> str:
    name = str(OmegaConf.select(part, "name"))
    return UNNAMED if _is_users(part, entries) and not is_dotted(name) else name


def _is_users(part: DictConfig, entries: Registry[Any]) -> bool:
    """Whether a section has the keys of a function of the user's."""
    return OmegaConf.get_type(part) is entries.user.settings


def set_value(
    tree: DictConfig, key: str, value: Any, text: str, *, saved: bool = False, added: bool = False
) -> list[str]:
    """Set a value, or each value of a mapping; the faults if that cannot be.

    Args:
        tree: typed by our settings classes; changed in place.
        text: the value as it was given, for the fault.
        saved: see `apply`.
        added: the key may be a new one.
    """
    variants = variants_of(tree)
    known = messages.keys_of(variants)
    kind = known.get(key)
    section, _, name = key.partition(".")
    parent = key.rpartition(".")[0]
    if isinstance(value, dict) and kind and (classes := kind.classes()):
        if OmegaConf.select(tree, key) is None:
            OmegaConf.update(tree, key, OmegaConf.structured(classes[0]), merge=False)
        return [line for part in value for line in set_value(tree, f"{key}.{part}", value[part], str(value[part]))]
    if section in VARIANTS and name == "name" and value != variants[section]:
        entries, dotted = VARIANTS[section], is_dotted(text)
        if text in entries or not _is_users(tree[section], entries):
            choice = f"{section}={entries.user.name} {key}={text}" if dotted else f"{section}={text}"
            return [f"{key}: the numbers belong to the name (given {text}); choose with {choice}"]
        if not dotted:
            return [entries.unknown(text)]
    if not _is_open(key, known) and key not in known and not (parent in known and key.rpartition(".")[2].isdigit()):
        return [messages.unknown_key(key, text, known, variants)]
    if null := _null_above(tree, key, known):
        is_piece = known[null].classes()
        return [_is_off(key, null, text, saved) if is_piece else messages.wrong_value(null, text, known[null])]
    try:
        OmegaConf.update(tree, key, value, force_add=added or key.startswith(overrides.OPEN_MAPPINGS))
    except (OmegaConfBaseException, AttributeError, AssertionError, ArithmeticError, ValueError, TypeError) as error:
        if key.startswith("hydra.") and "not in" in str(error):
            return [messages.unknown_key(key, text, _names(tree.hydra, "hydra."), {})]
        return [messages.wrong_value(key, text, kind)]
    return []


def _is_open(key: str, known: Mapping[str, messages.Key]) -> bool:
    """Whether a key may be one that no settings class lists."""
    mappings = (mapping for mapping in overrides.OPEN_MAPPINGS if mapping in known)
    return key.startswith(("hydra.", *(f"{mapping}." for mapping in mappings)))


def _null_above(tree: DictConfig, key: str, known: Mapping[str, messages.Key]) -> str | None:
    parts = key.split(".")
    above = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((name for name in above if name in known and OmegaConf.select(tree, name) is None), None)


def _names(node: DictConfig, prefix: str) -> Iterator[str]:
    """The dotted names below a node."""
    for name in node:
        yield f"{prefix}{name}"
        child = node._get_node(str(name))
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _names(child, f"{prefix}{name}.")
