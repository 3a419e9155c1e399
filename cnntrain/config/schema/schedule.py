"""Learning-rate schedules: the rate as a factor of optimizer.lr. Lengths are in epochs, fractions allowed."""

import math
from dataclasses import dataclass, field
from typing import Any

from cnntrain.config.schema.limits import number
from cnntrain.registry import Entry, Registry


@dataclass
class ScheduleSettings:
    name: str = "???"  # chosen by schedule=NAME
    warmup: float = number(0.0, ge=0)  # epochs of linear rise before the schedule proper
    warmup_start: float = number(0.01, ge=0, le=1)  # the factor at the first step of the rise

    def first_drop(self) -> tuple[str, float]:
        """The key that says when the rate drops first, and the epochs that are over by then; of a schedule of drops."""
        return "", 0


@dataclass
class ConstantSettings(ScheduleSettings):
    name: str = "constant"


@dataclass
class CosineSettings(ScheduleSettings):
    """Half a cosine from 1 to `end` (arXiv 1608.03983, without restarts)."""

    name: str = "cosine"
    end: float = number(0.0, ge=0, le=1)  # factor that the run ends at, a step after its last one, as torch has it


@dataclass
class OneCycleSettings(ScheduleSettings):
    """Up, then down to almost nothing (arXiv 1708.07120)."""

    name: str = "onecycle"
    peak: float = number(0.3, gt=0, lt=1)  # where the peak stands, as a part of the run
    start: float = number(0.04, ge=0, le=1)  # factor at the first step
    end: float = number(0.0001, ge=0, le=1)  # factor at the last step
    linear: bool = False  # straight lines instead of half cosines


@dataclass
class StepSettings(ScheduleSettings):
    name: str = "step"
    every: float = number(30.0, gt=0)  # epochs between two drops
    factor: float = number(0.1, gt=0, le=1)

    def first_drop(self) -> tuple[str, float]:
        """See ScheduleSettings."""
        return "every", self.every


@dataclass
class MultistepSettings(ScheduleSettings):
    name: str = "multistep"
    milestones: list[float] = number([30.0, 60.0, 80.0], gt=0)  # epochs of the drops
    factor: float = number(0.1, gt=0, le=1)

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        is_rising = self.milestones == sorted(self.milestones)
        return [] if is_rising else [("milestones", self.milestones, "in rising order")]

    def first_drop(self) -> tuple[str, float]:
        """See ScheduleSettings."""
        return "milestones", min(self.milestones, default=math.inf)


@dataclass
class ExponentialSettings(ScheduleSettings):
    name: str = "exponential"
    decay: float = number(0.95, gt=0, le=1)  # factor per epoch


@dataclass
class PolynomialSettings(ScheduleSettings):
    name: str = "polynomial"
    power: float = number(1.0, gt=0)  # 1: a straight line
    end: float = number(0.0, ge=0, le=1)  # factor that the run ends at, a step after its last one, as torch has it


@dataclass
class PlateauSettings(ScheduleSettings):
    """Drops when the validation loss stands still: the one schedule with a state of its own."""

    name: str = "plateau"
    factor: float = number(0.1, gt=0, lt=1)
    patience: int = number(5, ge=0)  # epochs without gain before a drop
    threshold: float = number(0.0001, ge=0)  # relative gain that counts
    end: float = number(0.001, ge=0, le=1)  # the factor never falls below

    def first_drop(self) -> tuple[str, float]:
        """See ScheduleSettings."""
        return "patience", self.patience + 2  # the first epoch sets the score to beat


@dataclass
class UserScheduleSettings(ScheduleSettings):
    """A function of the user's, `name: my_pkg.rates:wave`; optim/schedules.py says how it is called."""

    args: dict[str, Any] = field(default_factory=dict)  # its keyword arguments


_HOME = "cnntrain.optim.schedules"
SCHEDULES = Registry(
    "schedule",
    (
        Entry("constant", ConstantSettings, f"{_HOME}:constant"),
        Entry("cosine", CosineSettings, f"{_HOME}:cosine"),
        Entry("onecycle", OneCycleSettings, f"{_HOME}:onecycle"),
        Entry("step", StepSettings, f"{_HOME}:step"),
        Entry("multistep", MultistepSettings, f"{_HOME}:multistep"),
        Entry("exponential", ExponentialSettings, f"{_HOME}:exponential"),
        Entry("polynomial", PolynomialSettings, f"{_HOME}:polynomial"),
        Entry("plateau", PlateauSettings, f"{_HOME}:plateau"),
    ),
    user=Entry("own", UserScheduleSettings, f"{_HOME}:user_schedule"),
)
