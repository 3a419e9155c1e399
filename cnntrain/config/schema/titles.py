"""What heads a run and names the folders that it lies in: the data's and the network's own names. Without torch."""

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from cnntrain.registry import is_dotted

LONGEST = 100  # bytes: two of them and a number fit into the name of a folder
# Names that tell nothing, of folders and of functions.
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
MAKERS = ("load", "build", "make", "create", "get", "data", "dataset", "model", "net", "network")
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")  # kinds of tables of files and labels that are read
# Names of tables that tell nothing.
SHEETS = (*SPLITS, "annotations", "data", "dataset", "files", "images", "index", "labels", "list", "metadata", "table")

_PATTERN = re.compile(r"[{*?]|::")  # of names of files
# What ends the names of archives of images.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def safe_name(text: str) -> str:
    """A text as the name of one folder, which no shell, no Hydra and no file system minds; empty where nothing stays.

    Letters and digits of all scripts stay as they are, all else but `.`, `_` and `+` becomes a dash.
    """
    letters = unicodedata.normalize("NFC", text)
    kept = "".join(letter if unicodedata.category(letter)[0] in "LNM" or letter in "._+" else " " for letter in letters)
    name = "-".join(kept.split()).strip(".-")
    return name.encode()[:LONGEST].decode(errors="ignore")


def archive_stem(name: str) -> str:
    """A name without what ends those of archives; any other as it is."""
    return next((name[: -len(end)] for end in ARCHIVES if name.lower().endswith(end)), name)


def name_of_folder(root: str) -> str:
    """The name of a folder, archive, table or pattern; of the folder above where it tells nothing. May be empty."""
    if pattern := _PATTERN.search(root):
        return _name_of_pattern(root[: pattern.start()])
    place = Path(os.path.abspath(os.path.expanduser(root)))
    is_table = place.suffix.lower() in TABLES
    name = place.stem if is_table else archive_stem(place.name)
    return safe_name(place.parent.name if name.lower() in (SHEETS if is_table else SPLITS) else name)


def _name_of_pattern(start: str) -> str:
    """What `imagenet-train-` or `imagenet/train/` says before the numbers of many files."""
    words = re.split(r"[-_.]+", Path(os.path.expanduser(start) + "x").name[:-1])
    name = safe_name("-".join(word for word in words if word and word.lower() not in SPLITS))
    return name or name_of_folder(os.path.dirname(start) or ".")


def name_of_function(name: str) -> str:
    """The name of a `module:function`, or of the module where that of the function tells nothing; may be empty."""
    module, _, function = name.partition(":")
    return safe_name(module.rpartition(".")[2] if function in MAKERS else function)


def title_of(name: str, root: str = "", *, is_users: bool = False) -> str:
    """What heads the runs on a data set, or of a network, that has no file of the user's.

    Args:
        name: in the config.
        root: the folder or file of the data.
        is_users: the images there are the user's own.
    """
    if is_dotted(name):
        return name_of_function(name) or "own"
    return (is_users and name_of_folder(root)) or safe_name(name)


def title_faults(title: str) -> list[tuple[str, Any, str]]:
    """What is wrong with a title, as (key, value, rule)."""
    return [("title", title, "the name of one folder")] if "/" in title or title in (".", "..") else []
