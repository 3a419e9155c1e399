"""The device that trains: its choice, what it can do, and waiting for it.

This file, device_memory, precision, algorithms and seeds alone name a kind of accelerator.
"""

from collections.abc import Callable

import torch

from cnntrain.errors import ConfigError
from cnntrain.runtime.algorithms import fix_cublas_workspace
from cnntrain.runtime.world import ALONE, World
from cnntrain.text import counted


def choose_device(name: str, world: World = ALONE) -> torch.device:
    """`auto` is cuda, else mps, else cpu; a named device that is not there is a ConfigError.

    Of several processes, each takes the CUDA device of its own that its place on the machine gives it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if world.size > 1:
        name = _own_device(name, world)
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = f"{torch.cuda.device_count()} CUDA device(s) found" if torch.cuda.is_available() else "no CUDA found"
        raise ConfigError(f"trainer.device: {name} is not there, {there}; use trainer.device=auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("trainer.device: mps is not there; use trainer.device=auto or cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device


def _own_device(name: str, world: World) -> str:
    """The device of one of several processes."""
    device = torch.device(name)
    if device.index is not None or device.type == "mps":
        raise ConfigError(
            f"trainer.device: {name} is a single device, and {world.size} processes were started; "
            "use trainer.device=auto or cpu, or start one process"
        )
    devices = torch.cuda.device_count()
    if device.type == "cuda" and devices == 1:  # Slurm shows each process one of its own; NCCL refuses one of all
        return f"{name}:0"
    if device.type == "cuda" and torch.cuda.is_available() and world.local_size > devices:
        raise ConfigError(
            f"trainer.device: {world.local_size} processes on this machine, and {devices} CUDA "
            "device(s); start as many processes as there are devices, or use trainer.device=cpu"
        )
    return f"{name}:{world.local_rank}" if device.type == "cuda" else name


def gpus() -> int:
    """CUDA devices that a run can have, one for each of its processes; at least 1."""
    return max(1, torch.cuda.device_count())


def exchange_backend(name: str, deterministic: bool, world: World) -> tuple[str, torch.device | None]:
    """What carries tensors between processes on the device of this name, and the device that it is bound to.

    Numbers of the host go over gloo in any case.

    Args:
        deterministic: cuBLAS is to repeat its bits, which it must be told before the device is touched.

    Returns:
        The backend, as torch.distributed names it; the device where it is NCCL.

    Raises:
        ConfigError: this process cannot have the device, or cuBLAS is told otherwise.
    """
    if deterministic:
        fix_cublas_workspace()
    device = choose_device(name, world)
    if device.type == "cuda" and torch.distributed.is_nccl_available():
        return "cpu:gloo,cuda:nccl", device
    return "gloo", None


def describe_device(device: torch.device) -> str:
    """`NVIDIA A100 80 GiB` or `CPU, 2 threads`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else "Apple GPU (mps)"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work: for timings and nothing else."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def mark(device: torch.device) -> Callable[[], None]:
    """What waits, in any thread, until the device has done all that is queued by now."""
    if device.type != "cuda":
        synchronize(device)
        return lambda: None
    event = torch.cuda.Event(blocking=True)
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def is_async(device: torch.device) -> bool:
    """Whether the device works behind the host's back, and can tell what it has done when."""
    return device.type == "cuda" and torch.cuda.is_initialized()


def timed_event(device: torch.device, spare: torch.cuda.Event | None = None) -> torch.cuda.Event | None:
    """A moment in the queue of the device, to be asked for its time once it has passed; None: the host's clock tells.

    Args:
        spare: an event that nobody needs any more.
    """
    if not is_async(device):
        return None
    event = spare or torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def can_pin(device: torch.device) -> bool:
    """Whether page-locked host memory makes transfers to this device asynchronous."""
    return device.type == "cuda"


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor of the host on the device, without waiting for what the device is doing."""
    if not can_pin(device):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def supports_fused(device: torch.device) -> bool:
    """Whether torch's optimizers have a fused step on this device."""
    return device.type in ("cuda", "cpu")


def replays_graphs(device: torch.device) -> bool:
    """Whether torch can record all launches of a pass on this device, and repeat them by one (CUDA graphs)."""
    return device.type == "cuda"


def plain_passes() -> int:
    """How many compiled passes of this process torch could not record to be replayed."""
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def launching_costs(device: torch.device) -> bool:
    """Whether an operation on a batch costs the host more to launch than the device to do."""
    return device.type == "cuda"
