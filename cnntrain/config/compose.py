"""From YAML files and the words of a command line to checked settings: composed once, checked once.

Nothing here imports torch. Every fault is found before a run folder exists, and all of them are told together; what
only sound lines need is imported for these.
"""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cnntrain.config import library_optimizers, overrides
from cnntrain.config.check import check_tree, settings_of
from cnntrain.config.composer import Composer, stray_sweep
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.paths import expand_path
from cnntrain.config.schema.settings import Settings
from cnntrain.config.sources import make_loader
from cnntrain.config.unsafe import refuse_code

if TYPE_CHECKING:
    from cnntrain.config.run_config import RunConfig


@dataclass(frozen=True)
class Composition:
    """The result of composing a line.

    Attributes:
        tree: with its `hydra` part; of a sweep, what its jobs have in common.
        run_settings: the settings of a single run, where all of its values are there and keep the rules.
        faults: all that is wrong with the words and the values.
        composer: which has made it.
        jobs: of a sweep, those that were looked at, each with its words and what these make.
    """

    tree: DictConfig
    run_settings: Settings | None
    faults: list[str]
    composer: Composer
    jobs: list[tuple[list[str], Settings | None]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """The settings of a single run."""
        assert self.run_settings is not None
        return self.run_settings

    @property
    def config(self) -> "RunConfig":
        """The config that a command gets."""
        from cnntrain.config.run_config import RunConfig

        hydra = self.tree.hydra
        return RunConfig(self.settings, tuple(hydra.overrides.task), str(hydra.runtime.choices.model))


def compose_settings(words: list[str], config_dir: str | None = None) -> Settings:
    """The settings of one run; a program may say more than acts in it.

    Args:
        words: overrides as on the command line.
        config_dir: a folder with options of the user's own.
    Raises:
        ConfigErrors: with all faults, one line each.
    """
    return compose_line(words, config_dir=config_dir, refuse_idle=False).settings


def compose_line(
    words: list[str],
    *,
    config_dir: str | None = None,
    config_name: str = "train",
    multirun: bool = False,
    complete: bool = True,
    refuse_idle: bool = True,
) -> Composition:
    """Compose as Hydra will, and raise ConfigErrors with all that is wrong.

    Args:
        multirun: check the jobs of a sweep; of many, an even choice.
        complete: also check missing values and limits, which only a run needs.
        refuse_idle: also refuse words that act on nothing in the run (no_effect.py).
    """
    composition = examine(make_composer(config_dir, config_name), words, multirun, complete)
    faults = composition.faults
    if complete and refuse_idle and not faults:
        faults = _idle_faults(composition, words, multirun or is_multirun(composition.tree))
    if faults:
        raise ConfigErrors(faults)
    refuse_code(composition.tree)
    return composition


def make_composer(config_dir: str | None = None, config_name: str = "train") -> Composer:
    """A composer of our conf/, which a process makes once, or of that and a folder of the user's."""
    return _own_composer(config_name) if config_dir is None else Composer(*make_loader(config_dir), config_name)


@functools.cache
def _own_composer(config_name: str) -> Composer:
    return Composer(*make_loader(), config_name)


def examine(composer: Composer, words: list[str], multirun: bool, complete: bool) -> Composition:
    """Do what `compose_line` does, without raising."""
    override_list, faults = overrides.parse(words, composer.loader)
    sweeps = [override for override in override_list if override.is_sweep_override()]
    tree, tree_faults = composer.compose_overrides([override for override in override_list if override not in sweeps])
    if not multirun and not is_multirun(tree):
        faults += [*tree_faults, *map(stray_sweep, sweeps)]
        settings, value_faults = _check(tree, faults) if complete else (None, [])
        return Composition(tree, settings, faults + value_faults, composer)
    syntax_faults = list(faults)
    jobs: list[tuple[list[str], Settings | None]] = []
    override_list += overrides.parse(overrides.sweeper_params(tree), composer.loader)[0]
    for job in overrides.jobs(override_list):
        job_tree, tree_faults = composer.compose(job)
        settings, value_faults = _check(job_tree, syntax_faults + tree_faults) if complete else (None, [])
        faults += tree_faults + value_faults
        jobs.append((job, settings))
    return Composition(tree, None, faults, composer, jobs)


def _check(tree: DictConfig, faults: list[str]) -> tuple[Settings | None, list[str]]:
    """The settings and the faults of the values, but for keys that are known to be wrong: they are not set."""
    keys = {line.partition(":")[0] for line in faults}
    settings, value_faults = check_tree(tree)
    value_faults = library_optimizers.faults(tree) + value_faults
    return settings, [line for line in value_faults if line.partition(":")[0] not in keys]


def _idle_faults(composition: Composition, words: list[str], is_sweep: bool) -> list[str]:
    """The faults of sound words that act on nothing in the run, or in the jobs of a sweep."""
    from cnntrain.config import no_effect

    composer = composition.composer
    jobs = composition.jobs if is_sweep else [(words, composition.settings)]
    count = len(words)  # those after them are of a preset
    return no_effect.faults(
        (acting_settings(composer, job, settings), job[:count])
        for job, settings in jobs
        if no_effect.rules_met(job[:count])
    )


def acting_settings(composer: Composer, words: Sequence[str], settings: Settings | None = None) -> Settings:
    """The settings that sound words make; without `debug`, which switches off on purpose what other words are for.

    Args:
        settings: what all of the words make, where that is known.
    """
    words_without_debug = [word for word in words if not word.startswith("debug=")]
    if len(words_without_debug) < len(words):
        with contextlib.suppress(ConfigErrors):
            return settings_of(composer.compose(words_without_debug)[0])
    return settings or settings_of(composer.compose(list(words))[0])


def is_multirun(tree: DictConfig) -> bool:
    """Whether a composed tree asks for a sweep (hydra.mode), without -m on the command line."""
    try:
        return tree.hydra.mode == RunMode.MULTIRUN
    except OmegaConfBaseException as error:
        raise ConfigErrors([f"hydra.mode: {str(error).splitlines()[0]}"]) from error


def output_folder(tree: DictConfig, kind: str) -> Path:
    """The folder that hydra.run.dir or hydra.sweep.dir of a composed tree says, by kind: run | sweep."""
    HydraConfig.instance().set_config(tree)  # for the resolvers of Hydra
    try:
        folder = tree.hydra[kind].dir
    except OmegaConfBaseException as error:
        raise ConfigErrors([f"hydra.{kind}.dir: {str(error).splitlines()[0]}"]) from error
    if not folder or not str(folder).strip():
        raise ConfigErrors(
            [f"hydra.{kind}.dir: must be the name of a folder (given {folder or 'nothing'}); write out=DIR"]
        )
    return expand_path(str(folder))
