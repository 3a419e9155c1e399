"""Files of a split to uint8 batches, by threads; the result never depends on their number."""

import copy
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from cnntrain.config.schema.data import OnBadImage
from cnntrain.data.decode import BadImage
from cnntrain.data.labels import is_sets
from cnntrain.data.paths import Paths
from cnntrain.data.view import RandomView, View
from cnntrain.errors import DataError, ImageError
from cnntrain.runtime.seeds import mix_seed
from cnntrain.text import printable

BOX = -5  # part of the seed that keeps these draws apart from all others
CHUNK = 4  # images of one task: few enough to share a batch among threads, enough to make tasks cheap


class Decoder:
    """Decodes image `index` of a split; thread-safe.

    Args:
        paths, labels: the files and their classes, int64 (N,), or sets of them, bool (N, K).
        channels: 1 or 3.
        view: what is cut out of each picture.
        seed: decides, with epoch and index, the box of a RandomView.
        on_bad_image: `error` raises; `skip` takes the next good image of the same class, or of the very same labels.
    """

    def __init__(
        self,
        paths: Paths,
        labels: Tensor,
        *,
        channels: int,
        view: View | RandomView,
        seed: int,
        on_bad_image: OnBadImage,
    ) -> None:
        self.paths, self.labels, self.channels, self.view, self.seed = paths, labels, channels, view, seed
        self.on_bad_image = on_bad_image
        self.most_bad = max(10, len(labels) // 100)
        self._faults: dict[int, str] = {}
        self._lock = threading.Lock()

    def through(self, view: View | RandomView) -> "Decoder":
        """The same files seen in another way; what one decoder knows of bad files, the other knows too."""
        twin = copy.copy(self)
        twin.view = view
        return twin

    def name(self, index: int) -> str:
        """The file of an image."""
        return str(self.paths[index])

    @property
    def bad_files(self) -> list[tuple[str, str]]:
        """Bad files met so far, as (path, reason), in the order of the file list."""
        return [(printable(self.paths[index]), reason) for index, reason in sorted(self._faults.items())]

    def image(self, index: int, epoch: int, out: Tensor) -> None:
        """Decode into `out`, uint8 (S, S, C).

        Raises:
            DataError: a bad image that may not be skipped (see `Paths.fault`), too many of them, or a class or set of
                labels that has no other.
        """
        try:
            return self._view(index, epoch, out)
        except BadImage as error:
            if self.on_bad_image is OnBadImage.error:
                raise self.paths.fault(index, str(error)) from None
            self._note(index, str(error))
        has_sets, is_same = is_sets(self.labels), self.labels == self.labels[index]
        members = (is_same.all(1) if has_sets else is_same).nonzero().squeeze(1)
        place = int((members == index).nonzero())
        for other in torch.cat([members[place + 1 :], members[:place]]).tolist():
            try:
                return self._view(other, epoch, out)
            except BadImage as error:
                self._note(other, str(error))
        kind = "with its labels, and no others," if has_sets else "of its class"
        advice = self.paths.cure if has_sets else "replace the files, or see that the split gets more of them"
        raise DataError(
            f"{printable(self.paths[index])}: none of the images {kind} in its split ({len(members)}) can be decoded; "
            f"{advice}"
        )

    def _view(self, index: int, epoch: int, out: Tensor) -> None:
        if index in self._faults:
            raise BadImage(self._faults[index])
        pixels = self.paths.pixels(index, self.channels)
        if isinstance(self.view, RandomView):
            self.view(pixels, random.Random(mix_seed(self.seed, epoch, index, BOX)), out)
        else:
            out.copy_(self.view(pixels))

    def _note(self, index: int, reason: str) -> None:
        with self._lock:
            self._faults[index] = reason
            if len(self._faults) > self.most_bad:
                raise ImageError(
                    f"data.on_bad_image: more than {self.most_bad} bad images (10, or 1 % of all, may be skipped), "
                    f"the last {printable(self.paths[index])}: {reason}; {self.paths.cure_of_many}"
                )

    def batches(self, groups: list[Tensor], epoch: int, workers: int, pin: bool) -> Generator[Tensor, None, None]:
        """Decode groups of indices in order, a few groups ahead.

        Args:
            groups: int64 indices of each batch.
            epoch: part of the seed of random views.
            workers: threads; 0 decodes in the calling thread.
            pin: batches in page-locked memory.

        Yields:
            uint8 (N, C, S, S), channels_last, in host memory. Closing the iterator ends the threads.
        """
        if workers == 0:
            for group in groups:
                batch = self._new_batch(len(group), pin)
                self._fill(batch, group.tolist(), 0, epoch, threading.Event())
                yield batch.permute(0, 3, 1, 2)
            return
        stop = threading.Event()
        # Decoding is spread over threads already: torch's own threads inside each would only fight for the cores.
        pool = ThreadPoolExecutor(workers, "decode", initializer=torch.set_num_threads, initargs=(1,))
        queue: deque[tuple[Tensor, list[Future[None]]]] = deque()
        group_iterator = iter(groups)
        ahead = 3 + 2 * workers * CHUNK // max(1, len(groups[0]) if groups else 1)
        try:
            while True:
                for group in islice(group_iterator, ahead - len(queue)):
                    queue.append(self._submit(pool, group.tolist(), epoch, pin, stop))
                if not queue:
                    return
                batch, tasks = queue.popleft()
                for task in tasks:
                    task.result()
                yield batch.permute(0, 3, 1, 2)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self, pool: ThreadPoolExecutor, indices: list[int], epoch: int, pin: bool, stop: threading.Event
    ) -> tuple[Tensor, list[Future[None]]]:
        batch = self._new_batch(len(indices), pin)
        starts = range(0, len(indices), CHUNK)
        return batch, [pool.submit(self._fill, batch, indices[at : at + CHUNK], at, epoch, stop) for at in starts]

    def _new_batch(self, count: int, pin: bool) -> Tensor:
        size = self.view.size
        return torch.empty(count, size, size, self.channels, dtype=torch.uint8, pin_memory=pin)

    def _fill(self, batch: Tensor, indices: list[int], start: int, epoch: int, stop: threading.Event) -> None:
        for index, row in zip(indices, batch[start : start + len(indices)].unbind(), strict=True):
            if stop.is_set():
                return
            self.image(index, epoch, row)

    def all_images(
        self, workers: int, what: str, say: Callable[[str], object], indices: Tensor | None = None
    ) -> Tensor:
        """Decode all images, or those at `indices` (int64), into one tensor, with a line every five seconds.

        Returns:
            uint8 (N, C, S, S), contiguous.
        """
        size = self.view.size
        rows = torch.arange(len(self.labels)) if indices is None else indices
        images = torch.empty(len(rows), self.channels, size, size, dtype=torch.uint8)
        count, last_line = 0, time.monotonic()
        for batch in self.batches(list(rows.split(64)), 0, workers, False):
            images[count : count + len(batch)] = batch
            count += len(batch)
            if time.monotonic() - last_line > 5 and count < len(images):
                last_line = time.monotonic()
                say(f"{what}: {count:,} of {len(images):,} images decoded")
        return images
