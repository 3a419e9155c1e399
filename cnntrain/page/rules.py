"""Rules that find what stands out in the figures of a run.

Each is a function of plain numbers that answers a finding or None. It speaks where a difference is both large enough
to act on and larger than chance makes it: what is silent on a good run is believed on a bad one.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cnntrain.config.schema.data import Sampling
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.page.history import History, Row, mean
from cnntrain.page.scale import Scale, best_known
from cnntrain.report.augmentation import class_name
from cnntrain.text import WIDEST_NAME, counted, cut, few, percent, printable

GAP = 0.10  # of training over validation; networks that lead their benchmarks are up to 5 points apart
ERRORS = 3  # standard errors that chance stays below in 99.7 of 100 cases
GAIN = 0.01  # of the score over a fifth of the run: what a second run of the same config easily differs by
FIFTH, LEAST_EPOCHS = 5, 3
SHORT = 10  # epochs: whoever trains longer trains at least so long
ENDS = ("epochs", "max_steps", "max_time", "early_stop")  # of a run that came to its end
ANNEALED = 0.1  # of the highest rate: from there on a schedule mostly lets the weights settle
SKEW = 10  # images of the commonest class for one of the rarest: where long-tail studies begin (arXiv 1901.05555)
HARM = 0.05  # of recall that rare classes lie behind the common ones
WAIT, LOST_SECONDS = 0.2, 60.0  # share of the time spent waiting; below a minute nobody would mend it
JUMP, JUMPS, JUMP_WINDOW, JUMP_ROWS = 2.0, 3, 5, 15  # the loss at twice the median of the five rows before, three times
FLOOR = 0.1  # of the loss of guessing: smaller losses may double without harm
MOST_NAMES = 3
MANY = 0.3  # of all classes: so many that are never predicted are no fault of theirs


@dataclass(frozen=True)
class ClassCounts:
    """Of one class, the images that have it, those that it is predicted of, and those that have both."""

    images: int
    predicted: int
    hits: int


@dataclass(frozen=True)
class Finding:
    """Something that stands out.

    Attributes:
        title: in two or three words.
        figure: the numbers behind it, as a sentence.
        advice: what to do next; words to type stand in backticks.
    """

    title: str
    figure: str
    advice: str

    @property
    def line(self) -> str:
        """The finding for a terminal, which shows words to type as they are."""
        return printable(f"{self.title}: {self.figure} {self.advice}".replace("`", ""))


def over_fitting(
    epochs: Sequence[Row], settings: Settings, scale: Scale, val_images: int, probe_images: int
) -> Finding | None:
    """The training images are known much better than others, by more than chance.

    Args:
        probe_images: on how many training images the probe's score was measured.
    """
    last = next((row for row in reversed(epochs) if row.val_score is not None), None)
    if last is None or last.train_score is None or last.val_score is None or not val_images:
        return None
    gap = last.train_score - last.val_score
    error = scale.error(last.val_score, val_images)
    if last.probe_score is not None:
        error = math.hypot(error, scale.error(last.probe_score, probe_images))
    if gap < GAP or gap < ERRORS * error:
        return None
    what = "of the training images" + ("" if last.probe_score is None else " (without augmentation)")
    words = scale.apart_words(last.train_score, what, last.val_score, val_images)
    figure = f"After epoch {last.epoch}, {words}: {100 * gap:.0f} points apart."
    return Finding("Over-fitting", figure, f"Train anew with {_against_over_fitting(settings)}")


def _against_over_fitting(settings: Settings) -> str:
    pieces = settings.augment.pieces
    first = "resized_crop,hflip" if settings.data.has_files else "pad_crop"
    if not pieces:
        words = f"`'augment=[{first},randaugment]'`, which shows each image in many ways."
    elif not settings.augment.mixes:
        words = f"`'augment=[{first},randaugment,mixup]'`, stronger augmentation."
    else:
        words = "`loss.label_smoothing=0.1` or `model.dropout=0.3`, or with more images."
    if settings.data.has_files and not (settings.model.pretrained or settings.model.weights):
        words += " With few photos `finetune=A model=resnet18`, a pretrained network, gains most."
    return words


def nothing_learned(epochs: Sequence[Row], settings: Settings, scale: Scale, ended: str) -> Finding | None:
    """The network of a run that came to its end is no better than guessing."""
    best = best_known(epochs)
    if best is None or scale.chance is None or len(epochs) < LEAST_EPOCHS or ended not in ENDS:
        return None
    if not scale.is_guess(best):
        return None
    lower = f"`optimizer.lr={settings.optimizer.lr / 10:.2g}`"
    return Finding(
        "Nothing learned",
        scale.best_words(best),
        f"Try a rate ten times lower, {lower}, or the one that `cnntrain find_lr` finds with the words of this run; or "
        "check that the labels are right.",
    )


def too_short(epochs: Sequence[Row], settings: Settings, scale: Scale, ended: str) -> Finding | None:
    """So few epochs that little can have been learned, and little was."""
    best = best_known(epochs)
    if best is None or scale.chance is None or len(epochs) >= LEAST_EPOCHS or ended not in ENDS:
        return None
    if not scale.is_poor(best):
        return None
    figure = scale.best_words(best, f"After {counted(len(epochs), 'epoch')} ")
    return Finding("Too short", figure, f"Train longer, `{_further(epochs, settings.trainer, ended)}`.")


def under_fitting(epochs: Sequence[Row], settings: Settings, scale: Scale, ended: str) -> Finding | None:
    """Not even the training images are known at the end of the run."""
    best = best_known(epochs)
    if best is None or scale.chance is None or len(epochs) < LEAST_EPOCHS or ended not in ENDS:
        return None
    if not scale.is_poor(best) or scale.is_guess(best):
        return None
    return Finding(
        "Under-fitting",
        scale.never_words(best),
        f"Train longer, `{_further(epochs, settings.trainer, ended)}`, or train a larger network, such as "
        "`model=resnet18` or another that `cnntrain models` lists.",
    )


def still_improving(
    epochs: Sequence[Row], settings: Settings, scale: Scale, val_images: int, ended: str, folder: Path
) -> Finding | None:
    """Validation was better in the last fifth of the run than in the fifth before, and nothing says that it would end.

    Any schedule that ends low gains at its end: there a rise counts that is twice as large as the lead of training.
    """
    scores = [row.val_score for row in epochs if row.val_score is not None]
    width = max(1, len(scores) // FIFTH)
    if len(scores) < LEAST_EPOCHS or not val_images or ended not in ("epochs", "max_steps"):
        return None
    before, after = (sum(part) / width for part in (scores[-2 * width : -width], scores[-width:]))
    least = max(GAIN, 2 * scale.error(after, val_images))
    last = epochs[-1]
    if _rate_left(epochs) < ANNEALED:
        least = max(least, 2 * GAIN, 2 * ((last.train_score or 0) - after))
    if after - before < least:
        return None
    span = f"the last {width} epochs" if width > 1 else "the last epoch"
    figure = f"Validation rose by {100 * (after - before):.1f} points in {span}, to {percent(after)}."
    command = shlex.join(["cnntrain", "resume", str(folder), _further(epochs, settings.trainer, ended)])
    return Finding("Still improving", figure, f"Go on: `{command}`.")


def cut_short(rows: Sequence[Row], settings: Settings, ended: str, folder: Path) -> Finding | None:
    """A limit ended the run while its schedule still held the learning rate high."""
    trainer, left = settings.trainer, _rate_left(rows)
    anneals = settings.schedule.name not in ("constant", "plateau")
    if ended not in ("max_time", "early_stop", "interrupted") or not anneals or left < ANNEALED or not rows:
        return None
    done = rows[-1].epoch
    figure = (
        f"{_cause(ended, trainer)} ended the run in epoch {done} of {trainer.epochs}, with the learning rate still at "
        f"{100 * left:.0f} % of its highest."
    )
    command = ["cnntrain", "resume", str(folder), *([] if ended == "interrupted" else [f"trainer.{ended}=null"])]
    advice = f"Let the schedule end: `{shlex.join(command)}`" + (
        "" if ended == "interrupted" else f", or train anew with `trainer.epochs={done}`"
    )
    return Finding("Ended before the schedule", figure, f"{advice}.")


def _cause(ended: str, trainer: TrainerSettings) -> str:
    return "A signal" if ended == "interrupted" else f"trainer.{ended}={getattr(trainer, ended)}"


def unstable(history: History, settings: Settings, scale: Scale) -> Finding | None:
    """The training loss jumped up several times after it had come down."""
    rows = [row for row in history.rows if row.loss is not None]
    if len(rows) < JUMP_ROWS and len(history.epochs) > len(rows):
        rows = [row for row in history.epochs if row.loss is not None]
    if len(rows) < JUMP_ROWS or scale.guess_loss is None:
        return None
    losses = [row.loss or 0.0 for row in rows]
    floor = FLOOR * scale.guess_loss
    jumps = []
    for index in range(max(JUMP_WINDOW, len(losses) // 10), len(losses)):
        usual = median(losses[index - JUMP_WINDOW : index])
        if losses[index] > JUMP * usual and losses[index] - usual > floor:
            jumps.append((losses[index] - usual, usual, index))
    if len(jumps) < JUMPS:
        return None
    _, usual, index = max(jumps)
    figure = (
        f"{len(jumps)} times the training loss jumped to more than twice what it had been, most in epoch "
        f"{rows[index].epoch}: from {usual:.3g} to {losses[index]:.3g}."
    )
    clip = "" if settings.trainer.clip_norm else ", or `trainer.clip_norm=1`"
    return Finding(
        "Unstable loss", figure, f"Train with a lower rate, `optimizer.lr={settings.optimizer.lr / 3:.2g}`{clip}."
    )


def never_predicted(
    counts: Sequence[ClassCounts],
    classes: Sequence[str],
    split: str,
    train_images: Sequence[int],
    settings: Settings,
    epochs: Sequence[Row],
    scale: Scale,
) -> Finding | None:
    """Classes that the network never names, though it was shown more images of them than chance can miss.

    A class that were named as often as it comes would be missed n times with probability exp(-n); over all K classes
    that stays below one in a hundred. A network that has hardly begun to learn leaves some out anyway.
    """
    best = best_known(epochs)
    is_poor = best is not None and scale.is_poor(best)
    if best is not None and (scale.is_guess(best) or (is_poor and len(epochs) < LEAST_EPOCHS)):
        return None
    least = math.log(100 * max(len(counts), 1))
    missed = [index for index, one in enumerate(counts) if one.images > least and not one.predicted]
    if not missed:
        return None
    names = few((f"{_name(classes[index])} ({counts[index].images:,} images)" for index in missed), MOST_NAMES)
    figure = f"Of the {split} images none was taken for {names}."
    rarest = min(missed, key=lambda index: train_images[index]) if train_images else -1
    advice = f"Look whether {'their' if len(missed) > 1 else 'its'} images are labelled as they should be."
    if len(missed) > len(counts) * MANY or is_poor:
        advice = f"That is a sign of a training that was too short: try `{_more_epochs(settings.trainer)}`."
    elif train_images and train_images[rarest] * 2 < sum(train_images) / len(train_images):
        advice = f"Only {train_images[rarest]:,} images trained it: train with {_evening(settings)[0]}, or add images."
    title = f"{len(missed)} of {len(counts)} classes are" if len(missed) > 1 else "A class is"
    return Finding(f"{title} never predicted", figure, advice)


def skewed(
    train_images: Sequence[int], classes: Sequence[str], counts: Sequence[ClassCounts], settings: Settings
) -> Finding | None:
    """Some classes have far more images than others, nothing evens them out, and the rare ones suffer."""
    known = [index for index, count in enumerate(train_images) if count]
    weights = settings.loss.class_weights, settings.loss.pos_weight
    if len(known) < 2 or settings.data.sampling is Sampling.balanced or weights != (None, None):
        return None
    order = sorted(known, key=lambda index: train_images[index])
    rare, common = order[0], order[-1]
    ratio = train_images[common] / train_images[rare]
    if ratio < SKEW:
        return None
    half = len(order) // 2
    low, high = _recall(counts, order[:half]), _recall(counts, order[-half:])
    if low is not None and high is not None and high - low < HARM:
        return None
    harm = "" if low is None or high is None else f"; recall is {percent(low)} in the rarer half, else {percent(high)}"
    figure = (
        f"{_name(classes[common])} has {train_images[common]:,} training images, {_name(classes[rare])} "
        f"{train_images[rare]:,}: {ratio:.0f} to 1{harm}."
    )
    return Finding("Skewed classes", figure, f"Train with {' or '.join(_evening(settings))}.")


def _evening(settings: Settings) -> tuple[str, ...]:
    """What evens classes of different sizes out, as words to type."""
    if settings.data.multi_label:
        return ("`loss=bce loss.pos_weight=balanced`",)
    return "`data.sampling=balanced`", "`loss.class_weights=balanced`"


def data_bound(history: History, settings: Settings) -> Finding | None:
    """The training waited for its images, long enough to be worth mending."""
    share = mean(row.data_wait for row in history.steps)
    seconds = sum(row.seconds or 0.0 for row in history.epochs)
    if share is None or share < WAIT or share * seconds < LOST_SECONDS:
        return None
    figure = f"{100 * share:.0f} % of {seconds / 60:.0f} minutes went by waiting for images."
    workers = f"more threads, `data.workers={2 * (settings.data.workers or 4)}`"
    return Finding("Data-bound", figure, f"Try `data.loader=memory` where they fit, {workers}, or smaller files.")


def _name(name: str) -> str:
    return cut(class_name(name), WIDEST_NAME)


# --- words to type ----------------------------------------------------------------------------------------------------


def _further(epochs: Sequence[Row], trainer: TrainerSettings, ended: str) -> str:
    """The word that puts the end of a run twice as far away, or takes what ended it away."""
    if ended in ("max_time", "early_stop"):
        return f"trainer.{ended}=null"
    return f"trainer.max_steps={2 * epochs[-1].step}" if ended == "max_steps" else _more_epochs(trainer)


def _more_epochs(trainer: TrainerSettings) -> str:
    return f"trainer.epochs={max(2 * trainer.epochs, SHORT)}"


# --- measures ---------------------------------------------------------------------------------------------------------


def _rate_left(rows: Sequence[Row]) -> float:
    """The last learning rate as a part of the highest."""
    rates = [row.lr for row in rows if row.lr is not None]
    return rates[-1] / max(rates) if rates and max(rates) > 0 else 0.0


def _recall(counts: Sequence[ClassCounts], members: Sequence[int]) -> float | None:
    """The part of the images of some classes that is right; None where there are none."""
    images = sum(counts[index].images for index in members) if counts else 0
    return sum(counts[index].hits for index in members) / images if images else None
