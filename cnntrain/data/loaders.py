"""What the loop draws batches from: images in memory, or files decoded on the way."""

import copy
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from cnntrain.data.decoder import Decoder
from cnntrain.data.order import balanced, shuffled
from cnntrain.data.view import RandomView
from cnntrain.device import can_pin, generator
from cnntrain.plan import images_in_epoch
from cnntrain.settings.data import Sampling

ORDER = -1  # part of the seed that keeps the order of an epoch apart from all other draws

Batch = tuple[Tensor, Tensor]


class Loader(Protocol):
    """Micro-batches of one split; `labels` holds the classes of all its images, int64 (N,), on the host."""

    labels: Tensor
    batch_size: int
    crops: bool  # random resized crops are cut by the loader already

    @property
    def images(self) -> int:
        """How many images an epoch shows: a train loader leaves out a remainder of one, on which batch norm fails."""

    @property
    def decoder(self) -> Decoder | None:
        """Of the images, where they come from files."""

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason)."""

    def __len__(self) -> int:
        """Micro-batches of an epoch."""

    def at(self, batch_size: int, image_size: int) -> "Loader":
        """The same images in the same order and storage, cut into micro-batches of another size.

        Files are decoded to `image_size`, from the same random boxes; what lies in memory keeps the size it has there.
        """

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Which images a micro-batch of an epoch holds, int64 (N,) on the host, in the order of `labels`."""

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """Yield uint8 images (N, C, S, S), channels_last, and int64 labels (N,) on the device, from `start` on.

        The order of a train split is a pure function of (seed, epoch), that of the others is the order of the files.
        """

    def pick(self, indices: Tensor) -> Tensor:
        """Some images of the split, by int64 indices in the order of `labels`, uint8 (N, C, S, S) on the device."""


class _Order:
    """The part that both loaders share: how many images, in which order."""

    def __init__(
        self,
        labels: Tensor,
        *,
        batch_size: int,
        device: torch.device,
        seed: int,
        train: bool,
        sampling: Sampling = Sampling.natural,
    ) -> None:
        self.labels, self.batch_size, self.device, self.seed = labels, batch_size, device, seed
        self.train, self.sampling = train, sampling
        self._drawn: tuple[int, Tensor] | None = None  # an epoch and its order: drawn once, not for every batch

    @property
    def images(self) -> int:
        """See Loader."""
        return images_in_epoch(len(self.labels), self.batch_size) if self.train else len(self.labels)

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Indices of an epoch, int64 (images,), the same for every device."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._draw(epoch)
        return self._drawn[1][: self.images]

    def _draw(self, epoch: int) -> Tensor:
        if not self.train:
            return torch.arange(len(self.labels))
        draw = generator(torch.device("cpu"), self.seed, epoch, ORDER)
        return (balanced if self.sampling is Sampling.balanced else shuffled)(self.labels, draw)

    def indices(self, epoch: int, batch: int) -> Tensor:
        """See Loader."""
        return self.order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]


class _Store:
    """Images and labels at home, made at first use, for all loaders that show them."""

    def __init__(self, images: Tensor | Callable[[], Tensor], labels: Tensor, home: torch.device) -> None:
        self._source: Tensor | Callable[[], Tensor] | None = images
        self._labels, self.home = labels, home
        self._content: Batch | None = None

    def content(self) -> Batch:
        """uint8 (N, S, S, C), as decoded files come too and as crops and normalisation are fastest, and int64 (N,)."""
        if self._content is None:
            assert self._source is not None
            images = self._source if isinstance(self._source, Tensor) else self._source()
            self._content = images.permute(0, 2, 3, 1).contiguous().to(self.home), self._labels.to(self.home)
            self._source = None  # a copy elsewhere is free to go
        return self._content


class MemoryLoader(_Order):
    """Decoded images in one tensor: a batch is one gather.

    Args:
        images: uint8 (N, C, S, S), or a function that makes them at first use.
        labels: int64 (N,).
        resident: the images lie on the device; else in host memory, and each batch is transferred.
        decoder: of the images, where they come from files.
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
        sampling: Sampling = Sampling.natural,
        resident: bool = True,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__(labels, batch_size=batch_size, device=device, seed=seed, train=train, sampling=sampling)
        self._store = _Store(images, labels, device if resident else torch.device("cpu"))
        self._rows: Tensor | None = None  # where the images of a part lie in the store, at home; None: all, in order
        self.decoder = decoder

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason)."""
        return self.decoder.skipped if self.decoder else []

    def at(self, batch_size: int, image_size: int) -> "MemoryLoader":
        """See Loader."""
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def part(self, indices: Tensor) -> "MemoryLoader":
        """Some of the images, int64 (n,), as an evaluation split in the same storage, in this order."""
        other = copy.copy(self)
        other.labels, other._rows = self.labels[indices], self._places(indices)
        other.train, other._drawn = False, None
        return other

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """See Loader."""
        images, labels = self._store.content()
        places = self._places(self.order(epoch)) if self.train else self._rows
        for first in range(start * self.batch_size, self.images, self.batch_size):
            last = min(first + self.batch_size, self.images)
            if places is None:
                pixels, classes = self._send(images[first:last]), self._send(labels[first:last])
            else:
                pixels, classes = self._gather(images, places[first:last]), self._gather(labels, places[first:last])
            yield pixels.permute(0, 3, 1, 2), classes

    def pick(self, indices: Tensor) -> Tensor:
        """See Loader."""
        return self._gather(self._store.content()[0], self._places(indices)).permute(0, 3, 1, 2)

    def _places(self, indices: Tensor) -> Tensor:
        """Where images of the split lie in the store, int64 (n,) at home."""
        indices = indices.to(self._store.home)
        return indices if self._rows is None else self._rows[indices]

    def _gather(self, source: Tensor, index: Tensor) -> Tensor:
        if self._store.home == self.device or not can_pin(self.device):
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
        rows: int64 (n,) on the host, a part of the decoder's images; None: all.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        batch_size: int,
        device: torch.device,
        seed: int,
        train: bool,
        sampling: Sampling = Sampling.natural,
        workers: int,
        rows: Tensor | None = None,
    ) -> None:
        labels = decoder.labels if rows is None else decoder.labels[rows]
        super().__init__(labels, batch_size=batch_size, device=device, seed=seed, train=train, sampling=sampling)
        self.decoder, self.workers, self._rows = decoder, workers, rows
        self.crops = isinstance(decoder.view, RandomView)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason)."""
        return self.decoder.skipped

    def at(self, batch_size: int, image_size: int) -> "StreamLoader":
        """See Loader."""
        other = copy.copy(self)
        other.batch_size, other.decoder = batch_size, self.decoder.through(replace(self.decoder.view, size=image_size))
        return other

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """See Loader. Closing the iterator ends the threads."""
        order = self.order(epoch)
        groups = list(self._files(order).split(self.batch_size))[start:]
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
        groups = [self._files(indices.cpu())]
        (images,) = self.decoder.batches(groups, 0, self.workers, can_pin(self.device))
        return images.to(self.device)

    def _files(self, indices: Tensor) -> Tensor:
        """Which of the decoder's images these are."""
        return indices if self._rows is None else self._rows[indices]
