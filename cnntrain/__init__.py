"""cnntrain: a command-line trainer for convolutional image classifiers."""

import time

__version__ = "0.1.0"

_started = time.perf_counter()


def take_seconds() -> float:
    """Seconds since this process began to work, or since the last call: what one job cost, its imports included."""
    global _started
    before, _started = _started, time.perf_counter()
    return _started - before
