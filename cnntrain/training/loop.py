"""The training loop: straight code, to be read from top to bottom."""

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Any

from cnntrain.config.schema.schedule import PlateauSettings
from cnntrain.data.loaders import Batch, Loader
from cnntrain.errors import CnntrainError, FrozenError, Interrupted, NonFiniteError
from cnntrain.finetune.batch_norms import counted_together
from cnntrain.models.drop import set_drop_factor
from cnntrain.optim import optimizers
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.signals import asked_for, interrupted
from cnntrain.runtime.stopwatch import PHASES
from cnntrain.runtime.world import Flags
from cnntrain.training.compilation import own_gradients
from cnntrain.training.job import TrainJob
from cnntrain.training.limits import limits
from cnntrain.training.micro_batches import BatchTooLarge, Guard, cut, most_at_once, too_large
from cnntrain.training.multi_label import SetAnswers
from cnntrain.training.scoring import Answer
from cnntrain.training.state import TrainState
from cnntrain.training.steps import Steps
from cnntrain.training.timing import Clock, Meter


def train(run: TrainState, job: TrainJob) -> str:
    """Train from the run's progress to its end, and answer why it ended.

    "epochs", "max_steps", "max_time" or "early_stop". `last` is saved every `save_every` steps and after each epoch,
    and before an error or a signal ends the run; a non-finite loss, a moved frozen weight or want of memory leaves the
    last good checkpoint alone.

    Raises:
        NonFiniteError: the loss or a weight became NaN or infinite.
        FrozenError: a weight or statistic that must not learn has moved.
        ConfigError: a layer group that learns received no gradient.
        BatchTooLarge: a step needs more memory than there is.
        Interrupted: a signal asked for the end.
    """
    clock = Clock(run.progress.seconds, job.trainer.max_seconds(), job.trainer.save_seconds())
    # A run stopped between its last step and the validation after it still owes that validation.
    reason = end_reason(run, job) if run.progress.validated_step == run.progress.step else ""
    try:
        while not reason:
            train_epoch(run, job, clock)
            reason = finish_epoch(run, job, clock)
    except (NonFiniteError, FrozenError, BatchTooLarge):
        raise
    except CnntrainError as error:
        # A fault of one of several processes is its own: the others know nothing of it and cannot save with it.
        # Before the first image, a fault leaves nothing to go on with.
        has_begun = run.progress.step > 0 or run.progress.batch > 0
        if (run.world.size == 1 and has_begun) or isinstance(error, Interrupted):
            save_last(run, job, clock)
            job.finish_saves()
            run.world.wait()
        raise
    job.finish_saves()
    return reason


def train_epoch(run: TrainState, job: TrainJob, clock: Clock) -> None:
    """Train on the rest of the epoch in hand, or up to the run's limit of steps or time."""
    settings, progress, report = job.trainer, run.progress, job.report
    loader = job.loader(progress.epoch)
    if progress.batch == 0:
        progress.epoch_started = clock.seconds
    for line in run.start_epoch():
        report.say(line)
    report.start_epoch(progress.epoch + 1, settings.epochs, len(loader), progress.batch)
    total, save_steps, flags = job.total_steps(progress), settings.save_steps(), Flags(run.world)
    run.watch.start()

    with closing(Steps(loader, progress, settings.accumulate, run.watch)) as steps:
        guard = Guard(run, job, loader.batch_size // run.world.size)
        for batches, images in steps:
            if progress.step >= total:
                break
            if not guard.take(partial(train_step, run, job, batches, images)):
                continue
            if job.after_step and (seconds := job.after_step()):
                clock.leave_out(seconds)
                steps.meter.leave_out(seconds)
                run.watch.start()
            if run.row_is_due:
                report.step(log_row(run, steps.meter))
                run.watch.mark("log")
            if settings.max_time and run.pace.is_due(progress.schedule_step):
                note_time(run, job, clock.seconds, saves=False)
            signum, is_over, is_due = flags.most(asked_for(job.stop), clock.is_over, clock.save_is_due)
            if is_due or (save_steps and progress.step % save_steps == 0):
                save_last(run, job, clock)
            if signum:
                raise interrupted(signum)
            if is_over:
                break


def train_step(run: TrainState, job: TrainJob, batches: Iterable[Batch], images: int) -> None:
    """One optimizer step: the mean gradient over all images of its batches, however they are cut.

    Args:
        images: in all of the batches, over all processes.

    Raises:
        BatchTooLarge: the images need more memory than there is; the weights have not moved.
    """
    progress, settings = run.progress, job.trainer
    total = job.total_steps(progress)
    step, steps = job.schedule_steps(progress)
    place = run.pace.at(step, steps) if settings.max_time else None
    optimizers.set_lr(run.optimizer, job.rates.at(step, steps, run.plateau, place))
    set_drop_factor(job.drops, progress.step / total if place is None else place)
    if run.skips:
        run.skips.keep()

    seen = 0
    try:
        for batch in batches:
            add_gradients(run, job, batch, images, is_first=seen == 0, is_last=seen + batch.total == images)
            seen += batch.total
            progress.batch += 1
            job.report.advance(len(batch.labels))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise too_large() from None
        raise

    run.exchange.average_norms()
    if run.tuning:
        run.tuning.watch()
    run.row_is_due = run.row_times.is_due(progress.step + 1, settings.log_every) or progress.step + 1 == total
    if settings.clip_norm or run.row_is_due:
        run.scaler.unscale_(run.optimizer)
        run.measure_gradient(settings.clip_norm)
    run.scaler.step(run.optimizer)
    skipped = run.skips.undo() if run.skips else None
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema:
        run.ema.update(skipped)
    progress.step += 1
    run.watch.mark("step")


def note_time(run: TrainState, job: TrainJob, seconds: float, *, saves: bool) -> None:
    """Take down what has passed of the time, and fit the schedule to the rest where time ends the run.

    Args:
        saves: a checkpoint follows.
    """
    progress, limit = run.progress, job.trainer.max_seconds()
    progress.seconds = seconds
    run.spent.add(run.watch.take())
    if limit:
        run.pace.fit(*job.schedule_steps(progress), run.world.share(seconds), limit)
        run.pace.is_saved |= saves


def add_gradients(run: TrainState, job: TrainJob, batch: Batch, images: int, *, is_first: bool, is_last: bool) -> None:
    """The forward and backward passes of a batch, the first or last of a step with so many images."""
    context = job.context(run.progress.epoch, run.progress.batch, batch.indices)
    all_inputs, all_targets = job.augment(batch.images, context), batch.labels
    if job.mix:
        all_inputs, all_targets = job.mix(all_inputs, all_targets, context)
    run.watch.mark("augment")
    forward = run.forward if batch.total == job.plan.full_batch(run.progress.epoch) else run.short_forward
    done = 0
    for inputs, targets in cut(all_inputs, all_targets, most_at_once(run, job)):
        is_end = is_last and done + len(targets) == len(all_targets)
        with run.exchange.micro_batch(is_last=is_end):
            with counted_together(run.norms), autocast(run.precision, run.device):
                output = forward(inputs)
            logits, loss, objective = job.losses(output, targets)
            # Of several processes, the mean of their gradients is taken: each weighs its own by its part of the images.
            run.scaler.scale(objective / (images / run.world.size)).backward()
        if run.compiler and run.compiler.replays and is_first and done == 0 and not is_end:
            own_gradients(list(run.model.parameters()))
        done += len(targets)
        # Of several versions of each image, the first is the clean one.
        run.log_window.add(loss.detach(), logits.detach()[: len(targets)], targets)
    run.watch.mark("network")


def save_last(run: TrainState, job: TrainJob, clock: Clock) -> None:
    """Save where the run is, inside an epoch; NonFiniteError where that is nothing to go on from."""
    note_time(run, job, clock.seconds, saves=True)
    run.check_finite()
    job.save(run.state(), False)
    clock.note_save()
    run.watch.mark("save")


def log_row(run: TrainState, meter: Meter) -> dict[str, Any]:
    """The measures since the last log row; the only place in an epoch where the host waits for the device."""
    row = {"step": run.progress.step, "epoch": run.progress.epoch + 1, **run.read_log_window()}
    run.fold_log_window()
    return row | {"lr": run.optimizer.param_groups[0]["lr"], "grad_norm": float(run.grad_norm), **meter.read()}


def finish_epoch(run: TrainState, job: TrainJob, clock: Clock) -> str:
    """Validate, keep the best, save; answer why the run ends here, or ""."""
    progress, schedule = run.progress, job.settings.schedule
    run.check_finite()
    if run.tuning:
        run.tuning.check()
    if job.recalibrate:
        job.recalibrate(run.eval_model)
        run.check_finite()
    train_scores = run.epoch_scores()
    run.watch.mark("log")
    epoch, rate = progress.epoch + 1, run.optimizer.param_groups[0]["lr"]
    train_seconds = clock.seconds - progress.epoch_started
    sets = SetAnswers(run.world)
    val = validate_heard(run, job, job.data.val, sets) if job.data.val else None
    probe = validate(run, job, job.data.probe) if job.data.probe else {}
    run.watch.mark("evaluate")

    progress.validated_step = progress.step
    is_best = val is None or progress.is_best(val)
    if is_best:
        progress.best_epoch = epoch
    if is_best and val:
        progress.keep_best(val)
        progress.thresholds = sets.fit_thresholds() if job.data.multi_label else []
    progress.epoch_train_seconds = train_seconds
    if progress.batch >= job.plan.batches(progress.epoch):
        progress.images += int(train_scores["images"])
        progress.train_seconds += train_seconds
        progress.epoch_train_seconds = 0.0
        progress.waited = 0 if is_best else progress.waited + 1
        if isinstance(schedule, PlateauSettings) and val:
            run.plateau.update(schedule, val["loss"])
        progress.epoch, progress.batch = progress.epoch + 1, 0
        run.epoch_window.reset()
    note_time(run, job, clock.seconds, saves=True)
    seconds = progress.seconds - progress.epoch_started
    spent = run.spent.end_epoch() if progress.batch == 0 else run.spent.epoch
    job.save(run.state(), is_best)
    clock.note_save()
    run.watch.mark("save")
    job.report.epoch(
        {"epoch": epoch, "step": progress.step, "lr": rate, "seconds": seconds, "best": is_best and val is not None}
        | {"images_per_second": train_scores["images"] / max(train_seconds, 1e-9)}
        | {f"train_{key}": train_scores[key] for key in ("loss", "top1") if key in train_scores}
        | {f"val_{key}": value for key, value in (val or {}).items()}
        | {f"probe_{key}": value for key, value in probe.items()}
        | seconds_of_phases(spent, run.spent.add_late(run.watch.take()))
    )
    reason = end_reason(run, job)
    job.watch(run.eval_model, epoch, progress.seconds, bool(reason))
    return reason


def seconds_of_phases(*parts: dict[str, float]) -> dict[str, float]:
    """`seconds_data` and so on, for a row of an epoch."""
    return {f"seconds_{phase}": sum(part.get(phase, 0.0) for part in parts) for phase in PHASES}


def validate_heard(run: TrainState, job: TrainJob, loader: Loader, sets: SetAnswers) -> dict[str, float]:
    """The scores on the validation images, in the last epoch with the answers.

    If that epoch is the best, as it often is, the images are not scored again at the end. A compiled network and a
    head alone, whose images are features, cannot be listened to.
    """
    progress = run.progress
    is_last = progress.epoch + 1 == job.trainer.epochs or progress.step >= job.total_steps(progress)
    is_plain = run.eval_part is run.eval_model and not run.compiler
    if not (job.listener and is_last and is_plain) or job.data.test:
        return validate(run, job, loader, sets=sets)
    with job.listener.hearing(run.eval_model, progress.epoch + 1) as watch:
        return validate(run, job, loader, watch, sets)


def validate(
    run: TrainState,
    job: TrainJob,
    loader: Loader,
    watch: Callable[[Answer], None] | None = None,
    sets: SetAnswers | None = None,
) -> dict[str, float]:
    """The scores of the run's network on all images of a loader; for `watch` and `sets` see Scorer.score."""
    job.report.validating(len(loader))
    forward = run.eval_forward if run.compiler else None
    scorer = job.scorer(run.eval_part, forward=forward, most=run.progress.micro_batch)
    return scorer.score(loader, watch=watch, sets=sets, stop=job.stop, advance=job.report.advance)


def end_reason(run: TrainState, job: TrainJob) -> str:
    """Why no further epoch follows, or ""; where the processes differ in their time, all of them end with the first."""
    table = limits(job.trainer, run.progress, job.total_steps(run.progress))
    met = run.world.most(*(limit.is_met for limit in table))
    return next((limit.key for limit, is_met in zip(table, met, strict=True) if is_met), "")
