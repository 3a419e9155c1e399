"""What to propose where a user's word or path is not what it should be."""

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from cnntrain.config.paths import expand_path, is_archive
from cnntrain.config.schema.titles import TABLES
from cnntrain.text import printable, short_path

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # enough to know a folder of images by
MOST_ENTRIES, MOST_LOOKS = 200, 4000  # of one folder, and of all
RUN_DEPTH, MOST_RUNS = 3, 3  # how deep runs are looked for, and are told


def shell_word(key: str, path: Path | str) -> str:
    """KEY=PATH as the user can type it in a shell."""
    word = f"{key}={printable(path)}"
    return word if re.fullmatch(r"[\w@%+=:,./~-]+", word) else shlex.quote(word)


def advise_data(text: str) -> str:
    """What to type where a folder or file stands in place of a data set; empty where there is nothing of that name."""
    path = expand_path(text)
    if path.is_dir() or is_archive(path):
        return f"did you mean data=imagefolder {shell_word('data.root', text)}?"
    if path.is_file() and path.suffix.lower() == ".npz":
        return f"did you mean data=arrays {shell_word('data.root', text)}?"
    if path.is_file() and path.suffix.lower() in TABLES:
        return f"did you mean data=table {shell_word('data.root', text)}?"
    if path.is_file():
        return "it is a file, and images lie in a folder with one folder per class: data=imagefolder data.root=DIR"
    return ""


def tables_in(folder: Path) -> list[Path]:
    """The tables that lie in a folder, those first that are called as tables of training images are."""
    with suppress(OSError), os.scandir(folder) as entries:
        files = [entry.path for entry in islice(entries, MOST_LOOKS) if entry.name.lower().endswith(TABLES)]
        words = ("train", "label", "", "sample", "test", "submission")  # the last of them that is in a name counts
        return sorted(
            (Path(file) for file in files if not os.path.basename(file).startswith(".")),
            key=lambda file: (max(place for place, word in enumerate(words) if word in file.stem.lower()), file.name),
        )
    return []


def advise_table(folder: Path) -> str:
    """What to type where a table lies in a folder of images, or beside it; empty where there is none."""
    folder = Path(os.path.abspath(folder))
    tables = tables_in(folder) or tables_in(folder.parent)
    return f"data=table {shell_word('data.root', tables[0])}" if tables else ""


def advise_check(words: Sequence[str], run: Path | None) -> str:
    """What to type to see all images that cannot be decoded.

    Args:
        words: overrides of the line; those of the data, and a preset that may hold some, are asked for again.
        run: that the line is about; None: a config of these words.
    """
    keys = r"\+{0,2}(data|experiment)[.=]" if run is None else r"(data\.|\w+\.name=)"
    data = [word for word in words if re.match(keys, word)]
    command = [*data, "steps=0"] if run is None else [short_path(run), *data, "labels=false"]
    return f"`{shlex.join(['cnntrain', 'check', *command, 'out=look'])}` lists all such images"


def holds_images(folder: Path) -> bool:
    """Whether a bounded look finds image files in a folder, or in folders of its folders."""
    queue, looks = [(folder, 0)], 0
    while queue and looks < MOST_LOOKS:
        place, depth = queue.pop()
        with suppress(OSError), os.scandir(place) as entries:
            for entry in islice(entries, MOST_ENTRIES):
                looks += 1
                if entry.name.lower().endswith(IMAGES):
                    return True
                if depth < 2 and not entry.name.startswith(".") and entry.is_dir():
                    queue.append((Path(entry.path), depth + 1))
    return False


def advise_run(target: Path) -> str:
    """What to type in place of a path that is no run: the run around it, else the newest not far below; or nothing."""
    runs = list(filter(is_run, target.parents[:RUN_DEPTH]))
    queue, looks = [] if runs else [(target, 0)], 0
    while queue and looks < MOST_LOOKS:
        place, depth = queue.pop(0)
        with suppress(OSError), os.scandir(place) as entries:
            for entry in islice(entries, MOST_ENTRIES):
                looks += 1
                if is_run(Path(entry.path)):
                    runs.append(Path(entry.path))
                elif depth + 1 < RUN_DEPTH and not entry.name.startswith(".") and entry.is_dir():
                    queue.append((Path(entry.path), depth + 1))
    runs.sort(key=lambda run: os.path.getmtime(run / "config.yaml"), reverse=True)
    paths = [shlex.quote(printable(run)) for run in runs[:MOST_RUNS]]
    return f"did you mean {' or '.join(paths)}?" if paths else ""


def is_run(folder: Path) -> bool:
    """Whether a run lies there: a config alone may be that of anything."""
    beside = os.path.isfile(folder / "environment.json") or os.path.isdir(folder / "checkpoints")
    return beside and os.path.isfile(folder / "config.yaml")
