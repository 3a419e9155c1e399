"""The arguments of each command, with rule, default and line of help: its help and completion are made from them.

cli/arguments.py reads them from a command line. A field with a rule is read by that, any other by its type and limits.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

from cnntrain.config.argument_rules import (
    ClassNames,
    CountOrFiles,
    ImageFile,
    KernelOf,
    Names,
    OutFile,
    OutFileOrFolder,
    OutFiles,
    OutFolder,
    Padding,
    Patterns,
    Pictures,
    Refused,
    Rule,
    Switch,
    TableFile,
    not_for_runs,
    not_new,
    not_packed,
)
from cnntrain.config.schema.export import ENDINGS, Format, absent_packages
from cnntrain.config.schema.filter import Kernel, PaddingMode
from cnntrain.config.schema.limits import number
from cnntrain.text import printable

OFF = ("false", "no", "off", "0")
# What of a run other commands cannot do, with the values that do not ask for it.
OF_RUNS = {"trainer.devices": ("1",), "trainer.profile": OFF, "trainer.report": OFF}
VIEWS = {  # what tta= knows, see training/tta.py
    "hflip": "mirrored from left to right",
    "vflip": "turned upside down",
    "shift": "moved by a sixteenth in four directions",
    "crops": "corners and centre of a picture a seventh larger; of small sets with a mirrored border",
}
CORRUPTIONS = {  # what robust= knows, see evaluation/robustness.py
    "noise": "Gaussian",
    "blur": "Gaussian",
    "contrast": "reduced",
    "jpeg": "compressed more and more",
    "all": "all of them",
}
PARTS = {  # what explain draws
    "filters": "the first layer's weights",
    "features": "the maps of some layers for some images",
    "excite": "the images that excite a filter most, and what it saw",
    "gradcam": "where the evidence for a class lies (arXiv 1610.02391)",
    "shift": "what moving the image by a few pixels changes",
}
MOST_FILTERS, MOST_PREVIEWED, MOST_EXPLAINED = 256, 12, 3


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
class RunArgs(CommandArgs):
    """The arguments of a command on a trained network.

    Attributes:
        run: a run folder, a checkpoint folder or its state.pt.
    """

    usage: ClassVar[str] = "[KEY=VALUE ...]"

    run: Path = field(metadata={"place": "RUN_DIR_OR_CHECKPOINT"})


@dataclass(frozen=True, kw_only=True)
class TrainArgs(NewRunArgs):
    """The arguments of `train`."""

    out: Path | None = argument(
        OutFolder(),
        "the folder of the run exactly, or with -m of all jobs; outputs/DATA/MODEL/DATE_TIME",
        default=None,
    )


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
class CheckRunArgs(RunArgs, LookArgs):
    """The arguments of `check` on a trained network."""

    labels: bool = field(default=True, metadata={"help": "false: do not ask the network which labels look wrong"})

    def faults(self) -> list[str]:
        """See CommandArgs."""
        return ["images: 0 leaves nothing to look at; leave it out"] if self.images == 0 else []


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
class ResumeArgs(RunArgs):
    """The arguments of `resume`."""

    run: Path = field(metadata={"place": "RUN_DIR"})
    out: Path | None = argument(Refused("a run that goes on stays in its folder"), default=None)


@dataclass(frozen=True, kw_only=True)
class EvalArgs(RunArgs):
    """The arguments of `eval`."""

    tta: tuple[str, ...] = argument(
        Names(VIEWS, "VIEWS"), "several views of each image, their probabilities averaged:", default=()
    )
    calibrate: bool | None = argument(
        Switch(
            "fit one to the validation images and keep it in the checkpoint",
            "forget it: back to 1",
        ),
        "the temperature of the checkpoint, by which all commands divide logits, so that probabilities mean what they "
        "say; the most probable class stays:",
        default=None,
    )
    robust: tuple[str, ...] = argument(
        Names(CORRUPTIONS, "CORRUPTIONS"),
        "the accuracy on corrupted images, at five strengths each (arXiv 1903.12261):",
        default=(),
    )
    out: Path | None = argument(
        OutFileOrFolder("DIR", (".json", ".csv", ".png", ".svg", ".pdf")),
        "DIR: all there is to write, a row per image and sheets of the worst too; FILE.json: the scores; FILE.csv: "
        "those by class; FILE.png, .svg or .pdf: the confusion matrix (of the test images where there are some)",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class PredictArgs(RunArgs):
    """The arguments of `predict`."""

    images: tuple[Path, ...] = argument(  # files, and folders to search
        Pictures(),
        "a file, several, a folder (searched at any depth), an archive of one, or a pattern; bad ones are "
        "left out and listed, and end the call with data.on_bad_image=error",
    )
    top: int = number(5, ge=1, help="classes of each image in the file, the most probable first; 4 are shown")
    threshold: Optional[float] = number(
        None,
        gt=0,
        le=1,
        help="images whose best probability is below it get no class; choose it by the accuracy against coverage of "
        "cnntrain eval. Of sets of labels, each image gets all classes that reach it, whatever was fitted",
    )
    tta: tuple[str, ...] = argument(
        Names(VIEWS, "VIEWS"), "several views of each image, as in cnntrain eval:", default=()
    )
    out: tuple[Path, ...] = argument(
        OutFiles("FILE.csv", (".csv", ".json", ".parquet", ".png"), {".parquet": ("pyarrow", "parquet")}),
        "FILE.csv, .json or .parquet: every image with its classes; FILE.png: a sheet of pictures; or several, as "
        "[a.csv,b.png]",
        default=(),
    )
    like: Path | None = argument(
        TableFile(),
        "a contest's sample of what out=FILE.csv is to be: its columns, and its rows in their order",
        default=None,
    )

    def faults(self) -> list[str]:
        """See CommandArgs."""
        if self.like is None or any(out.suffix.lower() == ".csv" for out in self.out):
            return []
        return [f"like: is what out=FILE.csv is to look like (given {printable(self.like)}); give out=FILE.csv too"]


@dataclass(frozen=True, kw_only=True)
class ExplainArgs(RunArgs):
    """The arguments of `explain`."""

    what: tuple[str, ...] = argument(Names(PARTS, "PARTS"), "some of these; all by default", default=tuple(PARTS))
    layers: tuple[str, ...] = argument(
        Patterns(),
        "names, patterns, or first, last, stages (the default); `cnntrain summary` lists the names",
        default=("stages",),
    )
    images: int | tuple[Path, ...] = argument(
        CountOrFiles(), "how many, spread over the classes; or files of your own", default=8
    )
    classes: tuple[str, ...] = argument(
        ClassNames(MOST_EXPLAINED),
        f"the evidence for these, {MOST_EXPLAINED} at most, in place of the classes that each image is given",
        default=(),
    )
    filters: Optional[int] = number(
        None, ge=1, le=MOST_FILTERS, help="how many filters of each layer; as many as suit the picture"
    )
    out: Path | None = argument(OutFolder(), "where to write; RUN_DIR/explain", default=None)

    def faults(self) -> list[str]:
        """See CommandArgs."""
        if self.classes and "gradcam" not in self.what:
            given = ",".join(self.what)
            return [f"classes: is of what=gradcam (given what={given}); leave one of them out"]
        return []


@dataclass(frozen=True, kw_only=True)
class ReportArgs(RunArgs):
    """The arguments of `report`."""

    run: Path = field(metadata={"place": "RUN_DIR"})
    out: Path | None = argument(OutFile("FILE.html", (".html",)), "where to write; RUN_DIR/report.html", default=None)


@dataclass(frozen=True, kw_only=True)
class ExportArgs(RunArgs):
    """The arguments of `export`."""

    format: Format = field(
        default=Format.onnx,
        metadata={"help": "onnx (default) torch_export safetensors (the weights alone) torchscript"},
    )
    preprocessing: bool = field(
        default=False, metadata={"help": "true: the graph takes uint8 images and gives probabilities; else logits"}
    )
    int8: bool = field(
        default=False, metadata={"help": "true: ONNX in whole numbers, with the accuracy before and after"}
    )
    latency: bool = field(default=False, metadata={"help": "true: time the file on this machine"})
    out: Path | None = argument(
        OutFile("FILE.onnx", tuple(ENDINGS.values())),
        "FILE.onnx, .pt2, .safetensors or .pt, as the format has it; FILE.py beside it shows its use. "
        "RUN_DIR/export/onnx/model.onnx",
        default=None,
    )

    def faults(self) -> list[str]:
        """See CommandArgs; packages that the format needs and that are not here are told too."""
        name, ending = self.format.name, ENDINGS[self.format]
        found = []
        if self.out and self.out.suffix.lower() != ending:
            other = next(one.name for one in Format if ENDINGS[one] == self.out.suffix.lower())
            found.append(
                f"out: must end in {ending} for format={name} (given {printable(self.out)}); write out=FILE{ending}, "
                f"or format={other}"
            )
        if self.int8 and self.format is not Format.onnx:
            found.append(f"int8: is for format=onnx (given format={name}); leave it out")
        if self.format is Format.safetensors:
            words = {"preprocessing": self.preprocessing, "latency": self.latency}
            found += [
                f"{word}: weights alone compute nothing (given format={name}); leave it out, or choose another format"
                for word, is_given in words.items()
                if is_given
            ]
        if self.format is Format.onnx and (absent := absent_packages()):
            found.append(f"format: onnx needs {', '.join(absent)}, not installed here; pip install 'cnntrain[export]'")
        return found


@dataclass(frozen=True, kw_only=True)
class ModelsArgs(CommandArgs):
    """The arguments of `models`."""

    usage: ClassVar[str] = "[WORD ...]"

    out: Path | None = argument(OutFile("FILE.csv"), "the list as a table, with exact counts", default=None)


@dataclass(frozen=True, kw_only=True)
class FilterArgs(CommandArgs):
    """The arguments of `filter`; those of the kernel are its own fields (schema/filter.py)."""

    image: Path = argument(ImageFile(), "the picture")
    kernel: Kernel = argument(
        KernelOf(),
        "sobel_x sobel_y sobel (their magnitude) edge sharpen box gaussian gabor identity, or weights in rows",
    )
    padding: str = argument(Padding(), "same (default), valid, or a number of pixels", default="same")
    padding_mode: PaddingMode = field(
        default=PaddingMode.zeros, metadata={"help": "zeros (default) reflect replicate circular"}
    )
    stride: int = number(1, ge=1, le=1000, help="a whole number, 1 by default")
    dilation: int = number(1, ge=1, le=64, help="a whole number, 1 by default")
    gray: Optional[bool] = field(
        default=None, metadata={"help": "true or false; by default edges are looked for in gray"}
    )
    out: Path | None = argument(
        OutFile("FILE.png", (".png",)), "the picture to write; IMAGE_KERNEL.png in the current folder", default=None
    )


COMMANDS: dict[str, type[CommandArgs]] = {
    "train": TrainArgs,
    "resume": ResumeArgs,
    "compare": CompareArgs,
    "eval": EvalArgs,
    "predict": PredictArgs,
    "explain": ExplainArgs,
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
}  # Of commands that take a run in place of a config, the arguments that they have then.
ON_RUNS: dict[str, type[RunArgs]] = {"check": CheckRunArgs}
