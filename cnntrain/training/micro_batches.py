"""What of a batch goes through the network at once, and how a step is taken again where memory has run out in it.

A batch is `data.batch_size` images, drawn, augmented and mixed together; `trainer.accumulate` of them make a step. With
`trainer.micro_batch` each goes forward and backward in parts, whose gradients add up to those of the whole: the images,
their order and what is done to them stay. Batch norms see a part at a time, as they do with smaller batches.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cnntrain.config.schema.limits import AUTO
from cnntrain.errors import ResourceError
from cnntrain.runtime.device_memory import memory_holders, release_memory
from cnntrain.runtime.seeds import restore_rng_state, rng_state
from cnntrain.text import counted
from cnntrain.training.job import TrainJob
from cnntrain.training.state import TrainState

LEAST = 2  # images: batch norms fail on one


class BatchTooLarge(ResourceError):
    """Memory has run out in a forward or backward pass: the weights are those of before the step."""


def too_large() -> BatchTooLarge:
    """What there is to say where nothing smaller has been tried."""
    holders = memory_holders()
    return BatchTooLarge(
        f"out of memory{holders and f': {holders}'}; make data.batch_size smaller, or set trainer.micro_batch to so "
        "many images as fit at once, which keeps the batch"
    )


def cut(inputs: Tensor, targets: Tensor, most: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in parts of at most `most` images, as even as can be, and none of a single image.

    Args:
        inputs: (V * N, ...), V versions of each image one after the other, as `Augment` gives them.
        targets: of the N images.
        most: None: all of them.
    """
    count = max(1, len(targets))
    parts = 1 if most is None else min(-(-count // most), max(1, count // LEAST))
    if parts == 1:
        yield inputs, targets
        return
    versions = [version.tensor_split(parts) for version in inputs.chunk(len(inputs) // count)]
    for index, part in enumerate(targets.tensor_split(parts)):
        images = [version[index] for version in versions]
        yield images[0] if len(images) == 1 else torch.cat(images), part


def most_at_once(run: TrainState, job: TrainJob) -> int | None:
    """Images of a micro-batch now, in this process; None: those of the whole batch."""
    most = job.trainer.micro_batch
    return run.progress.micro_batch or (most if isinstance(most, int) else None)


def note(most: int | str | None, batch_size: int) -> list[str]:
    """What trainer.micro_batch does to batches of a size, in each process; empty where it is null."""
    if most == AUTO:
        return [f"micro-batches: none, as long as memory takes {counted(batch_size, 'image')} at once (auto)"]
    if not isinstance(most, int):
        return []
    if most >= batch_size:
        return [
            f"micro-batches: trainer.micro_batch={most:,} cuts nothing, as a batch has {counted(batch_size, 'image')}"
        ]
    return [f"micro-batches: {batch_size:,} images go through the network {most:,} at a time"]


class Guard:
    """Takes steps, and where memory runs out in one, takes the same step again in smaller micro-batches.

    With `trainer.micro_batch=auto` training goes on with them; else it ends with the size that fits. One of several
    processes cannot try again by itself, as the others wait for its gradients.
    """

    def __init__(self, run: TrainState, job: TrainJob, batch_size: int) -> None:
        self.run, self.job, self.batch_size = run, job, batch_size
        self.mends = job.trainer.micro_batch == AUTO and run.world.size == 1
        self.too_large = 0  # images at once for which memory has not sufficed, where that ends the run
        self._start = _StepStart(run) if self.mends else None
        self._batch = 0

    def take(self, step: Callable[[], None]) -> bool:
        """Take a step; False: memory did not suffice, and the run stands where it stood, with a smaller micro-batch.

        Raises:
            BatchTooLarge: no smaller one fits, or one does and the settings do not allow it.
        """
        run = self.run
        self._batch = run.progress.batch
        if self._start:
            self._start.keep()
        try:
            step()
        except BatchTooLarge:
            if run.world.size > 1:
                raise
        else:
            if self.too_large:
                raise self._fault(run.progress.micro_batch)
            return True
        # The error is gone, and with it the frames that held what the attempt has computed.
        run.optimizer.zero_grad(set_to_none=True)
        release_memory(run.device)
        self._shrink()
        return False

    def _shrink(self) -> None:
        run, progress = self.run, self.run.progress
        size = min(most_at_once(run, self.job) or self.batch_size, self.batch_size)
        if size <= LEAST:
            raise self._fault(None)
        if self._start:
            self._start.restore()
        progress.batch, progress.micro_batch = self._batch, max(LEAST, size // 2)
        if self.mends:
            words = f"step {progress.step + 1:,}: {size:,} images at once need more memory than there is"
            self.job.report.warn(
                f"{words}; its batches are cut into micro-batches of {progress.micro_batch:,} from here"
            )
            self.job.save(run.state(), False)
        else:
            self.too_large = self.too_large or size

    def _fault(self, fits: int | None) -> BatchTooLarge:
        holders = memory_holders()
        what = f"need more memory than there is{holders and f' ({holders})'}"
        if fits is None:
            return BatchTooLarge(
                f"data.image_size: even {LEAST} images at once {what}; choose smaller images, or a smaller network"
            )
        key = "data.batch_size" if self.job.trainer.micro_batch is None else "trainer.micro_batch"
        return BatchTooLarge(
            f"{key}: {counted(self.too_large, 'image')} at once {what}, {fits:,} fit; trainer.micro_batch={fits} keeps "
            f"the batch and cuts it, trainer.micro_batch={AUTO} finds the size by itself"
        )


class _StepStart:
    """What a forward pass changes besides the gradients: the statistics of batch norms, random numbers, scores."""

    def __init__(self, run: TrainState) -> None:
        self.run = run
        self._tensors: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for tensor in [*run.model.buffers(), run.log_window.sums]:
            here, kept = self._tensors.setdefault(tensor.dtype, ([], []))  # one launch copies all of a dtype
            here.append(tensor)
            kept.append(torch.empty_like(tensor))

    @torch.no_grad()
    def keep(self) -> None:
        """Remember it."""
        for here, kept in self._tensors.values():
            torch._foreach_copy_(kept, here)
        self._images, self._streams = self.run.log_window.images, rng_state(self.run.device)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring it back."""
        for here, kept in self._tensors.values():
            torch._foreach_copy_(here, kept)
        self.run.log_window.images = self._images
        restore_rng_state(self._streams, self.run.device)
