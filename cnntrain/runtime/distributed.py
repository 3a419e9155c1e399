"""Several processes that train one network: who is who, and what they exchange. torchrun or srun starts one per device.

Each process holds the whole network and works on its part of every micro-batch; all of them take the same step, with
gradients that training/exchange.py brings together. Nothing here imports torch before `joined`.
"""

import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cnntrain.errors import CnntrainError, ConfigError, Interrupted, NonFiniteError, ResourceError
from cnntrain.runtime import slurm
from cnntrain.runtime.flat import flattened, write_back
from cnntrain.runtime.launched import leave_to_launcher, note_told, watch_launcher
from cnntrain.runtime.peers import GRACE, Peers, end_process
from cnntrain.text import printable, shorten

if TYPE_CHECKING:
    from torch import Tensor, device

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # all of them: a launcher's work
TOGETHER = (Interrupted, NonFiniteError)  # errors that all processes meet at the same step
LOST = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|Broken pipe|ProcessGroup")  # words of its backends
RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # how often torchrun has started all processes again
FAULTS, DEVICE = "faults", "device"  # in the store: how many processes have met one; trainer.device of the first
RUN = "cnntrain/run"  # in the launcher's store, which outlives a restart: the run folder
WAIT = timedelta(minutes=30)  # for an answer; a process that has ended is found sooner
# Until a process says that it waits for the others to start: the first one of a machine, and the rest of them.
PATIENCE = (10.0, 60.0)
MOST_PROCESSES, MOST_PORT = 99_999, 65_535

FLAG_SECONDS = 0.5  # between two exchanges of flags
MOST = 255  # that a flag can be
STORED_BYTES = 4 << 20  # torch's store refuses values of 8 MiB

T = TypeVar("T")


class _LostError(ResourceError):
    """Another process has ended; it, or who has started both, knows why."""


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
        """What torchrun or srun has written into the environment; one alone where neither started this process.

        Raises:
            ConfigError: what stands there is none of the numbers that it must be, or no address.
        """
        found = _variables()
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

    def once_here(self, name: str, compute: Callable[[], T]) -> T:
        """What the first process of this machine has computed under a name; inside `in_turn`, so that it comes first.

        It goes through the store, in parts as large as that takes.
        """
        if self.local_size == 1 or _store is None:
            return compute()
        place = f"{socket.gethostname()}/{name}"
        if self.local_rank > 0 and _store.check([place]):  # not of containers that have names of their own
            # Trusted as torch trusts what its own exchange of objects unpickles: the store is that of this run.
            parts = [_store.get(f"{place}/{number}") for number in range(int(_store.get(place)))]
            return cast(T, pickle.loads(b"".join(parts)))
        value = compute()
        if self.local_rank == 0:
            data = pickle.dumps(value)
            begins = range(0, len(data), STORED_BYTES)
            for number, begin in enumerate(begins):
                _store.set(f"{place}/{number}", data[begin : begin + STORED_BYTES])
            _store.set(place, str(len(begins)))
            _store.get(place)  # answered when all of it is there, which setting does not wait for
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
        with _answered():
            exchange(flat)
        write_back(flat, of_type)


def _variables() -> Mapping[str, str]:
    """What a launcher says of this process; nothing where none does."""
    return os.environ if all(name in os.environ for name in VARIABLES) else slurm.variables(os.environ)


_ADVICE = "start the processes with torchrun or srun, or unset RANK, WORLD_SIZE and SLURM_PROCID"


def _number(variables: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = variables.get(name, "1")
    if text.isdecimal() and len(text) <= len(str(MOST_PORT)) and least <= int(text) <= most:
        return int(text)
    given = f"(given {shorten(repr(text), 20)} in the environment)"
    raise ConfigError(f"{name}: must be a whole number from {least} to {most} {given}; {_ADVICE}")


@contextmanager
def joined(device_name: str, bind: Callable[[str, World], tuple[str, "device | None"]]) -> Iterator[World]:
    """The processes of the run, able to exchange inside the `with` block, which all of them leave together.

    Where one of them leaves it with an error, the others meet a ResourceError at their next exchange; one that waits
    for its GPU meanwhile is ended.

    Args:
        device_name: trainer.device; that of the first process counts.
        bind: chooses the device of this process by that, and answers what carries the tensors of each kind of device,
            as torch.distributed names it, and the device that the exchange is bound to, if any.
    """
    found = World.here()
    if found.size == 1:
        yield found
        return
    watch_launcher()
    import torch.distributed as dist
    import torch.distributed.nn  # noqa: F401  (imported later, its default arguments would hold the group for ever)

    global _store
    variables = _variables()
    if variables is not os.environ:
        os.environ.update(variables)
    with _says_that_it_waits(found), _answered():
        # Prefixed: torchrun keeps the store over its restarts, and what processes wrote that are gone.
        _store = dist.PrefixStore(f"cnntrain/{os.environ.get(RESTARTS, 0)}", _open_store())
        if found.is_first:
            _store.set(DEVICE, device_name)
        device_name = _store.get(DEVICE).decode()
    backend, place = bind(device_name, found)
    with _says_that_it_waits(found), _answered():
        dist.init_process_group(
            backend, store=_store, rank=found.rank, world_size=found.size, timeout=WAIT, device_id=place
        )
        peers = Peers(found.rank, found.size, os.environ["MASTER_ADDR"], _store, _end)
    try:
        yield found
        found.wait()
    except TOGETHER:
        peers.leave(together=True)
        dist.destroy_process_group()
        raise
    except BaseException as error:
        peers.leave(together=False)
        if place is not None:  # torch waits, at the end of a process, for what its GPU still has to exchange
            code = error.exit_code if isinstance(error, CnntrainError) else 1
            timer = threading.Timer(GRACE, end_process, ("", code))
            timer.daemon = True
            timer.start()
        raise
    peers.leave(together=True)
    dist.destroy_process_group()
    _store = None


@contextmanager
def _says_that_it_waits(world: World) -> Iterator[None]:
    """Say on stderr what the block waits for, where it takes long; Ctrl-C ends it at once.

    torch waits outside of Python, whose own handler would come to its turn after half an hour.
    """
    is_deaf = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    line = f"cnntrain: process {world.rank} waits for {world.size} processes at {printable(place)}"
    timer = threading.Timer(PATIENCE[world.local_rank > 0], lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    if is_deaf:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_deaf:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        timer.cancel()


def _open_store() -> Any:
    import torch.distributed as dist

    return next(iter(dist.rendezvous("env://", timeout=WAIT)))[0]


def _end() -> None:
    """Leave a run that has lost a process, as the main thread has not done so."""
    error = _LostError("another process of this run has ended; its own message says why")
    end_process(str(error) if tells(error) else "", error.exit_code)


def note_run(folder: Path) -> None:
    """Tell the first process of a later start where the run lies, if torchrun should start all of them again."""
    if _store is not None and RESTARTS in os.environ:
        with _answered():
            _open_store().set(RUN, str(folder.resolve()))


def run_of_last_start() -> Path | None:
    """The run folder that the first process had before torchrun started all of them again, if that is known."""
    if World.here().size == 1 or os.environ.get(RESTARTS, "0") == "0":
        return None
    with _answered():
        store = _open_store()
        return Path(store.get(RUN).decode()) if store.check([RUN]) else None


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # whatever the backend, its faults are of this class
        raise _lost(error) from error


def _lost(error: RuntimeError) -> CnntrainError:
    if "Duplicate GPU" in str(error):
        return ConfigError(
            "trainer.device: several processes were given the same GPU; start as many processes as there are GPUs, or "
            "use trainer.device=cpu"
        )
    reason = re.sub(r"^\[.*?\] *", "", str(error)).strip().partition("\n")[0].partition(". ")[0]  # not where in C++
    return _LostError(
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
    try:
        found = World.here()
    except ConfigError:  # which process this is, is what it cannot know
        return True
    if found.size == 1:
        return True
    if isinstance(error, (*TOGETHER, KeyboardInterrupt)):
        return found.is_first
    if _store is None:  # the command line is the same for all: one process of each machine tells of its faults
        return found.local_rank == 0
    try:
        is_first = bool(_store.add(FAULTS, 1) == 1)
    except RuntimeError:  # the process that kept the store was the first to end, and may have been killed
        is_first = found.rank == 1
    if is_first and isinstance(error, _LostError):
        return not leave_to_launcher(str(error))
    if is_first:
        note_told()
    return is_first
