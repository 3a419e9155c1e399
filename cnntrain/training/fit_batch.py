"""data.batch_size=auto: how many images fit into memory, found by steps of the run itself on throw-away weights.

The network, its optimizer and all random numbers are made anew afterwards: the run is, to the bit, the one that is
started with the number that was found.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cnntrain.config.schema.limits import AUTO
from cnntrain.config.schema.settings import Settings
from cnntrain.data.common import STEPS, recut
from cnntrain.data.loaders import Batch
from cnntrain.errors import Interrupted, ResourceError
from cnntrain.runtime import device as machine
from cnntrain.runtime.algorithms import untuned
from cnntrain.runtime.device_memory import (
    free_memory,
    memory_holders,
    peak_memory,
    release_memory,
    reset_peak_memory,
    tells_when_full,
)
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.runtime.reporter import Reporter
from cnntrain.runtime.signals import NEVER, StopFlag, asked_for
from cnntrain.runtime.world import ALONE, World
from cnntrain.text import gibibytes
from cnntrain.training.build import build_state, build_train_job
from cnntrain.training.job import TrainJob
from cnntrain.training.loop import train_step
from cnntrain.training.micro_batches import LEAST, BatchTooLarge

FIRST = 8  # images of the first trial, which are doubled
FINE = 16  # the search ends where it knows the size to a sixteenth
MARGIN = 0.95  # of what has fitted: memory breaks into pieces, and cuDNN chooses other algorithms later
HOST_SHARE, HOST_TRIAL = 0.8, 16  # of the host's free memory; images of the largest trial there
CAPPED = f"so that an epoch has {STEPS} steps; memory is not the limit (auto)"
COPIES = 4  # of its images, in float32, that any network holds


def build_fitting_job(
    settings: Settings,
    report: Reporter,
    *,
    stop: StopFlag = NEVER,
    world: World = ALONE,
    splits: Sequence[str] = ("train", "val", "test"),
) -> TrainJob:
    """What `build_train_job` makes, with a number found for data.batch_size=auto.

    Of several processes, those that train with trainer.micro_batch=auto find its number here too. All of them take the
    smallest that one has found.

    Raises:
        ResourceError: not even two images fit.
    """
    finds_parts = settings.trainer.micro_batch == AUTO and world.size > 1
    if settings.data.batch_size != AUTO and not finds_parts:
        return build_train_job(settings, report, stop=stop, world=world, splits=splits)
    # Each process tries by itself, and no graph is worth its time for a size that comes once.
    trainer, model = settings.trainer, replace(settings.model, sync_bn=False)
    plain = replace(settings, model=model, trainer=replace(trainer, compile=False, micro_batch=None))
    job = build_train_job(plain, report, stop=stop, world=world, splits=splits)
    data = job.data
    most = data.batch_size if finds_parts else max(LEAST, len(data.train.labels) // (STEPS * world.size))
    report.say("trying how many images fit into memory")
    size, words = _find(replace(job, world=ALONE), most)
    size = min(world.gather(size))
    device = job.device
    del job
    release_memory(device)
    if finds_parts:
        parts = size if size < most else None
        settings = replace(settings, trainer=replace(settings.trainer, micro_batch=parts))
        words = (
            f"micro-batches: of {parts:,} images, {words}" if parts else "micro-batches: a batch fits as a whole (auto)"
        )
    else:
        settings = replace(settings, data=replace(settings.data, batch_size=size))
        data = recut(data, size, world)
        words = f"batch size: {size:,}, {words}"
    job = build_train_job(settings, report, stop=stop, world=world, splits=splits, data=data)
    return replace(job, notes=[*job.notes, words])


def _find(job: TrainJob, most: int) -> tuple[int, str]:
    """How many images a step of this process may hold, at most `most`; and how that was found, in words."""
    trial = _Trial(job)
    if tells_when_full(job.device):
        with untuned():
            return _search(trial, most)
    return _estimate(trial, most)


def _search(trial: "_Trial", most: int) -> tuple[int, str]:
    """By doubling until memory runs out, then by halving what lies between."""
    fits, size, fails = 0, min(FIRST, most), 0
    while not fails and fits < most:
        if trial.fits(size):
            fits, size = size, min(2 * size, most)
        else:
            fails = size
    while fails - fits > max(1, fits // FINE):
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if trial.fits(middle) else (fits, middle)
    if not fails:
        return most, CAPPED
    if fits < LEAST:
        raise ResourceError(
            f"data.image_size: not even {LEAST} images at once fit into memory ({memory_holders()}); choose "
            "smaller images, or a smaller network"
        )
    return max(LEAST, _even(fits * MARGIN)), f"as {fits:,} images at once fit into memory and {fails:,} do not (auto)"


def _estimate(trial: "_Trial", most: int) -> tuple[int, str]:
    """By the growth of a few small batches: a host kills whoever takes too much."""
    device = trial.job.device
    reset_peak_memory(device)
    base, free = peak_memory(device), free_memory(device)
    room = base + int(HOST_SHARE * free)
    peaks = {0: base}
    size = min(LEAST, most)
    while size not in peaks and (2 * peaks[max(peaks)] - base <= room or len(peaks) == 1):
        reset_peak_memory(device)
        trial.step(size)
        peaks[size] = peak_memory(device)
        size = min(2 * size, HOST_TRIAL, most)
    (small, less), (large, more) = sorted(peaks.items())[-2:]
    growth = (more - less) / (large - small) if more > less else (more - base) / large
    each = max(growth, COPIES * 4 * trial.pixels)
    size = min(most, _even(max(LEAST, large + (room - more) / each)))
    if size == most:
        return size, CAPPED
    return size, f"as an image takes {gibibytes(int(each))} and {gibibytes(free)} are free (auto)"


def _even(size: float) -> int:
    """A size, where it is large in whole multiples of 8, which matrix units like."""
    return int(size) // 8 * 8 if size >= 64 else int(size)


class _Trial:
    """Steps of a run on made-up images, at its largest: of the full size, with all that learns in the last epoch."""

    def __init__(self, job: TrainJob) -> None:
        self.job, self.run = job, build_state(job)
        self.run.progress.epoch = job.trainer.epochs - 1
        for _ in self.run.start_epoch():
            pass  # which layer groups have opened
        self._shape = job.data.train.pick(torch.tensor([0])).shape[1:]  # loads what is to lie in memory
        self.pixels = self._shape.numel()
        self._steps = 2  # the first one makes the optimizer's state, which the second one meets

    def fits(self, images: int) -> bool:
        """Whether memory takes so many at once."""
        try:
            self.step(images)
            return True
        except BatchTooLarge:
            pass
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):  # in the optimizer's step
                raise
        # The error is gone, and with it the frames that held what the attempt has computed.
        self.run.optimizer.zero_grad(set_to_none=True)
        release_memory(self.job.device)
        return False

    def step(self, images: int) -> None:
        """Take a step; raises BatchTooLarge where memory runs out, and Interrupted where a signal asks for the end."""
        if signum := asked_for(self.job.stop):
            raise Interrupted(signum, "stopped before the first step")
        job, run, device = self.job, self.run, self.job.device
        places = torch.arange(images) % len(job.data.train.labels)
        count = min(job.trainer.accumulate, 2)  # of a second batch, the gradients are there already
        while self._steps:
            run.progress.step = run.progress.batch = 0
            train_step(run, job, (self._batch(images, places) for _ in range(count)), images * count)
            machine.synchronize(device)
            self._steps -= 1
        self._steps = 1

    def _batch(self, images: int, places: torch.Tensor) -> Batch:
        device, height = self.job.device, self._shape
        pixels = torch.randint(256, (images, *height[1:], height[0]), dtype=torch.uint8, device=device)
        return Batch(pixels.permute(0, 3, 1, 2), self.job.data.train.labels[places].to(device), places, images)
