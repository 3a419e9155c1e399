"""What the process says and answers when something fails: one line, and an exit code from errors.py."""

import contextlib
import errno
import os
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from cnntrain.errors import CnntrainError, ConfigError, FileSystemError, Interrupted, ResourceError
from cnntrain.registry import line_in_user_code
from cnntrain.runtime.faults import Fault, Kind, fault_of, refused_setting
from cnntrain.storage.atomic import open_own
from cnntrain.text import one_line, printable

OUR_BUG = 1
INTERRUPTED = 130
TERMINATED = 143
READER_GONE = 141  # as a shell counts a process that died of SIGPIPE
TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
SMALLER = "make data.batch_size smaller, or in training set trainer.micro_batch=auto, which cuts each batch"
FULL_CARD = (
    "trainer.device: the GPU has no memory left for CUDA itself{holders}; end another process (nvidia-smi lists them), "
    "choose another GPU with trainer.device=cuda:1, or make data.batch_size smaller"
)


def exit_code(
    work: Callable[[], int | None],
    folder: Callable[[], Path | None] = lambda: None,
    may_report: Callable[[BaseException], bool] = lambda error: True,
) -> int:
    """The exit code that some work answers, or that of what goes wrong in it, which is told on stderr.

    Args:
        folder: where the traceback of a bug is to lie; None for the system's temporary folder.
        may_report: whether this process is the one that tells of an error, where several have met it.
    """
    try:
        code = work()
        if sys.stdout:
            sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt as error:
        if may_report(error):
            say("interrupted at once; nothing more was saved")
        return INTERRUPTED
    except SystemExit as end:  # of a signal before there was anything to save
        if line := line_in_user_code(end):
            say(f"error: {line}: your function ends the process; let it raise an error instead")
            return ConfigError.exit_code
        return end.code if isinstance(end.code, int) else OUR_BUG
    except BrokenPipeError:
        sys.stdout = None  # the last flush would fail again
        return READER_GONE
    except Exception as error:
        fault = error if isinstance(error, CnntrainError) else _as_fault(error)
        if may_report(error):
            _tell(error, fault, folder())
        return fault.exit_code if fault else OUR_BUG


def say(line: str) -> None:
    """A line on stderr, with our name before it."""
    with contextlib.suppress(OSError):  # the terminal has gone
        print(f"cnntrain: {printable(line)}", file=sys.stderr)


def _tell(error: Exception, fault: CnntrainError | None, folder: Path | None) -> None:
    if fault is None:
        try:
            report = str(_save_traceback(folder))
        except OSError:  # no room anywhere
            traceback.print_exc()
            report = "the lines above"
        known = fault_of(error)
        what = f"{known.line}; without such code it is a bug of cnntrain" if known else "this is a bug of cnntrain"
        say(f"error: {what} ({one_line(error)}); please report it with {report}")
        return
    for line in fault.lines():
        say(line if isinstance(fault, Interrupted) else f"error: {line}")


def reason(error: BaseException) -> str:
    """Why something failed, as `exit_code` tells it, in one line."""
    if isinstance(error, Exception) and (fault := error if isinstance(error, CnntrainError) else _as_fault(error)):
        return str(fault).partition("\n")[0]
    return one_line(error)


def _as_fault(error: Exception) -> CnntrainError | None:
    """Faults of the machine and of torch on it, whoever raised them; None for anything else."""
    if (fault := fault_of(error)) and fault.kind is not Kind.KERNEL:
        return ResourceError(_line(fault))
    if line := refused_setting(error):
        return ConfigError(line)
    if isinstance(error, OSError):
        # Where we write a file its name is told: what has none and takes no more is what we print to, or Hydra's.
        prints = error.errno in TAKES_NO_MORE and _output_may_be_full(error.errno)
        place = error.filename or ("standard output" if prints else "")
        what = error.strerror or str(error) or type(error).__name__
        if place and error.errno in (errno.EACCES, errno.EPERM):
            what += "; mend its permissions"
        elif not place and error.errno in (errno.ENOSPC, errno.EDQUOT):
            what += "; free some space"
        return FileSystemError(f"{printable(place)}: {what}" if place else what)
    if line := line_in_user_code(error):
        return ConfigError(f"{line}: your function failed ({one_line(error)}); correct it")
    return None


def _line(fault: Fault) -> str:
    """What there is to say of a fault of the machine."""
    if fault.kind not in (Kind.MEMORY, Kind.FULL):
        return fault.line
    holders = ""
    if "torch" in sys.modules:
        from cnntrain.runtime.device_memory import memory_holders

        with contextlib.suppress(RuntimeError):  # the device may answer no more
            holders = memory_holders()
    if fault.kind is Kind.FULL:
        return FULL_CARD.format(holders=holders and f": {holders}")
    return f"out of memory{holders and f': {holders}'}; {SMALLER}"


def _output_may_be_full(number: int) -> bool:
    """Whether it can be the standard output that takes no more: no pipe, no terminal, no file on a disk with room."""
    try:
        handle = sys.stdout.fileno()
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode) and number == errno.ENOSPC:
            return os.fstatvfs(handle).f_bavail == 0
        return not stat.S_ISFIFO(mode) and not os.isatty(handle)
    except (AttributeError, OSError, ValueError):  # closed, or none of the system's
        return True


def _save_traceback(folder: Path | None) -> Path:
    text = traceback.format_exc()
    if folder is not None:
        try:
            handle = open_own(folder / "traceback.txt", os.O_WRONLY | os.O_TRUNC)
            with open(handle, "wb") as report:
                report.write(text.encode(errors="backslashreplace"))
            return folder / "traceback.txt"
        except OSError:
            pass  # the folder may be what is broken
    with tempfile.NamedTemporaryFile("w", prefix="cnntrain-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(text)
    return Path(file.name)
