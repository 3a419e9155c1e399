"""The words of a command line in Hydra's grammar: read, blamed, and spread out over the jobs of a sweep."""

import argparse
import itertools
import math
import re
import shlex
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cnntrain.config.advice import advise_data, is_run
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import keys_of
from cnntrain.config.paths import expand_path, own_options
from cnntrain.text import hint, nearest

GROUPS = ("model", "data", "augment", "optimizer", "schedule", "finetune", "trainer", "recipe", "debug", "experiment")
# Arguments of a network or function, and names of parameters, which no class of ours lists.
OPEN_MAPPINGS = (
    *("model.args", "augment.own.args", "data.args", "optimizer.args", "schedule.args", "loss.args"),
    "optimizer.lr_factors",
)
# What Hydra's parser raises: the others of huge numbers and of depths.
UNREADABLE = (HydraException, ValueError, RecursionError)
# Keys whose values are paths.
PATHS = ("data.root", "data.images", "data.split_file", "model.weights", "hydra.run.dir", "hydra.sweep.dir")
OWN_OPTIONS = "put options of your own in a folder: --config-dir DIR experiment=NAME reads DIR/experiment/NAME.yaml"
SWEEP_CHECKS = 32  # jobs of a sweep that are checked before the first one starts; each costs some 50 ms


def read_flags(words: list[str]) -> tuple[list[str], list[str], argparse.Namespace]:
    """Part a command line: Hydra's flags as typed, the overrides (before, between or after them), the flags as read.

    Raises:
        ConfigErrors: a flag that Hydra does not know, or one that we do not offer.
    """
    parser = get_args_parser()

    def fail(message: str) -> NoReturn:
        strays = [word for word in message.partition("unrecognized arguments: ")[2].split() if word.startswith("-")]
        strays += re.findall(r"^ambiguous option: (\S+)", message)
        names = [flag for action in parser._actions for flag in action.option_strings]
        lines = [f"{flag}: no such flag" + _advice(flag, names) for flag in (word.split("=")[0] for word in strays)]
        raise ConfigErrors(lines or [f"flags: {message}; see `cnntrain --help`"])

    parser.error = fail
    options = parser.parse_intermixed_args(words)
    for name in ("config_path", "experimental_rerun"):
        if getattr(options, name) is not None:
            raise ConfigErrors([f"--{name.replace('_', '-')}: not offered; {OWN_OPTIONS}"])
    flags = list(words)
    for override in options.overrides:
        flags.remove(override)
    return flags, options.overrides, options


def _advice(flag: str, names: list[str]) -> str:
    if flag.startswith("--config"):
        return f"; {OWN_OPTIONS}"
    name = flag.lstrip("-").replace("-", "_")
    if key := next((key for key in keys_of({}) if key.rpartition(".")[2] == name), None):
        return f"; write {key}=VALUE"
    return hint(
        nearest(flag, [option for option in names if not option.startswith("--config")]), "see `cnntrain --help`"
    )


def part_config_dir(command: str, words: list[str]) -> tuple[list[str], str | None]:
    """Part the line of a command that takes no flag but --config-dir: the overrides, and what that one says.

    Raises:
        ConfigErrors: another flag.
    """
    flags, overrides, options = read_flags(words)
    if strays := [
        word for word in flags if word != options.config_dir and not word.startswith(("--config-dir", "-cd"))
    ]:
        raise ConfigErrors([f"{' '.join(strays)}: no flag of {command}; see cnntrain {command} --help"])
    return for_hydra(overrides), options.config_dir


def plain_path(word: str, parser: OverridesParser) -> str:
    """A word whose value is a path, in Hydra's grammar: quotes around what that would refuse or take for a number.

    So a path is taken as it is typed (`~/a b=c`, `2024_01`); a comma makes a list of it, unless it stands in quotes or
    braces (`{train,val}-{00..09}.tar`).
    """
    key, sign, text = word.partition("=")
    if not text or text.startswith("=") or key.lstrip("+") not in PATHS:
        return word

    def reads(value: str) -> Any:
        try:
            return parser.parse_overrides([f"key={value}"])[0].value()
        except UNREADABLE:
            return 0

    content = reads(text)
    items = content.list if isinstance(content, ChoiceSweep) and content.simple_form else [content]
    if not any(isinstance(item, (int, float)) for item in items):
        return word
    parts = re.findall(r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\{(?:[^{}]|\{[^{}]*\})*\}|[^,])+""", text)
    return key + sign + ",".join(part if isinstance(reads(part), str) else quote(part) for part in parts)


def parse(words: list[str], loader: Any = None) -> tuple[list[Override], list[str]]:
    """The words that can be read, and a fault for each of the others."""
    parser = OverridesParser.create(config_loader=loader)
    override_list, faults = [], []
    words = list(words)
    while words:
        if torn := _torn(words):
            words = words[len(torn) :]
            key, _, value = " ".join(torn).lstrip("+").partition("=")
            faults.append(f"{key}: a space has ended the word (given {value}); write '{key}={value}', in quotes")
            continue
        word = plain_path(words.pop(0), parser)
        try:
            override = parser.parse_overrides([word])[0]
        except UNREADABLE as error:
            key, _, value = word.partition("=")
            is_syntax = isinstance(error, HydraException)
            faults.append(
                _syntax_fault(word, parser) if is_syntax else f"{key}: cannot be read (given {value}); shorten it"
            )
            continue
        if override.key_or_group:
            override_list.append(override)
        else:
            faults.append(f"{word}: the key is missing; write KEY=VALUE")
    return override_list, faults


def _torn(words: list[str]) -> list[str]:
    """The words that the shell has made of the first one, as its brackets tell; none where it is whole."""
    if not words[0].partition("=")[2].startswith(("[", "{")):
        return []
    for count in range(1, len(words) + 1):
        text = " ".join(words[:count])
        if all(text.count(opening) == text.count(closing) for opening, closing in ("[]", "{}")):
            return words[:count] if count > 1 else []
        if count < len(words) and "=" in words[count]:
            break
    return []


def advise_word(word: str, commands: tuple[str, ...] = ()) -> str:
    """What a bare word was probably to say; empty where nobody knows.

    Args:
        commands: what can be done with the folder of a run.
    """
    if word in ("help", "usage"):
        return "did you mean cnntrain --help?"
    key, _, value = word.partition(":")
    if key in keys_of({}):
        return f"did you mean {key}={value or 'VALUE'}?"
    if commands and is_run(expand_path(word)):
        return f"did you mean {' or '.join(shlex.join(['cnntrain', command, word]) for command in commands)}?"
    group = next((group for group in GROUPS if word in own_options(group)), None)
    return f"did you mean {group}={word}?" if group else advise_data(word)


def _syntax_fault(word: str, parser: OverridesParser) -> str:
    key, sign, value = word.partition("=")
    if not sign:
        advice = advise_word(word) or "a command stands first, see cnntrain --help"
        return f"{word}: neither KEY=VALUE nor a flag; {advice}"
    if value.startswith("="):
        return f"{key}: one = is enough (given ={value}); write {key}{value}"
    if key == "data" and (folder := advise_data(value)):
        return f"data: no option {value}; {folder}"
    if next_word := re.search(r"\s([\w.]+)=", value):
        return f"{key}: two words in one (given {value}); write {next_word[1]}=... outside of the quotes"
    if value.strip(",") != value:
        return f"{key}: a comma has nothing beside it (given {value}); write {key}={value.strip(',') or 'VALUE'}"
    override = f"{key}={quote(value)}"
    try:
        parser.parse_overrides([override])
    except UNREADABLE:
        return f"{word}: not a key and a value; write KEY=VALUE, such as trainer.epochs=5"
    if value.startswith("{") and not value.isascii():
        return (
            f"{key}: names in braces take ASCII letters alone (given {value}); where a list does as well, write that "
            "in its place, else put it into a file of your own, see --config-dir"
        )
    if value.startswith("[") and not value.isascii():
        return (
            f"{key}: names beyond ASCII take quotes inside the brackets (given {value}); "
            f"write {key}=\"['Käfer','bee']\" that way"
        )
    if value.startswith(("[", "{")):
        plain, form = (
            key.lstrip("+"),
            "a list as '{}=[a,b]'" if value.startswith("[") else "names as '{}={{a: 1, b: 2}}'",
        )
        return f"{plain}: brackets or commas do not fit (given {value}); write {form.format(plain)}, in quotes"
    return f"{key}: needs quotes (given {value}); write {for_shell(override)}"


def quote(text: str) -> str:
    """Text as a quoted value of Hydra's grammar."""
    # There a backslash stands for itself, unless a quote follows the last of its row: then two stand for one.
    return "'" + re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), text) + "'"


def for_shell(word: str) -> str:
    """A word as the user must type it, so that the quotes inside reach us."""
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def value_text(override: Override) -> str:
    """The value as the user typed it."""
    return (override.input_line or "").partition("=")[2]


def for_hydra(words: list[str]) -> list[str]:
    """Words as Hydra wants them: quotes around paths that need some; ++model.args.x=1 where that is a new argument."""
    parser = OverridesParser.create()
    starts = tuple(mapping + sign for mapping in OPEN_MAPPINGS for sign in ".=")
    return ["++" + word if word.startswith(starts) else plain_path(word, parser) for word in words]


def sweeper_params(tree: DictConfig) -> list[str]:
    """The keys that a preset sweeps over (hydra.sweeper.params), as words."""
    params = OmegaConf.select(tree, "hydra.sweeper.params")
    return [f"{key}={value}" for key, value in params.items()] if isinstance(params, DictConfig) else []


def jobs(overrides: list[Override]) -> list[list[str]]:
    """The command line of each job of a sweep, or of an even choice of them where they are many."""
    axes = [words_of(override) for override in overrides]
    if math.prod(len(axis) for axis in axes) <= SWEEP_CHECKS:
        return [list(job) for job in itertools.product(*axes)]
    longest = max(len(axis) for axis in axes)
    step = max(1, longest // SWEEP_CHECKS)
    return [[axis[index % len(axis)] for axis in axes] for index in range(0, longest, step)]


def words_of(override: Override) -> list[str]:
    """The word that a job gets of this one: one for each value of a list, the two ends of an interval."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    if override.is_discrete_sweep():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    return [f"{key}={interval.start}", f"{key}={interval.end}"]
