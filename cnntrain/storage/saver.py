"""Saves beside the training: it waits for a copy of the state in memory, one thread does all the rest."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnntrain.errors import CnntrainError, Interrupted
from cnntrain.runtime import device as machine
from cnntrain.storage import checkpoint
from cnntrain.storage.plain import plain


class Saver:
    """Writes the checkpoints of a run, one at a time: hashed, written, synced and renamed in a thread of its own.

    A save that fails is told by the next call, and by all that follow: it may have been that of the best epoch, in
    which every later state believes. As a context it is left when nothing is under way any more; of a failed save and
    another error in flight, the other one is told.

    Args:
        run: the run folder.
        device: of the tensors to save.
    """

    def __init__(self, run: Path, device: torch.device) -> None:
        self._run, self._device = run, device
        self._copies: dict[str, Tensor] = {}  # on the host, by place: memory is touched and page-locked once
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._under_way: Future[None] | None = None

    def save(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Copy a state, and have it saved as `checkpoint.save` does; waits for the save before.

        Raises:
            FileSystemError: the save before could not be written; what was saved before that one is intact.
            TypeError: the state holds what a checkpoint cannot (our mistake), named by its place.
        """
        self.join()
        copy = plain(state, "state", self._copied)
        self._under_way = self._threads.submit(self._write, copy, machine.mark(self._device), best)

    def join(self) -> None:
        """Wait until what was given to `save` is on disk; FileSystemError where it could not be written."""
        if self._under_way:
            self._under_way.result()
            self._under_way = None  # not after a failure

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.join()
        except CnntrainError:
            if kind is None or issubclass(kind, Interrupted):  # which says that the run is saved
                raise
        finally:
            self._threads.shutdown()

    def _copied(self, tensor: Tensor, place: str) -> Tensor:
        copy = self._copies.get(place)
        if copy is None or (copy.shape, copy.dtype, copy.stride()) != (tensor.shape, tensor.dtype, tensor.stride()):
            pins = machine.can_pin(tensor.device)
            copy = self._copies[place] = torch.empty_like(tensor, device="cpu", pin_memory=pins)
        return copy.copy_(tensor.detach(), non_blocking=True)

    def _write(self, state: dict[str, Any], wait: Callable[[], None], best: bool) -> None:
        wait()
        checkpoint.save(self._run, state, best=best)
