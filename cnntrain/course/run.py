"""A page of the course run block by block: what was printed, the pictures, the tables and the claims."""

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from cnntrain.compare.record import CHARTS, RECORD
from cnntrain.config.paths import expand_path
from cnntrain.course.claims import read_record, table, verdict
from cnntrain.course.pages import COMMAND, Block, Page
from cnntrain.errors import CnntrainError, Interrupted, RunFolderError
from cnntrain.runtime.child import Relay, cnntrain_command, python_command
from cnntrain.storage import run_folder
from cnntrain.storage.atomic import read_own, write_atomic
from cnntrain.text import printable

TIMES = "times.json"  # of a page's folder: by block, the seconds of its longest run
TEXT = "page.md"
COLUMNS = "80"
PYTHON = "python"
# Before the code of a block: a Ctrl-C, if it is not ignored, ends it without a traceback.
SILENT = """\
import signal
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
"""
NEW = ("train", "preview", "find_lr", "pack")  # commands whose out= must be new
# Lines of our commands that another run of the same has otherwise (what to type next, figures of time and place), and
# those in which a training repeats what the page's command says.
LEFT_OUT = re.compile(
    r"^(wrote |written  |next  |      (cnntrain|tensorboard) |tensorboard |val: |mean and std: |done$"
    r"|  (folder|device|augment|optimizer|schedule|ended|best epoch)  |  best$|\w+ is in )|\d:\d\d:\d\d|images/s",
    re.MULTILINE,
)


class BlockError(CnntrainError):
    """A command of a page failed; it ends with the command's code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


@dataclass(frozen=True)
class Shown:
    """What a block left.

    Attributes:
        printed: what another run would print too.
        tables, verdicts: in Markdown.
        pictures: their places in the folder of the page.
    """

    printed: str
    tables: tuple[str, ...]
    verdicts: tuple[str, ...]
    pictures: tuple[Path, ...]


def run_page(page: Page, folder: Path, child: Relay, say: Callable[[str], None]) -> list[Shown]:
    """Run the blocks of a page in their order, each command in a process of its own and in the folder.

    Args:
        folder: is there; comparisons that are finished in it are not run again.
        say: gets what the commands print, as it comes.

    Raises:
        BlockError: a command failed.
        Interrupted: a signal asked for the end.
        FileSystemError: the folder cannot be written.
        RunFolderError: another process runs in it, or it is no folder of a page.
    """
    _need_own(folder)
    with run_folder.lock(folder):
        return [_run_block(block, page, folder, child, say) for block in page.blocks]


def _need_own(folder: Path) -> None:
    """Make a folder one of a page, whose commands write and remove there; RunFolderError where it is another's."""
    if (folder / TIMES).is_file():
        if link := next((file for file in folder.rglob("*") if file.is_symlink()), None):
            raise RunFolderError(f"{link}: is a link, and a page would write through it; remove it")
        return
    if any(file.name[0] != "." for file in folder.iterdir()):
        raise RunFolderError(f"{folder}: holds files that are not of the course; choose a new folder with out=DIR")
    write_atomic(folder / TIMES, "{}\n")


def _run_block(block: Block, page: Page, folder: Path, child: Relay, say: Callable[[str], None]) -> Shown:
    make_room(block, folder)
    start, before = time.monotonic(), _files(folder)
    processes = _processes(block)
    printed = [_run(process, page, folder, child, say) for process in processes]
    if len(processes) > 1:
        printed = [f"$ {name}\n{text}" for (name, *_), text in zip(processes, printed, strict=True) if text]
    written = [file for file, mark in _files(folder).items() if before.get(file) != mark]
    records = [read_record(file) for file in written if file.name == RECORD]
    of_runs = sum(run["seconds"] or 0.0 for record in records for run in record["runs"])
    _keep_time(folder, block, max(time.monotonic() - start, of_runs))
    files = [file.relative_to(folder) for file in written if file.suffix == ".png"]
    pictures = [
        file
        for file in files
        if any(fnmatch(file.as_posix(), pattern) for pattern in block.patterns)
        and not (block.patterns == ("*",) and file.name in CHARTS)  # a chart with an axis of time
    ]
    verdicts = [verdict(claim, records) for claim in block.claims]
    return Shown("".join(printed), tuple(map(table, records)), tuple(verdicts), tuple(pictures))


def _variables() -> dict[str, str]:
    """What commands get so that they print the same in any terminal, and find the data from another folder."""
    root = os.path.abspath(expand_path(os.environ.get("CNNTRAIN_DATA", "data")))
    plain = {"COLUMNS": COLUMNS, "TTY_COMPATIBLE": "0", "PYTHONIOENCODING": "utf-8"}
    return {"PYTHONUNBUFFERED": "1", "CNNTRAIN_DATA": root} | plain


def make_room(block: Block, folder: Path) -> None:
    """Remove what commands of a block have left in the folder of the page and make anew: else they would refuse it.

    Of a comparison that is the record alone: one of other words would keep its place.
    """
    for words in block.commands() if block.kind == "sh" else []:
        out = next((word.removeprefix("out=") for word in words if word.startswith("out=")), "")
        made = folder / out
        if not out or Path(out).name != out or not made.is_dir():
            continue
        if words[0] == "compare":
            (made / RECORD).unlink(missing_ok=True)
        elif words[0] in NEW or "=" in words[0]:
            with run_folder.lock(made):  # a training that outlives a course which was killed
                shutil.rmtree(made)


def _processes(block: Block) -> list[tuple[str, list[str], bool]]:
    """For each process of a block: what is told of it, its command, and whether what it prints is shown."""
    if block.kind == PYTHON:
        return [(PYTHON, python_command(SILENT + block.code), True)]
    return [
        (shlex.join([COMMAND, *words]), cnntrain_command(*words), words[0] != "compare") for words in block.commands()
    ]


def _run(
    process: tuple[str, list[str], bool],
    page: Page,
    folder: Path,
    child: Relay,
    say: Callable[[str], None],
) -> str:
    """Run one process; answers what the page shows of what it printed."""
    name, command, is_shown = process
    say(f"\n$ {name}\n")
    pieces: list[str] = []

    def hear(piece: str) -> None:
        pieces.append(piece)
        say(piece)

    code = child.listen(command, hear, cwd=folder, more=_variables())
    if child.signum:
        raise Interrupted(child.signum, f"stopped in page {page.number}")
    if code:
        raise BlockError(
            f"course: page {page.number} ended at `{printable(name)}`, which failed with code {code}", code
        )
    lines = [line.rstrip() for line in "".join(pieces).splitlines() if name == PYTHON or not LEFT_OUT.search(line)]
    text = "\n".join(lines).strip("\n") if is_shown else ""
    return text and f"{text}\n"


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """The files below a folder in the order in which they were written, and what another writing changes of each."""
    found = {file: file.stat() for file in folder.rglob("*") if file.is_file()}
    order = sorted(found, key=lambda file: (found[file].st_mtime_ns, file))
    return {file: (found[file].st_mtime_ns, found[file].st_ino) for file in order}


def _keep_time(folder: Path, block: Block, seconds: float) -> None:
    times = read_times(folder)
    times[block.code] = round(max(seconds, times.get(block.code, 0.0)), 1)
    write_atomic(folder / TIMES, json.dumps(times, indent=2) + "\n")


def read_times(folder: Path) -> dict[str, float]:
    """By the code of a block, its seconds; empty where none was run."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        times = json.loads(read_own(folder / TIMES)).items()
        return {code: float(seconds) for code, seconds in times if 0 <= seconds < 1e9}
    return {}


# --- the page with what was shown -------------------------------------------------------------------------------------


def filled(page: Page, folder: Path, shown: Sequence[Shown], link: Callable[[Path], str]) -> str:
    """The text of a page with its cost and what its blocks have left, each in its region.

    Args:
        link: how the page names a picture.
    """
    text, parts, end = page.text, [], 0
    for block, left in zip(page.blocks, shown, strict=True):
        parts += [text[end : block.place[0]], region(left, link, _words_of(block.shown))]
        end = block.place[1]
    seconds = sum(read_times(folder).get(block.code, 0.0) for block in page.blocks)
    text = "".join([*parts, text[end:]])
    return text.replace(f"; {page.cost}\n", f"; {cost(seconds)}\n", 1)


def cost(seconds: float) -> str:
    """Such as `3 minutes on 2 cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' * (minutes > 1)} on {cores} core{'s' * (cores > 1)}"


def region(shown: Shown, link: Callable[[Path], str], words: dict[str, str]) -> str:
    """What stands between the comments, in Markdown.

    Args:
        words: by the name of a picture, those that stand in its place where it cannot be seen: an author's stay.
    """
    parts = [f"```text\n{shown.printed}```"] if shown.printed.strip() else []
    parts += shown.tables
    parts += ["\n".join(shown.verdicts)] if shown.verdicts else []
    for file in shown.pictures:
        target = link(file)
        parts.append(f"![{words.get(flat_name(file), file.stem)}]({target})")
    return "".join(f"\n{part}\n" for part in parts) + "\n" * bool(parts)


def flat_name(file: Path) -> str:
    """What a picture is called where all lie in one folder."""
    return "-".join(file.parts)


def _words_of(text: str) -> dict[str, str]:
    """By the name of a picture, the words for it, of a page in docs/: its number stands before the name there."""
    return {Path(target).name.partition("-")[2]: words for words, target in re.findall(r"!\[(.*?)\]\((.*?)\)", text)}
