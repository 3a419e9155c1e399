"""The typed settings of a run. Nothing here imports torch: faults must be found in a fraction of a second."""

from dataclasses import dataclass, field
from typing import Any

from cnntrain.settings.augment import AugmentSettings
from cnntrain.settings.data import DataSettings
from cnntrain.settings.finetune import FinetuneSettings
from cnntrain.settings.limits import number
from cnntrain.settings.model import DropSchedule, ModelSettings
from cnntrain.settings.optimizer import OptimizerSettings
from cnntrain.settings.schedule import ScheduleSettings
from cnntrain.settings.trainer import TrainerSettings


@dataclass
class LossSettings:
    label_smoothing: float = number(0.0, ge=0, lt=1)  # arXiv 1512.00567, section 7


@dataclass
class Settings:
    """Everything that `cnntrain train` can be told; the tree of `conf/`."""

    seed: int = number(0, ge=0, lt=2**63)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules between two sections, as (key, value, rule)."""
        if self.trainer.compile and self.model.drop_schedule is DropSchedule.linear:
            return [("trainer.compile", True, "false with model.drop_schedule=linear, each rate being compiled anew")]
        return []
