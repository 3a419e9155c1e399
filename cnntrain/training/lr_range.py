"""The learning-rate range test (arXiv 1506.01186): the loss while the rate rises, and the rate that it speaks for."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cnntrain.config.schema.finetune import Mode
from cnntrain.config.schema.settings import Settings
from cnntrain.errors import Interrupted, NonFiniteError
from cnntrain.optim.parameter_groups import Learner
from cnntrain.optim.schedules import Plateau, Rates
from cnntrain.runtime.seeds import restore_rng_state, rng_state
from cnntrain.runtime.signals import asked_for
from cnntrain.training.build import build_state
from cnntrain.training.job import TrainJob
from cnntrain.training.loop import train_step
from cnntrain.training.state import TrainState
from cnntrain.training.steps import Step, Steps
from cnntrain.training.transfer import use_features

DIVERGED = 4.0  # times the lowest smooth loss: there the test ends
WINDOW = 0.2  # decades of the rate: the deviation of the Gaussian that smooths
FEIGNED = 1.75  # deviations of the noise: a fall as small as this is none
FAINT = 3.0  # of them: one as small as this may be none
RESTING = 1e-30  # a rate at which nothing moves
BELOW = 2.0  # how far the suggestion lies below the rate of the lowest loss, where a decade of rates has
PACE = 12.5  # steps or more: in fewer, as much is learned at higher rates alone
DIGITS = 2  # of a suggestion


@dataclass
class Ramp(Rates):
    """A rate that rises from `low` to `high` by the same factor in each of `steps` steps."""

    low: float
    high: float
    steps: int

    def at(self, step: int, steps: int, plateau: Plateau, place: float | None = None) -> float:
        """The rate of a step; the length of the run, and what its validation says, play no part."""
        return self.low * (self.high / self.low) ** (step / max(self.steps - 1, 1))


@dataclass
class RangeCurve:
    """The losses of a range test.

    Attributes:
        name: of what has learned.
        rates: of each step, as `optimizer.lr` would say it.
        losses: the mean over the images of each step, before it.
        rest: the same of the same images where nothing learns; empty where it is not known.
    """

    name: str
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rest: Sequence[float] = ()

    @property
    def gains(self) -> NDArray[np.float64]:
        """The losses, (N,), without what is due to the choice of the images."""
        losses = np.array(self.losses)
        rest = np.array(self.rest[: len(losses)])
        return losses - rest + rest.mean() if len(rest) else losses

    @property
    def smooth(self) -> NDArray[np.float64]:
        """The same without its noise: means weighted by the distance of the rates, which lag behind none."""
        places = np.log10(self.rates)
        weights = np.exp(-(((places[:, None] - places) / WINDOW) ** 2) / 2)
        result: NDArray[np.float64] = weights @ self.gains / weights.sum(1)
        return result

    @property
    def start(self) -> float:
        """The loss before anything is learned, of the first quarter of the steps."""
        return float(np.mean(self.gains[: max(1, len(self.losses) // 4)]))

    @property
    def lowest(self) -> int:
        """The step of the lowest smooth loss."""
        return int(self.smooth.argmin())

    @property
    def falls(self) -> bool:
        """Whether the loss falls by more than its noise can feign."""
        return self.lowest > 0 and self.fall > FEIGNED * self.noise

    @property
    def is_faint(self) -> bool:
        """Whether it falls by little more than that."""
        return self.falls and self.fall <= FAINT * self.noise

    @property
    def fall(self) -> float:
        """How far the smooth loss falls below that of the start."""
        return self.start - float(self.smooth.min())

    @property
    def noise(self) -> float:
        """The deviation of the losses from the smooth ones, up to the lowest."""
        smooth = self.smooth
        return float(np.std((self.gains - smooth)[: max(self.lowest + 1, len(smooth) // 4)]))

    @property
    def is_open(self) -> bool:
        """Whether the loss still falls at the highest rate."""
        return self.falls and self.lowest == len(self.rates) - 1

    @property
    def suggestion(self) -> float | None:
        """The rate to train with; None where none lowers the loss."""
        if not self.falls:
            return None
        decades = math.log10(self.rates[-1] / self.rates[0]) or 1.0
        below = BELOW * max(1.0, PACE * decades / (len(self.rates) - 1))
        return _round(self.rates[self.lowest] / below)

    def has_diverged(self) -> bool:
        """Whether nothing is to be learned at higher rates."""
        smooth = self.smooth
        return bool(smooth[-1] > DIVERGED * smooth.min())


def _round(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")


def trial_settings(settings: Settings, steps: int) -> Settings:
    """Settings whose run is a trial of so many steps: all groups learn from the start, and nothing is averaged."""
    trainer, tuning = settings.trainer, settings.finetune
    return replace(
        settings,
        trainer=replace(trainer, ema=None, compile=False, probe=0, max_steps=None, epochs=max(trainer.epochs, steps)),
        augment=replace(settings.augment, progressive=None),
        finetune=replace(tuning, head_epochs=0, unfreeze=None),
    )


def range_tests(job: TrainJob, low: float, high: float, steps: int) -> Iterator[RangeCurve]:
    """The range tests of a run: one of all that learns, or with mode C one for each layer group, the head first.

    Args:
        job: of `trial_settings`, with the weights to start from.
        low, high: the rates at both ends, as `optimizer.lr` would say them.

    Raises:
        Interrupted: a signal asked for the end.
        NonFiniteError: the first loss is NaN or infinite.
    """
    if job.tuning is None or job.settings.finetune.mode is not Mode.C:
        yield _test(job, "all", low, high, steps)
        return
    head, *lower = job.tuning.learners()
    start = _Start(job)
    curve = _test(job, head.name, low, high, steps, head)
    yield curve
    # A head of random numbers, or of zeros, hands no sensible gradient down, and one that knows all images by heart
    # leaves nothing to learn: the others are tested below one that is half-way.
    half = [rate for rate in curve.rates if curve.suggestion and rate <= curve.suggestion]
    start.restore()
    if half and lower:
        _test(job, f"{head.name}, half-way", low, half[-1], len(half), head)
        start = _Start(job)
    rest = _test(job, "at rest", RESTING, RESTING, steps, head).losses if lower else []
    for learner in lower:
        start.restore()
        curve = _test(job, learner.name, low, high, steps, learner)
        yield replace(curve, rest=rest)


class _Start:
    """Weights and random numbers, to which the network comes back for the next test."""

    def __init__(self, job: TrainJob) -> None:
        self.job, self.streams = job, rng_state(job.device)
        self.weights = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}

    def restore(self) -> None:
        self.job.model.load_state_dict(self.weights)
        restore_rng_state(self.streams, self.job.device)


def _test(job: TrainJob, name: str, low: float, high: float, steps: int, learner: Learner | None = None) -> RangeCurve:
    """Train with a rising rate until the loss diverges.

    Args:
        learner: what alone learns, at the full rate where parameters have no factor of their own (optimizer.lr_factors,
            or of the optimizer); None: all of the run, each part at a rate of its own.
    """
    scale = job.rates.lr / job.settings.optimizer.lr
    ramp = Ramp(job.rates.lr, job.rates.optimizer, job.rates.schedule, job.plan, low * scale, high * scale, steps)
    job = replace(job, rates=ramp)
    state = build_state(job)
    if learner is None and steps * job.plan.batch_size > len(job.data.train.labels):
        job = use_features(job, state)
    for group in state.optimizer.param_groups:  # those of other learners rest, whatever their rate
        group["lr_factor"] /= learner.lr_factor if learner else 1.0
    curve = RangeCurve(name)
    job.report.validating(steps * job.trainer.accumulate, phase=f"range test: {name}")
    for batches, images in _steps(job, state, learner.parameters if learner else None):
        rate = ramp.at(state.progress.step, steps, state.plateau) / scale
        train_step(state, job, batches, images)
        loss = state.log_window.read()["loss"]
        state.log_window.reset()
        if not math.isfinite(loss):
            break
        curve.rates.append(rate)
        curve.losses.append(loss)
        if signum := asked_for(job.stop):
            raise Interrupted(signum, "stopped; nothing was kept")
        if len(curve.losses) == steps or curve.has_diverged():
            break
    if not curve.losses:
        raise NonFiniteError(f"the loss of the first step is {loss}; see whether trainer.precision=fp32 mends it")
    return curve


def _steps(job: TrainJob, state: TrainState, parameters: Sequence[nn.Parameter] | None) -> Iterator[Step]:
    """One step after the other, over as many epochs as are asked for."""
    learning = {id(parameter) for parameter in parameters or ()}
    for epoch in itertools.count():
        state.progress.epoch, state.progress.batch = epoch, 0
        state.start_epoch()
        for parameter in job.model.parameters() if parameters else ():
            parameter.requires_grad_(id(parameter) in learning)
        with closing(Steps(job.loader(epoch), state.progress, job.trainer.accumulate)) as steps:
            yield from steps
