"""Several processes that train one network: who is who, and what they exchange. Started by torchrun, one per device.

Each process holds the whole network and works on its part of every micro-batch; all of them take the same step, with
gradients that training/exchange.py brings together. Nothing here imports torch before `joined`.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cnntrain.errors import ConfigError, Interrupted, NonFiniteError, ResourceError

if TYPE_CHECKING:
    from torch import Tensor

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # all of them: a launcher's work
TOGETHER = (Interrupted, NonFiniteError)  # errors that all processes meet at the same step
LOST = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|Broken pipe|ProcessGroup")  # words of its backends
FAULTS = "cnntrain/faults"  # in the store: how many processes have met one

FLAG_SECONDS = 0.5  # between two exchanges of flags
MOST = 255  # that a flag can be

T = TypeVar("T")

_store: Any = None  # of key-value pairs that all processes share, while they are joined


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this one is; one alone by default, which exchanges nothing.

    All methods from `sum_` on are collective: each process must call them, in the same order.

    Raises:
        ResourceError: another process has ended before it answered.
    """

    rank: int = 0  # of this process, from 0
    size: int = 1  # how many there are
    local_rank: int = 0  # the same on this machine
    local_size: int = 1

    @classmethod
    def here(cls) -> "World":
        """What torchrun has written into the environment; one alone where it did not start this process.

        Raises:
            ConfigError: what stands there is no number.
        """
        if any(name not in os.environ for name in VARIABLES):
            return ALONE
        size = _number("WORLD_SIZE")
        return cls(_number("RANK"), size, _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE")) if size > 1 else ALONE

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def part(self, count: int) -> tuple[int, int]:
        """Which of `count` images are this process's: first and last + 1; lower ranks take what does not divide."""
        least, more = divmod(count, self.size)
        return self.rank * least + min(self.rank, more), (self.rank + 1) * least + min(self.rank + 1, more)

    def sum_(self, tensors: Sequence["Tensor"]) -> None:
        """Add up each tensor over all processes, in place and with the same bits everywhere; one call per dtype."""
        if self.size > 1:
            import torch.distributed as dist

            _as_one(tensors, dist.all_reduce)

    def mean_(self, tensors: Sequence["Tensor"]) -> None:
        """The same, divided by the number of processes."""
        self.sum_(tensors)
        for tensor in tensors if self.size > 1 else ():
            tensor.detach().div_(self.size)

    def copy_(self, tensors: Sequence["Tensor"]) -> None:
        """Give all processes the first one's tensors, in place."""
        if self.size > 1:
            import torch
            import torch.distributed as dist

            # As bytes: not every backend knows every dtype.
            _as_one(tensors, lambda flat: dist.broadcast(flat.view(torch.uint8), src=0))

    def most(self, *numbers: int) -> list[int]:
        """Of each number, 0 to 255, the largest that a process gives. On the host: none waits for its device here."""
        if self.size == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        largest = torch.tensor(numbers, dtype=torch.uint8)
        with _answered():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [int(number) for number in largest.tolist()]

    def wait(self) -> None:
        """Until all are here."""
        self.most(0)

    def share(self, value: T) -> T:
        """The first process's value; the others' is not looked at."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value if self.is_first else None]
        with _answered():
            dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with _answered():
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Exchanges that torch makes by itself inside the block end, where another process is lost, as ours do."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and LOST.search(str(error)):
                raise _lost(error) from error
            raise

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process of each machine does the work inside alone, then the others do: for what leaves files."""
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()


ALONE = World()


class Flags:
    """Numbers that processes tell each other after their steps: not after each, but about twice a second.

    All of them exchange at the same steps, as the slowest wants it; every step counts as long as those since the last
    exchange did, so a new one is to be made where steps may have become longer.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._every, self._steps, self._since = 1, 0, time.perf_counter()

    def most(self, *numbers: int) -> list[int]:
        """Of each number, 0 to 255, the largest that a process gives; zeros after a step without an exchange."""
        if self._world.size == 1:
            return list(numbers)
        self._steps += 1
        if self._steps < self._every:
            return [0] * len(numbers)
        now = time.perf_counter()
        steps = int(FLAG_SECONDS * self._steps / max(now - self._since, 1e-9))
        *most, less = self._world.most(*numbers, MOST - min(max(steps, 1), MOST))
        self._every, self._steps, self._since = MOST - less, 0, now
        return most


def _as_one(tensors: Sequence["Tensor"], exchange: Callable[["Tensor"], object]) -> None:
    """Exchange all tensors of a dtype in one call: small messages cost nearly what large ones do."""
    import torch

    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        of_type = [tensor.detach() for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in of_type])
        with _answered():
            exchange(flat)
        parts = flat.split([tensor.numel() for tensor in of_type])
        torch._foreach_copy_(of_type, [part.view_as(tensor) for part, tensor in zip(parts, of_type, strict=True)])


def _number(name: str) -> int:
    text = os.environ.get(name, "1")
    if not text.isdecimal():
        raise ConfigError(f"{name}: {text!r} in the environment is no whole number; start the processes with torchrun")
    return int(text)


@contextmanager
def joined(backend: str) -> Iterator[World]:
    """The processes of the run, able to exchange inside the `with` block, which all of them leave together.

    Where one of them leaves it with an error, the others meet a ResourceError at their next exchange.

    Args:
        backend: what carries the tensors of each kind of device, as `device.exchange_backend` names it.
    """
    found = World.here()
    if found.size == 1:
        yield found
        return
    import torch.distributed as dist
    import torch.distributed.nn  # noqa: F401  (imported later, its default arguments would hold the group for ever)

    global _store
    with _answered():
        _store, _, _ = next(iter(dist.rendezvous("env://")))
        dist.init_process_group(backend, store=_store, rank=found.rank, world_size=found.size)
    try:
        yield found
        found.wait()
    except TOGETHER:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()
    _store = None


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # whatever the backend, its faults are of this class
        raise _lost(error) from error


def _lost(error: RuntimeError) -> ResourceError:
    reason = re.sub(r"^\[.*?\] *", "", str(error)).strip().partition("\n")[0].partition(". ")[0]  # not where in C++
    return ResourceError(
        f"another process of this run has ended or cannot be reached ({reason}); its own message says why"
    )


def silence_torch() -> None:
    """Keep warnings of torch's C++ off the screens of several processes; to be called before torch is imported.

    Each of them would say that find_unused_parameters may be in vain; training/exchange.py says what it is for.
    """
    if World.here().size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def tells(error: BaseException) -> bool:
    """Whether this process is the one that tells the user of an error: one that all have met is told once."""
    found = World.here()
    if found.size == 1:
        return True
    if isinstance(error, (*TOGETHER, KeyboardInterrupt)):
        return found.is_first
    if _store is None:  # the command line is the same for all: one process of each machine tells of its faults
        return found.local_rank == 0
    try:
        return bool(_store.add(FAULTS, 1) == 1)
    except RuntimeError:  # the process that kept the store was the first to fail
        return False
