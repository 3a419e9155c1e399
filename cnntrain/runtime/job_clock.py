"""What one job of a command costs, its imports included."""

import time

_started = time.perf_counter()


def take_seconds() -> float:
    """Seconds since the process began to work, or since the last call."""
    global _started
    before, _started = _started, time.perf_counter()
    return _started - before
