"""Ctrl-C and kill: a signal only raises a flag, the loop saves at the next step and ends."""

import contextlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn, Protocol

from cnntrain.errors import Interrupted

# Wrappers such as `make` pass a Ctrl-C on that the terminal has sent to us as well: two in a moment are one.
_SAME_PRESS_SECONDS = 0.25
# SIGUSR1 is batch systems' early warning, SIGHUP a terminal that was closed: both count as SIGTERM.
CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
STOPPING, AGAIN = "stopping after this step", "; press Ctrl-C again to quit at once"


class StopFlag(Protocol):
    """Set by a signal, read between steps."""

    signum: int | None

    @property
    def requested(self) -> bool: ...


class Stop:
    """Whether the end was asked for, and by which signal: SIGINT, or SIGTERM for all others."""

    def __init__(self, note: Callable[[str], bool] | None = None) -> None:
        self.signum: int | None = None
        self._note = note
        self._since = 0.0
        self.holds_nothing = False  # yet which could be saved: the end comes where the work stands

    @property
    def requested(self) -> bool:
        return self.signum is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = int(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)
            self._since = time.monotonic()
            if self.holds_nothing:
                raise KeyboardInterrupt  # not an Exception, of which code on the way may make something else
            line = STOPPING + (AGAIN if signum == signal.SIGINT else "")
            if not (self._note and self._note(line)):
                _say(line + "\n")
        elif signum == signal.SIGINT and time.monotonic() - self._since > _SAME_PRESS_SECONDS:
            raise KeyboardInterrupt


NEVER = Stop()  # for work that no signal stops early


@contextlib.contextmanager
def at_once(stop: StopFlag) -> Iterator[None]:
    """For long work before the first step: inside, the first signal ends it where it stands.

    Raises:
        Interrupted: a signal came.
    """
    if not isinstance(stop, Stop):
        yield
        return
    stop.holds_nothing = True
    try:
        yield
    except KeyboardInterrupt:
        if stop.signum is None:
            raise
        raise Interrupted(stop.signum, "stopped before the first step") from None
    finally:
        stop.holds_nothing = False


def _say(line: str) -> None:
    # Not print: a signal may arrive inside a print, and the buffered stream refuses to be entered twice.
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())


@contextlib.contextmanager
def handle_signals(note: Callable[[str], bool] | None = None) -> Iterator[Stop]:
    """Catch the signals that ask for an end inside the `with` block; poll `requested` at each step and each batch.

    `note` shows the line where a progress bar owns the terminal, and answers whether it did; else stderr has it.
    A second Ctrl-C raises KeyboardInterrupt at once. A signal that the parent had ignored (nohup) stays ignored.
    Outside the main thread Python delivers no signals, and the flag never rises.
    """
    stop = Stop(note)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    with caught(stop._handle):
        yield stop


@contextlib.contextmanager
def caught(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` have the signals of CAUGHT inside the `with` block; one that is ignored (nohup) stays ignored."""

    def handle(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            _leave_terminal()
        handler(signum, frame)

    before = {}
    try:
        for signum in CAUGHT:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, handle)
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, signal.SIG_DFL if earlier is None else earlier)


def _leave_terminal() -> None:
    """Let what is still said go nowhere, where the terminal is gone: writing there would fail, and end the run."""
    null = os.open(os.devnull, os.O_RDWR)
    for handle in (1, 2):
        with contextlib.suppress(OSError):  # closed before
            if stat.S_ISCHR(os.fstat(handle).st_mode) and not os.isatty(handle):
                os.dup2(null, handle)
    os.close(null)


def end_now(signum: int) -> NoReturn:
    """Leave work that holds nothing yet which could be saved.

    Raises:
        KeyboardInterrupt: for SIGINT.
        SystemExit: for all others. Of neither `except Exception` makes something else, in whatever code they arrive.
    """
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    _say("cnntrain: ended at once; nothing more was saved\n")
    raise SystemExit(128 + signal.SIGTERM)


def asked_for(stop: StopFlag) -> int:
    """The signal that asked for the end; 0: none did."""
    return (stop.signum or 2) if stop.requested else 0


def interrupted(signum: int) -> Interrupted:
    """The error that ends a run on a signal; `train` saves before it leaves."""
    return Interrupted(signum, "stopped and saved")
