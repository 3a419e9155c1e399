"""The training loop: straight code, to be read from top to bottom."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cnntrain import device as machine
from cnntrain import optim
from cnntrain.data.loaders import Loader
from cnntrain.errors import CnntrainError, Interrupted, NonFiniteError
from cnntrain.metrics import Window
from cnntrain.models.drop import DropLayer, set_drop_factor
from cnntrain.run import Progress, Run
from cnntrain.settings.schedule import PlateauSettings, ScheduleSettings
from cnntrain.settings.trainer import Precision, TrainerSettings

Batches = Iterable[tuple[Tensor, Tensor]]


class Reporter(Protocol):
    """What the loop tells; `report.Report` shows and stores it."""

    def start_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None: ...
    def advance(self, images: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def validating(self, batches: int) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...
    def say(self, line: str) -> None: ...


class StopFlag(Protocol):
    """Set by a signal, read between steps."""

    signum: int | None

    @property
    def requested(self) -> bool: ...


@dataclass
class Task:
    """What the loop trains on and how: all of it constant over the run."""

    train: Loader
    val: Loader
    augment: Callable[[Tensor, torch.Generator], Tensor]
    normalise: Callable[[Tensor], Tensor]
    trainer: TrainerSettings
    schedule: ScheduleSettings
    label_smoothing: float
    aux_weight: float  # of each auxiliary classifier's loss
    drops: list[DropLayer]  # whose rates rise from 0 over the run; [] where they are constant
    save: Callable[[dict[str, Any], bool], None]  # state, whether it is the best so far
    report: Reporter
    stop: StopFlag

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.trainer.accumulate)

    def total_steps(self, progress: Progress) -> int:
        """Steps of the whole run, to which the schedule is fitted."""
        planned = self.steps_per_epoch * self.trainer.epochs + progress.step_offset
        return min(planned, self.trainer.max_steps or planned)


def train(run: Run, task: Task) -> str:
    """Train from the run's progress to its end, and answer why it ended.

    "epochs", "max_steps", "max_time" or "early_stop". `last` is saved every `save_every` steps and after each epoch,
    and before an error or a signal ends the run; a non-finite loss leaves the last good checkpoint alone.

    Raises:
        NonFiniteError: the loss or a weight became NaN or infinite.
        Interrupted: a signal asked for the end.
    """
    clock = Clock(run.progress.seconds, task.trainer.max_seconds())
    # A run stopped between its last step and the validation after it still owes that validation.
    ended = end_reason(run, task, clock) if run.progress.validated_step == run.progress.step else ""
    try:
        while not ended:
            train_epoch(run, task, clock)
            ended = finish_epoch(run, task, clock)
    except NonFiniteError:
        raise
    except CnntrainError:
        run.progress.seconds = clock.seconds
        run.check_finite()
        task.save(run.state(), False)
        raise
    return ended


def train_epoch(run: Run, task: Task, clock: "Clock") -> None:
    """Train on the rest of the epoch in hand, or up to the run's limit of steps or time."""
    settings, progress, report = task.trainer, run.progress, task.report
    if progress.batch == 0:
        progress.epoch_started = clock.seconds
    run.model.train()
    report.start_epoch(progress.epoch + 1, settings.epochs, len(task.train), progress.batch)
    total = task.total_steps(progress)

    with closing(task.train.batches(progress.epoch, progress.batch)) as batches:
        source = Timed(batches)
        meter = Meter(source)
        for micro_batches in in_groups(source, settings.accumulate):
            if progress.step >= total:
                break
            train_step(run, task, micro_batches)
            meter.images += sum(len(labels) for _, labels in micro_batches)

            if progress.step % settings.log_every == 0 or progress.step == total:
                report.step(log_row(run, meter))
            if progress.step % settings.save_every == 0:
                progress.seconds = clock.seconds
                run.check_finite()
                task.save(run.state(), False)
            if task.stop.requested:
                raise interrupted(task.stop)
            if clock.is_over:
                break


def train_step(run: Run, task: Task, micro_batches: list[tuple[Tensor, Tensor]]) -> None:
    """One optimizer step: the mean gradient over all images of its micro-batches, however they are cut."""
    progress, settings = run.progress, task.trainer
    total, offset = task.total_steps(progress), progress.step_offset
    factor = optim.factor(task.schedule, progress.step - offset, total - offset, task.steps_per_epoch, run.plateau)
    optim.set_rate(run.optimizer, run.lr * factor)
    set_drop_factor(task.drops, progress.step / total)
    images_in_step = sum(len(labels) for _, labels in micro_batches)

    for images, labels in micro_batches:
        generator = machine.generator(run.device, run.seed, progress.epoch, progress.batch)
        inputs = task.augment(images, generator)
        with machine.autocast(run.precision, run.device):
            output = run.forward(inputs)
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        loss = loss_sum(logits, labels, task.label_smoothing)
        objective = loss
        for aux_logits in auxiliary:
            objective = objective + task.aux_weight * loss_sum(aux_logits, labels, task.label_smoothing)
        run.scaler.scale(objective / images_in_step).backward()
        run.log_window.add(loss.detach(), logits.detach(), labels)
        progress.batch += 1
        task.report.advance(len(labels))

    log_due = (progress.step + 1) % settings.log_every == 0 or progress.step + 1 == total
    if settings.clip_norm or log_due:
        run.scaler.unscale_(run.optimizer)
        run.measure_gradient(settings.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema:
        run.ema.update()
    progress.step += 1


def loss_sum(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy, summed in float32: a short last micro-batch then weighs what its images weigh."""
    return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="sum")


def log_row(run: Run, meter: "Meter") -> dict[str, Any]:
    """The measures since the last log row; the only place in an epoch where the host waits for the device."""
    row = {"step": run.progress.step, "epoch": run.progress.epoch + 1, **run.read_log_window()}
    run.fold_log_window()
    return row | {"lr": run.optimizer.param_groups[0]["lr"], "grad_norm": float(run.grad_norm), **meter.read()}


def finish_epoch(run: Run, task: Task, clock: "Clock") -> str:
    """Validate, keep the best, save; answer why the run ends here, or ""."""
    progress = run.progress
    run.check_finite()
    trained = run.epoch_scores()
    epoch, rate = progress.epoch + 1, run.optimizer.param_groups[0]["lr"]
    train_seconds = clock.seconds - progress.epoch_started
    task.report.validating(len(task.val))
    val = evaluate(
        run.eval_model,
        task.val,
        task.normalise,
        run.device,
        run.precision,
        stop=task.stop,
        advance=task.report.advance,
    )

    progress.validated_step = progress.step
    best = progress.is_best(val["top1"], val["loss"])
    if best:
        progress.best_epoch, progress.best_loss = epoch, val["loss"]
        progress.best_top1, progress.best_top5 = val["top1"], val["top5"]
    progress.epoch_train_seconds = train_seconds
    if progress.batch >= len(task.train):
        progress.images += int(trained["images"])
        progress.train_seconds += train_seconds
        progress.epoch_train_seconds = 0.0
        progress.waited = 0 if best else progress.waited + 1
        if isinstance(task.schedule, PlateauSettings):
            run.plateau.update(task.schedule, val["loss"])
        progress.epoch, progress.batch = progress.epoch + 1, 0
        run.epoch_window.reset()
    progress.seconds = clock.seconds
    seconds = progress.seconds - progress.epoch_started
    task.save(run.state(), best)
    task.report.epoch(
        {"epoch": epoch, "step": progress.step, "lr": rate, "seconds": seconds, "best": best}
        | {"images_per_second": trained["images"] / max(train_seconds, 1e-9)}
        | {"train_loss": trained["loss"], "train_top1": trained["top1"]}
        | {f"val_{key}": value for key, value in val.items()}
    )
    return end_reason(run, task, clock)


def end_reason(run: Run, task: Task, clock: "Clock") -> str:
    """Why no further epoch follows, or ""."""
    progress, settings = run.progress, task.trainer
    if progress.epoch >= settings.epochs:
        return "epochs"
    if progress.step >= task.total_steps(progress):
        return "max_steps"
    if clock.is_over:
        return "max_time"
    if settings.early_stop and progress.waited >= settings.early_stop:
        return "early_stop"
    return ""


@torch.no_grad()  # not inference_mode: a loader may decode its images at first use and keep them
def evaluate(
    model: torch.nn.Module,
    loader: Loader,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
    precision: Precision,
    *,
    stop: StopFlag | None = None,
    advance: Callable[[int], None] | None = None,
    collect: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[str, float]:
    """Score a model on all images of a split: `loss`, `top1` and `top5`, the plain cross-entropy and fractions.

    `collect` is given the float32 logits (N, C) and labels (N,) of each micro-batch.
    """
    model.eval()
    window = Window(device, top5=True)
    with closing(loader.batches()) as batches:
        for images, labels in batches:
            with machine.autocast(precision, device):
                logits = model(normalise(images))
            logits = logits.float()
            window.add(functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)
            if collect:
                collect(logits, labels)
            if advance:
                advance(len(labels))
            if stop and stop.requested:
                raise interrupted(stop)
    return window.read()


def interrupted(stop: StopFlag) -> Interrupted:
    """The error that ends a run on a signal; `train` saves before it leaves."""
    return Interrupted(stop.signum or 2, "stopped and saved")


def in_groups(batches: Batches, size: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Micro-batches in lists of `size`; the last list may be shorter."""
    group: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


class Timed:
    """An iterator that adds up the seconds its consumer waits for it."""

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.waited = 0.0

    def __iter__(self) -> "Timed":
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        start = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.waited += time.perf_counter() - start


class Meter:
    """Throughput and the share of time spent waiting for data since the last reading."""

    def __init__(self, source: Timed) -> None:
        self.source = source
        self._start()

    def _start(self) -> None:
        self.images, self.since, self.source.waited = 0, time.perf_counter(), 0.0

    def read(self) -> dict[str, float]:
        """`images_per_second` and `data_wait` (0..1); starts anew."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        row = {"images_per_second": self.images / seconds, "data_wait": min(self.source.waited / seconds, 1.0)}
        self._start()
        return row


class Clock:
    """Seconds of training, counted on over resumes, and the limit on those of this process."""

    def __init__(self, before: float, limit: float | None) -> None:
        self.before, self.limit, self.start = before, limit, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    @property
    def is_over(self) -> bool:
        return self.limit is not None and time.perf_counter() - self.start >= self.limit
