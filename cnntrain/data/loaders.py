"""What the loop draws batches from: images in memory, or files decoded on the way."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from cnntrain.config.schema.data import Sampling
from cnntrain.data.decoder import Decoder
from cnntrain.data.sampler import BatchSampler
from cnntrain.data.view import RandomView
from cnntrain.runtime.device import can_pin
from cnntrain.runtime.world import ALONE, World

AnyLoader = TypeVar("AnyLoader", bound="Loader")
T = TypeVar("T")


class Batch(NamedTuple):
    """A micro-batch, or this process's part of one.

    In evaluation a process may get no images of the last micro-batch: N is then 0.
    """

    images: Tensor  # uint8 (N, C, S, S), channels_last, on the device; of cached features, these: (N, ...)
    labels: Tensor  # int64 (N,), on the device
    indices: Tensor  # int64 (N,), on the host: which images of the split these are, in the order of its labels
    total: int  # images of the micro-batch, over all processes


class Loader(ABC):
    """Micro-batches of one split.

    Of several processes, each is given its part of every micro-batch. All numbers here count the images of all parts.

    Attributes:
        sampler: which images make a micro-batch.
        device: where the batches go.
        decoder: of the images, where they come from files.
        name: the name of an image by its place in `labels`: its file, or `test/17` where it comes from none.
        crops: random resized crops are cut by the loader already.
    """

    crops = False

    def __init__(
        self,
        sampler: BatchSampler,
        device: torch.device,
        decoder: Decoder | None = None,
        name: Callable[[int], str] = str,
    ) -> None:
        self.sampler, self.device, self.decoder, self.name = sampler, device, decoder, name

    @property
    def labels(self) -> Tensor:
        """Classes of all images, int64 (N,), on the host."""
        return self.sampler.labels

    @property
    def batch_size(self) -> int:
        """Images of a micro-batch."""
        return self.sampler.batch_size

    @property
    def images(self) -> int:
        """How many images an epoch shows: a train loader leaves out a remainder that is too small for a micro-batch."""
        return self.sampler.images

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return len(self.sampler)

    @property
    def bad_files(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason)."""
        return self.decoder.bad_files if self.decoder else []

    def at(self: AnyLoader, batch_size: int, image_size: int) -> AnyLoader:
        """The same images in the same order and storage, cut into micro-batches of another size.

        Files are decoded to `image_size`, from the same random boxes; what lies in memory keeps the size it has there.
        """
        return self.cut(batch_size)

    def cut(self: AnyLoader, batch_size: int) -> AnyLoader:
        """The same images in the same order, storage and size, in micro-batches of another size."""
        return self._with(self.sampler.cut(batch_size))

    def weigh(self: AnyLoader, weights: Tensor) -> AnyLoader:
        """The same training images, drawn by weight, float64 (N,): see BatchSampler."""
        return self._with(self.sampler.weigh(weights))

    def within(self: AnyLoader, shards: Tensor, places: Tensor, buffer: int) -> AnyLoader:
        """The same training images, shuffled in a buffer; shards and places, int64 (N,): see BatchSampler."""
        return self._with(self.sampler.within(shards, places, buffer))

    def in_order(self: AnyLoader, batch_size: int | None = None) -> AnyLoader:
        """All images in the order of `labels`, each once, as an evaluation split in the same storage.

        What augments them while they are decoded (`crops`) does so still. Several processes are given all of them each.
        """
        return self._with(self.sampler.in_order(batch_size))

    @abstractmethod
    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """Yield the micro-batches of an epoch from `start` on, both counted from 0."""

    @abstractmethod
    def pick(self, indices: Tensor) -> Tensor:
        """Some images of the split, by int64 indices in the order of `labels`, uint8 (N, C, S, S) on the device.

        Of random crops (`crops`) those of epoch 0.
        """

    def _with(self: AnyLoader, sampler: BatchSampler) -> AnyLoader:
        """This loader with other micro-batches."""
        loader = copy.copy(self)
        loader.sampler = sampler
        return loader


def gather(source: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Rows of a tensor that lies on the device or on the host, by int64 (n,) beside it; on the device."""
    if not (source.is_cpu and can_pin(device)):
        return source.index_select(0, index).to(device, non_blocking=True)
    return _fill([(source, new_buffer(source, index))], index)[0].to(device, non_blocking=True)


def new_buffer(source: Tensor, rows: Tensor | slice) -> Tensor:
    """Page-locked host memory for some rows of a tensor, int64 (n,) or a slice."""
    count = len(rows) if isinstance(rows, Tensor) else len(source[rows])
    return torch.empty((count, *source.shape[1:]), dtype=source.dtype, pin_memory=True)


def _take(source: Tensor, rows: Tensor | slice) -> Tensor:
    return source[rows] if isinstance(rows, slice) else source.index_select(0, rows)


def _fill(pairs: list[tuple[Tensor, Tensor]], rows: Tensor | slice) -> list[Tensor]:
    """Copy the rows of each source into the buffer beside it; the buffers."""
    for source, buffer in pairs:
        if isinstance(rows, slice):
            buffer.copy_(source[rows])
        else:
            torch.index_select(source, 0, rows, out=buffer)
    return [buffer for _, buffer in pairs]


def ahead(jobs: Iterable[Callable[[], T]]) -> Generator[T, None, None]:
    """What the jobs answer, in their order; one thread works on the next while the caller uses this one."""
    pool = ThreadPoolExecutor(1, "ahead", initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))
    try:
        waiting: Future[T] | None = None
        for job in jobs:
            current, waiting = waiting, pool.submit(job)
            if current:
                yield current.result()
        if waiting:
            yield waiting.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def name_of_row(name: Callable[[int], str], rows: Tensor | None) -> Callable[[int], str]:
    """The name of each of the images at `rows`, int64 (n,); None: of all."""
    return name if rows is None else lambda index: name(int(rows[index]))


class _Store:
    """Images and labels at home, made at first use, for all loaders that show them."""

    def __init__(self, images: Tensor | Callable[[], Tensor], labels: Tensor, home: torch.device) -> None:
        self._source: Tensor | Callable[[], Tensor] = images
        self._labels, self.home = labels, home
        self._content: tuple[Tensor, Tensor] | None = None

    def content(self) -> tuple[Tensor, Tensor]:
        """uint8 (N, S, S, C), as decoded files come too and as crops and normalisation are fastest, and int64 (N,)."""
        if self._content is None:
            images = self._source if isinstance(self._source, Tensor) else self._source()
            self._content = images.permute(0, 2, 3, 1).contiguous().to(self.home), self._labels.to(self.home)
            self._source = images[:0]  # a copy elsewhere is free to go
        return self._content


class MemoryLoader(Loader):
    """Decoded images in one tensor: a batch is one gather.

    Args:
        images: uint8 (N, C, S, S), or a function that makes them at first use.
        labels: int64 (N,).
        resident: the images lie on the device; else in host memory, and each batch is transferred.
        decoder: of the images, where they come from files.
        name: see Loader.
    """

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
        name: Callable[[int], str] = str,
    ) -> None:
        sampler = BatchSampler(labels, batch_size=batch_size, seed=seed, train=train, sampling=sampling, world=world)
        super().__init__(sampler, device, decoder, name)
        self._store = _Store(images, labels, device if resident else torch.device("cpu"))
        self._rows: Tensor | None = None  # where the images of a part lie in the store, at home; None: all, in order

    def subset(self, indices: Tensor) -> "MemoryLoader":
        """Some of the images, int64 (n,), as an evaluation split in the same storage, in this order."""
        loader = self._with(self.sampler.subset(indices))
        loader._rows = self._places(indices)
        loader.name = name_of_row(self.name, indices.cpu())
        return loader

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """See Loader."""
        images, labels = self._store.content()
        order = self.sampler.order(epoch)
        places = self._places(order) if self.sampler.train else self._rows
        parts = list(self.sampler.parts(start))
        choices = (part if places is None else places[part] for part, _ in parts)
        with closing(self._drawn(images, labels, choices)) as drawn:
            for (part, total), (pixels, classes) in zip(parts, drawn, strict=True):
                yield Batch(pixels.permute(0, 3, 1, 2), classes, order[part], total)

    def _drawn(
        self, images: Tensor, labels: Tensor, choices: Iterable[Tensor | slice]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Images and labels of each micro-batch on the device; from the host, each is gathered while another is used.

        Args:
            choices: of each its rows in the store, int64 (n,) or a slice.
        """
        if not (images.is_cpu and can_pin(self.device)):
            for rows in choices:
                yield _take(images, rows).to(self.device), _take(labels, rows).to(self.device)
            return
        # The buffers are made here: in another thread they would belong to another device.
        jobs = (
            partial(_fill, [(source, new_buffer(source, rows)) for source in (images, labels)], rows)
            for rows in choices
        )
        with closing(ahead(jobs)) as buffers:
            for pixels, classes in buffers:
                # torch gives a buffer to nobody else before the device has read it.
                yield pixels.to(self.device, non_blocking=True), classes.to(self.device, non_blocking=True)

    def pick(self, indices: Tensor) -> Tensor:
        """See Loader."""
        return gather(self._store.content()[0], self._places(indices), self.device).permute(0, 3, 1, 2)

    def _places(self, indices: Tensor) -> Tensor:
        """Where images of the split lie in the store, int64 (n,) at home."""
        indices = indices.to(self._store.home)
        return indices if self._rows is None else self._rows[indices]


class StreamLoader(Loader):
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
        labels = decoder.labels if rows is None else decoder.labels[rows]
        sampler = BatchSampler(labels, batch_size=batch_size, seed=seed, train=train, sampling=sampling, world=world)
        super().__init__(sampler, device, name=name_of_row(decoder.name, rows))
        self.decoder: Decoder = decoder
        self.workers, self._rows = workers, rows
        self.crops = isinstance(decoder.view, RandomView)

    def at(self, batch_size: int, image_size: int) -> "StreamLoader":
        """See Loader."""
        loader = super().at(batch_size, image_size)
        loader.decoder = self.decoder.through(replace(self.decoder.view, size=image_size))
        return loader

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """See Loader. Closing the iterator ends the threads."""
        order, parts = self.sampler.order(epoch), list(self.sampler.parts(start))
        labels, files = self.labels[order].to(self.device), self._files(order)
        groups = [files[part] for part, _ in parts]
        image_batches = self.decoder.batches(groups, epoch, self.workers, can_pin(self.device))
        try:
            for (part, total), images in zip(parts, image_batches, strict=True):
                yield Batch(images.to(self.device, non_blocking=True), labels[part], order[part], total)
        finally:
            image_batches.close()

    def pick(self, indices: Tensor) -> Tensor:
        """See Loader."""
        groups = [self._files(indices.cpu())]
        (images,) = self.decoder.batches(groups, 0, self.workers, can_pin(self.device))
        return images.to(self.device)

    def _files(self, indices: Tensor) -> Tensor:
        """Which of the decoder's images these are."""
        return indices if self._rows is None else self._rows[indices]
