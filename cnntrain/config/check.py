"""A composed tree as typed settings, with all of its values that are missing or break a rule."""

import os

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnntrain.config import messages, shards
from cnntrain.config.assign import variants_of
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import REGISTRIES, VARIANTS
from cnntrain.config.paths import is_hub_name
from cnntrain.config.schema.settings import Settings


def settings_of(tree: DictConfig, cwd: str | None = None) -> Settings:
    """A composed tree as Settings; raises ConfigErrors with all values that are missing or break a rule.

    Args:
        cwd: the folder that relative paths start from; None for the current one.
    """
    settings, faults = check_tree(tree, cwd)
    if faults or settings is None:
        raise ConfigErrors(faults)
    return settings


def check_tree(tree: DictConfig, cwd: str | None = None) -> tuple[Settings | None, list[str]]:
    """Do what `settings_of` does, without raising.

    Returns:
        The settings, or None where they cannot be made; all faults.
    """
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
    if faults := _unknown_names(tree):
        return None, faults
    _choose_variants(tree)
    gaps = _find_gaps(tree)
    if OmegaConf.missing_keys(tree):
        return None, list(gaps.values())
    settings = make_settings(tree, cwd)
    if not tree.data.root:
        gaps["data.root"] = f"data.root: must not be empty; {messages.MISSING_ADVICE['data.root']}"
    return settings, [
        *gaps.values(),
        *(line for line in messages.broken_rules(settings) if line.partition(":")[0] not in gaps),
    ]


def make_settings(tree: DictConfig, cwd: str | None = None) -> Settings:
    """The settings of a tree without its `hydra` part, unchecked."""
    settings: Settings = OmegaConf.to_object(tree)
    data = settings.data
    if data.is_shards:
        data.root = shards.absolute(data.root, cwd or "")
    elif not (data.is_hub and is_hub_name(data.root, cwd)):
        data.root = _absolute(data.root, cwd)
    data.images, data.split_file = (path and _absolute(path, cwd) for path in (data.images, data.split_file))
    return settings


def _absolute(path: str, cwd: str | None) -> str:
    return os.path.abspath(os.path.join(cwd or "", os.path.expanduser(path)))


def _choose_variants(tree: DictConfig) -> None:
    """Give each section the keys that belong to its name, where no file of ours has done so: the user's, or none."""
    for section, name in variants_of(tree).items():
        kind = VARIANTS[section].entry(name).settings
        if OmegaConf.get_type(tree[section]) is not kind:
            nodes = {key: tree[section]._get_node(key) for key in tree[section]}
            tree[section] = OmegaConf.merge(OmegaConf.structured(kind), nodes)


def _unknown_names(tree: DictConfig) -> list[str]:
    """The faults of names that stand for nothing, and of those that do not fit the numbers beside them."""
    faults = []
    for section, entries in REGISTRIES.items():
        try:
            name = OmegaConf.select(tree, f"{section}.name")
        except OmegaConfBaseException as error:  # of an interpolation
            faults.append(f"{section}.name: {str(error).splitlines()[0]}")
            continue
        if name is None:  # missing, which is told later
            continue
        kind = OmegaConf.get_type(tree[section])
        entry = entries.find(OmegaConf.select(tree, f"{section}.library") or name)
        siblings = [one.name for one in entries.values() if one.settings is kind]
        if entry is None:
            faults.append(entries.unknown_fault(name))
        elif section in VARIANTS and kind is entries.user.settings and entry is not entries.user:
            advice = messages.MISSING_ADVICE[f"{section}.name"]  # another file's is there
            faults.append(f"{section}.name: missing; {advice}")
        elif section in VARIANTS and siblings and kind is not entry.settings:
            rule = f"{siblings[0]}, whose numbers are in its file"
            advice = f"let the defaults list of the file begin with {entry.name}"
            faults.append(f"{section}.name: must be {rule} (given {name}); {advice}")
    return faults


def _find_gaps(tree: DictConfig) -> dict[str, str]:
    """The faults of keys without a value; texts get a place holder, so that the other keys can be checked as well."""
    faults: dict[str, str] = {}
    for key, kind in messages.keys_of(variants_of(tree)).items():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(tree, parent) if parent else tree  # None: off, or known to be faulty
        if node is None:
            continue
        try:
            if fault := _value_fault(node, name, key, kind):
                faults[key] = fault
        except OmegaConfBaseException as error:
            faults[key] = f"{key}: {str(error).splitlines()[0]}"
        if key in faults:
            node[name] = "missing" if kind.hint is str else "???"
    return faults


def _value_fault(node: DictConfig, name: str, key: str, kind: messages.Key) -> str | None:
    if OmegaConf.is_missing(node, name):
        return f"{key}: missing; {messages.MISSING_ADVICE.get(key, f'write {key}=VALUE')}"
    if kind.classes():
        return messages.wrong_value(key, "${...}", kind) if OmegaConf.is_interpolation(node, name) else None
    value = node[name]
    if OmegaConf.is_config(value):
        gaps = OmegaConf.missing_keys(value)
        value = OmegaConf.to_container(value, resolve=True)
        if gaps:
            return f"{key}: an item is missing (given {value}); write its value in place of ???"
    return None if kind.takes(value) else messages.wrong_value(key, value, kind)
