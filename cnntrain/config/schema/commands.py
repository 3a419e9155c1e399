"""All commands, and the arguments of those on a config or on none: help and completion are made from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Optional

from cnntrain.config.argument_rules import (
    ImageFile,
    KernelOf,
    OutFile,
    OutFolder,
    Padding,
    SignalOf,
    not_for_runs,
    not_new,
    not_packed,
)
from cnntrain.config.schema.command_args import CommandArgs, LookArgs, NewRunArgs, RunArgs, argument
from cnntrain.config.schema.filter import OWN_ROW, OWN_SIGNAL, Kernel, OwnKernel, PaddingMode
from cnntrain.config.schema.limits import number
from cnntrain.config.schema.run_commands import (
    CheckRunArgs,
    EvalArgs,
    ExplainArgs,
    ExportArgs,
    PlayArgs,
    PredictArgs,
    ReportArgs,
    ResumeArgs,
)
from cnntrain.text import printable

OFF = ("false", "no", "off", "0")
# What of a run other commands cannot do, with the values that do not ask for it.
OF_RUNS = {"trainer.devices": ("1",), "trainer.profile": OFF, "trainer.report": OFF}
MOST_PREVIEWED = 12


def _settings(words: Sequence[str]) -> list[tuple[str, str]]:
    """The keys among some words, with their values."""
    parts = [word.lstrip("+~").partition("=") for word in words if not word.startswith("-")]
    return [(key, value) for key, sign, value in parts if sign]


def _unread(command: str, settings: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{key}: {command} does not read it (given {printable(value)}); leave it out" for key, value in settings]


def _only_of_runs(command: str, words: Sequence[str]) -> list[str]:
    """The lines for words that ask a command which times steps in one process for what only a run has."""
    settings = [(key, value) for key, value in _settings(words) if key in OF_RUNS]
    return _unread(command, [(key, value) for key, value in settings if value.lower() not in OF_RUNS[key]])


@dataclass(frozen=True, kw_only=True)
class TrainArgs(NewRunArgs):
    """The arguments of `train`."""

    out: Path | None = argument(
        OutFolder(),
        "the folder of the run exactly, or with -m of all jobs; outputs/DATA/MODEL/DATE_TIME",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class CheckArgs(NewRunArgs, LookArgs):
    """The arguments of `check` on a config."""

    usage: ClassVar[str] = f"[RUN_DIR_OR_CHECKPOINT] {NewRunArgs.usage}"

    labels: bool = field(
        default=False,
        metadata={
            "help": "true: tell which labels look wrong to heads that have not seen the image, on features of the "
            "network where it has weights to start from; of a run its network is asked without this word"
        },
    )
    steps: int = number(
        3, ge=0, le=1000, help="steps that are timed, 3 by default; 0: none, the data is looked at alone"
    )

    def faults(self) -> list[str]:
        """See CommandArgs."""
        nothing = ["steps: 0 and images=0 leave nothing to do; leave one of them out"]
        return [*LookArgs.faults(self), *(nothing if self.images == 0 == self.steps else [])]


@dataclass(frozen=True, kw_only=True)
class BenchArgs(NewRunArgs):
    """The arguments of `bench`."""

    rounds: int = number(3, ge=1, le=100, help="how often each part is timed, in turn with the others")
    steps: Optional[int] = number(None, ge=1, le=100_000, help="steps of each in a round; as many as take a second")
    out: Path | None = argument(OutFile("FILE.json", (".json",)), "all that was measured", default=None)

    def faults(self) -> list[str]:
        """See CommandArgs."""
        return _only_of_runs("bench", self.words)


@dataclass(frozen=True, kw_only=True)
class SummaryArgs(NewRunArgs):
    """The arguments of `summary`."""

    reads_images: ClassVar[bool] = False

    formulas: bool = field(default=False, metadata={"help": "with the sums behind each number"})
    out: Path | None = argument(OutFile("FILE.csv"), "a table of all layers, with exact numbers", default=None)


@dataclass(frozen=True, kw_only=True)
class PreviewArgs(NewRunArgs):
    """The arguments of `preview`."""

    images: int = number(8, ge=1, le=MOST_PREVIEWED, help=f"how many images the sheet shows, 1 to {MOST_PREVIEWED}")
    out: Path | None = argument(
        OutFolder(not_new, "the name of a new folder"), "where to write; a new folder in outputs/preview", default=None
    )


@dataclass(frozen=True, kw_only=True)
class PackArgs(NewRunArgs):
    """The arguments of `pack`."""

    usage: ClassVar[str] = "data=imagefolder data.root=DIR [KEY=VALUE ...]"
    keys: ClassVar[tuple[str, ...]] = (
        "root",
        "classes",
        "interpolation",
        "on_bad_image",
        "workers",
    )  # of data, it reads

    size: int = number(256, ge=16, le=4096, help="pixels of the short side, 256 by default; smaller pictures stay so")
    quality: int = number(90, ge=1, le=100, help="of the JPEG files, 90 by default")
    out: Path = argument(OutFolder(not_packed, "the name of a new folder"), "the folder of the pack")

    def faults(self) -> list[str]:
        """See CommandArgs; words that only a training reads are told too."""
        known = ("data", *(f"data.{key}" for key in self.keys))
        return _unread("pack", [(key, value) for key, value in _settings(self.words) if key not in known])


@dataclass(frozen=True, kw_only=True)
class FindLrArgs(NewRunArgs):
    """The arguments of `find_lr`."""

    steps: int = number(
        100, ge=20, le=1000, help="how many steps the rate takes to rise, 20 to 1000; for each layer group"
    )
    low: float = number(1e-7, gt=0, help="the first rate, as optimizer.lr says it")
    high: float = number(10.0, gt=0, help="the last rate, if the loss has not diverged before")
    out: Path | None = argument(
        OutFolder(not_new, "the name of a new folder"), "where to write; a new folder in outputs/find_lr", default=None
    )

    def faults(self) -> list[str]:
        """See CommandArgs."""
        found = _only_of_runs("find_lr", self.words)
        if self.low < self.high:
            return found
        return [*found, f"low: must be below high ({self.high:g}) (given {self.low:g}); leave one of them out"]


@dataclass(frozen=True, kw_only=True)
class CompareArgs(CommandArgs):
    """The arguments of `compare`."""

    usage: ClassVar[str] = "[GROUP=OPTION,OPTION,...] [KEY=VALUE,VALUE,...] [RUN_DIR ...]"

    out: Path | None = argument(
        OutFolder(not_for_runs, "a folder for all runs"),
        "the folder of the runs, with compare.csv, .json, .png and .svg and pages for TensorBoard; "
        "outputs/compare/DATA_MODEL. Comparisons of other keys share its runs, and have a folder in it for tables. "
        "Of runs that exist the files are written with out= alone",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class ModelsArgs(CommandArgs):
    """The arguments of `models`."""

    usage: ClassVar[str] = "[WORD ...]"

    out: Path | None = argument(OutFile("FILE.csv"), "the list as a table, with exact counts", default=None)


@dataclass(frozen=True, kw_only=True)
class CourseArgs(CommandArgs):
    """The arguments of `course`."""

    usage: ClassVar[str] = "[NUMBER ... | all]"

    out: Path | None = argument(
        OutFolder(),
        "a new folder, in which a page runs and leaves page.md; outputs/course/NUMBER, of several pages DIR/NUMBER",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class FilterArgs(CommandArgs):
    """The arguments of `filter`; those of the kernel are its own fields (schema/filter.py)."""

    image: Path | None = argument(ImageFile(), "the picture", default=None)
    signal: Path | tuple[float, ...] | None = argument(
        SignalOf(),
        f"in place of a picture a signal in one dimension: '{OWN_SIGNAL}', or a table with a column of numbers",
        default=None,
    )
    column: Optional[str] = field(
        default=None, metadata={"help": "signal: of the table; the first one of numbers by default"}
    )
    kernel: Kernel = argument(
        KernelOf(),
        "sobel_x sobel_y sobel (their magnitude) edge sharpen box gaussian gabor identity, or weights in rows; "
        f"of a signal box, gaussian or identity, or weights in a row: '{OWN_ROW}'",
    )
    padding: str = argument(Padding(), "same (default), valid, or a number of pixels", default="same")
    padding_mode: PaddingMode = field(
        default=PaddingMode.zeros, metadata={"help": "zeros (default) reflect replicate circular"}
    )
    stride: int = number(1, ge=1, le=1000, help="a whole number, 1 by default")
    dilation: int = number(1, ge=1, le=64, help="a whole number, 1 by default")
    gray: Optional[bool] = field(
        default=None, metadata={"help": "image: true or false; by default edges are looked for in gray"}
    )
    out: Path | None = argument(
        OutFile("FILE.png", (".png",)),
        "the picture to write; IMAGE_KERNEL.png in the current folder; of a "
        "signal, FILE.svg and FILE.csv are written beside it",
        default=None,
    )

    def faults(self) -> list[str]:
        """See CommandArgs."""
        if self.signal is None:
            return (
                []
                if self.column is None
                else [f"column: is of a signal (given {printable(self.column)}); leave it out"]
            )
        found = ["signal: stands beside image; give one of the two"] if self.image else []
        if self.column is not None and not isinstance(self.signal, Path):
            found.append(f"column: is of a table (given {printable(self.column)}, and numbers); leave it out")
        if self.gray is not None:
            found.append(f"gray: is of images (given {str(self.gray).lower()}, and a signal); leave it out")
        if self.kernel.row() is None:
            what = "rows" if isinstance(self.kernel, OwnKernel) else "a kernel of images"
            found.append(
                f"kernel: must have one row for a signal (given {what}); write '{OWN_ROW}', kernel=box or gaussian"
            )
        return found


COMMANDS: dict[str, type[CommandArgs]] = {
    "train": TrainArgs,
    "resume": ResumeArgs,
    "compare": CompareArgs,
    "eval": EvalArgs,
    "predict": PredictArgs,
    "explain": ExplainArgs,
    "play": PlayArgs,
    "report": ReportArgs,
    "export": ExportArgs,
    "preview": PreviewArgs,
    "find_lr": FindLrArgs,
    "check": CheckArgs,
    "bench": BenchArgs,
    "pack": PackArgs,
    "summary": SummaryArgs,
    "models": ModelsArgs,
    "filter": FilterArgs,
    "course": CourseArgs,
}
# Of commands that take a run in place of a config, the arguments that they have then.
ON_RUNS: dict[str, type[RunArgs]] = {"check": CheckRunArgs}
