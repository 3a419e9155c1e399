"""What the loop draws batches from: images in memory, or files decoded on the way."""

from collections.abc import Callable, Generator
from typing import Protocol

import torch
from torch import Tensor

from cnntrain.data.decoder import Decoder
from cnntrain.device import can_pin, generator

ORDER = -1  # part of the seed that keeps the order of an epoch apart from all other draws

Batch = tuple[Tensor, Tensor]


class Loader(Protocol):
    """Micro-batches of one split.

    `labels` holds the classes of all images, int64 (N,), on the host; `images` is how many of them an epoch shows (a
    train loader leaves a remainder of one image out, on which batch norm fails).
    """

    images: int
    batch_size: int
    labels: Tensor
    crops: bool  # random resized crops are cut by the loader already

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason)."""

    def __len__(self) -> int:
        """Micro-batches of an epoch."""

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """Yield uint8 images (N, C, S, S) and int64 labels (N,) on the device, from micro-batch `start` on.

        The order of a train split is a pure function of (seed, epoch), that of the others is the order of the files.
        """

    def pick(self, indices: Tensor) -> Tensor:
        """Some images of the split, by int64 indices in the order of `labels`, uint8 (N, C, S, S) on the device."""


class _Order:
    """The part that both loaders share: how many images, in which order."""

    def __init__(self, labels: Tensor, batch_size: int, device: torch.device, seed: int, train: bool) -> None:
        self.labels, self.batch_size, self.device, self.seed, self.train = labels, batch_size, device, seed, train
        lonely = train and batch_size > 1 and len(labels) % batch_size == 1
        self.images = len(labels) - lonely

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Indices of an epoch, int64 (images,), the same for every device."""
        if not self.train:
            return torch.arange(self.images)
        draw = generator(torch.device("cpu"), self.seed, epoch, ORDER)
        return torch.randperm(len(self.labels), generator=draw)[: self.images]


class MemoryLoader(_Order):
    """Decoded images in one tensor: a batch is one gather.

    Args:
        images: uint8 (N, C, S, S), or a function that makes them at first use.
        labels: int64 (N,).
        resident: the images lie on the device; else in host memory, and each batch is transferred.
    """

    crops = False

    def __init__(
        self,
        images: Tensor | Callable[[], Tensor],
        labels: Tensor,
        *,
        batch_size: int,
        device: torch.device,
        seed: int,
        train: bool,
        resident: bool = True,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__(labels, batch_size, device, seed, train)
        self._source = images
        self._store: Batch | None = None
        self._home = device if resident else torch.device("cpu")
        self._decoder = decoder

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason)."""
        return self._decoder.skipped if self._decoder else []

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """See Loader."""
        images, labels = self._load()
        order = self.order(epoch).to(self._home) if self.train else None
        for first in range(start * self.batch_size, self.images, self.batch_size):
            last = min(first + self.batch_size, self.images)
            if order is None:
                yield self._send(images[first:last]), self._send(labels[first:last])
            else:
                yield self._gather(images, order[first:last]), self._gather(labels, order[first:last])

    def pick(self, indices: Tensor) -> Tensor:
        """See Loader."""
        return self._gather(self._load()[0], indices.to(self._home))

    def _load(self) -> Batch:
        """Images and labels at home, decoded at first use."""
        if self._store is None:
            images = self._source if isinstance(self._source, Tensor) else self._source()
            self._store = images.to(self._home), self.labels.to(self._home)
            self._source = self._store[0]
        return self._store

    def _gather(self, source: Tensor, index: Tensor) -> Tensor:
        if self._home == self.device or not can_pin(self.device):
            return self._send(source.index_select(0, index))
        staged = torch.empty((len(index), *source.shape[1:]), dtype=source.dtype, pin_memory=True)
        return self._send(torch.index_select(source, 0, index, out=staged))

    def _send(self, part: Tensor) -> Tensor:
        return part.to(self.device, non_blocking=True)


class StreamLoader(_Order):
    """Files decoded by threads, a few batches ahead.

    Args:
        decoder: of the images of this split and of no others: one that replaces a bad image must not leak.
        workers: decode threads; 0 decodes in the calling thread.
        crops: the decoder cuts random resized crops.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        batch_size: int,
        device: torch.device,
        seed: int,
        train: bool,
        workers: int,
        crops: bool,
    ) -> None:
        super().__init__(decoder.labels, batch_size, device, seed, train)
        self.decoder, self.workers, self.crops = decoder, workers, crops

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason)."""
        return self.decoder.skipped

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """See Loader. Closing the iterator ends the threads."""
        order = self.order(epoch)
        groups = list(order.split(self.batch_size))[start:]
        labels = self.labels[order].to(self.device)
        decoded = self.decoder.batches(groups, epoch, self.workers, can_pin(self.device))
        try:
            for number, images in enumerate(decoded, start):
                chosen = labels[number * self.batch_size : (number + 1) * self.batch_size]
                yield images.to(self.device, non_blocking=True), chosen
        finally:
            decoded.close()

    def pick(self, indices: Tensor) -> Tensor:
        """See Loader."""
        (images,) = self.decoder.batches([indices.cpu()], 0, self.workers, can_pin(self.device))
        return images.to(self.device)
