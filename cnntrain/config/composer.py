"""Composition by Hydra with each fault blamed on the word or file that brought it."""

import copy
import importlib.util
import itertools
import os
import re
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from cnntrain.config import messages, overrides
from cnntrain.config.assign import apply, set_value
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.inherit import inherit_recipes
from cnntrain.config.messages import VARIANTS
from cnntrain.config.paths import own_options
from cnntrain.config.schema.settings import Settings
from cnntrain.text import printable

OUR_CONFIG = "train"  # our own file with a defaults list
LISTS = ("augment", "debug", "experiment")  # groups that take several options at once
NEEDED_GROUPS = ("model", "data", "optimizer", "finetune", "trainer")  # groups that cannot be left out


class Composer:
    """Composes as Hydra would.

    Args:
        loader: Hydra's, over the first of the folders.
        folders: where options may lie, our own conf/ first.
        config_name: the file with the defaults list.
    """

    def __init__(self, loader: ConfigLoader, folders: list[Path], config_name: str) -> None:
        self.loader = loader
        self.folders = folders
        self.config_name = config_name
        self.search: list[str] = []
        self.known_options: dict[tuple[str, ...], list[str]] = {}
        self.known_trees: dict[tuple[str, ...], tuple[DictConfig, list[str]]] = {}

    def options(self, group: str) -> list[str]:
        """The options of a config group; empty where there is no such group."""
        place = (group, *self.search)
        if place not in self.known_options:
            names = self.loader.get_group_options(group, overrides=self.search)
            self.known_options[place] = names
        return self.known_options[place]

    def _is_group(self, key: str) -> bool:
        return key in overrides.GROUPS or ("." not in key and bool(self.options(key)))

    def compose(self, words: list[str]) -> tuple[DictConfig, list[str]]:
        """The tree that the sound words make, and the faults of the others."""
        override_list, syntax_faults = overrides.parse(words)
        tree, faults = self.compose_overrides(override_list)
        return tree, syntax_faults + faults

    def compose_overrides(self, override_list: list[Override]) -> tuple[DictConfig, list[str]]:
        """Do what `compose` does, with words that have been read."""
        faults = self._set_search(override_list)
        choices, values = [], []
        for override in override_list:
            key = override.key_or_group
            if key == "hydra.searchpath":
                continue
            if isinstance(override.value(), dict) or not self._is_group(key):
                values.append(override)
            elif fault := _choice_fault(override, self.options(key)):
                faults.append(fault)
            else:
                choices.append(override.input_line or "")
        tree, choice_faults = self._choose(choices)
        faults += choice_faults
        for override in values:
            faults += apply(tree, override)
        if not faults:
            _note_overrides(tree, override_list)
        return tree, faults

    def _set_search(self, override_list: list[Override]) -> list[str]:
        """Tell Hydra's composer of the user's search path, which is read before all else; the faults of it."""
        folders: list[str] = []
        faults = []
        for override in override_list:
            if override.key_or_group != "hydra.searchpath":
                continue
            value = override.value()
            misfits = [folder for folder in value if not _is_place(folder)] if isinstance(value, list) else [value]
            if misfits:
                rule = "a list of folders that are there, such as [file:///my_conf]"
                faults.append(f"hydra.searchpath: must be {rule} (given {overrides.value_text(override)})")
            else:
                folders = [str(folder) for folder in value]
        self.search = [f"hydra.searchpath=[{','.join(map(overrides.quote, folders))}]"] if folders else []
        chosen = {overrides.value_text(override) for override in override_list if override.key_or_group == "data"}
        for name, folder in itertools.product(sorted(chosen.intersection(own_options("data"))), self.folders[1:]):
            if (file := folder / "data" / f"{name}.yaml").is_file():
                faults.append(f"data: {printable(file)} is not read, as data={name} comes with cnntrain; rename it")
        inherit_recipes([*folders, *(f"file://{folder}" for folder in self.folders[1:])], self.options)
        return faults

    def _compose(self, choices: list[str]) -> DictConfig:
        return self.loader.load_configuration(self.config_name, [*choices, *self.search], run_mode=RunMode.RUN)

    def _choose(self, choices: list[str]) -> tuple[DictConfig, list[str]]:
        """The tree of some choices. Jobs of a sweep that differ in values only share it, as composing costs 50 ms."""
        place = (*choices, *self.search)
        if place not in self.known_trees:
            tree, faults = self._compose_choices(choices)
            if OmegaConf.get_type(tree) is not Settings:
                line = f"{self.config_name} is no training config; let its defaults list begin with {OUR_CONFIG}"
                raise ConfigErrors([f"--config-name: {line}"])
            self.known_trees[place] = tree, faults + self._optional_faults(tree)
        tree, faults = self.known_trees[place]
        return copy.deepcopy(tree), faults

    def _compose_choices(self, choices: list[str]) -> tuple[DictConfig, list[str]]:
        """Compose the choices; where that fails, leave out the one that is to blame and say what is wrong with it."""
        try:
            return self._compose(choices), []
        except Exception as error:  # Hydra raises ValueError, AssertionError and YAML's own errors as well
            reason = error
        for index in reversed(range(len(choices))):
            try:
                tree = self._compose(choices[:index] + choices[index + 1 :])
            except Exception:  # the next choice may be the one to blame
                continue
            return tree, self._explain(reason, tree, choices[index])
        try:
            tree = self._compose([])
        except Exception as error:  # no choice is to blame: --config-name or a file that stands in for one of ours is
            if isinstance(error, MissingConfigException) and error.missing_cfg_file == self.config_name:
                raise ConfigErrors([self._no_config()]) from error
            file = f"--config-name={self.config_name}"
            raise ConfigErrors(self._explain(error, OmegaConf.structured(Settings), file)) from error
        return tree, self._explain(reason, tree, " ".join(choices))

    def _no_config(self) -> str:
        places = " or ".join(str(folder) for folder in self.folders)
        return f"--config-name: no {self.config_name}.yaml in {places}; {overrides.OWN_OPTIONS}"

    def _explain(self, error: Exception, tree: DictConfig, choice: str) -> list[str]:
        """What Hydra's error means, told with the file and the key that it names."""
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            mark = error.problem_mark
            return [f"{mark.name}:{mark.line + 1}: not valid YAML, {error.problem}"]
        text = str(error)
        where = re.search(r"In '([^']+)'", text)
        file = self._file(where[1]) if where else None
        if isinstance(error, RecursionError):
            return [f"{choice}: its defaults list leads back to itself; let it begin with an option of cnntrain's"]
        if match := re.search(r"Could not override '(([^'@]+)@[^']*)'", text):
            value = choice.partition("=")[2]
            return [f"{match[1]}: no part of the config is chosen by that (given {value}); write {match[2]}={value}"]
        if match := re.search(r"Could not load '([^']+)/([^'/]+)'", text):
            return [f"{file or choice}: {messages.unknown_option(match[1], match[2], self.options(match[1]))}"]
        if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
            if match[2].startswith("for_"):
                data = match[2].removeprefix("for_")
                advice = "choose one, such as model=resnet18, or let its file begin with defaults: [imagefolder]"
                return [f"{match[1]}: data={data} brings none; {advice}"]
            source = "" if choice.partition("=")[2] == match[2] else f"{choice}: "
            return [source + messages.unknown_option(match[1], match[2], self.options(match[1]))]
        if file is None:
            return [f"{choice}: {text.splitlines()[0]}"]
        package = "" if file.parent in self.folders else file.parent.name
        return [f"{file}: {line}" for line in _file_faults(file, package, tree) or [_foreign_key(text, file)]]

    def _file(self, path: str) -> Path | None:
        files = [folder / f"{path}.yaml" for folder in self.folders if (folder / f"{path}.yaml").is_file()]
        return files[0] if files and path != OUR_CONFIG else None

    def _optional_faults(self, tree: DictConfig) -> list[str]:
        """Options of optional groups that do not exist, which Hydra leaves out without a word."""
        choices = tree.hydra.runtime.choices
        defaults = {"augment": f"for_{choices.data}", "schedule": f"for_{choices.data}", "recipe": choices.data}
        faults = []
        for group, default in defaults.items():
            names = choices.get(group) or []
            for name in [names] if isinstance(names, str) else names:
                if name != default and name not in (options := self.options(group)):
                    faults.append(messages.unknown_option(group, name, options))
        return faults + self._recipe_faults(choices)

    def _recipe_faults(self, choices: DictConfig) -> list[str]:
        """What a recipe says and later files of the composition overrule."""
        name = choices.get("recipe")
        recipe = self.loader.repository.load_config(f"recipe/{name}") if name else None
        places = {
            "optimizer": f"recipe/{choices.optimizer}_{name}.yaml, which holds the keys alone, such as lr",
            "schedule": f"schedule/for_{name}.yaml",
            "augment": f"augment/for_{name}.yaml",
        }
        return [
            f"recipe/{name}.yaml: {section}: is overruled by files that come later; write it into {place}"
            for section, place in places.items()
            if recipe and section in recipe.config
        ]


def _note_overrides(tree: DictConfig, override_list: list[Override]) -> None:
    """Note in a tree what Hydra would of the words of its line: the choices alone have been composed."""
    tasks = [override for override in override_list if not override.is_hydra_override()]
    job = tree.hydra.job
    tree.hydra.overrides.task = [override.input_line for override in tasks]
    tree.hydra.overrides.hydra = [override.input_line for override in override_list if override not in tasks]
    style = job.config.override_dirname
    job.override_dirname = get_overrides_dirname(tasks, style.exclude_keys, style.item_sep, style.kv_sep)
    tree.hydra.runtime.cwd = os.getcwd()  # that of the composition may be another one by now
    with open_dict(job):
        job.env_set.update({name: os.environ[name] for name in job.env_copy if name in os.environ})


def _is_place(folder: Any) -> bool:
    """Whether options may lie there: in a folder, or in a package."""
    if not isinstance(folder, str) or not folder:
        return False
    if not folder.startswith("pkg://"):
        return Path(folder.removeprefix("file://")).is_dir()
    try:
        return importlib.util.find_spec(folder.removeprefix("pkg://")) is not None
    except (ImportError, ValueError):
        return False


def stray_sweep(override: Override) -> str:
    """The fault of several values where no sweep was asked for."""
    key, text = override.key_or_group, overrides.value_text(override)
    if key in LISTS:
        return f"{key}: several options stand in brackets; write '{key}=[{text}]', or add -m for one run each"
    if key in overrides.PATHS and isinstance(sweep := override.value(), ChoiceSweep):
        text = ",".join(str(getattr(item, "text", item)) for item in sweep.list)
        word = overrides.for_shell(f"{key}={overrides.quote(text)}")
        return f"{key}: a comma makes a list (given {text}); write {word}"
    if key == "data.columns.label":
        word = overrides.for_shell(f"{key}=[{text}]")
        return f"{key}: several columns stand in brackets; write {word}, or add -m for one run each"
    return f"{key}: takes one value (given {text}); add -m for one run each, or type cnntrain compare"


def _choice_fault(override: Override, options: list[str]) -> str | None:
    group, value, text = override.key_or_group, override.value(), overrides.value_text(override)
    if override.is_delete():
        return f"{group}: cannot be left out; choose with {group}=OPTION" if group in NEEDED_GROUPS else None
    if (override.is_add() or override.is_force_add()) and group in overrides.GROUPS and not override.package:
        return f"{group}: is there already; leave out the + and write {group}={text}"
    if isinstance(value, list) and group not in LISTS:
        return f"{group}: takes one option (given {text}); for one run each drop the brackets and add -m"
    if value is None and group not in NEEDED_GROUPS:
        return f"{group}: null is no option; leave the group out with ~{group}"
    names = value if isinstance(value, list) else [text if value is None else value]
    misfits = [name for name in names if not isinstance(name, str) or name not in options]
    return messages.unknown_option(group, misfits[0], options) if misfits else None


def _file_faults(file: Path, package: str, tree: DictConfig) -> list[str]:
    """All keys and values of one option's file that do not fit the tree.

    Args:
        package: where they go, if the file does not say it itself.
    """
    text = file.read_text(encoding="utf-8")
    header = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
    package = header[1].replace("_global_", "") if header else package
    content = OmegaConf.to_container(OmegaConf.create(text))
    prefix = package and package + "."
    names = [name for name in content if name not in ("defaults", "hydra")] if isinstance(content, dict) else []
    return [line for name in names for line in set_value(tree, f"{prefix}{name}", content[name], str(content[name]))]


def _foreign_key(text: str, file: Path) -> str:
    """The fault of a key that only fails together with what else its file chooses."""
    key = re.search(r"full_key: (\S+)", text)
    kind = re.search(r"object_type=(\w+)", text)
    if not key or not kind or "not in" not in text:
        return text.splitlines()[-1 if key is None else 1]
    variants = {
        section: name
        for section, entries in VARIANTS.items()
        for name, entry in entries.items()
        if entry.settings.__name__ == kind[1]
    }
    value = OmegaConf.select(OmegaConf.load(file), key[1]) or OmegaConf.select(
        OmegaConf.load(file), key[1].partition(".")[2]
    )
    return messages.unknown_key(key[1], str(value), messages.keys_of(variants), variants)
