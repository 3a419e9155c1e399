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
from cnntrain.course.claims import read_record, table, verdict
from cnntrain.course.pages import COMMAND, Block, Page
from cnntrain.errors import CnntrainError, Interrupted
from cnntrain.runtime.child import Relay, cnntrain_command, python_command
from cnntrain.storage.atomic import read_own, write_atomic
from cnntrain.storage.run_record import CONFIG
from cnntrain.text import printable

TIMES = "times.json"  # of a page's folder: by block, the seconds of its longest run
TEXT = "page.md"
COLUMNS = "80"
# Lines that another run of the same command has otherwise (what to type next, figures of time and place), and those in
# which a training repeats what the page's command says.
LEFT_OUT = re.compile(
    r"^(wrote |written  |next  |      (cnntrain|tensorboard) |tensorboard |val: |mean and std: |done$"
    r"|  (folder|device|augment|optimizer|schedule|ended|best epoch)  )|\d:\d\d:\d\d|images/s",
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
    """
    variables = {"PYTHONUNBUFFERED": "1", "COLUMNS": COLUMNS, "CNNTRAIN_DATA": _data_root()}
    shown = []
    for block in page.blocks:
        make_room(block, folder)
        start, before = time.monotonic(), _files(folder)
        processes = _processes(block)
        printed = [_run(process, page, folder, child, say, variables) for process in processes]
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
        shown.append(Shown("".join(printed), tuple(map(table, records)), tuple(verdicts), tuple(pictures)))
    return shown


def _data_root() -> str:
    """Where the data lies for commands that run in another folder than ours."""
    return os.path.abspath(os.environ.get("CNNTRAIN_DATA", "data"))


def make_room(block: Block, folder: Path) -> None:
    """Remove the run folders that trainings of a block have left in the folder of the page, as they are made anew."""
    for words in block.commands() if block.kind == "sh" else []:
        out = next((word.removeprefix("out=") for word in words if word.startswith("out=")), "")
        if "=" in words[0] and Path(out).name == out and (folder / out / CONFIG).is_file():
            shutil.rmtree(folder / out)


def _processes(block: Block) -> list[tuple[str, list[str], bool]]:
    """For each process of a block: what is told of it, its command, and whether what it prints is shown."""
    if block.kind == "python":
        return [("python", python_command(block.code), True)]
    return [
        (shlex.join([COMMAND, *words]), cnntrain_command(*words), words[0] != "compare") for words in block.commands()
    ]


def _run(
    process: tuple[str, list[str], bool],
    page: Page,
    folder: Path,
    child: Relay,
    say: Callable[[str], None],
    variables: dict[str, str],
) -> str:
    """Run one process; answers what the page shows of what it printed."""
    name, command, is_shown = process
    say(f"\n$ {name}\n")
    pieces: list[str] = []

    def hear(piece: str) -> None:
        pieces.append(piece)
        say(piece)

    code = child.listen(command, hear, cwd=folder, more=variables)
    if child.signum:
        raise Interrupted(child.signum, f"stopped in page {page.number}; go on with cnntrain course {page.number}")
    if code:
        raise BlockError(
            f"course: page {page.number} ended at `{printable(name)}`, which failed with code {code}", code
        )
    lines = "".join(pieces).splitlines() if is_shown else []
    return "".join(f"{line.rstrip()}\n" for line in lines if not LEFT_OUT.search(line)).strip("\n") + "\n" * bool(lines)


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
    with suppress(OSError, ValueError):
        times: dict[str, float] = json.loads(read_own(folder / TIMES))
        return times
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
