"""What there is to say of an error: its fault with exit code and line, or where the report of a bug lies.

Nothing here imports torch.
"""

import contextlib
import errno
import os
import stat
import sys
import tempfile
import traceback
from pathlib import Path

from cnntrain.errors import CnntrainError, ConfigError, FileSystemError, Interrupted, ResourceError
from cnntrain.registry import line_in_user_code
from cnntrain.runtime.faults import Fault, Kind, fault_of, refused_setting
from cnntrain.storage.atomic import open_own
from cnntrain.text import one_line, printable

TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
SMALLER = "make data.batch_size smaller, or in training set trainer.micro_batch=auto, which cuts each batch"
FULL_CARD = (
    "trainer.device: the GPU has no memory left for CUDA itself{holders}; end another process (nvidia-smi lists them), "
    "choose another GPU with trainer.device=cuda:1, or make data.batch_size smaller"
)


def lines_of(error: Exception, fault: CnntrainError | None, folder: Path | None) -> list[str]:
    """What the user is told of an error that is being handled.

    Args:
        fault: what `as_fault` says of it.
        folder: where the traceback of a bug is to lie; None for the system's temporary folder.
    """
    if fault:
        return [line if isinstance(fault, Interrupted) else f"error: {line}" for line in fault.lines()]
    try:
        report = str(_save_traceback(folder))
    except OSError:  # no room anywhere
        traceback.print_exc()
        report = "the lines above"
    known = fault_of(error)
    what = f"{known.line}; without such code it is a bug of cnntrain" if known else "this is a bug of cnntrain"
    return [f"error: {what} ({one_line(error)}); please report it with {report}"]


def reason(error: BaseException) -> str:
    """Why something failed, as `exit_code` tells it, in one line."""
    if isinstance(error, Exception) and (fault := as_fault(error)):
        return str(fault).partition("\n")[0]
    return one_line(error)


def as_fault(error: Exception) -> CnntrainError | None:
    """An error of ours, or what another is that comes of the machine, a setting or the user; None for our own bugs."""
    if isinstance(error, CnntrainError):
        return error
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
