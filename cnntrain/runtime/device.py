"""The machine: device, precision, seeds and memory. The only file that names a kind of accelerator."""

import ctypes
import gc
import hashlib
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from cnntrain.config.schema.trainer import Precision
from cnntrain.errors import ConfigError
from cnntrain.runtime import host_memory
from cnntrain.runtime.world import ALONE, World
from cnntrain.text import counted, gibibytes

CGROUPS = Path("/sys/fs/cgroup")
REPEATABLE_CUBLAS = (":4096:8", ":16:8")  # sizes of its workspace
OVERHEAD = 3 << 29  # bytes of a context of CUDA with its libraries, at most


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


def exchange_backend(name: str, world: World) -> tuple[str, torch.device | None]:
    """What carries tensors between processes on the device of this name, and the device that it is bound to.

    Numbers of the host go over gloo in any case.

    Returns:
        The backend, as torch.distributed names it; the device where it is NCCL.

    Raises:
        ConfigError: this process cannot have the device.
    """
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


# ---- seeds ----


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several whole numbers; neighbouring inputs give unrelated seeds."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: torch.device, *parts: int) -> torch.Generator:
    """A random generator on `device` that depends on `parts` and on nothing else."""
    return torch.Generator(device).manual_seed(mix_seed(*parts))


def seed_everything(seed: int) -> None:
    """Seed the global generators: initial weights, dropout."""
    random.seed(seed)
    torch.manual_seed(seed)


def set_deterministic(deterministic: bool) -> None:
    """Let torch take none but repeatable algorithms, or any; asked for what it does already, it is left alone."""
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic)  # imports torch's compiler, which takes 1.2 s


def use_repeatable(deterministic: bool) -> None:
    """Choose repeatable or fastest algorithms, before anything lies on a CUDA device: cuBLAS reads its variable once.

    Raises:
        ConfigError: the variable has a value with which cuBLAS does not repeat its bits.
    """
    torch.backends.cudnn.benchmark = not deterministic
    set_deterministic(deterministic)
    if not deterministic:
        return
    # We read no tensor that nothing was written to; to fill each new one costs a launch, or a pass over the memory.
    torch.utils.deterministic.fill_uninitialized_memory = False
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", REPEATABLE_CUBLAS[0])
    if workspace not in REPEATABLE_CUBLAS and torch.cuda.is_available():
        raise ConfigError(
            f"trainer.deterministic: cuBLAS repeats its bits with CUBLAS_WORKSPACE_CONFIG={REPEATABLE_CUBLAS[0]} alone "
            f"(given {workspace}); unset this variable"
        )


def seed_streams(*parts: int) -> None:
    """Seed the global generators alone, from whole numbers."""
    random.seed(mix_seed(*parts))
    torch.manual_seed(mix_seed(*parts))


@contextmanager
def own_process_kept() -> Iterator[None]:
    """Give a process that is not ours its random numbers, threads and choice of algorithms back at the end."""
    drawn, threads = random.getstate(), torch.get_num_threads()
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(drawn)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        set_deterministic(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fills


def rng_state(device: torch.device) -> dict[str, Any]:
    """The global generators as plain containers and tensors."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(numbers), gauss], "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Set what `rng_state` saved; a device other than the saved one keeps its own stream."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


# ---- precision ----


def choose_precision(precision: Precision, device: torch.device) -> tuple[Precision, list[str]]:
    """The precision in use, and warnings where the choice is slow or without effect here."""
    kind = device.type
    if precision is Precision.auto:
        if kind == "cuda":
            return (Precision.bf16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.fp16), []
        return Precision.fp32, []
    if precision is Precision.tf32 and (kind != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        return precision, [f"trainer.precision=tf32 has no effect on {kind} here: it is an NVIDIA Ampere mode"]
    if precision is Precision.fp16 and kind == "cpu":
        return precision, ["trainer.precision=fp16 is slow on a CPU; use trainer.precision=fp32"]
    if precision is Precision.bf16 and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        slow = "this GPU has no bf16 units and emulates them"
        return precision, [f"trainer.precision=bf16: {slow}; use trainer.precision=fp16"]
    if precision is Precision.bf16 and kind == "cpu" and _cpu_lacks_bf16():
        slow = "this CPU has no bf16 units, expect 8 times the time of fp32"
        return precision, [f"trainer.precision=bf16: {slow}; use trainer.precision=fp32"]
    return precision, []


def _cpu_lacks_bf16() -> bool:
    """Whether the CPU is known to have no bf16 units: only Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not {"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo.read_text().split())


def set_matmul_precision(precision: Precision) -> None:
    """TF32 for float32 products and convolutions when it was asked for, exact float32 when not."""
    allowed = precision is Precision.tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The autocast context of a precision; nothing for fp32 and tf32."""
    dtype = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def grad_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling, switched on for fp16 only (arXiv 1710.03740)."""
    return torch.amp.GradScaler(device.type, enabled=precision is Precision.fp16)


# ---- memory and time ----


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


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device, with those that torch holds and does not use.

    Processes that train together on this machine share those of the host evenly.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return host_memory.free_bytes() // World.here().local_size


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


def shares_memory(device: torch.device) -> bool:
    """Whether the memory of the device is that of the host."""
    return device.type in ("cpu", "mps")


def reset_peak_memory(device: torch.device) -> None:
    """Begin the count of `peak_memory` anew, for a job that others have preceded in this process."""
    if device.type != "cuda":
        host_memory.reset_peak()
    elif torch.cuda.is_initialized():
        if torch.cuda.memory_allocated(device):
            release_memory(device)  # what an earlier job has left lies in reference cycles
        torch.cuda.reset_peak_memory_stats(device)


def tells_when_full(device: torch.device) -> bool:
    """Whether want of memory is an error, and not the end of the process."""
    return device.type != "cpu"


@contextmanager
def untuned() -> Iterator[None]:
    """Inside, cuDNN searches for no fastest algorithm: for shapes that come once."""
    tuned = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = tuned


def peak_memory(device: torch.device) -> int:
    """Most bytes held in this job so far: of the device for CUDA, of this process elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else host_memory.peak_bytes()


def supports_fused(device: torch.device) -> bool:
    """Whether torch's optimizers have a fused step on this device."""
    return device.type in ("cuda", "cpu")


def replays_graphs(device: torch.device) -> bool:
    """Whether torch can record all launches of a pass on this device, and repeat them by one (CUDA graphs)."""
    return device.type == "cuda"


def plain_passes() -> int:
    """How many compiled passes of this process torch could not record to be replayed."""
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def tunes_by_shape(device: torch.device) -> bool:
    """Whether the fastest algorithms are sought anew for each new shape of a batch (cudnn.benchmark)."""
    return device.type == "cuda" and torch.backends.cudnn.benchmark


def launching_costs(device: torch.device) -> bool:
    """Whether an operation on a batch costs the host more to launch than the device to do."""
    return device.type == "cuda"


def can_pin(device: torch.device) -> bool:
    """Whether page-locked host memory makes transfers to this device asynchronous."""
    return device.type == "cuda"


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor of the host on the device, without waiting for what the device is doing."""
    if not can_pin(device):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
