"""What the loop measures of time: waiting for data, throughput, and the seconds that a run may take."""

import time
from collections.abc import Iterator

from cnntrain.data.loaders import Batch


class Meter:
    """Passes micro-batches on, and measures throughput and the share of time that their consumer waits for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
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
        self._images += batch.total
        return batch

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

    def note_save(self) -> None:
        """Count the time to the next save from now."""
        self.last_save = time.perf_counter()
