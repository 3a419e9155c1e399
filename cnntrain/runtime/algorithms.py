"""Which algorithms torch takes: repeatable ones, or the fastest; a process that is not ours gets its own back."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cnntrain.errors import ConfigError

REPEATABLE_CUBLAS = (":4096:8", ":16:8")  # sizes of its workspace


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
    fix_cublas_workspace()


def fix_cublas_workspace() -> None:
    """Let cuBLAS repeat its bits; to be called before the first CUDA device is touched.

    Raises:
        ConfigError: its variable has a value with which it does not.
    """
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", REPEATABLE_CUBLAS[0])
    if workspace not in REPEATABLE_CUBLAS and torch.cuda.is_available():
        raise ConfigError(
            f"trainer.deterministic: cuBLAS repeats its bits with CUBLAS_WORKSPACE_CONFIG={REPEATABLE_CUBLAS[0]} alone "
            f"(given {workspace}); unset this variable"
        )


@contextmanager
def untuned() -> Iterator[None]:
    """Inside, cuDNN searches for no fastest algorithm: for shapes that come once."""
    tuned = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = tuned


def tunes_by_shape(device: torch.device) -> bool:
    """Whether the fastest algorithms are sought anew for each new shape of a batch (cudnn.benchmark)."""
    return device.type == "cuda" and torch.backends.cudnn.benchmark


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
