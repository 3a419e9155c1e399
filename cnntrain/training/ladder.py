"""What a training step costs beside its arithmetic, rung by rung, up to the real loop."""

import itertools
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cnntrain.data.loaders import Batch, Loader
from cnntrain.optim import optimizers
from cnntrain.runtime import device as machine
from cnntrain.runtime.device_load import Load, load_of
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.signals import asked_for, interrupted
from cnntrain.text import counted
from cnntrain.training import loop
from cnntrain.training.job import TrainJob
from cnntrain.training.micro_batches import cut, most_at_once
from cnntrain.training.state import Progress, TrainState
from cnntrain.training.steps import Steps
from cnntrain.training.timing import Clock

RUNGS = ("bare step", "+ augmentation", "+ loader", "+ loop and logging")
LOADER, LOOP = 2, 3  # places in it
NEVER = 10**9  # steps
SECONDS = 1.0  # that a rung has in a round, where no number of steps is given
LEAST_STEPS, MOST_STEPS = 3, 300
SAVES = 3
MOST_LINES = 10  # of rounds

Pair = tuple[Tensor, Tensor]  # what the network is given, and the labels or probabilities


@dataclass
class Rung:
    """A part of what a step is made of: all that the rung below has, and one thing more.

    Attributes:
        seconds: of a step, in each round.
        processor_seconds: the same by the processors' time, of all threads: other work beside it changes it less.
        rates: images/s, in each round.
        load: of a step.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    load: Load = Load(0, None)

    @property
    def second(self) -> float:
        """Seconds of a step: the median."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Images/s: the median."""
        return statistics.median(self.rates)

    def shares(self, limit: "Rung") -> list[float]:
        """What is left of the images/s of another rung, in each round."""
        return [rate / most for rate, most in zip(self.rates, limit.rates, strict=True)]


class Ladder:
    """The rungs of a training, which are climbed in turn. Its weights are to be thrown away.

    Args:
        run: in its first state; the rungs below the loop take steps at a rate of 0, so that no weight diverges.
        job: whose report is told of the steps of the loop, and which saves.
    """

    def __init__(self, run: TrainState, job: TrainJob) -> None:
        self.run, self.job = run, job
        trainer = replace(job.trainer, save_every=NEVER)  # what a save costs is measured by itself
        self._loop_job = replace(job, settings=replace(job.settings, trainer=trainer))
        self.epoch = job.trainer.epochs - 1  # the largest images, and all layer groups that ever learn
        self.loader = job.loader(self.epoch)
        with closing(self.loader.batches(self.epoch)) as batches:
            self._group = list(itertools.islice(batches, job.trainer.accumulate))
        self.images = sum(batch.total for batch in self._group)
        run.progress = Progress(epoch=self.epoch)
        run.start_epoch()
        self._fixed = list(self._augmented(self._group, 0))

    def climb(self, rounds: int, steps: int | None, say: Callable[[str], object]) -> list[Rung]:
        """Time all rungs, in changing order, and count what a step of each launches.

        Args:
            steps: of a rung in a round; None: as many as take about a second.
            say: is told how long it will take, and of the rounds.

        Raises:
            Interrupted: a signal asked for the end.
        """
        rungs = [Rung(name) for name in RUNGS]
        say(f"warming up {len(rungs)} parts, as kernels are chosen and compiled at first use")
        for number in range(len(rungs)):
            self._time(number, LEAST_STEPS if number else 1)
        each = [self._time(number, LEAST_STEPS).seconds / LEAST_STEPS for number in range(len(rungs))]
        if steps is None:
            steps = min(max(round(SECONDS / each[0]), LEAST_STEPS), MOST_STEPS)
        seconds = max(1, round(rounds * (steps + 1) * sum(each)))
        times = f"{counted(rounds, 'round')} of {counted(steps, 'step')}"
        say(f"timing {len(rungs)} parts in {times} each, about {counted(seconds, 'second')}")
        for turn in range(rounds):
            for number in range(len(rungs)) if turn % 2 else reversed(range(len(rungs))):
                timing = self._time(number, steps)
                rungs[number].seconds.append(timing.seconds / steps)
                rungs[number].processor_seconds.append(timing.processor / steps)
                rungs[number].rates.append(timing.images / timing.seconds)
            if (turn + 1) % -(-rounds // MOST_LINES) == 0:
                first, last = (f"{rungs[number].rates[-1]:,.0f}" for number in (0, LOOP))
                say(f"  round {turn + 1} of {rounds}: bare step {first}, whole loop {last} images/s")
        for number, rung in enumerate(rungs):
            rung.load = self._load(number)
        return rungs

    def save(self) -> float:
        """Seconds for which a save stops the training: the median of some."""
        clock, seconds = Clock(0.0, None), []
        for _ in range(SAVES + 1):  # the first one makes the memory that the others use again
            machine.synchronize(self.run.device)
            start = time.perf_counter()
            loop.save_last(self.run, self.job, clock)
            seconds.append(time.perf_counter() - start)
            self.job.finish_saves()
        return statistics.median(seconds[1:])

    # --- one rung -----------------------------------------------------------------------------------------------------

    def _time(self, number: int, steps: int) -> "_Timing":
        """Time so many steps that follow a first one."""
        if number == LOOP:
            return self._time_loop(steps)
        with closing(self._take(number)) as taken:
            next(taken)
            timing = _Timing(self.run.device)
            timing.images = sum(itertools.islice(taken, steps))
            timing.end()
        return timing

    def _time_loop(self, steps: int) -> "_Timing":
        run, clock = self.run, _StepClock(self.run, self.loader, steps)
        while not clock.has_ended:
            run.progress = Progress(epoch=self.epoch)
            clock.seen = 0
            loop.train_epoch(run, self._loop_job, clock)
        self.job.report.end_phase()
        return clock.timing

    def _load(self, number: int) -> Load:
        run = self.run
        if number == LOOP:
            run.progress = Progress(epoch=self.epoch)
            return load_of(lambda: loop.train_step(run, self._loop_job, self._group, self.images), run.device)
        with closing(self._take(number)) as taken:
            next(taken)
            return load_of(lambda: next(taken), run.device)

    # --- the steps below the loop -------------------------------------------------------------------------------------

    def _take(self, number: int) -> Generator[int, None, None]:
        """Take step after step; each gives the number of its images."""
        optimizers.set_lr(self.run.optimizer, 0.0)
        self.run.start_epoch()
        if number == LOADER:
            yield from self._take_loaded()
        for turn in itertools.count():
            if signum := asked_for(self.job.stop):
                raise interrupted(signum)
            self._step(self._augmented(self._group, turn) if number else self._fixed, self.images)
            yield self.images

    def _take_loaded(self) -> Generator[int, None, None]:
        while True:
            progress = Progress(epoch=self.epoch)
            with closing(Steps(self.loader, progress, self.job.trainer.accumulate)) as steps:
                for batches, images in steps:
                    self._step(self._augmented(batches, progress.batch), images)
                    progress.batch += min(self.job.trainer.accumulate, len(self.loader) - progress.batch)
                    yield images

    def _augmented(self, batches: Iterable[Batch], first: int) -> Iterator[Pair]:
        """What the network is given of each batch.

        Args:
            first: the number of the first one, by which random numbers are drawn.
        """
        for number, batch in enumerate(batches, first):
            context = self.job.context(self.epoch, number, batch.indices)
            inputs, targets = self.job.augment(batch.images, context), batch.labels
            yield self.job.mix(inputs, targets, context) if self.job.mix else (inputs, targets)

    def _step(self, pairs: Iterable[Pair], images: int) -> None:
        """Forward pass, loss, backward pass and optimizer: what no loop can do without."""
        run, job = self.run, self.job
        for pair in pairs:
            for inputs, targets in cut(*pair, most_at_once(run, job)):
                with autocast(run.precision, run.device):
                    output = run.forward(inputs)
                _, _, objective = job.losses(output, targets)
                run.scaler.scale(objective / images).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)


class _Timing:
    """What some steps take: by the clock, by the processors' time, and the images in them."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.images = device, 0
        machine.synchronize(device)
        self._start, self._processor = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Take down the time, when the device has done its work."""
        machine.synchronize(self._device)
        self.seconds, self.processor = time.perf_counter() - self._start, time.process_time() - self._processor


class _StepClock(Clock):
    """The clock of a loop that asks it after each step whether time is over: it is so after a first and `steps` more.

    Attributes:
        seen: images of the epoch in hand so far.
    """

    def __init__(self, run: TrainState, loader: Loader, steps: int) -> None:
        super().__init__(0.0, None)
        self._run, self._loader, self._steps, self._taken = run, loader, steps, -1
        self.seen = 0

    @property
    def has_ended(self) -> bool:
        return self._taken == self._steps

    @property
    def is_over(self) -> bool:
        before, self.seen = self.seen, min(self._run.progress.batch * self._loader.batch_size, self._loader.images)
        self._taken += 1
        if self._taken == 0:
            self.timing = _Timing(self._run.device)
            return False
        self.timing.images += self.seen - before
        if self.has_ended:
            self.timing.end()
        return self.has_ended
