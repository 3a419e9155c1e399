"""Where the time of a training goes, measured without waiting for the device."""

import time
from collections import defaultdict, deque
from typing import Any

import torch

from cnntrain.runtime import device as machine

PHASES = ("data", "augment", "network", "step", "log", "evaluate", "save")
MOST_PENDING = 64  # marks that the device may not have reached yet, before those that it has are looked for


class Stopwatch:
    """Splits time into named phases by marks at their ends.

    On a device that works behind the host's back a mark is an event in its queue, so that a phase has the time that the
    device spent on it, or idle before it: none is lost and none counted twice. Elsewhere the host's clock tells.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._spare: list[Any] = []  # events to be used again
        self._pending: deque[tuple[str, Any]] = deque()
        self.start()

    def start(self) -> None:
        """The next phase begins here; what lies between the last mark and this counts for nothing."""
        self._reach()
        self._last = self._event()
        self._clock = time.perf_counter()

    def mark(self, phase: str) -> None:
        """The time since the last mark is that of `phase`."""
        if self._last is None:
            before, self._clock = self._clock, time.perf_counter()
            self._seconds[phase] += self._clock - before
            return
        self._pending.append((phase, self._event()))
        if len(self._pending) > MOST_PENDING:
            self._count_done()

    def take(self) -> dict[str, float]:
        """Seconds of each phase since the last taking; it waits for the device to reach the last mark."""
        self._reach()
        taken, self._seconds = dict(self._seconds), defaultdict(float)
        return taken

    def _event(self) -> Any:
        return machine.timed_event(self._device, self._spare.pop() if self._spare else None)

    def _reach(self) -> None:
        if self._pending:
            self._pending[-1][1].synchronize()
            self._count_done()

    def _count_done(self) -> None:
        while self._pending and self._pending[0][1].query():
            phase, event = self._pending.popleft()
            self._seconds[phase] += self._last.elapsed_time(event) / 1e3  # it counts milliseconds
            self._spare.append(self._last)
            self._last = event
