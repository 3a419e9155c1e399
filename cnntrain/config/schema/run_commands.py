"""The arguments of the commands on a trained network: their help and completion are made from them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from cnntrain.config.argument_rules import (
    ClassNames,
    CountOrFiles,
    Names,
    OutFile,
    OutFileOrFolder,
    OutFiles,
    OutFolder,
    Patterns,
    Pictures,
    Refused,
    Switch,
    TableFile,
)
from cnntrain.config.schema.command_args import LookArgs, RunArgs, argument
from cnntrain.config.schema.export import ENDINGS, Format, absent_packages
from cnntrain.config.schema.limits import number
from cnntrain.text import printable

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
MOST_FILTERS, MOST_EXPLAINED = 256, 3


@dataclass(frozen=True, kw_only=True)
class CheckRunArgs(RunArgs, LookArgs):
    """The arguments of `check` on a trained network."""

    labels: bool = field(default=True, metadata={"help": "false: do not ask the network which labels look wrong"})

    def faults(self) -> list[str]:
        """See CommandArgs."""
        return ["images: 0 leaves nothing to look at; leave it out"] if self.images == 0 else []


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
        if self.like is None:
            return []
        if any(out.absolute() == self.like.absolute() for out in self.out):
            return [f"out: {printable(self.like)} is the sample itself, like=; give the file another name"]
        if any(out.suffix.lower() == ".csv" for out in self.out):
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
class PlayArgs(RunArgs):
    """The arguments of `play`."""

    port: int = number(0, ge=0, le=65535, help="of this machine; 0, the default, takes any that is free")


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
