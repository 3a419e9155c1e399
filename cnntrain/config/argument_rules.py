"""How the text of a command's argument becomes its value, and what is said where it cannot."""

import glob
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnntrain.config.errors import ConfigErrors
from cnntrain.config.paths import absence, expand_path, out_file
from cnntrain.config.schema.filter import (
    HEAVIEST,
    KERNELS,
    LARGEST,
    MOST_PADDING,
    OWN_KERNEL,
    OWN_ROW,
    OWN_SIGNAL,
    Kernel,
    OwnKernel,
    read_matrix,
    read_row,
)
from cnntrain.errors import ConfigError, DataError
from cnntrain.text import hint, nearest, printable

MOST_FILES = 32  # that explain draws
PICTURES = "give a file, a folder, or a pattern such as 'images=photos/*.jpg'"


class Rule:
    """The rule of one argument.

    Attributes:
        example: what stands for the value in the usage line.
        choices: the names that the value may hold, each with its line of help; completion offers them.
    """

    example = "VALUE"
    choices: Mapping[str, str] = {}

    def read(self, key: str, text: str) -> Any:
        """The value that a text means.

        Raises:
            ConfigError: it means none; a line for each fault.
            DataError: an image is not there.
            FileSystemError: a file cannot be written.
        """
        raise NotImplementedError  # each rule reads in its own way

    def missing_fault(self, key: str) -> str:
        """The fault of a needed argument that is not given."""
        return f"{key}: missing; write {key}={self.example}"


class Names(Rule):
    """Some of the names that are known, in the order of these."""

    def __init__(self, choices: Mapping[str, str], example: str) -> None:
        self.choices, self.example = choices, example

    def read(self, key: str, text: str) -> tuple[str, ...]:
        names, options = items(text), list(self.choices)
        line = ", ".join(options)
        faults = [
            f"{key}: must be among {line} (given {name})" + hint(nearest(name, options))
            for name in names
            if name not in options
        ]
        if not names:
            faults.append(f"{key}: must not be empty; choose among {line}, such as {key}={options[0]}")
        if faults:
            raise ConfigErrors(faults)
        return tuple(name for name in options if name in names)


class Switch(Rule):
    """True or false, where leaving it out is neither."""

    example = "true"

    def __init__(self, true: str, false: str) -> None:
        self.choices = {"true": true, "false": false}

    def read(self, key: str, text: str) -> bool:
        if text.lower() not in self.choices:
            raise ConfigError(f"{key}: must be true or false (given {text or 'nothing'})")
        return text.lower() == "true"


class Patterns(Rule):
    """Names of layers, or patterns of them."""

    example = "NAMES"
    choices: Mapping[str, str] = {"first": "", "last": "", "stages": ""}

    def read(self, key: str, text: str) -> tuple[str, ...]:
        if not (names := tuple(items(text))):
            raise ConfigError(
                f"{key}: must not be empty; give names, patterns such as '{key[:-1]}*.0', or first, last or stages"
            )
        return names


class ClassNames(Rule):
    """Names of classes of a network, a few."""

    example = "NAMES"

    def __init__(self, most: int) -> None:
        self.most = most

    def read(self, key: str, text: str) -> tuple[str, ...]:
        names = tuple(items(text))
        if not 1 <= len(names) <= self.most:
            raise ConfigError(f"{key}: must be 1 to {self.most} names of classes (given {printable(text)})")
        return names


class Refused(Rule):
    """An argument that other commands have."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def read(self, key: str, text: str) -> None:
        raise ConfigError(f"{key}: {self.reason} (given {text}); leave it out")


# --- paths -----------------------------------------------------------------------------------------------------------


class OutFile(Rule):
    """A file that can be written.

    Args:
        ends: those that its name may have; empty for any.
    """

    def __init__(self, example: str, ends: Sequence[str] = ()) -> None:
        self.example, self.ends = example, tuple(ends)

    def read(self, key: str, text: str) -> Path:
        if text and self.ends and not text.lower().endswith(self.ends):
            raise ConfigError(f"{key}: must end in {self._words} (given {printable(text)}); write {key}={self.example}")
        if self.ends and Path(text).name.lower() in self.ends:
            raise ConfigError(f"{key}: must have a name before its end (given {text}); write {key}={self.example}")
        return out_file(text, self.example)

    @property
    def _words(self) -> str:
        *others, last = self.ends
        return f"{', '.join(others)} or {last}" if others else last


class OutFiles(OutFile):
    """A file that can be written, or several as [FILE,FILE]; the end of each name says what it will hold.

    Args:
        ends: those that a name may have.
        packages: by end, the package and the extra of ours that it takes, where that may be absent.
    """

    def __init__(self, example: str, ends: Sequence[str], packages: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(example, ends)
        self.packages = packages

    def read(self, key: str, text: str) -> tuple[Path, ...]:  # type: ignore[override]
        names = items(text) if text.startswith("[") and text.endswith("]") else [text]
        paths = tuple(dict.fromkeys(super(OutFiles, self).read(key, name) for name in names or [""]))
        for path in paths:
            package, extra = self.packages.get(path.suffix.lower(), ("", ""))
            if package and importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"{key}: {path.suffix} needs {package}, not installed here (given {printable(path)}); "
                    f"pip install 'cnntrain[{extra}]', or write {key}={self.example}"
                )
        return paths


class OutFileOrFolder(OutFile):
    """A file whose name has one of some ends, or else a folder, there already or not."""

    def read(self, key: str, text: str) -> Path:
        path = expand_path(text)
        if (path.suffix or path.name).lower() in self.ends:
            return super().read(key, text)
        is_odd = path.suffix[1:].isalpha() and not text.endswith("/") and not path.is_dir()
        if not text.strip() or is_odd or path.is_file():
            rule = f"must end in {self._words}, or be a folder"
            given = printable(text) if text.strip() else "nothing"
            raise ConfigError(f"{key}: {rule} (given {given}); write {key}={self.example}")
        return path


class OutFolder(Rule):
    """A folder, there already or not.

    Args:
        fault: why a folder or file of that name cannot be taken; empty where it can.
        advice: what to give in its place.
    """

    example = "DIR"

    def __init__(self, fault: Callable[[Path], str] = lambda folder: "", advice: str = "") -> None:
        self.fault, self.advice = fault, advice

    def read(self, key: str, text: str) -> Path:
        if not text.strip():
            raise ConfigError(f"{key}: must be the name of a folder (given nothing); write {key}=DIR")
        folder = expand_path(text)
        if reason := self.fault(folder):
            raise ConfigError(f"{key}: {printable(folder)} {reason}; give {self.advice}, {key}=DIR")
        return folder


def not_new(folder: Path) -> str:
    """Why something lies in the place of a new folder."""
    if not folder.exists():
        return ""
    return "is a file" if not folder.is_dir() else "is not empty" if any(folder.iterdir()) else ""


def not_packed(folder: Path) -> str:
    """Why a folder cannot take a pack; what a process that was killed has left of one is no reason."""
    if not folder.is_dir():
        return not_new(folder)
    names = [path.name for path in folder.iterdir() if path.name != ".tmp-images.pack"]
    return "holds a pack already" if "images.pack" in names else "is not empty" if names else ""


def not_for_runs(folder: Path) -> str:
    """Why a folder cannot take the runs of a comparison."""
    return "is a file" if folder.is_file() else "holds a run of its own" if (folder / "config.yaml").exists() else ""


class Pictures(Rule):
    """Files and folders of images, a pattern standing for what it matches."""

    example = "PATH"

    def read(self, key: str, text: str) -> tuple[Path, ...]:
        if not text:
            raise ConfigError(self.missing_fault(key))
        paths: list[Path] = []
        for item in [text] if expand_path(text).exists() else items(text):
            path = expand_path(item)
            if path.exists():
                paths.append(path)
            elif matches := sorted(glob.glob(str(path), recursive=True)):
                paths += map(Path, matches)
            else:
                what = "matches nothing" if glob.has_magic(item) else "is not there"
                raise DataError(f"{key}: {printable(item)} {what}; {PICTURES}")
        if not paths:
            raise ConfigError(self.missing_fault(key))
        return tuple(dict.fromkeys(paths))

    def missing_fault(self, key: str) -> str:
        return f"{key}: missing; {PICTURES}"


class CountOrFiles(Rule):
    """How many images of the data set, or files."""

    example = "8"
    advice = "give a count such as images=8, or files as 'images=[cat.jpg,dog.jpg]'"

    def read(self, key: str, text: str) -> int | tuple[Path, ...]:
        if text.lstrip("-").isdecimal():
            count = int(text) if len(text) < 9 else 0
            if not 1 <= count <= MOST_FILES:
                raise ConfigError(f"{key}: must be a whole number from 1 to {MOST_FILES} (given {text})")
            return count
        path = expand_path(text)
        files = [path] if text and path.is_file() else [expand_path(item) for item in items(text)]
        faults = [f"{key}: {printable(file)} is no file; {self.advice}" for file in files if not file.is_file()]
        if not files or len(files) > MOST_FILES:
            faults.append(f"{key}: must be 1 to {MOST_FILES} files (given {len(files)}); {self.advice}")
        if faults:
            raise ConfigErrors(faults)
        return tuple(files)


def items(text: str) -> list[str]:
    """`[a,b]` or `a,b` as a list; an item may stand in quotes."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts = (part.strip() for part in text.split(","))
    return [
        part[1:-1] if len(part) > 1 and part[0] == part[-1] and part[0] in "'\"" else part for part in parts if part
    ]


# --- filter ----------------------------------------------------------------------------------------------------------


class ImageFile(Rule):
    """One image."""

    example = "FILE"

    def read(self, key: str, text: str) -> Path:
        image = expand_path(text)
        if not text:
            raise ConfigError(self.missing_fault(key))
        if what := absence(image) or ("is a folder, not an image" if image.is_dir() else ""):
            raise DataError(f"{key}: {printable(image)} {what}; give an image file, such as {key}=cat.jpg")
        return image


class TableFile(Rule):
    """A table that is there."""

    example = "FILE.csv"

    def read(self, key: str, text: str) -> Path:
        from cnntrain.config.need_images import need_table  # help does without

        if not text:
            raise ConfigError(self.missing_fault(key))
        table = expand_path(text)
        need_table(key, table)
        return table


class SignalOf(Rule):
    """Numbers in one dimension, or a table that has a column of them."""

    example = "FILE.csv"
    advice = f"give a table such as signal=noisy.csv, or numbers: '{OWN_SIGNAL}'"

    def read(self, key: str, text: str) -> Path | tuple[float, ...]:
        from cnntrain.config.need_images import need_table  # help does without

        if not text.strip("[] "):
            raise ConfigError(f"{key}: must not be empty; {self.advice}")
        if text.startswith("["):
            if numbers := read_row(text):
                return tuple(numbers)
            raise ConfigError(f"{key}: must be numbers, none infinite or NaN (given {text}); write '{OWN_SIGNAL}'")
        table = expand_path(text)
        need_table(key, table, self.advice)
        return table


class KernelOf(Rule):
    """A kernel by its name, whose own arguments are read as well, or by its weights."""

    example = "NAME"
    choices: Mapping[str, str] = dict.fromkeys(KERNELS, "")

    def read(self, key: str, text: str) -> type[Kernel] | OwnKernel:
        if rows := read_matrix(text):
            return OwnKernel(rows)
        if text in KERNELS:
            return KERNELS[text]
        if not text:
            raise ConfigError(self.missing_fault(key))
        if text.startswith("["):
            rule = f"rows of as many numbers each, {LARGEST} at most, none beyond {HEAVIEST:,} either way"
            raise ConfigError(f"{key}: must be {rule} (given {text}); write it as '{OWN_KERNEL}' or '{OWN_ROW}'")
        suggestion = nearest(text, KERNELS)
        advice = f"did you mean {suggestion}? " if suggestion else ""
        names = ", ".join(KERNELS)
        raise ConfigError(f"{key}: no kernel {text}; {advice}kernels: {names}, or weights: '{OWN_KERNEL}'")

    def missing_fault(self, key: str) -> str:
        return f"{key}: missing; write {key}=NAME, one of {', '.join(KERNELS)}, or weights: '{OWN_KERNEL}'"


class Padding(Rule):
    """What lies around the image."""

    example = "same"
    choices: Mapping[str, str] = {"same": "", "valid": ""}

    def read(self, key: str, text: str) -> str:
        fits = text.isdecimal() and len(text) <= 4 and int(text) <= MOST_PADDING
        if text not in self.choices and not fits:
            rule = f"same, valid or a whole number of pixels >= 0 and <= {MOST_PADDING}"
            raise ConfigError(f"{key}: must be {rule} (given {text})" + hint(nearest(text, self.choices)))
        return text
