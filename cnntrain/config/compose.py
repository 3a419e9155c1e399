"""From YAML files and the words of a command line to checked settings: composed once, checked once.

Nothing here imports torch. Every fault is found before a run folder exists, and all of them are told together.
"""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cnntrain.config import no_effect, overrides
from cnntrain.config.check import check_tree, settings_of
from cnntrain.config.composer import Composer, stray_sweep
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.paths import expand_path
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.settings import Settings
from cnntrain.config.sources import make_loader
from cnntrain.config.unsafe import refuse_code


@dataclass(frozen=True)
class Composition:
    """What a line composes.

    Attributes:
        tree: with its `hydra` part; of a sweep, what its jobs have in common.
        known: the settings of a single run, where all of its values are there and keep the rules.
        faults: all that is wrong with the words and the values.
        composer: which has made it.
        jobs: of a sweep, those that were looked at, each with its words and what these make.
    """

    tree: DictConfig
    known: Settings | None
    faults: list[str]
    composer: Composer
    jobs: list[tuple[list[str], Settings | None]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """The settings of a single run."""
        assert self.known is not None
        return self.known

    @property
    def config(self) -> RunConfig:
        """What a command gets of it."""
        chosen = self.tree.hydra
        return RunConfig(self.settings, tuple(chosen.overrides.task), str(chosen.runtime.choices.model))


def compose_settings(words: list[str], config_dir: str | None = None) -> Settings:
    """The settings of one run; a program may say more than acts in it.

    Args:
        words: overrides as on the command line.
        config_dir: a folder with options of the user's own.
    Raises:
        ConfigErrors: with all faults, one line each.
    """
    return compose_line(words, config_dir=config_dir, acting=False).settings


def compose_line(
    words: list[str],
    *,
    config_dir: str | None = None,
    config_name: str = "train",
    multirun: bool = False,
    complete: bool = True,
    acting: bool = True,
) -> Composition:
    """Compose as Hydra will, and raise ConfigErrors with all that is wrong.

    Args:
        multirun: check the jobs of a sweep; of many, an even choice.
        complete: also check missing values and limits, which only a run needs.
        acting: also refuse words that act on nothing in the run (no_effect.py).
    """
    composition = examine(make_composer(config_dir, config_name), words, multirun, complete)
    found = composition.faults
    if complete and acting and not found:
        found = _idle_faults(composition, words, multirun or is_multirun(composition.tree))
    if found:
        raise ConfigErrors(found)
    refuse_code(composition.tree)
    return composition


def make_composer(config_dir: str | None = None, config_name: str = "train") -> Composer:
    """A composer of our conf/, which a process makes once, or of that and a folder of the user's."""
    return _own_composer(config_name) if config_dir is None else Composer(*make_loader(config_dir), config_name)


@functools.cache
def _own_composer(config_name: str) -> Composer:
    return Composer(*make_loader(), config_name)


def examine(composer: Composer, words: list[str], multirun: bool, complete: bool) -> Composition:
    """What `compose_line` does, without raising."""
    read, unread = overrides.parse(words, composer.loader)
    sweeps = [override for override in read if override.is_sweep_override()]
    tree, wrong = composer.compose_read([override for override in read if override not in sweeps])
    if not multirun and not is_multirun(tree):
        found = unread + wrong + [stray_sweep(override) for override in sweeps]
        settings, more = _check(tree, found) if complete else (None, [])
        return Composition(tree, settings, found + more, composer)
    found = unread
    jobs: list[tuple[list[str], Settings | None]] = []
    read += overrides.parse(overrides.sweeper_params(tree), composer.loader)[0]
    for job in overrides.jobs(read):
        job_tree, wrong = composer.compose(job)
        settings, more = _check(job_tree, unread + wrong) if complete else (None, [])
        found, jobs = found + wrong + more, [*jobs, (job, settings)]
    return Composition(tree, None, found, composer, jobs)


def _check(tree: DictConfig, found: list[str]) -> tuple[Settings | None, list[str]]:
    """The settings and the faults of the values, but for keys that are known to be wrong: they are not set."""
    known = {line.partition(":")[0] for line in found}
    settings, more = check_tree(tree)
    return settings, [line for line in more if line.partition(":")[0] not in known]


def _idle_faults(composition: Composition, words: list[str], many: bool) -> list[str]:
    """The faults of sound words that act on nothing in the run, or in the jobs of a sweep."""
    composer = composition.composer
    jobs = composition.jobs if many else [(words, composition.settings)]
    typed = len(words)  # those after them are of a preset
    return no_effect.faults(
        (acting_settings(composer, job, settings), job[:typed])
        for job, settings in jobs
        if no_effect.rules_met(job[:typed])
    )


def acting_settings(composer: Composer, words: Sequence[str], settings: Settings | None = None) -> Settings:
    """What sound words make; without `debug`, which switches off on purpose what other words are for.

    Args:
        settings: what all of the words make, where that is known.
    """
    plain = [word for word in words if not word.startswith("debug=")]
    if len(plain) < len(words):
        with contextlib.suppress(ConfigErrors):
            return settings_of(composer.compose(plain)[0])
    return settings or settings_of(composer.compose(list(words))[0])


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
    return expand_path(str(folder))
