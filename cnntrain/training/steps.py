"""The steps of an epoch: how many images each holds, and its batches, of which one is in memory at a time."""

from collections.abc import Generator, Iterator
from itertools import islice

from cnntrain.data.loaders import Batch, Loader
from cnntrain.runtime.stopwatch import Stopwatch
from cnntrain.training.state import Progress
from cnntrain.training.timing import Meter

Step = tuple[Iterator[Batch], int]  # the batches of a step, and the images in all of them, over all processes


class Steps:
    """The steps of an epoch from `progress.batch` on, which whoever takes them moves.

    A step that was given up, so that `progress.batch` stands where it began, is given again: the same images.

    Args:
        loader: of the training images.
        progress: of the run.
        accumulate: batches of a step; the last one of an epoch may have fewer.
        watch: counts the seconds in which the steps wait for their batches.
    """

    def __init__(self, loader: Loader, progress: Progress, accumulate: int, watch: Stopwatch | None = None) -> None:
        self.loader, self.progress, self.accumulate = loader, progress, accumulate
        self._source: Generator[Batch, None, None] | None = None
        self._place = -1  # the batch that comes next out of the source
        self.meter = Meter(self._draw(), watch)

    def __iter__(self) -> Iterator[Step]:
        size, count = self.loader.batch_size, self.accumulate
        while (rest := self.loader.images - self.progress.batch * size) > 0:
            yield islice(self.meter, count), min(count * size, rest)

    def _draw(self) -> Iterator[Batch]:
        """Every batch that is asked for, whichever step asks."""
        while self.progress.batch < len(self.loader):
            if self._source is None or self._place != self.progress.batch:
                self.close()
                self._place = self.progress.batch
                self._source = self.loader.batches(self.progress.epoch, self._place)
            self._place += 1
            yield next(self._source)

    def close(self) -> None:
        """End the threads that decode."""
        if self._source is not None:
            self._source.close()
