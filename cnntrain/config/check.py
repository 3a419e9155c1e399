"""A composed tree as typed settings, with all of its values that are missing or break a rule."""

import os

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnntrain.config import messages
from cnntrain.config.assign import variants_of
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import REGISTRIES, VARIANTS
from cnntrain.config.schema.settings import Settings


def settings_of(tree: DictConfig, cwd: str | None = None) -> Settings:
    """A composed tree as Settings; raises ConfigErrors with all values that are missing or break a rule.

    Args:
        cwd: the folder that relative paths start from; None for the current one.
    """
    settings, found = check_tree(tree, cwd)
    if found or settings is None:
        raise ConfigErrors(found)
    return settings


def check_tree(tree: DictConfig, cwd: str | None = None) -> tuple[Settings | None, list[str]]:
    """What `settings_of` does, without raising: the settings, and all faults; no settings where they cannot be made."""
    if "hydra" in tree:
        HydraConfig.instance().set_config(tree)  # for data.title, which is the option that was chosen
    with env_override(_environment(tree)):  # which the job will have
        return _check(tree, cwd)


def _environment(tree: DictConfig) -> dict[str, str]:
    try:
        return dict(tree.hydra.job.env_set) if "hydra" in tree else {}
    except OmegaConfBaseException as error:
        raise ConfigErrors([f"hydra.job.env_set: {str(error).splitlines()[0]}"]) from error


def _check(tree: DictConfig, cwd: str | None) -> tuple[Settings | None, list[str]]:
    tree = tree.copy()
    with open_dict(tree):
        tree.pop("hydra", None)
    if found := _unknown_names(tree):
        return None, found
    _choose_variants(tree)
    unresolved = _unresolved(tree)
    if OmegaConf.missing_keys(tree):
        return None, list(unresolved.values())
    settings = make_settings(tree, cwd)
    if not tree.data.root:
        unresolved["data.root"] = f"data.root: must not be empty; {messages.MISSING['data.root']}"
    return settings, [
        *unresolved.values(),
        *(line for line in messages.broken_rules(settings) if line.partition(":")[0] not in unresolved),
    ]


def make_settings(tree: DictConfig, cwd: str | None = None) -> Settings:
    """The settings of a tree without its `hydra` part, unchecked."""
    settings: Settings = OmegaConf.to_object(tree)
    settings.data.root = os.path.abspath(os.path.join(cwd or "", os.path.expanduser(settings.data.root)))
    return settings


def _choose_variants(tree: DictConfig) -> None:
    """Give each section the keys that belong to its name, where no file of ours has done so: the user's, or none."""
    for section, name in variants_of(tree).items():
        kind = VARIANTS[section].entry(name).settings
        if OmegaConf.get_type(tree[section]) is not kind:
            known = {key: tree[section]._get_node(key) for key in tree[section]}
            tree[section] = OmegaConf.merge(OmegaConf.structured(kind), known)


def _unknown_names(tree: DictConfig) -> list[str]:
    """The faults of names that stand for nothing, and of those that do not fit the numbers beside them."""
    found = []
    for section, entries in REGISTRIES.items():
        name = OmegaConf.select(tree, f"{section}.name")
        if name is None:  # missing, which is told later
            continue
        kind, entry = OmegaConf.get_type(tree[section]), entries.find(name)
        others = [one.name for one in entries.values() if one.settings is kind]
        if entry is None:
            found.append(entries.unknown(name))
        elif section in VARIANTS and kind is entries.user.settings and entry is not entries.user:
            found.append(f"{section}.name: missing; {messages.MISSING[f'{section}.name']}")  # another file's is there
        elif section in VARIANTS and others and kind is not entry.settings:
            rule = f"{others[0]}, whose numbers are in its file"
            advice = f"let the defaults list of the file begin with {entry.name}"
            found.append(f"{section}.name: must be {rule} (given {name}); {advice}")
    return found


def _unresolved(tree: DictConfig) -> dict[str, str]:
    """The faults of keys without a value; texts get a place holder, so that the other keys can be checked as well."""
    found: dict[str, str] = {}
    for key, kind in messages.keys_of(variants_of(tree)).items():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(tree, parent) if parent else tree  # None: off, or known to be faulty
        if node is None:
            continue
        try:
            if fault := _value_fault(node, name, key, kind):
                found[key] = fault
        except OmegaConfBaseException as error:
            found[key] = f"{key}: {str(error).splitlines()[0]}"
        if key in found:
            node[name] = "missing" if kind.hint is str else "???"
    return found


def _value_fault(node: DictConfig, name: str, key: str, kind: messages.Key) -> str | None:
    if OmegaConf.is_missing(node, name):
        return f"{key}: missing; {messages.MISSING.get(key, f'write {key}=VALUE')}"
    if kind.classes():
        return messages.wrong_value(key, "${...}", kind) if OmegaConf.is_interpolation(node, name) else None
    value = node[name]
    if OmegaConf.is_config(value):
        unknown = OmegaConf.missing_keys(value)
        value = OmegaConf.to_container(value, resolve=True)
        if unknown:
            return f"{key}: an item is missing (given {value}); write its value in place of ???"
    return None if kind.takes(value) else messages.wrong_value(key, value, kind)
