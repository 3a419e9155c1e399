"""What commands are asked for by words that are no overrides of a config. Nothing here imports torch.

Each reader parts the words of a command into its wishes and the overrides. It raises ConfigErrors with all values that
break a rule, one line each, and FileSystemError where `out` cannot be written.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnntrain.config.messages import ConfigErrors
from cnntrain.config.paths import expanded, out_file, unquoted
from cnntrain.errors import DataError
from cnntrain.text import hint, nearest, printable

VIEWS = ("hflip", "vflip", "shift", "crops")  # what tta= knows, see tta.Views
PARTS = ("filters", "features", "excite", "gradcam", "shift")  # what explain draws
MOST_EXPLAINED, MOST_FILTERS, MOST_PREVIEWED = 32, 256, 12
RUN_DIRS = ("hydra.run.dir", "hydra.sweep.dir")  # Hydra's keys for what is out= of train
MOST_DIGITS = 9  # of a count
PICTURES = "give a file, a folder, or a pattern such as 'images=photos/*.jpg'"


@dataclass(frozen=True)
class EvalWishes:
    """What `eval` is asked for beside the run's config."""

    tta: tuple[str, ...] = ()
    out: Path | None = None


@dataclass(frozen=True)
class PredictWishes:
    """What `predict` is asked for beside the run's config."""

    images: tuple[Path, ...]  # files, and folders to search
    tta: tuple[str, ...] = ()
    top: int = 5  # classes of each image in the file, at most
    out: Path | None = None


@dataclass(frozen=True)
class ExplainWishes:
    """What is to be drawn, of what, and where to."""

    what: tuple[str, ...] = PARTS
    layers: tuple[str, ...] = ("stages",)  # names, patterns, and the words first, last and stages
    images: int | tuple[Path, ...] = 8  # a count, or files
    filters: int | None = None  # of each layer; None: as many as suit the picture
    out: Path | None = None


@dataclass(frozen=True)
class SummaryWishes:
    """What `summary` is asked for beside the config."""

    formulas: bool = False
    out: Path | None = None  # a CSV file


@dataclass(frozen=True)
class PreviewWishes:
    """What `preview` is asked for beside the config."""

    images: int = 8
    out: Path | None = None  # a folder, not there or empty; None: a new one


@dataclass(frozen=True)
class TrainWishes:
    """What `train` is asked for beside the config."""

    out: Path | None = None  # the folder of the run, or of all jobs of a sweep; None: a new one


@dataclass(frozen=True)
class CompareWishes:
    """What `compare` is asked for beside the configs."""

    out: Path | None = None  # the folder of the runs; None: one that is named after them


def read_eval(words: Sequence[str]) -> tuple[EvalWishes, list[str]]:
    """The words of `cnntrain eval`."""
    own, overrides = _part(words, ("tta", "out"))
    faults: list[str] = []
    tta = _views(own, faults)
    _raise(faults)
    return EvalWishes(tta, _file(own, "FILE.json")), overrides


def read_predict(words: Sequence[str]) -> tuple[PredictWishes, list[str]]:
    """The words of `cnntrain predict`; DataError where the only fault is an image that is not there."""
    own, overrides = _part(words, ("images", "tta", "top", "out"))
    bare = [word for word in overrides if "=" not in word and expanded(word).exists()]
    faults = [f"{printable(word)}: not KEY=VALUE; did you mean images={printable(word)}?" for word in bare]
    absent: list[str] = []
    images = _pictures(own["images"], absent) if own.get("images") else ()
    if not images and not absent and not bare:
        faults.append(f"images: missing; {PICTURES}")
    tta = _views(own, faults)
    top = _count("top", own["top"], None, faults) if "top" in own else PredictWishes.top
    out = own.get("out")
    if out and not out.lower().endswith((".csv", ".json")):
        faults.append(f"out: must end in .csv or .json (given {printable(out)}); write out=FILE.csv")
    _raise(faults and faults + absent)
    if absent:
        raise DataError(absent[0])
    return PredictWishes(images, tta, top, _file(own, "FILE.csv")), overrides


def read_explain(words: Sequence[str]) -> tuple[ExplainWishes, list[str]]:
    """The words of `cnntrain explain`."""
    own, overrides = _part(words, ("what", "layers", "images", "filters", "out"))
    faults: list[str] = []
    wishes = ExplainWishes(
        what=_among("what", own["what"], PARTS, faults) if "what" in own else PARTS,
        layers=_layers(own["layers"], faults) if "layers" in own else ExplainWishes.layers,
        images=_samples(own["images"], faults) if "images" in own else ExplainWishes.images,
        filters=_count("filters", own["filters"], MOST_FILTERS, faults) if "filters" in own else None,
        out=_folder(own["out"], faults) if "out" in own else None,
    )
    _raise(faults)
    return wishes, overrides


def read_summary(words: Sequence[str]) -> tuple[SummaryWishes, list[str]]:
    """The words of `cnntrain summary`."""
    own, overrides = _part(words, ("formulas", "out"))
    formulas = own.get("formulas", "false")
    if formulas.lower() not in ("true", "false"):
        _raise([f"formulas: must be true or false (given {formulas or 'nothing'})"])
    return SummaryWishes(formulas.lower() == "true", _file(own, "FILE.csv")), overrides


def read_preview(words: Sequence[str]) -> tuple[PreviewWishes, list[str]]:
    """The words of `cnntrain preview`."""
    own, overrides = _part(words, ("images", "out"))
    faults: list[str] = []
    images = _count("images", own["images"], MOST_PREVIEWED, faults) if "images" in own else PreviewWishes.images
    out = _folder(own["out"], faults) if "out" in own else None
    if out and own["out"].strip() and out.exists():
        full = "is a file" if not out.is_dir() else "is not empty" if any(out.iterdir()) else ""
        faults += [f"out: {printable(out)} {full}; give the name of a new folder, out=DIR"] if full else []
    _raise(faults)
    return PreviewWishes(images, out), overrides


def read_train(words: Sequence[str], *, writes: bool = True) -> tuple[TrainWishes, list[str]]:
    """The words of `cnntrain train`, and of `cnntrain check`, which writes nothing."""
    own, overrides = _part(words, ("out",))
    faults: list[str] = []
    out = _folder(own["out"], faults) if "out" in own else None
    dirs = [key for word in overrides if (key := word.partition("=")[0].lstrip("+")) in RUN_DIRS]
    if out and not writes:
        faults.append(f"out: check keeps no folder (given {printable(own['out'])}); leave it out")
    elif out and dirs:
        faults.append(f"out: is {dirs[0]} in another word (given {printable(own['out'])}); give one of the two")
    _raise(faults)
    return TrainWishes(out), overrides


def read_compare(words: Sequence[str]) -> tuple[CompareWishes, list[str]]:
    """The words of `cnntrain compare`."""
    own, overrides = _part(words, ("out",))
    faults: list[str] = []
    out = _folder(own["out"], faults) if "out" in own else None
    if out and not faults:
        wrong = "is a file" if out.is_file() else "holds a run of its own" if (out / "config.yaml").exists() else ""
        faults += [f"out: {printable(out)} {wrong}; give a folder for all runs, out=DIR"] if wrong else []
    _raise(faults)
    return CompareWishes(out), overrides


# --- the values ------------------------------------------------------------------------------------------------------


def _part(words: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The command's own words by key, and the others."""
    own = [word for word in words if "=" in word and word.partition("=")[0] in keys]
    pairs = (word.split("=", 1) for word in own)
    return {key: unquoted(value) for key, value in pairs}, [word for word in words if word not in own]


def _raise(faults: Sequence[str]) -> None:
    if faults:
        raise ConfigErrors(faults)


def _listed(value: str) -> list[str]:
    """`[a,b]` or `a,b` as a list; an item may stand in quotes."""
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    items = (item.strip() for item in value.split(","))
    return [
        item[1:-1] if len(item) > 1 and item[0] == item[-1] and item[0] in "'\"" else item for item in items if item
    ]


def _among(key: str, value: str, known: Sequence[str], faults: list[str]) -> tuple[str, ...]:
    """Some of the names that are known, in the order of these."""
    names, choices = _listed(value), ", ".join(known)
    wrong = [name for name in names if name not in known]
    faults += [f"{key}: must be among {choices} (given {name})" + hint(nearest(name, known)) for name in wrong]
    if not names:
        faults.append(f"{key}: must not be empty; choose among {choices}, such as {key}={known[0]}")
    return tuple(name for name in known if name in names)


def _views(own: dict[str, str], faults: list[str]) -> tuple[str, ...]:
    return _among("tta", own["tta"], VIEWS, faults) if "tta" in own else ()


def _count(key: str, value: str, most: int | None, faults: list[str]) -> int:
    count = int(value) if value.isdecimal() and len(value) <= MOST_DIGITS else 0
    if count < 1 or (most and count > most):
        rule = f"from 1 to {most}" if most else ">= 1"
        given = value if len(value) <= MOST_DIGITS else f"{len(value)} digits"
        faults.append(f"{key}: must be a whole number {rule} (given {given or 'nothing'})")
    return count


def _layers(value: str, faults: list[str]) -> tuple[str, ...]:
    items = tuple(_listed(value))
    if not items:
        faults.append("layers: must not be empty; give names, patterns such as 'layer*.0', or first, last or stages")
    return items


def _samples(value: str, faults: list[str]) -> int | tuple[Path, ...]:
    """A count, or files."""
    if value.lstrip("-").isdecimal():
        return _count("images", value, MOST_EXPLAINED, faults)
    whole = expanded(value)
    files = [whole] if value and whole.is_file() else [expanded(item) for item in _listed(value)]
    advice = "give a count such as images=8, or files as 'images=[cat.jpg,dog.jpg]'"
    faults += [f"images: {printable(file)} is no file; {advice}" for file in files if not file.is_file()]
    if not files or len(files) > MOST_EXPLAINED:
        faults.append(f"images: must be 1 to {MOST_EXPLAINED} files (given {len(files)}); {advice}")
    return tuple(files)


def _pictures(value: str, absent: list[str]) -> tuple[Path, ...]:
    """The files and folders that are named, a pattern standing for what it matches."""
    found: list[Path] = []
    for item in [value] if expanded(value).exists() else _listed(value):
        path = expanded(item)
        if path.exists():
            found.append(path)
        elif matches := sorted(glob.glob(str(path), recursive=True)):
            found += map(Path, matches)
        else:
            what = "matches nothing" if glob.has_magic(item) else "is not there"
            absent.append(f"images: {printable(item)} {what}; {PICTURES}")
    return tuple(dict.fromkeys(found))


def _folder(value: str, faults: list[str]) -> Path:
    if not value.strip():
        faults.append("out: must be the name of a folder (given nothing); write out=DIR")
    return expanded(value)


def _file(own: dict[str, str], example: str) -> Path | None:
    return out_file(own["out"], example) if "out" in own else None
