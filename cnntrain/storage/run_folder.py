"""The run folder: made by one process, and locked by its owner, whose process number stands in `run.lock`.

Nothing here imports torch: a folder that cannot be written is found before seconds are spent.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from cnntrain.errors import RunFolderError
from cnntrain.storage.atomic import RUN_DIR, file_system_error, open_own
from cnntrain.storage.run_record import COMMAND, CONFIG, ENVIRONMENT, OVERRIDES, RESULTS, SPLITS, now

LOCK = "run.lock"
SWEEP = "multirun.yaml"  # what Hydra leaves in the folder of a sweep
PROJECTOR, PAGE = "projector_config.pbtxt", "report.html"
LOG, WARNING = "train.log", "warning: "  # what the terminal was told, and how its warnings begin
# What a run writes or removes by name.
OURS = (OVERRIDES, COMMAND, ENVIRONMENT, RESULTS, SPLITS, LOG, "metrics.csv", PAGE, PROJECTOR)


def reserve(path: Path, *, word: str = RUN_DIR) -> Path:
    """Make a new folder that no other process has: `path`, or `path-2`, `path-3` … where it is taken.

    Args:
        word: what the user can write to choose another place.

    Raises:
        FileSystemError: it cannot be made.
    """
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        make(folder.parent, word=word)
        try:
            os.mkdir(folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise file_system_error(folder, error, what="the folder cannot be made", word=word) from error
        return folder
    raise AssertionError("unreachable")


def make(folder: Path, *, word: str = RUN_DIR) -> Path:
    """Make a folder, if it is not there yet; FileSystemError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_system_error(folder, error, what="the folder cannot be made", word=word) from error
    return folder


def make_output(out: Path | None, home: Path, heading: str, *, word: str) -> Path:
    """The folder that a command which trains no run writes: `out`, else a new one in `home`, named after the data."""
    if out is not None:
        return make(out, word=word)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", heading)
    return reserve(home / f"{name}_{datetime.now():%Y-%m-%d_%H-%M-%S}", word=word)


def claim(folder: Path, *, sweep: bool = False) -> Path:
    """Make exactly this folder, which `out` or `hydra.run.dir` names; an existing one is taken if it holds no run.

    Args:
        sweep: it is to hold the folders of jobs, also beside those of an earlier sweep.

    Raises:
        RunFolderError: it holds a run, the jobs of a sweep, or files of the user's that a run would write over.
        FileSystemError: it cannot be made.
    """
    refuse_used(folder)
    if not sweep and (folder / SWEEP).exists():
        raise RunFolderError(f"{folder}: holds the jobs of a sweep; choose another with out=DIR")
    refuse_files(folder)
    return make(folder)


def refuse_used(folder: Path) -> None:
    """Raises RunFolderError when the folder holds a run already."""
    if (folder / CONFIG).exists() or (folder / "checkpoints").exists():
        again = shlex.join(["cnntrain", "resume", str(folder)])
        raise RunFolderError(f"{folder}: holds a run already; resume it by `{again}`, or choose another with out=DIR")


def _written_by_runs(folder: Path) -> list[Path]:
    """What lies in a folder under the names of what a run writes there, beside its config and its lock."""
    own_files = [folder / name for name in OURS if os.path.lexists(folder / name)]
    return [*own_files, *folder.glob("events.out.tfevents*")]


def refuse_files(folder: Path) -> None:
    """Raises RunFolderError when a folder that holds no run holds files of names that a run would write or remove."""
    if clashes := [path.name for path in _written_by_runs(folder)]:
        raise RunFolderError(
            f"{folder}: holds a file called {clashes[0]}, which a run would write over; choose another with out=DIR"
        )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


@contextlib.contextmanager
def lock(folder: Path, warn: Callable[[str], None] = _to_stderr) -> Iterator[None]:
    """Own the run folder inside the `with` block; the kernel frees the lock when the process dies, however it dies.

    Args:
        warn: takes a line, where the file system knows no locks and the run goes on without.

    Raises:
        RunFolderError: another process owns it.
        FileSystemError: the lock file cannot be written.
    """
    path = folder / LOCK
    try:
        handle = open_own(path, os.O_RDWR)
    except OSError as error:
        raise file_system_error(path, error) from error
    try:
        _take(handle, path, warn)
        yield
    finally:
        os.close(handle)


def is_in_use(folder: Path) -> bool:
    """Whether a process owns the run folder; False also where the file system knows no locks."""
    try:
        handle = open_own(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(handle)
    return False


def _take(handle: int, path: Path, warn: Callable[[str], None]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(handle, 1000).decode(errors="replace").strip() or "another process"
        raise RunFolderError(
            f"{path.parent}: in use by {owner}; wait for it, stop it, or begin elsewhere with out=DIR"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise file_system_error(path, error) from error
        warn(f"{path}: this file system has no locks ({os.strerror(error.errno)}); start no second run in this folder")
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"pid {os.getpid()} on host {socket.gethostname()} since {now()}\n".encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise file_system_error(path, error) from error


def remove_unstarted(folder: Path) -> None:
    """Remove what a run leaves that failed before its first step, and the folder where nothing else is in it."""
    for path in [*_written_by_runs(folder), folder / CONFIG, folder / LOCK]:
        path.unlink(missing_ok=True)
    remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder in which nothing is, and then the same of those above it that are ours."""
    names = [parent.name for parent in folder.parents]
    above = folder.parents[: names.index("outputs") + 1] if "outputs" in names else ()  # other parents are the user's
    for empty in (folder, *above):
        try:
            empty.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # something else is in there
            break
