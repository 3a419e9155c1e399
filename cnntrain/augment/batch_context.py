"""When a micro-batch is augmented: all that its random numbers may depend on."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.runtime.device import send
from cnntrain.runtime.seeds import generator, mix_seed

ALIGNED = 16  # bytes to which the parts of a transfer are rounded up
HOST = -6  # part of the seed that keeps the draws of the host apart from those of the device


class BatchContext:
    """Random numbers of one micro-batch, from (seed, epoch, batch) and nothing else but the process's rank.

    What decides how many images an operation touches is drawn on the host, so that no operation waits for the device;
    what is drawn for every pixel is drawn on the device.

    Args:
        device: of the images.
        seed: of the run.
        epoch, batch: counted from 0; the micro-batch within the epoch.
        image_size: pixels a side that the images are to have in this epoch.
        indices: int64 (N,) on the host, which images of the split these are.
        rank: of this process among those that share the micro-batch: each part draws numbers of its own.
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        epoch: int,
        batch: int,
        *,
        image_size: int,
        indices: Tensor,
        rank: int = 0,
    ) -> None:
        self.device, self.seed, self.epoch, self.batch = device, seed, epoch, batch
        self.image_size, self.indices = image_size, indices
        self._parts = (seed, epoch, batch, rank) if rank else (seed, epoch, batch)

    @cached_property
    def generator(self) -> torch.Generator:
        """On the device."""
        return generator(self.device, *self._parts)

    @cached_property
    def host_draws(self) -> torch.Generator:
        """On the host, for what torch draws there; on a CPU the same as `generator`."""
        return self.generator if self.device.type == "cpu" else generator(torch.device("cpu"), *self._parts)

    @cached_property
    def host(self) -> np.random.Generator:
        """On the host: the same numbers whatever the device."""
        return np.random.default_rng(mix_seed(*self._parts, HOST))

    def chosen(self, count: int, p: float) -> NDArray[np.int64]:
        """Which of `count` images an operation of probability `p` touches, in rising order."""
        return np.flatnonzero(self.host.random(count) < p)

    def send(self, values: NDArray[np.generic]) -> Tensor:
        """A tensor on the device, of the same shape and dtype, float64 as float32, without waiting for the device."""
        return send(torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values), self.device)

    def send_all(self, arrays: Sequence[NDArray[np.generic]]) -> list[Tensor]:
        """As `send`, but all of them in one transfer, and float64 as it is."""
        ends = np.cumsum([-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays])
        buffer = np.empty(ends[-1], dtype=np.uint8)
        starts = [0, *ends[:-1].tolist()]
        for array, start in zip(arrays, starts, strict=True):
            buffer[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        sent = send(torch.from_numpy(buffer), self.device)
        return [
            sent[start : start + array.nbytes].view(torch.from_numpy(array[:0].reshape(-1)).dtype).view(array.shape)
            for array, start in zip(arrays, starts, strict=True)
        ]


# uint8 (N, C, H, W) to the same, on any device, the input left untouched.
Operation = Callable[[Tensor, BatchContext], Tensor]
