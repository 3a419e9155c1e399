"""Where our own files lie, and what is said of the user's. Nothing here imports torch."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from cnntrain.errors import CheckpointError, ConfigError, DataError, FileSystemError
from cnntrain.text import printable, utf8

WEIGHTS = "a .safetensors, .pt or .pth file, a run folder or a checkpoint of one"  # what model.weights takes


def conf_dir() -> Path:
    """The folder of our YAML files: inside the package of a wheel, above it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'conf'}: the configuration files are missing; install cnntrain again")


def own_options(group: str) -> list[str]:
    """The options of a config group that come with cnntrain, sorted."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if not file.stem.startswith("for_"))


def expand_path(path: str) -> Path:
    """A path of the user's with its `~`; that of a user who is not known stays as it is.

    One that was saved under another locale leads to the same place.
    """
    path = os.path.expanduser(path)
    try:
        return Path(os.fsdecode(os.fsencode(path)))
    except UnicodeEncodeError:
        return Path(os.fsdecode(utf8(path)))


def is_hub_name(root: str, cwd: str | None = None) -> bool:
    """Whether a `data.root` is OWNER/NAME, of the Hugging Face hub, and not a folder that is here."""
    is_name = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", root, re.ASCII) is not None
    return is_name and not os.path.isdir(os.path.join(cwd or "", root))


def strip_quotes(text: str) -> str:
    """A value without the quotes around all of it, which keep a config's grammar from a path."""
    inner = text[1:-1]
    return inner if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in inner else text


def out_file(name: str, example: str) -> Path:
    """The file that the user's `out=` names, found fit before seconds are spent.

    Args:
        example: such as FILE.csv, for the advice.

    Raises:
        ConfigError: no name is given.
        FileSystemError: it is a folder, or its folder is not there or cannot be written.
    """
    path = expand_path(name)
    if not name.strip():
        raise ConfigError(f"out: must be the name of a file (given nothing); write out={example}")
    if path.is_dir():
        raise FileSystemError(f"out: {printable(path)} is a folder; write out={example}")
    if not path.parent.is_dir():
        raise FileSystemError(f"out: {printable(path.parent)} is no folder; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise FileSystemError(
            f"out: {printable(path.parent)} cannot be written; choose another place with out={example}"
        )
    return path


def cache_dir() -> Path:
    """What can be made again is kept there, never beside the images."""
    return expand_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cnntrain"


def is_archive(path: Path | str) -> bool:
    """Whether a path is a file that is called as an archive of images is."""
    from cnntrain.config.schema.titles import archive_stem  # help does without

    return archive_stem(os.fspath(path)) != os.fspath(path) and os.path.isfile(path)


def need_image_folder(root: Path) -> None:
    """Refuse a `data.root` of an image folder, or of an archive of one, that is not there.

    Raises:
        DataError: it is absent, another file, or not to be seen.
    """
    from cnntrain.config.schema.titles import ARCHIVES, TABLES  # help does without

    if what := absence(root) or ("" if os.path.isdir(root) or is_archive(root) else "is a file, not a folder"):
        advice = (
            f"give the folder that holds train/, or one of class folders, or an archive of it ({', '.join(ARCHIVES)})"
        )
        if root.suffix.lower() in TABLES and os.path.isfile(root):
            advice = "a table of files and labels is read with data=table"
        if re.search(r"[{*].*\.tar$", root.name):
            advice = "shards of tar files are read with data=webdataset"
        raise DataError(f"data.root: {printable(root)} {what}; {advice}")


def need_config_dir(folder: str, groups: Iterable[str]) -> None:
    """Refuse a `--config-dir` that is not there, or cannot be listed with those of its groups: Hydra would take it to
    be empty.

    Raises:
        ConfigError: so it is.
    """
    if not os.path.isdir(folder):
        raise ConfigError(f"--config-dir: no such folder (given {printable(folder)})")
    for place in (folder, *(os.path.join(folder, group) for group in groups)):
        try:
            with os.scandir(place):
                pass
        except PermissionError as error:
            raise ConfigError(
                f"--config-dir: {printable(place)} cannot be read ({error.strerror}); mend that"
            ) from None
        except OSError:  # there is no such group
            pass


def need_weights(path: Path) -> None:
    """Refuse a `model.weights` that is not there, or that a read could wait for.

    Raises:
        CheckpointError: so it is.
    """
    if what := absence(path):
        raise CheckpointError(f"model.weights: {printable(path)} {what}; give {WEIGHTS}")


def absence(path: Path | str) -> str:
    """Why there is no file or folder to read; empty where there is one."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return "cannot be reached, as a folder above it may not be entered"
    except (OSError, ValueError):
        return "is not there"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is a pipe or device, not a file"


def need_outside(out: Path, root: Path) -> None:
    """Raises ConfigError where `out=` lies among the images, whose folders have a meaning."""
    if root.resolve() in (out.resolve(), *out.resolve().parents):
        raise ConfigError(
            f"out: must not lie in data.root, whose folders are splits and classes (given {printable(out)}); "
            "give another, out=DIR"
        )
