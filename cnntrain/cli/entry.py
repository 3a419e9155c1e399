"""The command line up to its command; version, help and completion end here. Nothing here imports torch.

Help is to take less than a third of the time of a bare Hydra app, whatever the commands come to need: what only they
import is imported where they begin.
"""

import io
import sys
from collections.abc import Sequence

from cnntrain import __version__
from cnntrain.cli.exit import exit_code, say
from cnntrain.cli.help import command_help, overview
from cnntrain.errors import ConfigError
from cnntrain.runtime.job_clock import take_seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; answers the exit code (errors.py lists them)."""
    take_seconds()  # what a run costs begins here
    line = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # letters that the locale does not have are no fault
    return exit_code(lambda: _run(line), may_report=_tells)


def _tells(error: BaseException) -> bool:
    from cnntrain.runtime.group import tells

    return tells(error)


def _run(line: list[str]) -> int:
    if "--version" in line:
        print(f"cnntrain {__version__}")
        return 0
    if "-sc" in line or "--shell-completion" in line:
        from cnntrain.cli.completion import complete

        return complete(line)
    command, words = _split(line)
    _tell_repeated(words)
    if "--help" in words or "-h" in words:
        print(command_help(command) if line[0] == command else overview())
        return 0
    from cnntrain.cli.dispatch import dispatch

    return dispatch(command, words, line)


def _tell_repeated(words: list[str]) -> None:
    """Tell which value counts of a key that stands in a line twice: scripts add words to a line of theirs."""
    values: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        key = key.lstrip("+")
        if not sign or key.startswith("-"):
            continue
        if values.get(key, value) != value:
            from cnntrain.runtime.world import World

            if World.here().is_first:
                say(f"{key}: is there twice; {value} counts, not {values[key]}")
        values[key] = value


def _split(line: list[str]) -> tuple[str, list[str]]:
    """The command and the rest of the line; a line without a command trains."""
    if not line or "=" in line[0] or line[0].startswith(("-", "+", "~")):
        return "train", line
    from cnntrain.config.schema.command_args import RunArgs
    from cnntrain.config.schema.commands import COMMANDS

    if line[0] in COMMANDS:
        return line[0], line[1:]
    from cnntrain.config.overrides import advise_word
    from cnntrain.text import nearest

    suggestion = nearest(line[0], COMMANDS, cutoff=0.7) if "." not in line[0] else None
    of_runs = tuple(command for command, kind in COMMANDS.items() if issubclass(kind, RunArgs))
    candidates = tuple(command for command in of_runs if command in line) or of_runs
    advice = (
        f"did you mean '{suggestion}'?"
        if suggestion
        else advise_word(line[0], candidates) or f"commands: {', '.join(COMMANDS)}"
    )
    raise ConfigError(f"unknown command '{line[0]}'; {advice}")
