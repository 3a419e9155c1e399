"""How each command starts: it gets its arguments, and a config or runs. Nothing here imports torch.

Each module of commands/ has one function `run`: of its arguments, and of what the other words make (a config, or the
runs of a comparison) where it works with one. It answers what it found, or the exit code of what it has started.
"""

import contextlib
import gc
import importlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.cli import (
    failure,  # noqa: F401  (once no more files can be opened, nothing can be imported)
    loading,
)
from cnntrain.cli.exit import exit_code
from cnntrain.config.advice import advise_check
from cnntrain.config.need_images import need_images
from cnntrain.config.paths import expand_path
from cnntrain.config.schema.command_args import NewRunArgs, RunArgs
from cnntrain.config.schema.commands import COMMANDS, ON_RUNS, CheckArgs, CompareArgs, PackArgs, TrainArgs
from cnntrain.errors import CnntrainError, ConfigError, ImageError
from cnntrain.runtime import signals
from cnntrain.runtime.group import run_of_last_start, silence_torch, tells
from cnntrain.runtime.world import World
from cnntrain.text import printable

if TYPE_CHECKING:
    from cnntrain.config.compose import Composition
    from cnntrain.config.run_config import RunConfig
    from cnntrain.config.schema.settings import Settings

OF_SEVERAL_PROCESSES = ("train", "resume")  # what several processes can do together
OF_TRAINED_NETWORKS = ("eval", "predict", "explain", "play", "report", "export")  # which save nothing on a signal
AT_ONCE = ("models", "course")  # commands that load nothing heavy themselves
RUN_DIRS = ("hydra.run.dir", "hydra.sweep.dir")  # Hydra's keys for what is out= of train
COLLECTIONS = gc.get_threshold()  # how seldom Python looks for garbage
Arguments = Any  # one of the dataclasses of COMMANDS


def dispatch(command: str, words: list[str], line: list[str]) -> int:
    """Let a command do its work; answers the exit code.

    Args:
        words: those after the command.
        line: the whole line as typed.
    """
    silence_torch()
    if command not in OF_SEVERAL_PROCESSES and World.here().size > 1:
        raise ConfigError(f"{command}: one process does this alone; start it without torchrun")
    handlers: dict[str, Callable[[str, list[str], list[str]], int]] = {
        **dict.fromkeys(("models", "filter", "course"), _without_config),
        **dict.fromkeys(("resume", *OF_TRAINED_NETWORKS), _on_saved_run),
        **dict.fromkeys(("summary", "preview", "find_lr", "bench", "pack"), _on_config),
        "train": _on_new_runs,
        "check": _on_check,
        "compare": _on_comparison,
    }
    with (
        contextlib.nullcontext() if command in AT_ONCE else loading.word(),
        _signals_that_end(command),
        _garbage_left_to_lie(),
    ):
        return handlers[command](command, words, line)


def _signals_that_end(command: str) -> contextlib.AbstractContextManager[None]:
    """Let a signal end what saves nothing as Ctrl-C does: by an exception, which removes what is half written."""
    if command not in (*OF_TRAINED_NETWORKS, "pack") or threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()
    return signals.caught(lambda signum, _: signals.end_now(signum))


def _load(command: str) -> Callable[..., Any]:
    """The function of a command, imported only now: most of them cost seconds."""
    is_first = "torch" not in sys.modules
    with _collector_at_rest() if is_first else contextlib.nullcontext():
        function: Callable[..., Any] = importlib.import_module(f"cnntrain.commands.{command}").run
    gc.set_threshold(*COLLECTIONS)
    return function


@contextlib.contextmanager
def _garbage_left_to_lie() -> Iterator[None]:
    """Look for garbage seldom until the command is loaded: composing a config makes little, and much that stays."""
    gc.set_threshold(50 * COLLECTIONS[0], *COLLECTIONS[1:])
    try:
        yield
    finally:
        gc.set_threshold(*COLLECTIONS)


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Look for no garbage while modules are loaded, and never among what they hold: it costs a sixth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _call(command: str, args: Arguments, config: "RunConfig | None") -> Any:
    """Let a command work on a config; of an image that ends it, it is told how all such are found."""
    try:
        return _load(command)(args, config)
    except ImageError as error:
        if command not in ("check", "predict"):  # which has told of all; whose images are others
            run = args.run if isinstance(args, RunArgs) else None
            error.args = (f"{error}; {advise_check(config.overrides if config else args.words, run)}",)
        raise


def _code(answer: Any) -> int:
    """The exit code that a command answers; 0 where it answers what it found."""
    return answer if isinstance(answer, int) else 0


# --- how each command starts ------------------------------------------------------------------------------------------


def _without_config(command: str, words: list[str], line: list[str]) -> int:
    from cnntrain.cli.arguments import read_arguments

    args = read_arguments(COMMANDS[command], words, line)
    if command not in AT_ONCE:
        loading.tell()
    return _code(_load(command)(args))


def _on_saved_run(command: str, words: list[str], line: list[str]) -> int:
    """Of a run that exists: faults of the words are found before torch is imported."""
    from cnntrain.cli.arguments import read_arguments

    kind = ON_RUNS.get(command, COMMANDS[command])
    assert issubclass(kind, RunArgs)
    args = read_arguments(kind, words, line)
    config = _saved_config(command, args)
    if command == "resume" and config and (count := _processes(config.settings, args.words)):
        return _launch(count, line)
    loading.tell()
    return exit_code(
        lambda: _code(_call(command, args, config)),
        lambda: args.run if command == "resume" and World.here().is_first and args.run.is_dir() else None,
        tells,
    )


def _saved_config(command: str, args: RunArgs) -> "RunConfig | None":
    """The config in a run folder, changed by the words; None where the command looks for it itself.

    Such are checkpoints, which hold one of their own, and the folder of a run on another machine.
    """
    from cnntrain.config import no_effect
    from cnntrain.config.errors import ConfigErrors
    from cnntrain.config.run_config import restore_config
    from cnntrain.storage import manifest, run_record

    resumes, source = command == "resume", str(args.run / run_record.CONFIG)
    if resumes and not World.here().is_first:
        return None
    try:
        plain = run_record.read_config(args.run)
    except (CnntrainError, OSError):
        if resumes or command == "report":  # which take the folder of a run alone
            raise
        manifest.need_target(args.run)
        return None
    try:
        config = restore_config(plain, args.words, source)
    except ConfigError:
        if not resumes and not _is_sound(plain, source):
            return None
        raise
    has_weights = not resumes or (args.run / "checkpoints").is_dir()
    if faults := no_effect.faults_of_saved(command, config, has_weights=has_weights):
        raise ConfigErrors(faults)
    if command not in ("predict", "play", "report", "export"):  # which do without
        need_images(config.settings.data)
    return config


def _is_sound(plain: dict[str, Any], source: str) -> bool:
    from cnntrain.config.run_config import restore_config

    with contextlib.suppress(ConfigError):
        return bool(restore_config(plain, (), source))
    return False


def _on_config(command: str, words: list[str], line: list[str]) -> int:
    """Of a composed config: nothing is trained, and no run folder is made."""
    from cnntrain.cli.arguments import read_arguments
    from cnntrain.config.compose import compose_line
    from cnntrain.config.overrides import part_config_dir

    kind = COMMANDS[command]
    assert issubclass(kind, NewRunArgs)
    args = read_arguments(kind, words, line)
    overrides, config_dir = part_config_dir(command, list(args.words))
    # Where no image is read nothing is trained either, and any word may stand there.
    defaults = [] if kind.reads_images else ["data.root=."]
    composition = compose_line([*overrides, *defaults], config_dir=config_dir, refuse_idle=kind.reads_images)
    if kind.reads_images:
        need_images(composition.settings.data)
    if kind is PackArgs and not ((data := composition.settings.data).has_files and data.is_users):
        raise ConfigError(
            f"data: pack takes a folder of photos (given {data.name}); write data=imagefolder data.root=DIR"
        )
    loading.tell()
    return _code(_call(command, args, composition.config))


def _on_comparison(command: str, words: list[str], line: list[str]) -> int:
    """Of several configs: all runs are planned, and their faults found, before the first one starts; or of runs."""
    from cnntrain.cli.arguments import read_arguments
    from cnntrain.compare import plan
    from cnntrain.config.overrides import part_config_dir

    args = read_arguments(CompareArgs, words, line)
    overrides, config_dir = part_config_dir(command, list(args.words))
    folders = [word for word in overrides if _names_run(word)]
    settings = [word for word in overrides if word not in folders]
    if folders and settings and any(expand_path(word).exists() for word in folders):
        raise ConfigError(
            f"compare: takes settings to train with, or runs that exist (given {settings[0]} and {folders[0]}); "
            "give one of the two"
        )
    if folders and not settings:
        if config_dir:
            raise ConfigError("--config-dir: is for runs that are to be trained; leave it out")
        return _code(_load(command)(args, [expand_path(word) for word in folders]))
    return _code(_load(command)(args, plan.combinations(overrides, config_dir)))


def _names_run(word: str) -> bool:
    """Whether a word of compare means a folder: it has no `=`, as settings do, or is the name of one that is there."""
    return ("=" not in word and not re.match(r"[-+]|~(?!/)", word)) or os.path.isdir(expand_path(word))


def _on_new_runs(command: str, words: list[str], line: list[str]) -> int:
    """Of one config or of a sweep: the run folder is made when all faults have been found."""
    from cnntrain.cli.arguments import read_arguments
    from cnntrain.config.compose import compose_line, is_multirun
    from cnntrain.config.overrides import for_hydra, read_flags

    _, overrides, options = read_flags(words)
    if options.hydra_help:
        from cnntrain.cli.hydra_jobs import ask_hydra

        return ask_hydra(options, [])
    keeps = command == "train"
    args = read_arguments(TrainArgs, overrides, line) if keeps else read_arguments(CheckArgs, overrides, line)
    if keeps:
        _refuse_two_folders(args)
    overrides = for_hydra(list(args.words))
    shows = bool(options.cfg or options.info)
    if options.resolve and not shows:
        raise ConfigError("--resolve: goes with --cfg; write --cfg job --resolve")
    composition = compose_line(
        overrides,
        config_dir=options.config_dir,
        config_name=options.config_name or "train",
        multirun=options.multirun,
        complete=not shows,
    )
    from cnntrain.cli.hydra_jobs import ask_hydra, run_once, run_sweep
    from cnntrain.storage import run_folder
    from cnntrain.storage.run_record import CONFIG

    if shows:
        return ask_hydra(options, overrides)
    is_sweep = options.multirun or is_multirun(composition.tree)
    if is_sweep and World.here().size > 1:
        raise ConfigError("hydra.mode: several processes train one network (given MULTIRUN); start one run at a time")
    if keeps and World.here().is_first and (folder := run_of_last_start()) and (folder / CONFIG).exists():
        return _on_saved_run("resume", [str(folder)], line)
    if many := {settings.trainer.devices for _, settings in composition.jobs if settings and keeps} - {1}:
        given = next(iter(many))
        raise ConfigError(
            f"trainer.devices: a job of a sweep runs in one process (given {given}); start one run at a time"
        )
    if is_sweep and not keeps and args.out:
        raise ConfigError(f"out: is what one check has found (given {printable(args.out)}); check one config at a time")
    if not is_sweep:  # the jobs of a sweep may each have a root of their own
        need_images(composition.settings.data)
    if not is_sweep and keeps and (count := _processes(composition.settings, overrides)):
        return _launch(count, line)

    def work(config: "RunConfig", folder: Path) -> Any:
        return _call(command, replace(args, out=folder) if command == "train" else args, config)

    with contextlib.ExitStack() as stack:
        folder = _make_folder(composition, args, stack, is_sweep=is_sweep, keeps=keeps and World.here().is_first)
        stack.callback(run_folder.remove_empty, folder)  # where Hydra or the run has failed before its first file
        if is_sweep:  # which tells of its jobs
            return run_sweep(composition, overrides, folder, work, keeps=keeps)
        loading.tell()
        return run_once(composition, folder, work, keeps=keeps)


def _on_check(command: str, words: list[str], line: list[str]) -> int:
    """Of the run that the first word names, else of a config."""
    is_run = bool(words) and _names_run(words[0]) and expand_path(words[0]).exists()
    return (_on_saved_run if is_run else _on_new_runs)(command, words, line)


def _refuse_two_folders(args: Arguments) -> None:
    dirs = [key for word in args.words if (key := word.partition("=")[0].lstrip("+")) in RUN_DIRS]
    if args.out and dirs:
        raise ConfigError(f"out: is {dirs[0]} in another word (given {args.out}); give one of the two")


def _make_folder(
    composition: "Composition", args: Arguments, stack: contextlib.ExitStack, *, is_sweep: bool, keeps: bool
) -> Path:
    """The folder of the run or the sweep: exactly the one that the user names, else a new one.

    Args:
        stack: removes it again where nothing is kept.
    """
    from cnntrain.config.compose import output_folder
    from cnntrain.storage import run_folder

    kind = "sweep" if is_sweep else "run"
    own = args.out if isinstance(args, TrainArgs) else None
    folder = own or output_folder(composition.tree, kind)  # may be at fault
    if not keeps:
        import tempfile

        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cnntrain-check-")))
    if not own and not any(word.lstrip("+").startswith(f"hydra.{kind}.dir=") for word in args.words):
        return run_folder.reserve(folder)
    return run_folder.claim(folder, sweep=is_sweep)  # the jobs of a sweep look after their own folders as well


def _launch(count: int, line: list[str]) -> int:
    """Run the line in so many processes; what that needs is imported for it alone."""
    from cnntrain.runtime.launcher import launch

    return launch(count, line)


def _processes(settings: "Settings", words: Sequence[str]) -> int:
    """How many processes are to be started; 0 where this one trains by itself."""
    from cnntrain.config.schema.model import NO_SYNC_BN
    from cnntrain.runtime.launcher import processes_to_start

    count = processes_to_start(settings.trainer, words)
    if count and settings.model.sync_bn and settings.trainer.device == "cpu":
        raise ConfigError(NO_SYNC_BN.format("cpu"))
    return count
