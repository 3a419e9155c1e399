"""What the loop draws batches from: images in memory, or files decoded on the way."""

import copy
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from cnntrain.config.schema.data import Sampling
from cnntrain.data.decoder import Decoder
from cnntrain.data.epoch_plan import images_in_epoch
from cnntrain.data.order import balanced, shuffled
from cnntrain.data.view import RandomView
from cnntrain.runtime.device import can_pin, generator
from cnntrain.runtime.distributed import ALONE, World

ORDER = -1  # part of the seed that keeps the order of an epoch apart from all other draws

Batch = tuple[Tensor, Tensor]
Ordered = TypeVar("Ordered", bound="_Order")


class Loader(Protocol):
    """Micro-batches of one split; `labels` holds the classes of all its images, int64 (N,), on the host.

    Of several processes, each is given its part of every micro-batch. All numbers here count the images of all parts.
    """

    labels: Tensor
    batch_size: int
    crops: bool  # random resized crops are cut by the loader already

    @property
    def images(self) -> int:
        """How many images an epoch shows: a train loader leaves out a remainder that is too small for a micro-batch."""

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

    def in_order(self, batch_size: int | None = None) -> "Loader":
        """All images in the order of `labels`, each once, as an evaluation split in the same storage.

        What augments them while they are decoded (`crops`) does so still. Several processes are given all of them each.
        """

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Which images this process's part of a micro-batch holds, int64 (N,) on the host, in the order of `labels`."""

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """Yield uint8 images (N, C, S, S), channels_last, and int64 labels (N,) on the device, from `start` on.

        In evaluation a process may get no images of the last micro-batch: N is then 0. The order of a train split is a
        pure function of (seed, epoch), that of the others is the order of the files.
        """

    def pick(self, indices: Tensor) -> Tensor:
        """Some images of the split, by int64 indices in the order of `labels`, uint8 (N, C, S, S) on the device.

        Of random crops (`crops`) those of epoch 0.
        """


class _Order:
    """The part that both loaders share: how many images, in which order, and which of them are this process's.

    Args:
        batch_size: images of a micro-batch in each process.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        batch_size: int,
        device: torch.device,
        seed: int,
        train: bool,
        sampling: Sampling = Sampling.natural,
        world: World = ALONE,
    ) -> None:
        self.labels, self.batch_size, self.device, self.seed = labels, batch_size * world.size, device, seed
        self.train, self.sampling, self.world = train, sampling, world
        self._drawn: tuple[int, Tensor] | None = None  # an epoch and its order: drawn once, not for every batch

    @property
    def images(self) -> int:
        """See Loader."""
        return images_in_epoch(len(self.labels), self.batch_size, self.world.size) if self.train else len(self.labels)

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

    def in_order(self: Ordered, batch_size: int | None = None) -> Ordered:
        """See Loader."""
        other = copy.copy(self)
        other.batch_size, other.world = batch_size or self.batch_size // self.world.size, ALONE
        other.train, other.sampling, other._drawn = False, Sampling.natural, None
        return other

    def indices(self, epoch: int, batch: int) -> Tensor:
        """See Loader."""
        return self.order(epoch)[slice(*self.bounds(batch))]

    def bounds(self, batch: int) -> tuple[int, int]:
        """Where this process's part of a micro-batch begins and ends in the order of an epoch."""
        before = batch * self.batch_size
        first, last = self.world.part(min(self.batch_size, self.images - before))
        return before + first, before + last


def gather(source: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Rows of a tensor that lies on the device or on the host, by int64 (n,) beside it; on the device."""
    if not (source.is_cpu and can_pin(device)):
        return source.index_select(0, index).to(device, non_blocking=True)
    staged = torch.empty((len(index), *source.shape[1:]), dtype=source.dtype, pin_memory=True)
    return torch.index_select(source, 0, index, out=staged).to(device, non_blocking=True)


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
        world: World = ALONE,
        resident: bool,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__(
            labels, batch_size=batch_size, device=device, seed=seed, train=train, sampling=sampling, world=world
        )
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
        other = self.in_order(self.batch_size)
        other.world = self.world
        other.labels, other._rows = self.labels[indices], self._places(indices)
        return other

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """See Loader."""
        images, labels = self._store.content()
        places = self._places(self.order(epoch)) if self.train else self._rows
        for first, last in map(self.bounds, range(start, len(self))):
            if places is None:
                pixels, classes = self._send(images[first:last]), self._send(labels[first:last])
            else:
                chosen = places[first:last]
                pixels, classes = gather(images, chosen, self.device), gather(labels, chosen, self.device)
            yield pixels.permute(0, 3, 1, 2), classes

    def pick(self, indices: Tensor) -> Tensor:
        """See Loader."""
        return gather(self._store.content()[0], self._places(indices), self.device).permute(0, 3, 1, 2)

    def _places(self, indices: Tensor) -> Tensor:
        """Where images of the split lie in the store, int64 (n,) at home."""
        indices = indices.to(self._store.home)
        return indices if self._rows is None else self._rows[indices]

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
        world: World = ALONE,
        workers: int,
        rows: Tensor | None = None,
    ) -> None:
        super().__init__(
            decoder.labels if rows is None else decoder.labels[rows],
            batch_size=batch_size,
            device=device,
            seed=seed,
            train=train,
            sampling=sampling,
            world=world,
        )
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
        parts = [slice(*self.bounds(batch)) for batch in range(start, len(self))]
        labels = self.labels[order].to(self.device)
        files = self._files(order)
        decoded = self.decoder.batches([files[part] for part in parts], epoch, self.workers, can_pin(self.device))
        try:
            for part, images in zip(parts, decoded, strict=True):
                yield images.to(self.device, non_blocking=True), labels[part]
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
