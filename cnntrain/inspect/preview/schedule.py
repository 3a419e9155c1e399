"""What changes from step to step of a run, known before its first one: the curves of a preview."""

from cnntrain.config.schema.schedule import PlateauSettings
from cnntrain.models.drop import drop_layers
from cnntrain.optim.schedules import Plateau
from cnntrain.plots.curves import Curves, Panel
from cnntrain.text import counted
from cnntrain.training.job import TrainJob

MOST_POINTS = 900  # of a curve: one for each pixel


class Course:
    """The learning rate, the drop rates, the image size and the rest, at steps that are spread over the run.

    Attributes:
        steps: of the whole run.
        epochs: that they fill, the last perhaps in part.
        points: the steps that values are given for, counted from 0, the first and the last one among them.
    """

    def __init__(self, job: TrainJob) -> None:
        self.job = job
        plan, limit = job.plan, job.settings.trainer.max_steps
        self.steps = min(plan.total, limit or plan.total)
        self.epochs = min(plan.epochs, int(plan.position(self.steps - 1)) + 1)
        self.points = sorted({*range(0, self.steps, -(-self.steps // MOST_POINTS)), self.steps - 1})
        self.drops = sorted({drop.base for drop in drop_layers(job.model)})
        self.drops_rise = bool(job.drops)

    @property
    def batch(self) -> str:
        """What a step is made of, in words."""
        settings = self.job.settings
        first, full = (self.job.plan.stage(epoch).batch_size for epoch in (0, settings.trainer.epochs))
        images = counted(full, "image") if first == full else f"{first} to {full} images"
        many = settings.trainer.accumulate
        return f"{many} micro-batches of {images}" if many > 1 else images

    @property
    def words(self) -> str:
        """How long the run is."""
        return f"{counted(self.steps, 'step')} of {self.batch}, {counted(self.epochs, 'epoch')}"

    def panels(self) -> list[Panel]:
        """One panel for each quantity that the config has."""
        return [panel for panel in (self._rate(), self._drop_rates(), *self._stages(), self._mixing()) if panel]

    def scalars(self, step: int) -> dict[str, float | None]:
        """All values of one step, by a name for TensorBoard."""
        values: dict[str, float | None] = {"schedule/lr": self.rate(step)}
        if self.drops:
            values["schedule/drop_rate"] = self.drops[-1] * self.drop_factor(step)
        if self.job.settings.augment.progressive:
            stage = self.job.plan.stage_at(step)
            values |= {"schedule/image_size": stage.image_size, "schedule/batch_size": stage.batch_size}
        return values

    def curves(self, title: str) -> Curves:
        """The picture."""
        plan, limit = self.job.plan, self.job.settings.trainer.max_time
        notes = [f"{self.words}."]
        notes += (
            [f"trainer.max_time={limit} presses it into that time where the run would take longer."] if limit else []
        )
        firsts = [plan.first_step(epoch) for epoch in range(self.epochs + 1)]
        return Curves(title, notes, self.panels(), self.steps, firsts)

    def rate(self, step: int) -> float:
        """The learning rate of a step; with schedule=plateau as long as the loss falls."""
        return self.job.rates.at(step, self.steps, Plateau())

    def drop_factor(self, step: int) -> float:
        """What the drop rates are multiplied with at a step."""
        return step / self.steps if self.drops_rise else 1.0

    def _rate(self) -> Panel:
        waits = isinstance(self.job.settings.schedule, PlateauSettings)
        note = f"{self.rate(self.steps - 1):.4g} until the validation loss stands still" if waits else ""
        name = f"learning rate, schedule {self.job.settings.schedule.name}"
        return Panel(name, self.points, [[self.rate(step) for step in self.points]], note=note)

    def _drop_rates(self) -> Panel | None:
        if not self.drops:
            return None
        name = "drop rates of the layers" if len(self.drops) > 1 else "drop rate"
        low, high = f"{self.drops[0]:.3g}", f"{self.drops[-1]:.3g}"
        note = f"{low} to {high}" if low != high else high
        note = f"from 0 to {note}" if self.drops_rise else f"{note} throughout"
        lines = [[base * self.drop_factor(step) for step in self.points] for base in self.drops]
        return Panel(name, self.points, lines, note=note)

    def _stages(self) -> list[Panel]:
        if self.job.settings.augment.progressive is None:
            return []
        epochs = range(self.epochs)
        firsts = [self.job.plan.first_step(epoch) for epoch in epochs]
        stages = [self.job.plan.stage(epoch) for epoch in epochs]
        return [
            Panel("image size in pixels", firsts, [[stage.image_size for stage in stages]], stairs=True),
            Panel("images of a micro-batch", firsts, [[stage.batch_size for stage in stages]], stairs=True),
        ]

    def _mixing(self) -> Panel | None:
        augment = self.job.settings.augment
        share, off = augment.mix.p, augment.mix.off_epoch
        if not augment.mixes or off is None or off >= self.epochs:
            return None
        steps, note = [0, self.job.plan.first_step(off)], f"{share:g}, and none after epoch {off}"
        return Panel("share of the images that are mixed", steps, [[share, 0.0]], stairs=True, note=note)
