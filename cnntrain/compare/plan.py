"""What `cnntrain compare` runs: every combination of listed values, in rows of repeats.

A row is a combination of all lists but those of `seed` and `data.fold`, which only repeat it. Nothing here imports
torch or looks at a disk.
"""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import Override

from cnntrain.config import no_effect, overrides
from cnntrain.config.check import settings_of
from cnntrain.config.compose import acting_settings, is_multirun, make_composer
from cnntrain.config.composer import Composer
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.plain import to_plain
from cnntrain.config.schema.settings import Settings
from cnntrain.errors import ConfigError

SEED, FOLD = REPEATS = ("seed", "data.fold")
LONGEST_NAME = 100  # letters of a run folder, before its digest
# Words that tell runs in one folder not apart, or not in few letters: its own name, places, and what is Hydra's.
UNNAMED = re.compile(r"[-+~]*(data|model|data\.root|model\.weights|out|hydra[./]\S*)=|-")


@dataclass(frozen=True)
class Combination:
    """One run of a comparison.

    Attributes:
        words: what `cnntrain train` is to be told.
        values: that of each list, as typed, in the order of the command line; without the repeats.
        settings: what the words compose.
    """

    words: tuple[str, ...]
    values: dict[str, str]
    settings: Settings

    @property
    def repeat(self) -> dict[str, str]:
        """Which repeat of its row this is."""
        data = self.settings.data
        return {SEED: str(self.settings.seed)} | ({FOLD: str(data.fold)} if data.folds else {})

    @property
    def label(self) -> str:
        """The values in one line: `finetune=B seed=1`."""
        return " ".join(f"{key}={value}" for key, value in (self.values | self.repeat).items())

    @property
    def short_label(self) -> str:
        """The same with the last words of the keys: `lr=0.1 seed=1`."""
        values = self.values | self.repeat
        return " ".join(f"{key}={value}" for key, value in zip(short_keys(values), values.values(), strict=True))

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The whole config, as a run folder keeps it."""
        return to_plain(self.settings)

    @cached_property
    def digest(self) -> str:
        """Eight letters that stand for the whole config."""
        return hashlib.sha256(json.dumps(self.plain, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """The name of the run folder: `finetune-B_seed-1_epochs-5_6fa1c03e`, which no other config has.

        The listed values come first, then what was typed of all runs.
        """
        pairs = [word.lstrip("+").partition("=") for word in self.words if not UNNAMED.match(word)]
        values = self.values | self.repeat | {key: _unquote(value) for key, sign, value in pairs if sign}
        parts = [f"{key}-{path_part(value)}" for key, value in zip(short_keys(values), values.values(), strict=True)]
        return f"{'_'.join(parts)[:LONGEST_NAME]}_{self.digest}"


def path_part(text: str) -> str:
    """A text for the name of a folder that no shell and no Hydra asks to quote."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-")


def short_keys(keys: Iterable[str]) -> list[str]:
    """Keys by their last word, and `model.name` as the group `model`, where that leaves no two alike."""
    every = list(keys)
    ends = [key.removesuffix(".name").rpartition(".")[2] for key in every]
    return [end if ends.count(end) == 1 else key for key, end in zip(every, ends, strict=True)]


def combinations(words: Sequence[str], config_dir: str | None = None) -> list[Combination]:
    """Every run, the first repeat of each row before the second of any: what is stopped early has compared them all.

    Lists are those of the words, and of a preset's `hydra.sweeper.params`. With `data.folds`, a row is repeated for
    each fold where no word chooses one.

    Raises:
        ConfigErrors: with the faults of all combinations.
        ConfigError: there is only one.
    """
    composer = make_composer(config_dir)
    override_list, faults = overrides.parse(list(words), composer.loader)
    count = len(override_list)
    words_of_all = [override.input_line or "" for override in override_list if not override.is_sweep_override()]
    override_list += overrides.parse(overrides.sweeper_params(composer.compose(words_of_all)[0]), composer.loader)[0]
    misfits = {id(override): fault for override in override_list if (fault := _misfit(override))}
    faults += misfits.values()
    override_list = [override for override in override_list if id(override) not in misfits]
    runs: list[Combination] = []
    for job in itertools.product(*map(overrides.words_of, override_list)):
        tree, job_faults = composer.compose(list(job))
        faults += job_faults
        try:
            settings = settings_of(tree)
        except ConfigErrors as error:
            faults += error.faults
            continue
        once = ("hydra.mode=RUN",) if is_multirun(tree) else ()  # of a preset that is a sweep
        runs += _folds(Combination(job + once, _list_values(override_list, job), settings), override_list)
    if faults:
        raise ConfigErrors(faults)
    if len({run.settings.data.multi_label for run in runs}) > 1:
        raise ConfigError(
            "data.multi_label: must be the same in all runs, as a mAP and a top-1 cannot be compared (given both); "
            "compare single labels and sets by themselves"
        )
    choices = [(acting_settings(composer, run.words, run.settings), run.words[:count]) for run in runs]
    if faults := no_effect.faults(choices):
        raise ConfigErrors(faults)
    runs = [_without_idle(composer, run, *words) for run, words in zip(runs, choices, strict=True)]
    runs = list({run.name: run for run in runs}.values())  # what is listed twice runs once
    if len(runs) < 2:
        raise ConfigError(
            "compare: nothing to compare; list values of a group or key, such as finetune=A,B,C or seed=0,1,2"
        )
    flags = ("--config-dir", config_dir) if config_dir else ()
    return _repeats_last(replace(run, words=(*run.words, *flags)) for run in runs)


def _without_idle(composer: Composer, run: Combination, settings: Settings, typed_words: Sequence[str]) -> Combination:
    """A run without those of its typed words that act in other runs alone: `train` would refuse them."""
    findings = no_effect.findings(settings, typed_words)
    idle_words = {word for finding in findings if finding.fault for word in finding.words}
    if not idle_words:
        return run
    words = tuple(word for word in run.words if word not in idle_words)
    return replace(run, words=words, settings=settings_of(composer.compose(list(words))[0]))


def _misfit(override: Override) -> str | None:
    """What a word asks for that only `train` can do."""
    key, text = override.key_or_group, overrides.value_text(override)
    if override.is_sweep_override() and override.is_interval_sweep():
        return f"{key}: an interval has no end of values (given {text}); list some, such as {key}=0.1,0.03,0.01"
    if override.is_hydra_override() and key != "hydra.searchpath":
        advice = "choose the folder with out=DIR" if key.endswith(".dir") else "leave it out"
        return f"{key}: not offered by compare (given {text}); {advice}"
    return None


def _list_values(override_list: Sequence[Override], job: Sequence[str]) -> dict[str, str]:
    """The values of the lists in the words of one job, but for those that only repeat it."""
    return {
        override.key_or_group: _unquote(word.partition("=")[2])
        for override, word in zip(override_list, job, strict=True)
        if override.is_sweep_override() and override.key_or_group not in REPEATS
    }


def _unquote(value: str) -> str:
    """A value without the quotes and backslashes that Hydra's grammar wants."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return re.sub(r"\\(.)", r"\1", value)


def _folds(run: Combination, override_list: Sequence[Override]) -> Iterator[Combination]:
    """A run for each fold, where there are folds and no word chooses one."""
    data = run.settings.data
    if not data.folds or any(override.key_or_group == FOLD for override in override_list):
        yield run
        return
    for fold in range(data.folds):
        settings = replace(run.settings, data=replace(data, fold=fold))
        yield replace(run, words=(*run.words, f"{FOLD}={fold}"), settings=settings)


def _repeats_last(runs: Iterable[Combination]) -> list[Combination]:
    counts: Counter[tuple[str, ...]] = Counter()
    order = []
    for run in runs:
        row = tuple(run.values.values())
        order.append((counts[row], run))
        counts[row] += 1
    return [run for _, run in sorted(order, key=lambda item: item[0])]


def row_words(run: Combination, runs: Sequence[Combination]) -> list[str]:
    """The words that train the row of a run again: its own, but for those that only number a repeat."""
    shared = set.intersection(*(set(one.words) for one in runs))
    return [word for word in run.words if word in shared or word.partition("=")[0] not in REPEATS]


def folder_name(runs: Sequence[Combination]) -> str:
    """The folder of the whole comparison: `photos_resnet18`, or the group's name in place of several."""
    sections = {group: {getattr(run.settings, group).heading for run in runs} for group in ("data", "model")}
    return "_".join(names.pop() if len(names) == 1 else group for group, names in sections.items())


def subject(words: Sequence[str]) -> list[str]:
    """The subject of a comparison: the keys that it lists, and the words that hold for all of its runs.

    More values, seeds or folds make the same comparison larger; another key or another word makes another one.
    """
    about = []
    for word in words:
        override_list = overrides.parse([word])[0]
        key = override_list[0].key_or_group if override_list else ""
        if key not in (*REPEATS, "out"):
            about.append(f"{key}=..." if override_list and override_list[0].is_sweep_override() else word)
    return sorted(about)


def tables_name(words: Sequence[str]) -> str:
    """The name of the folder of a comparison's tables, beside those of another one: `lr_momentum_6fa1c03e`."""
    about = subject(words)
    keys = [word.removesuffix("=...").rpartition(".")[2] for word in about if word.endswith("=...")]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
    are_runs = bool(about) and not overrides.parse(about)[0]  # which are folders, and no words of a config
    names = ["runs"] if are_runs else keys or REPEATS[:1]
    return f"{'_'.join(map(path_part, names))[:LONGEST_NAME]}_{digest}"
