"""What ends a run: the one table of its limits, for the loop, for a resume and for what the report proposes."""

import math
from dataclasses import dataclass

from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.training.state import Progress


@dataclass(frozen=True)
class Limit:
    """A setting that ends a run, and how far the run is.

    Attributes:
        key: below `trainer`.
        maximum: where the run ends; infinite where the setting is null.
        value: how much of that is done; epochs count once they are validated.
        begun: the same with what is in hand.
        place: `at step 7`, or "" where a smaller limit cannot lie behind.
    """

    key: str
    maximum: float
    value: float
    begun: float = 0
    place: str = ""

    @property
    def is_met(self) -> bool:
        """Whether no further epoch follows."""
        return self.value >= self.maximum

    @property
    def is_behind(self) -> bool:
        """Whether the run is further already."""
        return bool(self.place) and self.begun > self.maximum


def limits(trainer: TrainerSettings, progress: Progress, planned_steps: int | None = None) -> list[Limit]:
    """All limits, in the order in which they are told.

    Args:
        planned_steps: of the whole run, where they are known.
    """
    epochs, steps, seconds = progress.epoch + (progress.batch > 0), progress.step, progress.seconds
    most_steps = planned_steps or trainer.max_steps or math.inf
    return [
        Limit("epochs", trainer.epochs, progress.epoch, epochs, f"in epoch {epochs}"),
        Limit("max_steps", most_steps, steps, steps, f"at step {steps}"),
        Limit("max_time", trainer.max_seconds() or math.inf, seconds, seconds, f"at {seconds:.3g} seconds"),
        Limit("early_stop", trainer.early_stop or math.inf, progress.waited),
    ]


def limits_met(trainer: TrainerSettings, progress: Progress) -> list[str]:
    """The keys below `trainer` whose limits a run has reached: with one of them no further epoch follows."""
    return [limit.key for limit in limits(trainer, progress) if limit.is_met]


def end_of(trainer: TrainerSettings, progress: Progress) -> str | None:
    """The setting that ends a run here, such as "trainer.epochs=30"; None where an epoch is left to train."""
    if progress.validated_step != progress.step:
        return None
    return next((f"trainer.{key}={getattr(trainer, key)}" for key in limits_met(trainer, progress)), None)
