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
from cnntrain.registry import NO_NAME, Registry, is_dotted
from cnntrain.text import nearest

# Names that the option of a group sets, which brings more.
GROUP_OF_KEY = {"data.name": "data", "model.name": "model", "finetune.mode": "finetune"}


def apply(tree: DictConfig, override: Override, *, is_saved: bool = False) -> list[str]:
    """Set what one word says in the tree; the faults if that cannot be.

    Args:
        is_saved: the tree is that of a run that exists: no group can be chosen, but a mapping can switch a piece on.
    """
    key, text = override.key_or_group, overrides.value_text(override)
    if override.is_delete():
        return [f"{key}: keys cannot be taken away; set a value, such as null where it is allowed"]
    if not is_saved and (group := _chosen_by(tree, key, text)):
        return [f"{key}: more than the name belongs to it (given {text}); choose with {group}={text}"]
    keys = messages.keys_of(variants_of(tree))
    if override.is_add() and not _is_open(key, keys) and key in keys:
        return [f"{key}: is there already; leave out the +"]
    if (
        isinstance(override.value(), dict)
        and key.startswith("augment.")
        and not key.startswith(overrides.OPEN_MAPPINGS)
        and not is_saved
        and OmegaConf.select(tree, key) is None
    ):
        return [_is_off(key, key, text, is_saved)]  # Hydra, which composes a new run again, cannot merge into null
    is_new = override.is_add() and key.startswith("hydra.")
    if is_new and OmegaConf.select(tree, key) is not None:
        return [f"{key}: is there already; leave out the +"]
    return set_value(tree, key, override.value(), text, is_saved=is_saved, is_new=is_new)


def _chosen_by(tree: DictConfig, key: str, value: str) -> str | None:
    """The group whose option of this name brings other values as well; None where it is right to set the name alone."""
    group = GROUP_OF_KEY.get(key)
    if key == "data.name" and is_dotted(value) and OmegaConf.select(tree, "hydra.runtime.choices.data") in DATASETS:
        return f"{group}={DATASETS.user.name} {key}"
    if group is None or value not in own_options(group) or OmegaConf.is_missing(tree[group], key.partition(".")[2]):
        return None
    of_library = group == "model" and tree.model.library is not Library.auto
    now = OmegaConf.select(tree, key)
    return None if of_library or value == getattr(now, "name", now) else group


def _is_off(key: str, piece: str, text: str, is_saved: bool) -> str:
    group, _, name = piece.rpartition(".")
    way = f"with '{piece}={{{key[len(piece) + 1 :]}: {text}}}'" if is_saved else f"first, such as '{group}=[{name}]'"
    return f"{key}: {name} is off (given {text}); switch it on {way}"


def variants_of(tree: DictConfig) -> dict[str, str]:
    """The chosen name of each section whose keys depend on it."""
    return {section: _variant(tree[section], entries) for section, entries in VARIANTS.items()}


def _variant(part: DictConfig, entries: Registry[Any]) -> str:
    if library := OmegaConf.select(part, "library"):
        return str(library)
    name = str(OmegaConf.select(part, "name"))
    return NO_NAME if _is_users(part, entries) and not is_dotted(name) else name


def _is_users(part: DictConfig, entries: Registry[Any]) -> bool:
    """Whether a section has the keys of a function of the user's."""
    return OmegaConf.get_type(part) is entries.user.settings


def set_value(
    tree: DictConfig, key: str, value: Any, text: str, *, is_saved: bool = False, is_new: bool = False
) -> list[str]:
    """Set a value, or each value of a mapping; the faults if that cannot be.

    Args:
        tree: typed by our settings classes; changed in place.
        text: the value as it was given, for the fault.
        is_saved: see `apply`.
        is_new: the key may be a new one.
    """
    variants = variants_of(tree)
    keys = messages.keys_of(variants)
    kind = keys.get(key)
    section, _, name = key.partition(".")
    parent = key.rpartition(".")[0]
    if isinstance(value, dict) and kind and (classes := kind.classes()):
        if OmegaConf.select(tree, key) is None:
            OmegaConf.update(tree, key, OmegaConf.structured(classes[0]), merge=False)
        return [line for part in value for line in set_value(tree, f"{key}.{part}", value[part], str(value[part]))]
    if section in VARIANTS and name == "name" and "library" not in tree[section] and value != variants[section]:
        entries, is_function = VARIANTS[section], is_dotted(text)
        if text in entries or not _is_users(tree[section], entries):
            similar = text if text in entries else nearest(text, entries)
            choice = f"{section}={similar or text}"
            if is_function:
                choice = f"{section}={entries.user.name} {key}={text}"
            elif section == "optimizer" and not similar:
                choice = f"optimizer=timm {key}={text}, or optimizer=torch where it is one of torch.optim"
            return [f"{key}: the numbers belong to the name (given {text}); choose with {choice}"]
        if not is_function:
            return [entries.unknown_fault(text)]
    if not _is_open(key, keys) and key not in keys and not (parent in keys and key.rpartition(".")[2].isdigit()):
        return [messages.unknown_key(key, text, keys, variants)]
    if null := _null_above(tree, key, keys):
        is_piece = keys[null].classes()
        return [_is_off(key, null, text, is_saved) if is_piece else messages.wrong_value(null, text, keys[null])]
    if kind and kind.is_switch and isinstance(value, (int, float)) and value not in (0, 1):
        return [messages.wrong_value(key, text, kind)]  # OmegaConf takes any number for true
    try:
        OmegaConf.update(tree, key, value, force_add=is_new or key.startswith(overrides.OPEN_MAPPINGS))
    except (OmegaConfBaseException, AttributeError, AssertionError, ArithmeticError, ValueError, TypeError) as error:
        if key.startswith("hydra.") and "not in" in str(error):
            return [messages.unknown_key(key, text, _names(tree.hydra, "hydra."), {})]
        return [messages.wrong_value(key, text, kind)]
    return []


def _is_open(key: str, keys: Mapping[str, messages.Key]) -> bool:
    """Whether a key may be one that no settings class lists."""
    mappings = (mapping for mapping in overrides.OPEN_MAPPINGS if mapping in keys)
    return key.startswith(("hydra.", *(f"{mapping}." for mapping in mappings)))


def _null_above(tree: DictConfig, key: str, keys: Mapping[str, messages.Key]) -> str | None:
    parts = key.split(".")
    above = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((name for name in above if name in keys and OmegaConf.select(tree, name) is None), None)


def _names(node: DictConfig, prefix: str) -> Iterator[str]:
    """The dotted names below a node."""
    for name in node:
        yield f"{prefix}{name}"
        child = node._get_node(str(name))
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _names(child, f"{prefix}{name}.")
