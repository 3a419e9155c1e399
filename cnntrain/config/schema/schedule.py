"""Learning-rate schedules: the rate as a factor of optimizer.lr. Lengths are in epochs, fractions allowed."""

from dataclasses import dataclass
from typing import Any

from cnntrain.config.schema.limits import number


@dataclass
class ScheduleSettings:
    name: str = "???"  # says which child class holds the numbers; chosen by `schedule=NAME`
    warmup: float = number(0.0, ge=0)  # epochs of linear rise to the factor that the schedule proper begins with
    warmup_start: float = number(0.01, ge=0, le=1)  # the factor at the first step of the rise


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


@dataclass
class MultistepSettings(ScheduleSettings):
    name: str = "multistep"
    milestones: list[float] = number([30.0, 60.0, 80.0], gt=0)  # epochs of the drops
    factor: float = number(0.1, gt=0, le=1)

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        rising = self.milestones == sorted(self.milestones)
        return [] if rising else [("milestones", self.milestones, "in rising order")]


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


SCHEDULES = {
    "constant": ConstantSettings,
    "cosine": CosineSettings,
    "onecycle": OneCycleSettings,
    "step": StepSettings,
    "multistep": MultistepSettings,
    "exponential": ExponentialSettings,
    "polynomial": PolynomialSettings,
    "plateau": PlateauSettings,
}
