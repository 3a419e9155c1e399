"""What each epoch is made of: the size of its images, its micro-batches, its steps. A pure function of the settings."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from cnntrain.config.schema.augment import ProgressiveSettings


def images_in_epoch(images: int, batch_size: int, processes: int = 1) -> int:
    """The number of training images in an epoch.

    A last micro-batch that holds but one image for a process fails in batch norm and is left out, as is one that holds
    none for some of them.

    Args:
        images: of the train split.
        batch_size: images of a micro-batch over all processes, among which each is cut evenly.
    """
    least = 2 * processes if batch_size > processes else processes
    remainder = images % batch_size
    return images - remainder if remainder < least else images


@dataclass(frozen=True)
class Stage:
    """The size of an epoch's images and of its batches."""

    image_size: int  # pixels a side
    batch_size: int  # images of a micro-batch


@dataclass(frozen=True)
class _Stretch:
    """Consecutive epochs of one stage."""

    epoch: int  # the first one
    step: int  # with which it begins
    stage: Stage
    batches: int  # of each epoch
    steps: int


class EpochPlan:
    """The epochs of a run. Epochs and steps count from 0; those beyond the planned ones have the full size.

    Args:
        images: of the train split.
        batch_size: images of a micro-batch at the full size, over all processes.
        image_size: the full size, in pixels.
        epochs: of the whole run.
        accumulate: micro-batches of an optimizer step.
        progressive: how the size grows over the epochs; None: every epoch has the full size.
        max_steps: steps after which the run ends anyway: the size grows within the epochs that they fill.
        processes: that share each micro-batch.
    """

    def __init__(
        self,
        images: int,
        *,
        batch_size: int,
        image_size: int,
        epochs: int,
        accumulate: int = 1,
        progressive: ProgressiveSettings | None = None,
        max_steps: int | None = None,
        processes: int = 1,
    ) -> None:
        self.images, self.batch_size, self.image_size, self.accumulate = images, batch_size, image_size, accumulate
        self.epochs, self.progressive, self.processes, self._filled_epochs = epochs, progressive, processes, epochs
        if progressive and max_steps is not None:
            # How many epochs max_steps fill, found by bisection, as each plan grows at its own pace: of max_steps=25
            # where a plan of 1 epoch has 10 steps, one of 2 has 18 and one of 3 has 26, it is 3.
            sizes = {"batch_size": batch_size, "image_size": image_size, "accumulate": accumulate}
            shorter = partial(EpochPlan, images, **sizes, processes=processes, progressive=progressive)
            self._filled_epochs = 1 + bisect_left(
                range(1, epochs), max_steps, key=lambda count: shorter(epochs=count).total
            )
        self._stretches = list(self._grow())
        self._epochs = [stretch.epoch for stretch in self._stretches]
        self._steps = [stretch.step for stretch in self._stretches]

    def stage(self, epoch: int) -> Stage:
        """Image size and batch size of an epoch."""
        return self._at(epoch).stage

    def stage_at(self, step: int) -> Stage:
        """The stage of the epoch that a step belongs to."""
        return self._stretch_at(step).stage

    def batches(self, epoch: int) -> int:
        """Micro-batches of an epoch."""
        return self._at(epoch).batches

    def steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch; its last one may hold fewer micro-batches."""
        return self._at(epoch).steps

    def first_step(self, epoch: int) -> int:
        """The step with which an epoch begins."""
        stretch = self._at(epoch)
        return stretch.step + (epoch - stretch.epoch) * stretch.steps

    @property
    def total(self) -> int:
        """Steps of all epochs."""
        return self.first_step(self.epochs)

    @property
    def stages(self) -> int:
        """How many sizes of images the run has."""
        return len(self._stretches)

    def full_batch(self, epoch: int) -> int:
        """Images, over all processes, of a micro-batch of an epoch that no remainder has made shorter."""
        batch_size = self.stage(epoch).batch_size
        return min(batch_size, images_in_epoch(self.images, batch_size, self.processes))

    def position(self, step: float) -> float:
        """Epochs that are over before `step`, with the part of the one in hand: step / steps where all are alike."""
        stretch = self._stretch_at(step)
        return stretch.epoch + (step - stretch.step) / stretch.steps

    def at_full_size(self, step: int) -> float:
        """Where `step` would stand if every epoch had the steps of a full-sized one: `step` where all are alike."""
        stretch, full_steps = self._stretch_at(step), self._stretches[-1].steps
        return stretch.epoch * full_steps + (step - stretch.step) * full_steps / stretch.steps

    def _stretch_at(self, step: float) -> _Stretch:
        return self._stretches[bisect_right(self._steps, step) - 1]

    def _at(self, epoch: int) -> _Stretch:
        return self._stretches[bisect_right(self._epochs, epoch) - 1]

    def _grow(self) -> Iterator[_Stretch]:
        """One stretch for each size; the last one has no end."""
        epoch = step = size = 0
        while size < self.image_size:
            size = self._size(epoch)
            stage = Stage(size, self._batch_size(size))
            batches = -(-images_in_epoch(self.images, stage.batch_size, self.processes) // stage.batch_size)
            stretch = _Stretch(epoch, step, stage, batches, steps=-(-batches // self.accumulate))
            yield stretch
            epoch = bisect_right(range(self._filled_epochs), size, lo=epoch, key=self._size)
            step += (epoch - stretch.epoch) * stretch.steps

    def _size(self, epoch: int) -> int:
        """Linear in the epoch, in whole multiples, the last of several epochs full (arXiv 2104.00298, section 4)."""
        settings = self.progressive
        if settings is None:
            return self.image_size
        ramp = min(max(1, round(settings.until * self._filled_epochs)), self._filled_epochs - 1)
        if epoch >= ramp:
            return self.image_size
        size = self.image_size * (settings.start + (1 - settings.start) * epoch / ramp)
        return min(max(1, round(size / settings.multiple)) * settings.multiple, self.image_size)

    def _batch_size(self, size: int) -> int:
        """So many small images that a micro-batch costs about what it costs at the full size."""
        if self.progressive is None or not self.progressive.batch:
            return self.batch_size
        return round(self.batch_size * (self.image_size / size) ** 2)
