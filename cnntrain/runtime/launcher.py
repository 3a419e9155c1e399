"""One training by several processes of this machine, started by torch's own launcher (torch.distributed.elastic)."""

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.config.schema.limits import AUTO
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.errors import ConfigError, ResourceError
from cnntrain.runtime.child import OF_SIGNAL, cnntrain_command
from cnntrain.runtime.launcher_link import introduced, left_line, way_on
from cnntrain.runtime.world import World

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

KEY = "trainer.devices"
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGUSR1"  # passed on to the processes, which save
ENDED = (-signal.SIGTERM, OF_SIGNAL + signal.SIGTERM)  # exit codes of processes that it has ended
SHUTDOWN_SECONDS = 120  # for them to save


def processes_to_start(trainer: TrainerSettings, words: Sequence[str]) -> int:
    """How many processes the settings want this one to start; 0: it is to train by itself.

    Args:
        words: of the command line.

    Raises:
        ConfigError: they were started already, and the line wants another number of them.
    """
    size, typed = World.here().size, any(word.lstrip("+").startswith(f"{KEY}=") for word in words)
    if size > 1:
        if typed and trainer.devices not in (size, AUTO):
            raise ConfigError(f"{KEY}: {size} processes were started already (given {trainer.devices}); leave it out")
        return 0
    count = _visible(trainer.device) if trainer.devices == AUTO else int(trainer.devices)
    return count if count > 1 else 0


def _visible(device: str) -> int:
    """How many GPUs a run can have; 1 where it has none, as one process uses all cores."""
    if device == "cpu":
        return 1
    from cnntrain.runtime import device as machine

    return machine.gpus()


def launch(count: int, line: Sequence[str]) -> int:
    """Run a command line of ours in so many processes; answers the exit code of the one that failed first, or 0.

    Only the first one prints to the standard output; a fault is told by whichever has met it. A signal is passed on.

    Raises:
        ResourceError: one was killed.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is loaded, see group.silence_torch
    sys.stderr.write("")  # a word that waits there goes
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    known = {item.name for item in fields(LaunchConfig)}
    wishes: dict[str, Any] = {"signals_to_handle": SIGNALS, "shutdown_timeout": SHUTDOWN_SECONDS}
    program, *words = cnntrain_command(*line)
    logging.disable(logging.CRITICAL)  # the launcher tells of each fault in forty lines
    try:
        with tempfile.TemporaryDirectory(prefix="cnntrain-", ignore_cleanup_errors=True) as folder:
            quiet = DefaultLogsSpecs(folder, redirects=dict.fromkeys(range(1, count), Std.OUT))
            places = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": uuid.uuid4().hex}
            sizes = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": count, "max_restarts": 0}
            kept = {name: value for name, value in wishes.items() if name in known}  # of newer releases of torch
            try:
                with introduced(Path(folder)):
                    elastic_launch(LaunchConfig(**sizes, **places, **kept, logs_specs=quiet), program)(*words)
            except ChildFailedError as error:
                return _code(error, Path(folder))
    except SignalException as error:
        return OF_SIGNAL + (signal.SIGINT if error.sigval == signal.SIGINT else signal.SIGTERM)
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _code(error: "ChildFailedError", folder: Path) -> int:
    """The exit code of the process that failed first.

    Raises:
        ResourceError: one was killed, or the others have missed one that ended without a word.
    """
    # Once one has failed the launcher ends the rest by SIGTERM: some save, others are not so far yet.
    failures = {rank: one for rank, one in error.failures.items() if one.exitcode not in ENDED}
    failures = failures or dict(error.failures)
    for rank, failure in failures.items():
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise ResourceError(
                f"{KEY}: process {rank} was ended by {name}; where memory is short, use fewer{way_on(folder)}"
            ) from None
    if line := left_line(folder):
        raise ResourceError(line) from None
    return min(failures.values(), key=lambda failure: failure.timestamp).exitcode
