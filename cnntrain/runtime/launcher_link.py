"""What a process owes our launcher, which has started it: to end when that one is gone, and to leave some faults to it.

Nothing here imports torch.
"""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "CNNTRAIN_LAUNCHER"  # its number as a process, and the folder for what it is told
LOST, TOLD = "lost", "told"  # files there: the line of a process that has lost another one; a line was said
RUN = "run"  # a file there: where the run saves, a zero byte, and the command by which it goes on
GOES_ON = "; once mended, the run goes on with "  # in such a line, before the command
TICK = 1.0  # seconds between two looks whether the launcher lives

_folder: Path | None = None
_run = ""  # what stands in RUN


@contextlib.contextmanager
def introduced(folder: Path) -> Iterator[None]:
    """Let the processes that are started inside the `with` block know this one, and the folder that they write to."""
    os.environ[VARIABLE] = f"{os.getpid()}:{folder}"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def watch_launcher() -> None:
    """Send this process a SIGTERM, on which it saves and ends, once its launcher is gone; nothing if it has none.

    A launcher that is killed can tell nobody, nor remove its folder.
    """
    global _folder
    number, _, folder = os.environ.pop(VARIABLE, "").partition(":")  # popped: what we start is not the launcher's
    if not folder or not number.isdecimal():
        return
    _folder = Path(folder)
    threading.Thread(target=_watch, args=(int(number), _folder), name="launcher", daemon=True).start()


def _watch(launcher: int, folder: Path) -> None:
    while os.getppid() == launcher:
        time.sleep(TICK)
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


def leave_to_launcher(line: str) -> bool:
    """Whether the launcher is to say a line: it knows how the process was ended that this one has lost."""
    return _note(LOST, line)


def note_told() -> None:
    """Let the launcher know that a fault was told."""
    _note(TOLD, "")


def note_way_on(saves: Path, command: str) -> None:
    """Remember how the run of this process goes on, for a line that is told where the run itself can say no more.

    Args:
        saves: the folder that is there once something is saved.
    """
    global _run
    _run = f"{saves.resolve()}\0{command}"
    _note(RUN, _run)


def way_on(folder: Path | None = None) -> str:
    """What to add to the line that tells why the run has ended; nothing where nothing is saved.

    Args:
        folder: as the launcher, that of its processes; None: this process's own run.
    """
    text = _run
    if folder is not None:
        try:
            text = (folder / RUN).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:  # it was never begun
            return ""
    saves, _, command = text.partition("\0")
    return f"{GOES_ON}{command}" if command and Path(saves).exists() else ""


def _note(name: str, text: str) -> bool:
    if _folder is None:
        return False
    try:
        (_folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError:  # it is gone, or its disk is full
        return False
    return True


def left_line(folder: Path) -> str | None:
    """As the launcher: the line that a process has left to it, where none has said what happened."""
    with contextlib.suppress(OSError):
        if not (folder / TOLD).exists():
            return (folder / LOST).read_text(encoding="utf-8", errors="surrogateescape")
    return None
