"""Commands started one after the other, each of which is silent and gets the signals that we get."""

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import cnntrain
from cnntrain.runtime.signals import caught

OF_SIGNAL = 128  # what a shell adds to a signal's number
TICK = 0.5  # seconds between two looks at what a command does
MOST_SAID = 1 << 16  # bytes of what it says that are kept
STOPPED = (OF_SIGNAL + signal.SIGINT, OF_SIGNAL + signal.SIGTERM)  # exit codes of a command that was asked to end

# What `python -P` of 3.11 does, on 3.10 too: a random.py or yaml.py of the current folder is none of ours. The package
# is the one that runs here, whatever else is installed; the folder that it lies in comes first for it alone.
START = """\
import sys
sys.path[:] = [{home!r}, *filter(None, sys.path)]
import cnntrain
del sys.path[0]
"""
MAIN = "from cnntrain.cli import main\nsys.exit(main())\n"


def cnntrain_command(*words: str) -> list[str]:
    """The command that runs these words of ours in a process without the current folder on its path."""
    return [*python_command(MAIN), *words]


def python_command(code: str) -> list[str]:
    """The command that runs some code in this Python, with our package and without the current folder on its path."""
    home = str(Path(cnntrain.__file__).resolve().parent.parent)
    return [sys.executable, "-c", START.format(home=home) + code]


class Relay:
    """Starts commands and passes signals on to the one in hand, which decides how it ends.

    Attributes:
        signum: the signal that asked for the end (SIGINT, or SIGTERM for all others), or None.
        said: the last lines that the last command has written to stderr.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.said: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], watch: Callable[[], None] = lambda: None) -> int:
        """Run one to its end; answers its exit code, that of a shell where a signal killed it.

        Args:
            watch: called every now and then while it runs.
        """
        with tempfile.TemporaryFile() as errors:
            self._child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
            if self.signum:  # it came in the moment of the start
                self._child.send_signal(self.signum)
            code = None
            while code is None:
                watch()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = self._child.wait(TICK)
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - MOST_SAID))
            self.said = errors.read().decode(errors="backslashreplace").splitlines()
        return self._end(code)

    def listen(self, command: Sequence[str], hear: Callable[[str], None], *, cwd: Path, more: Mapping[str, str]) -> int:
        """Run one to its end and pass on what it prints; what it says to stderr goes where ours does.

        Args:
            hear: called with each piece of text as it comes, which may end within a line.
            more: variables of its environment besides ours.

        Returns:
            Its exit code, as `run` answers it.
        """
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=cwd, env={**os.environ, **more})
        assert self._child.stdout
        if self.signum:
            self._child.send_signal(self.signum)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self._child.stdout as pipe:
            while piece := os.read(pipe.fileno(), MOST_SAID):
                hear(decoder.decode(piece))
        return self._end(self._child.wait())

    def _end(self, code: int) -> int:
        """The exit code of a command that has ended, as a shell would tell it."""
        self._child = None
        code = OF_SIGNAL - code if code < 0 else code
        if code in STOPPED:
            self.signum = self.signum or code - OF_SIGNAL  # it alone was asked
        return code

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = int(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)
        # A terminal sends its Ctrl-C to the child as well, and there a second one means: at once.
        if self._child and not (signum == signal.SIGINT and _in_foreground()):
            self._child.send_signal(signum)


@contextlib.contextmanager
def relay() -> Iterator[Relay]:
    """Catch the signals that ask for an end inside the `with` block; one that is ignored (nohup) stays ignored."""
    passing = Relay()
    with caught(passing._handle):
        yield passing


def _in_foreground() -> bool:
    """Whether the keys of a terminal reach us and our children."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
