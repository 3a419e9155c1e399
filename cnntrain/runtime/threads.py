"""How many cores this process may use, torch's threads on them, and threads of our own."""

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from cnntrain.runtime.world import World

T = TypeVar("T")
CGROUPS = Path("/sys/fs/cgroup")


def set_threads(threads: int | None) -> None:
    """Give torch `threads` threads; None: as OMP_NUM_THREADS says, else one for each core of this process."""
    wish = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # further numbers are for nested teams
    torch.set_num_threads(threads or (int(wish) if wish.isdecimal() else 0) or available_cores())


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, but no more than its container has time for.

    Processes that train together on this machine share them evenly.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, (cores if quota is None else min(cores, math.ceil(quota))) // World.here().local_size)


def _cpu_quota() -> float | None:
    """Cores' worth of time that the container may use, by cgroup v2 or v1; None: no limit, or none that is known."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((CGROUPS / file).read_text() for file in files).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError):  # not there, or v2's `max`
            continue
    return None


def work_ahead(work: Callable[[int], T], tasks: Iterable[int], workers: int, name: str) -> Generator[T, None, None]:
    """What comes of each task, in their order; some tasks ahead, by threads that end when the generator is closed.

    Args:
        workers: how many threads; 0 works in the calling one.
        name: of the threads.
    """
    if workers == 0:
        yield from map(work, tasks)
        return
    # The tasks are spread over threads already: torch's own inside each would only fight for the cores.
    pool = ThreadPoolExecutor(workers, name, initializer=torch.set_num_threads, initargs=(1,))
    rest, queue = iter(tasks), deque[Future[T]]()
    try:
        while True:
            queue.extend(pool.submit(work, task) for task in islice(rest, 2 * workers - len(queue)))
            if not queue:
                return
            yield queue.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
