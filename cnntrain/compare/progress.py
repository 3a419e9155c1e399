"""What a comparison says: plain lines, and one that lives while a run goes."""

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING

from cnntrain.text import cut, printable, shorten

if TYPE_CHECKING:
    from rich.spinner import Spinner

WIDTH = 80  # columns of a finished line
LEAST, RESULT = 20, 28  # columns that a name or a reason keeps, and that what came of a run takes


def say(line: str) -> None:
    """A line, at once: what comes next may take hours."""
    print(printable(line), flush=True)


class Line:
    """The line of one run: its name, a sign of life where the output is a terminal, and in the end what came of it.

    Args:
        place: `run 2 of 6`.
        name: what tells it from the others.
    """

    def __init__(self, place: str, name: str) -> None:
        self._place, self._name = place, printable(name)
        self._head = self._head_beside(RESULT)
        self._result = "interrupted"
        self._spinner: Spinner | None = None
        self._stack = contextlib.ExitStack()

    def _head_beside(self, columns: int) -> str:
        """The place and the name, with room for so many columns of words beside them."""
        return f"{self._place}  {shorten(self._name, max(LEAST, WIDTH - len(self._place) - columns - 4))}"

    def __enter__(self) -> "Line":
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        console = Console(highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            self._spinner = Spinner("dots")
            self._stack.enter_context(Live(self._spinner, console=console, refresh_per_second=8, transient=True))
            self.show("starting")
        else:
            print(self._head, end="", flush=True)  # what goes on can be seen in a log
        return self

    def show(self, state: str) -> None:
        """How far the run is, where there is a line that lives."""
        if self._spinner:
            from rich.text import Text

            self._spinner.update(text=Text(f"{self._head_beside(len(state) + 2)}  {state}"))  # 2: of the dots

    def end(self, result: str) -> None:
        """What came of the run, in what is left of one line."""
        from rich.cells import cell_len

        room = WIDTH - cell_len(self._head) - 2
        self._result = cut(printable(result), max(room, LEAST))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        say(f"{self._head}  {self._result}" if self._spinner else f"  {self._result}")
