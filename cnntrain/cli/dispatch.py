"""The command line: the first word picks a command, the rest is Hydra's. Nothing here imports torch."""

import contextlib
import functools
import importlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain import __version__
from cnntrain.cli.exit import guard, say
from cnntrain.cli.help import COMMANDS, HELP
from cnntrain.cli.launch import Work, call_hydra
from cnntrain.config.paths import conf_dir, expanded, need_image_folder
from cnntrain.config.schema.data import DATASETS
from cnntrain.errors import CnntrainError, ConfigError
from cnntrain.runtime.distributed import World, tells
from cnntrain.runtime.job_clock import take_seconds

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from cnntrain.config.compose import Composition

# command -> module of commands/
SAVED_RUN = {"resume": "resume", "eval": "eval", "predict": "predict", "explain": "explain"}
SHARED = ("train", "resume")  # what several processes can do together

guarded = functools.partial(guard, tells=tells)


def main(argv: list[str] | None = None) -> int:
    """Run one command line; answers the exit code (errors.py lists them)."""
    take_seconds()  # what a run costs begins here
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # letters that the locale does not have are no fault
    answer: list[int] = []
    return guarded(lambda: answer.append(_run(words))) or answer[0]


def _run(words: list[str]) -> int:
    if "--version" in words:
        print(f"cnntrain {__version__}")
        return 0
    if "-sc" in words or "--shell-completion" in words:
        return _complete(words)
    command, words = _split(words)
    _tell_repeated(words)
    if command in HELP and ("--help" in words or "-h" in words):
        print(HELP[command], end="")
        return 0
    if command not in SHARED and World.here().size > 1:
        raise ConfigError(f"{command}: one process does this alone; start it without torchrun")
    if command in ("models", "filter"):
        _load(command)(words)
        return 0
    if command in SAVED_RUN:
        return _saved_run(command, words)
    if command in (composed := {"summary": _summary, "preview": _preview, "compare": _compare}):
        return composed[command](words)
    if "--help" in words or "-h" in words:
        print(_help())
        return 0
    return _hydra_command(words, _train if command == "train" else _check)


def _tell_repeated(words: list[str]) -> None:
    """Tell which value counts of a key that stands in a line twice: scripts add words to a line of theirs."""
    seen: dict[str, str] = {}
    for word in words if World.here().is_first else []:
        key, sign, value = word.partition("=")
        key = key.lstrip("+")
        if not sign or key.startswith("-"):
            continue
        if seen.get(key, value) != value:
            say(f"{key}: is there twice; {value} counts, not {seen[key]}")
        seen[key] = value


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command and the rest of the line; a line without a command trains."""
    if not words or "=" in words[0] or words[0].startswith(("-", "+", "~")):
        return "train", words
    if words[0] in COMMANDS:
        return words[0], words[1:]
    from cnntrain.config.overrides import meant
    from cnntrain.text import nearest

    close = nearest(words[0], COMMANDS, cutoff=0.7) if "." not in words[0] else None
    named = tuple(command for command in SAVED_RUN if command in words) or tuple(SAVED_RUN)
    advice = f"did you mean '{close}'?" if close else meant(words[0], named) or f"commands: {', '.join(COMMANDS)}"
    raise ConfigError(f"unknown command '{words[0]}'; {advice}")


def _help() -> str:
    """The text that Hydra would print too; but it would list all its groups first, which takes it a second."""
    import string

    import yaml

    file = conf_dir() / "hydra" / "help" / "cnntrain.yaml"
    return string.Template(yaml.safe_load(file.read_text(encoding="utf-8"))["template"].rstrip()).substitute()


def _load(command: str) -> Any:
    """The function of a command, imported only now: most of them cost seconds."""
    function = "evaluate" if command == "eval" else command  # Python has a function eval of its own
    return getattr(importlib.import_module(f"cnntrain.commands.{command}"), function)


# --- resume, eval, predict and explain -------------------------------------------------------------------------------


def _saved_run(command: str, words: list[str]) -> int:
    flags = [word for word in words[1:] if word.startswith("-")]
    if not words or (re.match(r"-|[a-z_.]+=", words[0]) and not expanded(words[0]).exists()):
        raise ConfigError(f"{command}: which run? write cnntrain {command} RUN_DIR, and other words after that")
    if flags:
        raise ConfigError(f"{' '.join(flags)}: no flag of {command}; see cnntrain {command} --help")
    target, overrides = expanded(words[0]), words[1:]
    _check_overrides(command, target, _overrides(command, overrides))
    function = _load(SAVED_RUN[command])
    return guarded(
        lambda: function(target, overrides),
        lambda: target if command == "resume" and World.here().is_first and target.is_dir() else None,
    )


def _overrides(command: str, words: list[str]) -> list[str]:
    """The overrides among the words; faults of the command's own words are found on the way."""
    from cnntrain.config.arguments import read_eval, read_explain, read_predict

    if command == "resume" and (out := [word for word in words if word.startswith("out=")]):
        raise ConfigError(f"out: a run that goes on stays in its folder (given {out[0][4:]}); leave it out")
    readers = {"eval": read_eval, "predict": read_predict, "explain": read_explain}
    return readers[command](words)[1] if command in readers else words


def _check_overrides(command: str, target: Path, overrides: list[str]) -> None:
    """Find faults before torch is imported, where the run's config can be read; else the command itself will."""
    from cnntrain.config import no_effect
    from cnntrain.config.changes import find_changes
    from cnntrain.config.messages import ConfigErrors
    from cnntrain.config.run_config import settings_from_plain
    from cnntrain.storage import run_folder

    try:
        plain = run_folder.read_config(target)
        before = settings_from_plain(plain)
    except (CnntrainError, OSError):
        return
    settings = settings_from_plain(plain, overrides, source=str(target / "config.yaml"))
    begun = command != "resume" or (target / "checkpoints").is_dir()
    changes = find_changes(before, settings)
    if found := no_effect.faults_of_saved(command, settings, overrides, changes, begun=begun):
        raise ConfigErrors(found)
    if settings.data.has_files and command != "predict":  # which needs no data
        need_image_folder(expanded(settings.data.root))


# --- summary, preview and compare ------------------------------------------------------------------------------------


def _summary(words: list[str]) -> int:
    """Nothing is read from disk but the config: the data set only says how its images look."""
    from cnntrain.config.arguments import read_summary

    wishes, words = read_summary(words)
    composition, overrides = _inspect("summary", words, "data.root=.")
    named = any(word.lstrip("+").startswith(("data=", "experiment=")) for word in overrides)
    option = composition.tree.hydra.runtime.choices.model
    _load("summary")(composition.settings, wishes, data_named=named, option=option)
    return 0


def _preview(words: list[str]) -> int:
    """The images are those of the config; no run folder is made."""
    from cnntrain.config.arguments import read_preview

    wishes, words = read_preview(words)
    settings = _inspect("preview", words)[0].settings
    if settings.data.has_files:
        need_image_folder(expanded(settings.data.root))
    _load("preview")(settings, wishes, words)
    return 0


def _compare(words: list[str]) -> int:
    """All runs are planned, and their faults found, before the first one starts."""
    from cnntrain.compare import plan
    from cnntrain.config.arguments import read_compare
    from cnntrain.config.overrides import part_config_dir

    wishes, overrides = read_compare(words)
    overrides, config_dir = part_config_dir("compare", overrides)
    runs = plan.plan(overrides, config_dir)
    flags = ["--config-dir", config_dir] if config_dir else []
    return int(_load("compare")(runs, wishes, words, flags))


def _inspect(command: str, words: list[str], *more: str) -> tuple["Composition", list[str]]:
    """The config that the words compose, and those of them that are no flags."""
    from cnntrain.config.compose import compose_line
    from cnntrain.config.overrides import part_config_dir

    overrides, config_dir = part_config_dir(command, words)
    acting = command != "summary"  # which trains nothing
    return compose_line([*overrides, *more], config_dir=config_dir, acting=acting), overrides


# --- train and check -------------------------------------------------------------------------------------------------


def _train(settings: Any, folder: Path, overrides: list[str]) -> Any:
    return _load("train")(settings, folder, overrides)


def _check(settings: Any, folder: Path, overrides: list[str]) -> Any:
    return _load("check")(settings)


def _hydra_command(words: list[str], work: Work) -> int:
    """Find all faults of the line, make the run folder, then let Hydra run the job or the jobs."""
    from cnntrain.config.arguments import read_train
    from cnntrain.config.compose import compose_line, is_multirun, output_folder
    from cnntrain.config.overrides import for_hydra, quote, read_flags
    from cnntrain.storage import run_folder

    flags, overrides, asked = read_flags(words)
    if asked.hydra_help:
        return call_hydra(flags, [], work)
    wishes, overrides = read_train(overrides, writes=work is not _check)
    overrides = for_hydra(overrides)
    shows = bool(asked.cfg or asked.info)
    composition = compose_line(
        overrides,
        config_dir=asked.config_dir,
        config_name=asked.config_name or "train",
        multirun=asked.multirun,
        complete=not shows,
    )
    if shows:
        return call_hydra(flags, overrides, work)
    tree = composition.tree
    many = asked.multirun or is_multirun(tree)
    if many and World.here().size > 1:
        raise ConfigError("hydra.mode: several processes train one network (given MULTIRUN); start one run at a time")
    if DATASETS.entry(tree.data.name).has_files and not many:  # the jobs of a sweep may each have a root of their own
        need_image_folder(expanded(tree.data.root))
    with contextlib.ExitStack() as stack:
        if work is _check or not World.here().is_first:  # neither leaves anything behind
            output_folder(tree, "sweep" if many else "run")  # may be at fault
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cnntrain-check-")))
        else:
            folder = _make_folder(tree, overrides, many, wishes.out)
        place = f"hydra.{'sweep' if many else 'run'}.dir={quote(str(folder))}"
        words = [*overrides, place]
        stack.callback(run_folder.remove_empty, folder)  # where Hydra or the job has failed before its first file
        return call_hydra(flags, words, work, sweep_folder=folder if many else None, keeps=work is not _check)


def _make_folder(tree: "DictConfig", overrides: list[str], many: bool, out: Path | None) -> Path:
    """The folder of the run or the sweep: exactly the one that the user names, else a new one.

    Args:
        out: the user's word for it; another is hydra.run.dir or hydra.sweep.dir.
    """
    from cnntrain.config.compose import output_folder
    from cnntrain.storage import run_folder

    kind = "sweep" if many else "run"
    folder = out or output_folder(tree, kind)
    if not out and not any(word.lstrip("+").startswith(f"hydra.{kind}.dir=") for word in overrides):
        return run_folder.reserve(folder)
    return run_folder.claim(folder, sweep=many)  # the jobs of a sweep look after their own folders as well


# --- completion ------------------------------------------------------------------------------------------------------


def _complete(words: list[str]) -> int:
    """Print or answer a shell's completion: Hydra completes the line without our command, we complete the command."""
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()
    first = typed[1] if len(typed) > 1 else ""
    if not any(word.startswith("query=") for word in words):
        pass  # the shell wants the script
    elif len(typed) < 2 or (len(typed) == 2 and not line.endswith(" ")):
        print(" ".join(command for command in COMMANDS if command.startswith(first)))
    elif first in ("train", "check", "summary", "preview", "compare"):
        os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+\s+)\S+\s*", r"\1", line)
    elif first in COMMANDS:
        return 0  # the shell completes file names by itself
    from cnntrain.config.overrides import read_flags

    flags, overrides, _ = read_flags(words)
    with contextlib.redirect_stderr(io.StringIO()):  # argparse complains about words that are not finished
        return call_hydra(flags, overrides, _train)
