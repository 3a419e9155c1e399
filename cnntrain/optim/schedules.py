"""The learning rate as a pure function of the step: schedules, warm-up, and how the rate follows the batch."""

import math
from dataclasses import dataclass

from cnntrain.config.schema.optimizer import OptimizerSettings
from cnntrain.config.schema.schedule import (
    SCHEDULES,
    ConstantSettings,
    CosineSettings,
    ExponentialSettings,
    MultistepSettings,
    OneCycleSettings,
    PlateauSettings,
    PolynomialSettings,
    ScheduleSettings,
    StepSettings,
    UserScheduleSettings,
)
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.errors import ConfigError
from cnntrain.registry import call_user_function


def scaled_rate(settings: OptimizerSettings, batch: int) -> tuple[float, str]:
    """The rate for `batch` images per step, and how it came about in words.

    Linear in the batch for SGD and RMSProp (arXiv 1706.02677), its square root for the Adams (arXiv 2205.10287).
    """
    base = settings.lr_base_batch
    if base is None or base == batch:
        return settings.lr, f"{settings.lr:g}"
    lr = settings.lr * batch_factor(settings, batch / base)
    rule = "square root of " if settings.entry.by_root else ""
    return lr, f"{lr:.4g} ({settings.lr:g} x {rule}{batch}/{base})"


def batch_factor(settings: OptimizerSettings, ratio: float) -> float:
    """The factor of the rate for `ratio` times as many images per step; 1 where it is not to be scaled."""
    if settings.lr_base_batch is None:
        return 1.0
    return math.sqrt(ratio) if settings.entry.by_root else ratio


@dataclass
class Plateau:
    """The state of the plateau schedule: all other schedules have none."""

    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def update(self, settings: PlateauSettings, loss: float) -> None:
        """Look at one validation loss; drop the factor after `patience` epochs without gain."""
        if loss < self.best * (1 - settings.threshold):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > settings.patience:
            self.factor, self.waited = max(self.factor * settings.factor, settings.end), 0


@dataclass
class Rates:
    """The learning rate of every step of a run."""

    lr: float  # with a factor of 1, at the full batch size
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    plan: EpochPlan

    def at(self, step: int, steps: int, plateau: Plateau, place: float | None = None) -> float:
        """The rate of `step`, counted from 0, in a run of so many steps.

        Args:
            place: on the schedule, 0 to 1, where time has a say in it; None: that of the step.
        """
        plan = self.plan
        full_steps, total = plan.steps(plan.epochs), plan.at_full_size(steps)  # of an epoch, and of the run
        shape = factor(
            self.schedule, plan.at_full_size(step) if place is None else place * total, total, full_steps, plateau
        )
        return self.lr * batch_factor(self.optimizer, plan.stage_at(step).batch_size / plan.batch_size) * shape


def factor(settings: ScheduleSettings, step: float, total: float, steps_per_epoch: float, plateau: Plateau) -> float:
    """The factor of `optimizer.lr` at `step` (0-based) of `total`.

    A pure function: nothing but the plateau's own state is remembered between steps.
    """
    warmup = min(settings.warmup * steps_per_epoch, total)
    if step < warmup:
        high = factor(settings, math.ceil(warmup), total, steps_per_epoch, plateau)  # where the schedule takes over
        low = min(settings.warmup_start, high)
        return low + (high - low) * step / warmup
    # Drops stand at epochs of the run; curves run from the end of the warm-up to the end of the run, where the step
    # after the last one would stand: with an end of 0, as torch has it, the last step still learns.
    place = Place(
        step=max(step - math.ceil(warmup), 0),
        total=max(total - math.ceil(warmup), 1),
        epoch=step / steps_per_epoch + 1e-9,
        steps_per_epoch=steps_per_epoch,
        plateau=plateau.factor,
    )
    result: float = SCHEDULES.entry(settings.name).build(settings, place)
    return result


# --- the builders of the entries: settings and a place in the run -> factor of the rate -------------------------------


@dataclass(frozen=True)
class Place:
    """A step of a run, seen from the end of its warm-up.

    Attributes:
        step: counted from there.
        total: steps of the run from there on.
        epoch: epochs that are over, counted from the start of the run.
        steps_per_epoch: at the full batch size.
        plateau: the factor of the one schedule that has a state.
    """

    step: float
    total: float
    epoch: float
    steps_per_epoch: float
    plateau: float


def constant(settings: ConstantSettings, at: Place) -> float:
    return 1.0


def cosine(settings: CosineSettings, at: Place) -> float:
    return settings.end + (1 - settings.end) * (1 + math.cos(math.pi * at.step / at.total)) / 2


def polynomial(settings: PolynomialSettings, at: Place) -> float:
    return settings.end + (1 - settings.end) * (1 - at.step / at.total) ** settings.power


def exponential(settings: ExponentialSettings, at: Place) -> float:
    return settings.decay ** (at.step / at.steps_per_epoch)


def step(settings: StepSettings, at: Place) -> float:
    return settings.factor ** int(at.epoch / settings.every)


def multistep(settings: MultistepSettings, at: Place) -> float:
    return settings.factor ** sum(at.epoch >= milestone for milestone in settings.milestones)


def onecycle(settings: OneCycleSettings, at: Place) -> float:
    peak, end = max(settings.peak * at.total - 1, 0), max(at.total - 1, 1)
    if at.step < peak:
        low, high, part = settings.start, 1.0, at.step / peak
    else:
        low, high, part = 1.0, settings.end, (at.step - peak) / (end - peak) if end > peak else 1.0
    if settings.linear:
        return low + (high - low) * part
    return high + (low - high) * (1 + math.cos(math.pi * part)) / 2


def plateau(settings: PlateauSettings, at: Place) -> float:
    return at.plateau


def user_schedule(settings: UserScheduleSettings, at: Place) -> float:
    """Call the user's function: `function(step, total, **args)` gives the factor of the rate, a number from 0 up.

    It must depend on nothing else. `step` is counted from 0, or from the end of the warm-up, up to `total` - 1; of
    `epoch` (epochs that are over) and `steps_per_epoch` it gets what it has parameters for.

    Raises:
        ConfigError: it fails, or gives no such number.
    """
    options = {"epoch": at.epoch, "steps_per_epoch": at.steps_per_epoch}
    value = call_user_function("schedule", settings.name, settings.args, at.step, at.total, **options)
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigError(
            f"schedule.name: {settings.name} gave {value!r} back at step {at.step:g} of {at.total:g}; "
            "it must return a factor of the rate, a number >= 0"
        )
    return float(value)
