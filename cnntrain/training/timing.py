"""What the loop measures of time: waiting for data, throughput, and the seconds that a run may take."""

import time
from collections.abc import Iterator

from torch import Tensor


class Timed:
    """An iterator that adds up the seconds its consumer waits for it."""

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.waited = 0.0

    def __iter__(self) -> "Timed":
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        start = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.waited += time.perf_counter() - start


class Meter:
    """Throughput and the share of time spent waiting for data since the last reading."""

    def __init__(self, source: Timed) -> None:
        self.source = source
        self._start()

    def _start(self) -> None:
        self.images, self.since, self.source.waited = 0, time.perf_counter(), 0.0

    def read(self) -> dict[str, float]:
        """`images_per_second` and `data_wait` (0..1); starts anew."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        row = {"images_per_second": self.images / seconds, "data_wait": min(self.source.waited / seconds, 1.0)}
        self._start()
        return row


class Clock:
    """Seconds of training, counted on over resumes, and the limit on those of this process."""

    def __init__(self, before: float, limit: float | None) -> None:
        self.before, self.limit, self.start = before, limit, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    @property
    def is_over(self) -> bool:
        return self.limit is not None and time.perf_counter() - self.start >= self.limit
