"""What the process answers when something fails: a line on stderr, and an exit code from errors.py.

What help does without, such as the causes of errors in failure.py, is imported when an error is there.
"""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from cnntrain.errors import ConfigError
from cnntrain.text import printable

OUR_BUG = 1
INTERRUPTED = 130
TERMINATED = 143
READER_GONE = 141  # as a shell counts a process that died of SIGPIPE


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
        from cnntrain.registry import line_in_user_code

        if line := line_in_user_code(end):
            say(f"error: {line}: your function ends the process; let it raise an error instead")
            return ConfigError.exit_code
        return end.code if isinstance(end.code, int) else OUR_BUG
    except BrokenPipeError:
        sys.stdout = None  # the last flush would fail again
        return READER_GONE
    except Exception as error:
        from cnntrain.cli.failure import as_fault, lines_of

        fault = as_fault(error)
        for text in lines_of(error, fault, folder()) if may_report(error) else ():
            say(text)
        return fault.exit_code if fault else OUR_BUG


def say(line: str) -> None:
    """A line on stderr, with our name before it."""
    with contextlib.suppress(OSError):  # the terminal has gone
        print(f"cnntrain: {printable(line)}", file=sys.stderr)
