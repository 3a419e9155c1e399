"""The memory of the host: what is free in this container, and what this process holds and has held."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

CGROUPS, PROC = Path("/sys/fs/cgroup"), Path("/proc")


def free_bytes() -> int:
    """Bytes that this process can still have; half of all memory where the system does not tell (macOS).

    The kernel kills the whole container that goes beyond its limit, however much the machine has.
    """
    try:
        free = _kib(PROC / "meminfo", "MemAvailable:")
    except (OSError, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    room = _room_in_container()
    return free if room is None else min(free, room)


def _room_in_container() -> int | None:
    """Bytes below the limit of the container, by cgroup v2 or v1; None: no limit, or none that is known."""
    for folder, limit, used in ((".", "memory.max", "memory.current"), ("memory", *_V1)):
        try:
            most, now = (int((CGROUPS / folder / file).read_text()) for file in (limit, used))
            stat = dict(line.split() for line in (CGROUPS / folder / "memory.stat").read_text().splitlines())
            return max(0, most - now + int(stat["inactive_file"]))  # copies of files, which the kernel lets go
        except (OSError, ValueError, KeyError):  # not there, or v2's `max`
            continue
    return None


_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def held_bytes() -> int | None:
    """Bytes that this process holds; None where the system does not tell."""
    with suppress(OSError, ValueError):
        return _kib(PROC / "self/status", "VmRSS:")
    return None


def peak_bytes() -> int:
    """Most bytes that this process has held since `reset_peak`, or its start where that cannot be reset."""
    with suppress(OSError, ValueError):
        return _kib(PROC / "self/status", "VmHWM:")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release() -> None:
    """Give the kernel back what glibc holds and nobody uses."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> None:
    """Count the peak anew from what is in use now, where the system allows it."""
    release()
    with suppress(OSError):
        (PROC / "self/clear_refs").write_text("5")  # see proc(5): the peak resident set size


def tune_malloc() -> None:
    """Let glibc keep large blocks instead of giving them back to the kernel after each use.

    Page faults dominate large temporaries on a CPU: raising the thresholds made batch operations 2 to 6 times faster.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # constants of glibc's malloc.h
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 64 << 20)


def _kib(file: Path, name: str) -> int:
    """A line of a file such as /proc/meminfo, in bytes; raises ValueError where it is not there."""
    lines = file.read_text().splitlines()
    return int(next((line.split()[1] for line in lines if line.startswith(name)), "")) * 1024
