"""One of several processes that train one network: which of them it is, and what they exchange.

Each process holds the whole network and works on its part of every micro-batch; all of them take the same step, with
gradients that training/exchange.py brings together. Nothing here imports torch before the first exchange.
"""

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cnntrain.errors import ConfigError
from cnntrain.runtime import lost_process, slurm
from cnntrain.runtime.flat import flattened, write_back
from cnntrain.runtime.lost_process import answered
from cnntrain.text import shorten

if TYPE_CHECKING:
    from torch import Tensor

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # all of them: a launcher's work
MOST_PROCESSES, MOST_PORT = 99_999, 65_535

FLAG_SECONDS = 0.5  # between two exchanges of flags
MOST = 255  # that a flag can be
STORED_BYTES = 4 << 20  # torch's store refuses values of 8 MiB

T = TypeVar("T")


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
    store: Any = field(default=None, compare=False, repr=False)  # of key-value pairs that all share, once they can

    @classmethod
    def here(cls) -> "World":
        """What torchrun or srun has written into the environment; one alone where neither started this process.

        Raises:
            ConfigError: what stands there is none of the numbers that it must be, or no address.
        """
        found = variables()
        size = _number(found, "WORLD_SIZE", 1, MOST_PROCESSES)
        if size == 1:
            return ALONE
        if not found["MASTER_ADDR"].strip():
            raise ConfigError(f"MASTER_ADDR: is empty in the environment; {_ADVICE}")
        _number(found, "MASTER_PORT", 1, MOST_PORT)
        rank, local_rank = (_number(found, name, 0, size - 1) for name in ("RANK", "LOCAL_RANK"))
        return cls(rank, size, local_rank, _number(found, "LOCAL_WORLD_SIZE", 1, MOST_PROCESSES))

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
        with answered():
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
        with answered():
            dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with answered():
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Exchanges that torch makes by itself inside the block end, where another process is lost, as ours do."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and lost_process.WORDS.search(str(error)):
                raise lost_process.error_of(error) from error
            raise

    def once_here(self, name: str, compute: Callable[[], T]) -> T:
        """What the first process of this machine has computed under a name; inside `in_turn`, so that it comes first.

        It goes through the store, in parts as large as that takes.
        """
        if self.local_size == 1 or self.store is None:
            return compute()
        place = f"{socket.gethostname()}/{name}"
        if self.local_rank > 0 and self.store.check([place]):  # not of containers that have names of their own
            # Trusted as torch trusts what its own exchange of objects unpickles: the store is that of this run.
            parts = [self.store.get(f"{place}/{number}") for number in range(int(self.store.get(place)))]
            return cast(T, pickle.loads(b"".join(parts)))
        value = compute()
        if self.local_rank == 0:
            data = pickle.dumps(value)
            begins = range(0, len(data), STORED_BYTES)
            for number, begin in enumerate(begins):
                self.store.set(f"{place}/{number}", data[begin : begin + STORED_BYTES])
            self.store.set(place, str(len(begins)))
            self.store.get(place)  # answered when all of it is there, which setting does not wait for
        return value

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
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        of_type = [tensor.detach() for tensor in tensors if tensor.dtype == dtype]
        flat = flattened(of_type)
        with answered():
            exchange(flat)
        write_back(flat, of_type)


def variables() -> Mapping[str, str]:
    """What a launcher says of this process; nothing where none does."""
    return os.environ if all(name in os.environ for name in VARIABLES) else slurm.variables(os.environ)


_ADVICE = "start the processes with torchrun or srun, or unset RANK, WORLD_SIZE and SLURM_PROCID"


def _number(variables: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = variables.get(name, "1")
    if text.isdecimal() and len(text) <= len(str(MOST_PORT)) and least <= int(text) <= most:
        return int(text)
    if variables is not os.environ:
        name = slurm.source(os.environ, name)
    given = f"(given {shorten(repr(text), 20)} in the environment)"
    raise ConfigError(f"{name}: must be a whole number from {least} to {most} {given}; {_ADVICE}")
