"""The live bar: two lines that rich's own thread redraws; the loop only sets numbers."""

import time
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnntrain.text import clock, number, percent, rate

TRAINING, VALIDATING = "epoch", "validating"


class Bar:
    """How far the epoch is and how it goes; `advance` costs a fraction of a microsecond."""

    def __init__(self) -> None:
        self.phase = ""
        self.epoch = self.epochs = 0
        self.done = self.total = 0  # micro-batches of this phase
        self.row: dict[str, Any] = {}  # the last log row
        self.has_top1 = True  # a log row has one
        self.note = ""  # stands in place of the numbers
        self._first = 0  # micro-batches that were done before this phase began, as after a resume
        self._images = 0
        self._started = time.monotonic()
        self._phase_seconds: dict[str, float] = {}  # of a whole phase, as last measured

    def start_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        self.end_phase()
        self.epoch, self.epochs = epoch, epochs
        self._start(TRAINING, batches, done)

    def start_phase(self, phase: str, batches: int) -> None:
        self.end_phase()
        self._start(phase, batches, 0)

    def end_phase(self) -> None:
        """Keep what the phase took; what comes before the next one is of none."""
        batches = self.done - self._first
        if batches and self.phase:
            self._phase_seconds[self.phase] = (time.monotonic() - self._started) / batches * self.total
        self.phase = ""

    def advance(self, images: int) -> None:
        self.done += 1
        self._images += images

    def seconds_left(self) -> float | None:
        """The estimate for the rest of this epoch and all that follow; None where nothing is known yet."""
        batches, seconds = self.done - self._first, time.monotonic() - self._started
        if not batches:
            return None
        each = seconds / batches
        per_phase = self._phase_seconds | {self.phase: each * self.total}
        rest = each * max(0, self.total - self.done)
        if not self._is_of_epoch:
            return rest
        if self.phase == TRAINING:
            rest += per_phase.get(VALIDATING, 0)
        return rest + (self.epochs - self.epoch) * (per_phase.get(TRAINING, 0) + per_phase.get(VALIDATING, 0))

    def words(self) -> str:
        """How far the phase is, in a line for a log."""
        is_fresh = self.phase == TRAINING and self.row.get("epoch") == self.epoch
        top1 = f" top-1 {percent(self.row['top1'])}" if is_fresh and self.has_top1 else ""
        scores = f"loss {number(self.row['loss'])}{top1}  " if is_fresh else ""
        speed = self._images / max(time.monotonic() - self._started, 1e-3)
        left = f"{rate(speed)} images/s  {clock(self.seconds_left())} left"
        return f"{self._place}, batch {self.done:,} of {self.total:,}  {scores}{left}"

    @property
    def _is_of_epoch(self) -> bool:
        """Whether epochs follow this phase, or may: others, such as the test, stand alone."""
        return self.epochs > 0 and self.phase in (TRAINING, VALIDATING)

    @property
    def _place(self) -> str:
        is_of_epoch = self._is_of_epoch
        return f"{self.phase} {self.epoch:>{len(str(self.epochs))}}/{self.epochs}" if is_of_epoch else self.phase

    def _start(self, phase: str, batches: int, done: int) -> None:
        self.phase, self.total, self.done, self._first = phase, batches, done, done
        self._images, self._started = 0, time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        longest = len(VALIDATING) + (2 * len(str(self.epochs)) + 2 if self.epochs else 0)  # keeps the bar where it is
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        right = Text.assemble((f"{self.done:,}/{self.total:,}", "bold"), f"  {clock(self.seconds_left())} left")
        grid.add_row(
            Text(self._place.ljust(longest), "bold"), ProgressBar(self.total or 1, min(self.done, self.total)), right
        )
        yield grid
        if self.note:
            yield Text(self.note, "bold yellow", no_wrap=True, overflow="crop")
        elif self.epochs:
            yield Text("  ", no_wrap=True, overflow="crop").join(self._facts()[: 6 if options.max_width >= 76 else 4])

    def _facts(self) -> list[Text]:
        row, seconds = self.row, time.monotonic() - self._started
        speed = row.get("images_per_second") or self._images / max(seconds, 1e-3)
        waiting = row.get("data_wait")
        late = "bold yellow" if waiting and waiting > 0.2 else ""
        facts = (
            ("step ", f"{row['step']:,}" if row else "-", ""),
            ("loss ", number(row.get("loss")), ""),
            *([("top-1 ", percent(row.get("top1")), "")] if self.has_top1 else []),
            ("lr ", f"{row['lr']:.3g}" if row else "-", ""),
            ("", f"{rate(speed)} img/s", ""),
            ("wait ", "-" if waiting is None else f"{100 * waiting:.0f}%", late),
        )
        return [Text.assemble((name, "dim"), (value, style)) for name, value, style in facts]
