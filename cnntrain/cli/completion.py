"""What a shell completes: our commands and their arguments here, groups and keys of the config by Hydra."""

import contextlib
import io
import os
import re

from cnntrain.cli.arguments import arguments_of
from cnntrain.cli.hydra_jobs import ask_hydra
from cnntrain.config.schema.command_args import NewRunArgs
from cnntrain.config.schema.commands import COMMANDS, CompareArgs


def complete(words: list[str]) -> int:
    """Print the script for a shell, or what it can offer for the line in COMP_LINE."""
    line = os.environ.get("COMP_LINE", "")
    parts = line.split()
    command = parts[1] if len(parts) > 1 else ""
    start = "" if line.endswith(" ") else parts[-1] if parts else ""
    if not any(word.startswith("query=") for word in words):
        pass  # the shell wants the script
    elif len(parts) < 2 or (len(parts) == 2 and start):
        print(" ".join(name for name in COMMANDS if name.startswith(command)))
    elif command in COMMANDS:
        print(" ".join(offers(command, start)))
        if not issubclass(COMMANDS[command], (NewRunArgs, CompareArgs)):
            return 0  # the shell completes file names by itself
        os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+\s+)\S+\s*", r"\1", line)
    from cnntrain.config.inherit import recipes_alike, register_recipe
    from cnntrain.config.overrides import read_flags

    for path in recipes_alike():  # which are not composed before
        register_recipe(path)
    _, overrides, options = read_flags(words)
    with contextlib.redirect_stderr(io.StringIO()):  # argparse complains about words that are not finished
        return ask_hydra(options, overrides)


def offers(command: str, start: str) -> list[str]:
    """The arguments of a command, or of one of them the values, that go on from what is typed of a word."""
    arguments = {name: argument for name, argument in arguments_of(COMMANDS[command]).items() if argument.help}
    key, sign, value = start.partition("=")
    if not sign:
        return [f"{name}=" for name in arguments if name.startswith(start)]
    items, comma, value = value.rpartition(",")
    choices = arguments[key].choices if key in arguments else {}
    return [f"{key}={items}{comma}{name}" for name in choices if name.startswith(value)]
