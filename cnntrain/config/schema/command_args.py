"""What the arguments of commands have in common, each with rule, default and line of help.

cli/arguments.py reads them from a command line. A field with a rule is read by that, any other by its type and limits.
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

from cnntrain.config.argument_rules import (
    OutFileOrFolder,
    Rule,
)
from cnntrain.config.schema.limits import number


def argument(rule: Rule, help: str = "", **default: Any) -> Any:
    """A field of a command's arguments, needed where it has no default; without help it is not shown."""
    return field(**default, metadata={"rule": rule, "help": help})


@dataclass(frozen=True, kw_only=True)
class CommandArgs:
    """The arguments that all commands have.

    Attributes:
        line: the words of the whole command line, as typed.
        words: those that are no argument of the command's own: overrides of a config, or words to search by.
    """

    usage: ClassVar[str] = ""  # of the other words

    line: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """The command as one can type it again."""
        return shlex.join(["cnntrain", *self.line])

    def faults(self) -> list[str]:
        """Lines for broken rules that a single argument cannot state."""
        return []


@dataclass(frozen=True, kw_only=True)
class NewRunArgs(CommandArgs):
    """The arguments of a command that composes a config."""

    usage: ClassVar[str] = "[GROUP=OPTION ...] [KEY=VALUE ...]"
    reads_images: ClassVar[bool] = True  # else data.root need not be given


@dataclass(frozen=True, kw_only=True)
class RunArgs(CommandArgs):
    """The arguments of a command on a trained network.

    Attributes:
        run: a run folder, a checkpoint folder or its state.pt.
    """

    usage: ClassVar[str] = "[KEY=VALUE ...]"

    run: Path = field(metadata={"place": "RUN_DIR_OR_CHECKPOINT"})


@dataclass(frozen=True, kw_only=True)
class LookArgs(CommandArgs):
    """The arguments of a look at data."""

    labels: bool = False
    images: Optional[int] = number(
        None, ge=0, help="how many images are looked at, evenly spaced; all by default; 0: none"
    )
    strict: bool = field(
        default=False, metadata={"help": "true: end with exit code 3 where something serious is found in the data"}
    )
    out: Path | None = argument(
        OutFileOrFolder("DIR", (".json", ".csv", ".png")),
        "DIR: all there is to write; FILE.json: what was found; FILE.csv: the images to look at; FILE.png: a sheet of "
        "pairs that are the same",
        default=None,
    )

    def faults(self) -> list[str]:
        """See CommandArgs."""
        given = {"out": self.out, "strict": self.strict, "labels": self.labels} if self.images == 0 else {}
        return [
            f"{key}: is of the images that are looked at (given images=0); leave one of them out"
            for key, value in given.items()
            if value
        ]
