"""From YAML files and command-line words to Settings and back.

Nothing here imports torch. Every fault is found before a run folder exists, and all of them are told together.
"""

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import SearchPathElement
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnntrain.config import messages, no_effect, overrides
from cnntrain.config.assign import apply, set_value, variants_of
from cnntrain.config.compose import Composer, stray_sweep
from cnntrain.config.messages import VARIANTS, ConfigErrors
from cnntrain.config.paths import conf_dir, expanded, need_config_dir
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.schema.settings import Settings
from cnntrain.config.unsafe import refuse_code

__all__ = [
    "ConfigErrors",
    "compose",
    "conf_dir",
    "from_plain",
    "inspect",
    "register",
    "settle",
    "to_plain",
    "to_yaml",
]


@functools.cache
def register() -> None:
    """Give Hydra the types of our settings.

    They lie under hydra/, which Hydra leaves out of the app's help and of the completion of group names.
    """
    store = ConfigStore.instance()
    store.store(group="hydra/cnntrain", name="settings", node=Settings)
    for section, kinds in VARIANTS.items():
        for name, kind in kinds.items():
            store.store(group=f"hydra/cnntrain/{section}", name=name, node=kind)


def compose(words: list[str], config_dir: str | None = None) -> Settings:
    """The settings of one run; a program may say more than acts in it.

    Args:
        words: overrides as on the command line.
        config_dir: a folder with options of the user's own.
    Raises:
        ConfigErrors: with all faults, one line each.
    """
    return settle(inspect(words, config_dir=config_dir, acting=False))


def inspect(
    words: list[str],
    *,
    config_dir: str | None = None,
    config_name: str = "train",
    multirun: bool = False,
    complete: bool = True,
    acting: bool = True,
) -> DictConfig:
    """Compose as Hydra will, and raise ConfigErrors with all that is wrong.

    Args:
        multirun: check the jobs of a sweep; of many, an even choice.
        complete: also check missing values and limits, which only a run needs.
        acting: also refuse words that act on nothing in the run (idle.py).
    Returns:
        The composed tree with its `hydra` part; of a sweep, what its jobs have in common.
    """
    by = composer(config_dir, config_name)
    tree, found = examine(by, words, multirun, complete)
    if complete and acting and not found:
        found = _idle_faults(by, words, multirun or is_multirun(tree))
    if found:
        raise ConfigErrors(found)
    refuse_code(tree)
    return tree


def composer(config_dir: str | None = None, config_name: str = "train") -> Composer:
    """A composer of our conf/ and a folder of the user's."""
    own = conf_dir()
    if config_dir is not None:
        need_config_dir(config_dir, overrides.GROUPS)
    register()
    with initialize_config_dir(str(own), job_name="cnntrain", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    folders = [own]
    if config_dir is not None:
        folders.append(Path(config_dir).resolve())
        place = SearchPathElement("command-line", f"file://{folders[1]}")
        loader.config_search_path.get_path().insert(-1, place)  # the last one is that of our types
        loader.repository = ConfigRepository(config_search_path=loader.config_search_path)
    return Composer(loader, folders, config_name)


def examine(by: Composer, words: list[str], multirun: bool, complete: bool) -> tuple[DictConfig, list[str]]:
    """What `inspect` does, without raising: the tree and all faults."""
    read, unread = overrides.parse(words, by.loader)
    sweeps = [override for override in read if override.is_sweep_override()]
    tree, wrong = by.compose([override.input_line or "" for override in read if override not in sweeps])
    if not multirun and not is_multirun(tree):
        wrong = unread + wrong + [stray_sweep(override) for override in sweeps]
        return tree, _and_values(wrong, tree if complete else None)
    found: list[str] = []
    read += overrides.parse(overrides.sweeper_params(tree), by.loader)[0]
    for job in overrides.jobs(read):
        job_tree, wrong = by.compose(job)
        found += _and_values(unread + wrong, job_tree if complete else None)
    return tree, unread + found


def _and_values(found: list[str], tree: DictConfig | None) -> list[str]:
    """What was found, and the faults of a tree's values, but of keys that are known to be wrong: they are not set."""
    known = {line.partition(":")[0] for line in found}
    more = _check(tree)[1] if tree is not None else []
    return found + [line for line in more if line.partition(":")[0] not in known]


def _idle_faults(by: Composer, words: list[str], many: bool) -> list[str]:
    """The faults of sound words that act on nothing in the run, or in the jobs of a sweep."""
    read = overrides.parse(words, by.loader)[0]
    jobs = [words]
    if many:
        common = [override.input_line or "" for override in read if not override.is_sweep_override()]
        presets = overrides.parse(overrides.sweeper_params(by.compose(common)[0]), by.loader)[0]
        jobs = overrides.jobs(read + presets)
    typed = ((job, job[: len(read)]) for job in jobs)
    return no_effect.faults((acting_settings(by, job), words) for job, words in typed if no_effect.rules_met(words))


def acting_settings(by: Composer, words: Sequence[str]) -> Settings:
    """What sound words make; without `debug`, which switches off on purpose what other words are for."""
    plain = [word for word in words if not word.startswith("debug=")]
    with contextlib.suppress(ConfigErrors):
        return settle(by.compose(plain)[0])
    return settle(by.compose(list(words))[0])


def is_multirun(tree: DictConfig) -> bool:
    """Whether a composed tree asks for a sweep (hydra.mode), without -m on the command line."""
    try:
        return tree.hydra.mode == RunMode.MULTIRUN
    except OmegaConfBaseException as error:
        raise ConfigErrors([f"hydra.mode: {str(error).splitlines()[0]}"]) from error


def output_folder(tree: DictConfig, kind: str) -> Path:
    """What hydra.run.dir or hydra.sweep.dir of a composed tree says, by kind: run | sweep."""
    HydraConfig.instance().set_config(tree)  # for the resolvers of Hydra
    try:
        folder = tree.hydra[kind].dir
    except OmegaConfBaseException as error:
        raise ConfigErrors([f"hydra.{kind}.dir: {str(error).splitlines()[0]}"]) from error
    if not folder or not str(folder).strip():
        raise ConfigErrors(
            [f"hydra.{kind}.dir: must be the name of a folder (given {folder or 'nothing'}); write out=DIR"]
        )
    return expanded(str(folder))


def settle(tree: DictConfig, cwd: str | None = None) -> Settings:
    """A composed tree as Settings; raises ConfigErrors with all values that are missing or break a rule.

    Args:
        cwd: the folder that relative paths start from; None for the current one.
    """
    settings, found = _check(tree, cwd)
    if found or settings is None:
        raise ConfigErrors(found)
    return settings


def _check(tree: DictConfig, cwd: str | None = None) -> tuple[Settings | None, list[str]]:
    tree = tree.copy()
    with open_dict(tree):
        tree.pop("hydra", None)
    if found := _unknown_variants(tree):
        return None, found
    _choose_variants(tree)
    unresolved = _unresolved(tree)
    if OmegaConf.missing_keys(tree):
        return None, list(unresolved.values())
    settings: Settings = OmegaConf.to_object(tree)
    if not settings.data.root:
        unresolved["data.root"] = f"data.root: must not be empty; {messages.MISSING['data.root']}"
    settings.data.root = os.path.abspath(os.path.join(cwd or "", os.path.expanduser(settings.data.root)))
    return settings, [
        *unresolved.values(),
        *(line for line in messages.broken_rules(settings) if line.partition(":")[0] not in unresolved),
    ]


def _choose_variants(tree: DictConfig) -> None:
    """Give each section the keys that belong to its name, where no file of ours has done so: the user's, or none."""
    for section, name in variants_of(tree).items():
        kind = VARIANTS[section][name]
        if OmegaConf.get_type(tree[section]) is not kind:
            known = {key: tree[section]._get_node(key) for key in tree[section]}
            tree[section] = OmegaConf.merge(OmegaConf.structured(kind), known)


def _unknown_variants(tree: DictConfig) -> list[str]:
    """The faults of sections whose file, one of the user's, names no optimizer or schedule of ours."""
    return [
        f"{section}.name: must be one of {', '.join(VARIANTS[section])} (given {name}); let the defaults list of its "
        f"file begin with the one that it derives from, such as {next(iter(VARIANTS[section]))}"
        for section, name in variants_of(tree).items()
        if name not in VARIANTS[section]
    ]


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


def from_plain(plain: dict[str, Any], words: list[str] | tuple[str, ...] = (), source: str = "config") -> Settings:
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
    return settle(tree)


def _graft(tree: DictConfig, plain: dict[str, Any], source: str) -> list[str]:
    """Put saved settings into the typed tree; the faults of keys and values that do not fit."""
    try:
        text = str(plain)
    except ValueError:  # a number of more digits than Python turns into text
        return [f"{source}: holds a number that no key takes; start a new run"]
    if "${" in text:
        return [f"{source}: holds an interpolation, which a saved run never does; start a new run"]
    for section, kinds in VARIANTS.items():
        part = plain.get(section)
        name = part.get("name") if isinstance(part, dict) else None
        if not isinstance(name, str) or name not in kinds:
            return [f"{source}: {messages.unknown_option(section, name, list(kinds))}"]
        tree[section] = OmegaConf.structured(kinds[name])
    return [f"{source}: {line}" for name, value in plain.items() for line in set_value(tree, name, value, str(value))]
