"""The words of `cnntrain eval` and `cnntrain predict` that are no overrides. Nothing here imports torch."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnntrain.errors import DataError
from cnntrain.explain.words import listed
from cnntrain.faults import ConfigErrors, hint, nearest
from cnntrain.paths import expanded, out_file, shown

VIEWS = ("hflip", "vflip", "shift", "crops")  # what tta= knows, see tta.Views
ADVICE = "give a file, a folder, or a pattern such as 'images=photos/*.jpg'"


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


def read_eval(words: Sequence[str]) -> tuple[EvalWishes, list[str]]:
    """Part a command line into the wishes and the overrides of the run's config.

    Raises:
        ConfigErrors: with all values that break a rule, one line each.
        FileSystemError: `out` cannot be written.
    """
    own, overrides = _part(words, ("tta", "out"))
    faults: list[str] = []
    tta = _views(own["tta"], faults) if "tta" in own else ()
    if faults:
        raise ConfigErrors(faults)
    return EvalWishes(tta, out_file(own["out"], "FILE.json") if "out" in own else None), overrides


def read_predict(words: Sequence[str]) -> tuple[PredictWishes, list[str]]:
    """Part a command line into the wishes and the overrides of the run's config.

    Raises:
        ConfigErrors: with all values that break a rule, one line each.
        DataError: the only fault is an image that is not there.
        FileSystemError: `out` cannot be written.
    """
    own, overrides = _part(words, ("images", "tta", "top", "out"))
    bare = [word for word in overrides if "=" not in word and expanded(word).exists()]
    faults = [f"{shown(word)}: not KEY=VALUE; did you mean images={shown(word)}?" for word in bare]
    absent: list[str] = []
    images = _images(own["images"], absent) if own.get("images") else ()
    if not images and not absent and not bare:
        faults.append(f"images: missing; {ADVICE}")
    tta = _views(own["tta"], faults) if "tta" in own else ()
    top = _top(own["top"], faults) if "top" in own else PredictWishes.top
    out = own.get("out")
    if out and not out.lower().endswith((".csv", ".json")):
        faults.append(f"out: must end in .csv or .json (given {shown(out)}); write out=FILE.csv")
    if faults:
        raise ConfigErrors(faults + absent)
    if absent:
        raise DataError(absent[0])
    return PredictWishes(images, tta, top, None if out is None else out_file(out, "FILE.csv")), overrides


def _part(words: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    own = [word for word in words if "=" in word and word.partition("=")[0] in keys]
    return dict(word.split("=", 1) for word in own), [word for word in words if word not in own]


def _views(value: str, faults: list[str]) -> tuple[str, ...]:
    names = listed(value)
    choices = ", ".join(VIEWS)
    faults += [
        f"tta: must be among {choices} (given {name})" + hint(nearest(name, VIEWS))
        for name in names
        if name not in VIEWS
    ]
    if not names:
        faults.append(f"tta: must not be empty; choose among {choices}, such as tta=hflip")
    return tuple(name for name in VIEWS if name in names)


def _top(value: str, faults: list[str]) -> int:
    if value.isdecimal() and int(value):
        return int(value)
    faults.append(f"top: must be a whole number >= 1 (given {value or 'nothing'})")
    return 1


def _images(value: str, absent: list[str]) -> tuple[Path, ...]:
    """The files and folders that are named, a pattern standing for what it matches."""
    found: list[Path] = []
    for item in [value] if expanded(value).exists() else listed(value):
        path = expanded(item)
        if path.exists():
            found.append(path)
        elif matches := sorted(glob.glob(str(path), recursive=True)):
            found += map(Path, matches)
        else:
            what = "matches nothing" if glob.has_magic(item) else "is not there"
            absent.append(f"images: {shown(item)} {what}; {ADVICE}")
    return tuple(dict.fromkeys(found))
