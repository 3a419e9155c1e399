"""What the terminal shows: a header, a live bar, a table row per epoch, a closing table; plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cnntrain.report.epoch_table import epoch_line, table_head, table_row
from cnntrain.report.progress_bar import Bar
from cnntrain.text import printable, shorten

REFRESHES_PER_SECOND = 5  # each takes about a millisecond, on rich's own thread
SECONDS_BETWEEN_LINES = 60  # within an epoch, where there is no bar
WIDEST_FRAME = 100  # columns
FRAME = 4  # columns of its sides


class _Console(Console):
    """The standard output.

    Args:
        logged: every line stands in a log as well, so that an output that takes no more is no reason to end.
    """

    def __init__(self, logged: bool) -> None:
        super().__init__(highlight=False)
        self.logged = logged

    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which knows an exit code for it; rich would exit with 1."""
        raise BrokenPipeError

    def __exit__(self, *error: Any) -> None:
        """The end of everything that writes, on the bar's own thread too."""
        try:
            super().__exit__(*error)
        except OSError as fault:  # a full disk, a terminal that was closed
            sys.stdout = None  # type: ignore[assignment]  # the last flush would fail again
            if not self.logged or isinstance(fault, BrokenPipeError):
                raise


class Screen:
    """The terminal, or plain lines where the output is none; every line also goes to `log` as plain text.

    Args:
        log: an open text file, or None.
        console: where to write; the standard output where None.
    """

    def __init__(self, log: TextIO | None = None, console: Console | None = None) -> None:
        self.console = console or _Console(logged=log is not None)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.bar = Bar()
        self.log = log
        self._live: Live | None = None
        self._has_head = False
        self._told = 0.0  # when the first phase began, or a line was printed since

    @property
    def width(self) -> int:
        """Columns for tables: those of the terminal, of a wide one no more than a frame has; 80 in a file."""
        return min(self.console.width, WIDEST_FRAME) if self.is_live else 80

    def line(self, text: str, style: str = "", *, copied: bool = False) -> None:
        """A line of text, above the bar while that is there; `copied`: never broken, so that it can be copied."""
        text = printable(text)
        if self.is_live:
            self.console.print(Text(text, style), soft_wrap=copied)
        self._print_lines(text)

    def frame(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Named facts below a title, in a frame; a folder that is too long for it, to be copied, below the frame."""
        title, rows = printable(title), [(printable(name), printable(value)) for name, value in rows]
        width = max((len(name) for name, _ in rows), default=0)
        if self.is_live:
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            room = self.width - width - FRAME - 2
            below = [row for row in rows if row[0] == "folder" and cell_len(row[1]) > room]
            for name, value in rows:
                if (name, value) not in below:
                    grid.add_row(Text(name), Text(value))
            head = Text(shorten(title, self.width - FRAME - 2), "bold")
            self.console.print(Panel(grid, title=head, title_align="left", width=self.width))
            for name, value in below:
                self.console.print(Text(f"  {name:<{width}}  {value}"), soft_wrap=True)
        self._print_lines(title, *(f"  {name:<{width}}  {value}" for name, value in rows))

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """A row of the table of epochs."""
        if self.is_live and not self._has_head:
            self._has_head = True
            for head in table_head(row, epochs):
                self.console.print(Text(head, "bold"), soft_wrap=True)
        if self.is_live:
            self.console.print(Text(table_row(row, epochs), "green" if row["best"] else ""), soft_wrap=True)
        self._print_lines(epoch_line(row, epochs))

    def start_bar(self) -> None:
        """Show the bar, where the output is a terminal; a phase begins."""
        self._told = self._told or time.monotonic()
        if self.is_live and self._live is None:
            self._live = Live(self.bar, console=self.console, refresh_per_second=REFRESHES_PER_SECOND, transient=True)
            self._live.start()

    def advance(self, images: int) -> None:
        """A micro-batch is done; where no bar shows it, a line a minute says how far the phase is, if there is one."""
        self.bar.advance(images)
        if not self.is_live and self.bar.phase and time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._print_lines(self.bar.words())

    @property
    def has_bar(self) -> bool:
        return self._live is not None

    def stop_bar(self) -> None:
        """Take the bar away."""
        live, self._live = self._live, None
        if live:
            live.stop()

    def _print_lines(self, *lines: str) -> None:
        self._told = time.monotonic()
        for line in lines:
            if not self.is_live:
                self.console.print(Text(line), soft_wrap=True)
            if self.log:
                try:
                    self.log.write(line + "\n")
                except OSError as error:
                    self.log = None
                    self.line(f"warning: nothing more for train.log: {error.strerror}; the training goes on", "yellow")
