"""The typed settings of a run. Nothing here imports torch: faults must be found in a fraction of a second."""

from dataclasses import dataclass, field
from typing import Any

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, Sampling
from cnntrain.config.schema.finetune import FinetuneSettings, Mode
from cnntrain.config.schema.limits import AUTO, number
from cnntrain.config.schema.loss import LOSSES, LossSettings
from cnntrain.config.schema.model import DropSchedule, ModelSettings
from cnntrain.config.schema.optimizer import OptimizerSettings
from cnntrain.config.schema.schedule import PlateauSettings, ScheduleSettings
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.registry import is_dotted


@dataclass
class Settings:
    """Everything that `cnntrain train` can be told; the tree of `conf/`."""

    seed: int = number(0, ge=0, lt=2**63)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    # null: off; each piece has a file in conf/augment
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    # of a data set of your own that brings no schedule/for_<data>.yaml
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    # what of a pretrained network learns, when, and how fast
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)  # length, hardware and bookkeeping

    @property
    def heading(self) -> str:
        """What heads a run: `resnet18 on photos`."""
        return f"{self.model.heading} on {self.data.heading}"

    def users_code(self, *, training: bool = True, images: bool = True) -> list[str]:
        """The words that name functions of the user's own: of a saved run they are followed only if repeated.

        Args:
            training: the network learns: such functions augment, weigh its faults and move its weights too.
            images: those of the run are read.
        """
        function = self.augment.own
        names = {"model.name": self.model.name} | ({"data.name": self.data.name} if images else {})
        if training:
            names |= {"augment.own.name": function.name if function else "", "optimizer.name": self.optimizer.name}
            names |= {"schedule.name": self.schedule.name, "loss.name": self.loss.name}
        return [f"{key}={name}" for key, name in names.items() if is_dotted(name)]

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules between two sections, as (key, value, rule)."""
        faults: list[tuple[str, Any, str]] = []
        if self.finetune.mode is not Mode.none and not (self.model.pretrained or self.model.weights):
            rule = "none where no weights are loaded: set model.pretrained=true or model.weights=FILE"
            faults.append(("finetune.mode", self.finetune.mode.name, rule))
        if self.finetune.mode is Mode.A and self.model.aux_weight > 0:
            rule = "0 with finetune.mode=A, whose encoder does not run its auxiliary classifiers"
            faults.append(("model.aux_weight", self.model.aux_weight, rule))
        if self.trainer.compile and self.model.drop_schedule is DropSchedule.linear:
            rule = "false with model.drop_schedule=linear, each rate being compiled anew"
            faults.append(("trainer.compile", self.trainer.compile, rule))
        if self.data.batch_size == AUTO and self.trainer.micro_batch is not None:
            rule = f"null with data.batch_size={AUTO}, which finds a batch that fits as a whole"
            faults.append(("trainer.micro_batch", self.trainer.micro_batch, rule))
        if self.loss.class_weights is not None and self.data.sampling is Sampling.balanced:
            rule = "null with data.sampling=balanced, which evens the classes out already"
            faults.append(("loss.class_weights", self.loss.class_weights, rule))
        if self.data.multi_label:
            faults += self._multi_label_faults()
        if not (self.data.val or self.data.is_users or is_dotted(self.data.name)):  # which may have images of their own
            faults += self.validation_faults()
        return faults

    def _multi_label_faults(self) -> list[tuple[str, Any, str]]:
        """The broken rules of what cannot do with several labels of an image, as (key, value, rule)."""
        faults: list[tuple[str, Any, str]] = []
        loss = LOSSES.find(self.loss.name)
        if loss and not loss.takes_sets:
            names = ", ".join(name for name, entry in LOSSES.items() if entry.takes_sets)
            rule = f"one of {names}, or a function of yours, with data.multi_label=true: set loss=bce"
            faults.append(("loss.name", self.loss.name, rule))
        if self.data.sampling is Sampling.balanced:
            rule = "natural with data.multi_label=true: loss=bce loss.pos_weight=balanced weighs classes"
            faults.append(("data.sampling", self.data.sampling.name, rule))
        if self.data.per_class is not None:
            faults.append(("data.per_class", self.data.per_class, "null with data.multi_label=true: set data.limit"))
        if self.augment.augmix and self.augment.augmix.jsd:
            rule = "0 with data.multi_label=true, as it compares answers of one class"
            faults.append(("augment.augmix.jsd", self.augment.augmix.jsd, rule))
        return faults

    def validation_faults(self) -> list[tuple[str, Any, str]]:
        """The broken rules of what needs validation images, as (key, value, rule), of a run that has none."""
        faults: list[tuple[str, Any, str]] = []
        if self.trainer.early_stop is not None:
            rule = "null without validation images (data.val=0)"
            faults.append(("trainer.early_stop", self.trainer.early_stop, rule))
        if isinstance(self.schedule, PlateauSettings):
            rule = "another one without validation images (data.val=0), whose loss it waits for"
            faults.append(("schedule.name", self.schedule.name, rule))
        return faults
