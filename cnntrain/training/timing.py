"""What the loop measures of time: waiting for data, throughput, and the seconds that a run may take."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from cnntrain.config.schema.trainer import LOG_STEPS
from cnntrain.data.loaders import Batch
from cnntrain.runtime.stopwatch import Stopwatch
from cnntrain.runtime.world import ALONE, World

SECONDS_BETWEEN_ROWS = 0.25  # for each the host waits for the device


class Meter:
    """Passes micro-batches on, and measures throughput and the share of time that their consumer waits for them."""

    def __init__(self, batches: Iterator[Batch], watch: Stopwatch | None = None) -> None:
        self._batches, self._watch = batches, watch
        self._start()

    def _start(self) -> None:
        self._images, self._wait_seconds, self._since = 0, 0.0, time.perf_counter()

    def __iter__(self) -> "Meter":
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            batch = next(self._batches)
        finally:
            self._wait_seconds += time.perf_counter() - start
            if self._watch:
                self._watch.mark("data")
        self._images += batch.total
        return batch

    def leave_out(self, seconds: float) -> None:
        """See Clock."""
        self._since += seconds

    def read(self) -> dict[str, float]:
        """`images_per_second`, of all processes, and `data_wait` (0..1) since the last reading."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        row = {"images_per_second": self._images / seconds, "data_wait": min(self._wait_seconds / seconds, 1.0)}
        self._start()
        return row


class Clock:
    """Seconds of training, counted on over resumes, the limit on them, and those between two saves."""

    def __init__(self, before: float, limit: float | None, save_seconds: float | None = None) -> None:
        self.before, self.limit, self.save_seconds = before, limit, save_seconds
        self.start = self.last_save = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    @property
    def is_over(self) -> bool:
        return self.limit is not None and self.seconds >= self.limit

    @property
    def save_is_due(self) -> bool:
        """Whether saves go by time, and the last one is so long ago."""
        return self.save_seconds is not None and time.perf_counter() - self.last_save >= self.save_seconds

    def leave_out(self, seconds: float) -> None:
        """Do not count seconds that have passed, and were no part of the training."""
        self.start += seconds

    def note_save(self) -> None:
        """Count the time to the next save from now."""
        self.last_save = time.perf_counter()


class RowTimes:
    """Which steps a log row follows. Of several processes all are asked for the same steps, and answer the same."""

    def __init__(self, world: World = ALONE) -> None:
        self._world, self._last = world, -math.inf

    def is_due(self, step: int, every: int | None) -> bool:
        """Whether a row is to follow `step`, counted from 1; asked once of each.

        Args:
            every: steps between two rows; None: LOG_STEPS, or a multiple that takes SECONDS_BETWEEN_ROWS.
        """
        if every:
            return step % every == 0
        if step % LOG_STEPS:
            return False
        now = time.perf_counter()
        (is_due,) = self._world.most(now - self._last >= SECONDS_BETWEEN_ROWS)
        if is_due:
            self._last = now
        return bool(is_due)


@dataclass
class Spent:
    """Seconds of each phase, see runtime/stopwatch.py: of the epoch in hand, and of all that are finished."""

    epoch: dict[str, float] = field(default_factory=dict)
    run: dict[str, float] = field(default_factory=dict)

    def add(self, seconds: dict[str, float]) -> None:
        """Count more into the epoch in hand."""
        self.epoch = _sum(self.epoch, seconds)

    def end_epoch(self) -> dict[str, float]:
        """Count the epoch in hand among the finished ones; its seconds."""
        ended = self.epoch
        self.run, self.epoch = self.total(), {}
        return ended

    def add_late(self, seconds: dict[str, float]) -> dict[str, float]:
        """Count what has come behind the end of an epoch, such as its save; the same back."""
        self.run = _sum(self.run, seconds)
        return seconds

    def total(self) -> dict[str, float]:
        """Seconds of each phase over the whole run."""
        return _sum(self.run, self.epoch)


def _sum(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return first | {phase: first.get(phase, 0.0) + seconds for phase, seconds in second.items()}
