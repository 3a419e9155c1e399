"""Which images of a split an epoch holds, in which order, and how they are cut into micro-batches."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from cnntrain.config.schema.data import Sampling
from cnntrain.data.epoch_plan import images_in_epoch
from cnntrain.runtime.seeds import generator
from cnntrain.runtime.world import ALONE, World

ORDER = -1  # part of the seed that keeps the order of an epoch apart from all other draws


class BatchSampler:
    """The micro-batches of a split as indices, and which part of each is this process's.

    The order of a train split is a pure function of (seed, epoch), that of the others is the order of `labels`.

    Args:
        labels: classes of all images of the split, int64 (N,), on the host.
        batch_size: images of a micro-batch in each process.
        train: shuffle, and leave out a remainder that is too small for a micro-batch.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        batch_size: int,
        seed: int,
        train: bool,
        sampling: Sampling = Sampling.natural,
        world: World = ALONE,
    ) -> None:
        self.labels, self.batch_size, self.seed = labels, batch_size * world.size, seed  # from here on, of all
        self.train, self.sampling, self.world = train, sampling, world
        self.weights: Tensor | None = None
        self._window: tuple[Tensor, Tensor, int] | None = None  # see `within`
        self._epoch_order: tuple[int, Tensor] | None = None  # an epoch and its order: drawn once, not for every batch

    @property
    def images(self) -> int:
        """Images of an epoch, over all processes."""
        return images_in_epoch(len(self.labels), self.batch_size, self.world.size) if self.train else len(self.labels)

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return -(-self.images // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Indices of an epoch, int64 (images,), the same for every device."""
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            self._epoch_order = epoch, self._draw(epoch)
        return self._epoch_order[1][: self.images]

    def _draw(self, epoch: int) -> Tensor:
        if not self.train:
            return torch.arange(len(self.labels))
        draw = generator(torch.device("cpu"), self.seed, epoch, ORDER)
        is_balanced = self.sampling is Sampling.balanced
        if self.weights is not None:
            return draw_by_weight(balance_weights(self.weights, self.labels) if is_balanced else self.weights, draw)
        if self._window is not None and not is_balanced:
            return shuffle_within(*self._window, draw)
        return (balance if is_balanced else shuffle)(self.labels, draw)

    def parts(self, start: int = 0) -> Iterator[tuple[slice, int]]:
        """For each micro-batch from `start` on, the place of this process's part in the order, and the size.

        The size counts the images of all processes.
        """
        for offset in range(start * self.batch_size, self.images, self.batch_size):
            total = min(self.batch_size, self.images - offset)
            begin, end = self.world.part(total)
            yield slice(offset + begin, offset + end), total

    def cut(self, batch_size: int) -> "BatchSampler":
        """The same images in the same order, in micro-batches of another size over all processes."""
        sampler = copy.copy(self)
        sampler.batch_size = batch_size
        return sampler

    def weigh(self, weights: Tensor) -> "BatchSampler":
        """The same images, drawn by weight: float64 (N,) on the host, none below 0 and their sum above."""
        sampler = copy.copy(self)
        sampler.weights, sampler._epoch_order = weights, None
        return sampler

    def within(self, shards: Tensor, places: Tensor, buffer: int) -> "BatchSampler":
        """The same images, shuffled in a buffer of so many as they are read shard by shard: see `shuffle_within`."""
        sampler = copy.copy(self)
        sampler._window, sampler._epoch_order = (shards, places, buffer), None
        return sampler

    def in_order(self, batch_size: int | None = None) -> "BatchSampler":
        """All images in the order of `labels`, each once; several processes are given all of them each."""
        size = batch_size or self.batch_size // self.world.size
        return BatchSampler(self.labels, batch_size=size, seed=self.seed, train=False)

    def subset(self, indices: Tensor) -> "BatchSampler":
        """Some of the images, int64 (n,), in this order, shared among the same processes."""
        size = self.batch_size // self.world.size
        return BatchSampler(self.labels[indices], batch_size=size, seed=self.seed, train=False, world=self.world)


def shuffle(labels: Tensor, draw: torch.Generator) -> Tensor:
    """Every image once. Takes and gives int64 (N,)."""
    return torch.randperm(len(labels), generator=draw)


def shuffle_within(shards: Tensor, places: Tensor, buffer: int, draw: torch.Generator) -> Tensor:
    """Every image once, near to the others of its file: the files in random order, and in the row that they give no
    image moves by as many places as the buffer has.

    Args:
        shards: the file of each image, int64 (N,).
        places: its place among all images as they lie in the files, int64 (N,).
        buffer: images, from 2 up.
        draw: on the host.

    Returns:
        Indices, int64 (N,).
    """
    ranks = torch.randperm(int(shards.max()) + 1, generator=draw)
    order = (ranks[shards] * len(places) + places).argsort()
    moved = torch.arange(len(order)) + torch.rand(len(order), generator=draw, dtype=torch.float64) * buffer
    return order[moved.argsort()]


def balance(labels: Tensor, draw: torch.Generator) -> Tensor:
    """Draw as many images as there are, every class equally often and the images of a class as evenly as can be.

    Where the numbers do not divide, chance decides which classes, and which of their images, get one turn more.

    Args:
        labels: int64 (N,); a class without images is none.
        draw: on the host.

    Returns:
        Indices, int64 (N,).
    """
    order = torch.randperm(len(labels), generator=draw)
    order = order[labels[order].argsort(stable=True)]  # class by class, each in random order
    sizes = labels.bincount()
    classes = sizes.nonzero().squeeze(1)
    sizes = sizes[classes]
    turns = torch.full_like(sizes, len(labels) // len(sizes))
    turns[torch.randperm(len(sizes), generator=draw)[: len(labels) % len(sizes)]] += 1
    # The first of each class in that order are those with one turn more.
    place = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    repeats = (turns // sizes).repeat_interleave(sizes) + (place < (turns % sizes).repeat_interleave(sizes))
    order = order.repeat_interleave(repeats)
    return order[torch.randperm(len(order), generator=draw)]


def draw_by_weight(weights: Tensor, draw: torch.Generator) -> Tensor:
    """Draw as many images as there are, each as often as its part of all weights asks for, as evenly as can be.

    Systematic sampling (Madow, 1949): an image that is due 2.3 times is drawn twice, or three times by that chance.

    Args:
        weights: float64 (N,), none below 0 and their sum above.
        draw: on the host.

    Returns:
        Indices, int64 (N,).
    """
    count = len(weights)
    order = torch.randperm(count, generator=draw)
    ends = weights[order].cumsum(0)
    ends = ends * (count / ends[-1]) + torch.rand((), generator=draw, dtype=torch.float64)
    marks = ends.floor().long().clamp(max=count)
    marks[ends == ends[-1]] = count
    order = order.repeat_interleave(marks.diff(prepend=torch.zeros(1, dtype=torch.int64)))
    return order[torch.randperm(count, generator=draw)]


def balance_weights(weights: Tensor, labels: Tensor) -> Tensor:
    """Weights by which every class is drawn equally often, and its images as before.

    Args:
        weights: float64 (N,).
        labels: int64 (N,); a class whose weights are all 0 stays out.
    """
    sums = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add_(0, labels, weights)[labels]
    return torch.where(sums > 0, weights / sums.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
