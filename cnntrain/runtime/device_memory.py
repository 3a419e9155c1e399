"""The memory of the device: what is free, who holds it, and the most that was held; that of the host for a CPU."""

import gc

import torch

from cnntrain.runtime import host_memory
from cnntrain.runtime.world import World
from cnntrain.text import gibibytes

OVERHEAD = 3 << 29  # bytes of a context of CUDA with its libraries, at most


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device, with those that torch holds and does not use.

    Processes that train together on this machine share those of the host evenly.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return host_memory.free_bytes() // World.here().local_size


def shares_memory(device: torch.device) -> bool:
    """Whether the memory of the device is that of the host."""
    return device.type in ("cpu", "mps")


def tells_when_full(device: torch.device) -> bool:
    """Whether want of memory is an error, and not the end of the process."""
    return device.type != "cpu"


def memory_holders() -> str:
    """Who holds the memory that has run out: a sentence of this process's device; empty where none can tell."""
    if not torch.cuda.is_initialized():
        held, free = host_memory.held_bytes(), host_memory.free_bytes()
        return "" if held is None else f"this process holds {gibibytes(held)}, {gibibytes(free)} are free"
    free, total = torch.cuda.mem_get_info()
    ours = torch.cuda.memory_reserved()
    text = f"this process holds {gibibytes(ours)} of the GPU's {gibibytes(total)}"
    if (others := total - free - ours) > OVERHEAD:
        text += f", other processes {gibibytes(others)} (nvidia-smi lists them)"
    return text


def release_memory(device: torch.device) -> None:
    """Give back what is held and not in use."""
    gc.collect()
    host_memory.release()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def reset_peak_memory(device: torch.device) -> None:
    """Begin the count of `peak_memory` anew, for a job that others have preceded in this process."""
    if device.type != "cuda":
        host_memory.reset_peak()
    elif torch.cuda.is_initialized():
        if torch.cuda.memory_allocated(device):
            release_memory(device)  # what an earlier job has left lies in reference cycles
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes held in this job so far: of the device for CUDA, of this process elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else host_memory.peak_bytes()
