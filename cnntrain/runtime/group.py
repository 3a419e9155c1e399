"""The processes of a run meet and part, and one of them tells of a fault. torchrun or srun starts one per device.

Nothing here imports torch before `joined`.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.errors import ConfigError, Interrupted, NonFiniteError
from cnntrain.runtime.faults import exit_code_of
from cnntrain.runtime.launcher_link import leave_to_launcher, note_told, watch_launcher, way_on
from cnntrain.runtime.lost_process import LostError, answered
from cnntrain.runtime.peers import GRACE, Peers, end_process
from cnntrain.runtime.world import World, variables
from cnntrain.text import printable

if TYPE_CHECKING:
    from torch import device

TOGETHER = (Interrupted, NonFiniteError)  # errors that all processes meet at the same step
RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # how often torchrun has started all processes again
# In the store: how many processes have met one; trainer.device and trainer.deterministic of the first process.
FAULTS, TRAINER = "faults", "trainer"
RUN = "cnntrain/run"  # in the launcher's store, which outlives a restart: the run folder
WAIT = timedelta(minutes=30)  # for an answer; a process that has ended is found sooner
# Until a process says that it waits for the others to start: the first one of a machine, and the rest of them.
PATIENCE = (10.0, 60.0)

_store: Any = None  # of key-value pairs that all processes share, while they are joined


@contextmanager
def joined(
    device_name: str, deterministic: bool, bind: Callable[[str, bool, World], tuple[str, "device | None"]]
) -> Iterator[World]:
    """The processes of the run, able to exchange inside the `with` block, which all of them leave together.

    Where one of them leaves it with an error, the others meet a ResourceError at their next exchange; one that waits
    for its GPU meanwhile is ended.

    Args:
        device_name: trainer.device; that of the first process counts.
        deterministic: trainer.deterministic; likewise.
        bind: chooses the device of this process by these, and answers what carries the tensors of each kind of device,
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
    said = variables()
    if said is not os.environ:
        os.environ.update(said)
    with _says_that_it_waits(found), answered():
        # Prefixed: torchrun keeps the store over its restarts, and what processes wrote that are gone.
        _store = dist.PrefixStore(f"cnntrain/{os.environ.get(RESTARTS, 0)}", _open_store())
        if found.is_first:
            _store.set(TRAINER, json.dumps((device_name, deterministic)))
        device_name, deterministic = json.loads(_store.get(TRAINER))
    backend, place = bind(device_name, deterministic, found)
    with _says_that_it_waits(found), answered():
        dist.init_process_group(
            backend, store=_store, rank=found.rank, world_size=found.size, timeout=WAIT, device_id=place
        )
        peers = Peers(found.rank, found.size, os.environ["MASTER_ADDR"], _store, _end)
    try:
        yield replace(found, store=_store)
        found.wait()
    except TOGETHER:
        peers.leave(together=True)
        dist.destroy_process_group()
        raise
    except BaseException as error:
        peers.leave(together=False)
        if place is not None:  # torch waits, at the end of a process, for what its GPU still has to exchange
            timer = threading.Timer(GRACE, end_process, ("", exit_code_of(error)))
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
    error = LostError(f"another process of this run has ended; its own message says why{way_on()}")
    end_process(str(error) if tells(error) else "", error.exit_code)


def note_run(folder: Path) -> None:
    """Tell the first process of a later start where the run lies, if torchrun should start all of them again."""
    if _store is not None and RESTARTS in os.environ:
        with answered():
            _open_store().set(RUN, str(folder.resolve()))


def run_of_last_start() -> Path | None:
    """The run folder that the first process had before torchrun started all of them again, if that is known."""
    if World.here().size == 1 or os.environ.get(RESTARTS, "0") == "0":
        return None
    with answered():
        store = _open_store()
        return Path(store.get(RUN).decode()) if store.check([RUN]) else None


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
    if is_first and isinstance(error, LostError):
        return not leave_to_launcher(str(error))
    if is_first:
        note_told()
    return is_first
