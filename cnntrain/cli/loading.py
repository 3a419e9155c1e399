"""A word to whoever waits: torch takes seconds to load, and nothing else can be said before it is there.

A terminal shows it from the first moment on and loses it with the first output. A pipe or a file gets a line once the
config is known to be sound: a fault is to be the only line there.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from cnntrain.cli.exit import say
from cnntrain.runtime.world import World

WORD, ERASE = "loading ...", "\r\x1b[2K"


@contextlib.contextmanager
def word() -> Iterator[None]:
    """Show the word on a terminal that can take it away again, until the first output or the end of the block."""
    streams = {name: stream for name in ("stderr", "stdout") if (stream := getattr(sys, name))}
    terminal = next((stream for stream in streams.values() if stream.isatty()), None)
    if terminal is None or _knows_torch() or os.environ.get("TERM", "dumb") == "dumb":
        yield
        return
    shown = _Word(terminal)
    for name, stream in streams.items():
        setattr(sys, name, _Stream(shown, name, stream))
    try:
        yield
    finally:
        shown.erase()


def tell() -> None:
    """Say in a line that torch is being loaded, where no terminal shows the word."""
    if not _knows_torch() and not isinstance(sys.stderr, _Stream):
        say("loading torch")


def _knows_torch() -> bool:
    """Whether there is nothing to wait for, or another process says so."""
    return "torch" in sys.modules or not World.here().is_first


class _Word:
    """The word on a terminal."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal: TextIO | None = terminal
        _put(terminal, WORD)

    def erase(self) -> None:
        """Take it away, if it is still there."""
        terminal, self._terminal = self._terminal, None
        if terminal:
            _put(terminal, ERASE)


class _Stream:
    """A standard stream up to its first output, which erases the word."""

    def __init__(self, shown: _Word, name: str, stream: TextIO) -> None:
        self._shown, self._name, self._stream = shown, name, stream

    def write(self, text: str) -> int:
        """Write as the stream itself, which has its place back from now on."""
        self._shown.erase()
        if getattr(sys, self._name) is self:
            setattr(sys, self._name, self._stream)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _put(terminal: TextIO, text: str) -> None:
    with contextlib.suppress(OSError):  # it has gone
        terminal.write(text)
        terminal.flush()
