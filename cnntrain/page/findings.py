"""What a run's figures say in plain words: each finding with the figure behind it, and what to do next."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnntrain.config.schema.scores import MAIN
from cnntrain.config.schema.settings import Settings
from cnntrain.data.common import LEAST_PROBE, PROBE_SHARE
from cnntrain.page import rules
from cnntrain.page.history import History
from cnntrain.page.rules import ENDS, ClassCounts, Finding
from cnntrain.page.scale import Scale
from cnntrain.text import shorten

MOST_WARNINGS = 8  # of a training, that are findings
LONGEST_WARNING = 400  # columns
SKEW_ADVICE = "loss.class_weights=balanced evens that out"


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
        classes: names; empty where they are not known.
        counts: of each class, in the split that was scored last.
        split: its name in words.
        train_images: of each class.
        val_images: how many validate.
        ended: why the run ended: a key of TrainerSettings, `interrupted`, `failed`; or "" where that is not known.
        folder: of the run, as one would type it.
        images: how many train; 0 where that is not known.
        warnings: lines that the training has warned with.
    """

    settings: Settings
    history: History = History()
    classes: Sequence[str] = ()
    counts: Sequence[ClassCounts] = ()
    split: str = ""
    train_images: Sequence[int] = ()
    val_images: int = 0
    ended: str = ""
    folder: Path = Path()
    images: int = 0
    warnings: Sequence[str] = ()

    @property
    def probe_images(self) -> int:
        """How many training images were scored without augmentation; the fewest that there may be, if not known."""
        images = self.images or sum(self.train_images)
        share = max(LEAST_PROBE, images // PROBE_SHARE)
        return min(share, self.settings.trainer.probe, images or LEAST_PROBE) or 1

    @property
    def scale(self) -> Scale:
        """What the scores are."""
        measure = self.history.measure
        known = measure != MAIN[0] and self.images and len(self.train_images) == len(self.classes)
        shares = [count / self.images for count in self.train_images] if known else []
        return Scale(measure, len(self.classes), shares)


def find(facts: Facts) -> list[Finding]:
    """All that stands out, what costs most first."""
    epochs, settings, scale = facts.history.epochs, facts.settings, facts.scale
    is_over = facts.ended in ENDS
    short = rules.cut_short(facts.history.rows, settings, facts.ended, facts.folder)
    told = [line for line in facts.warnings if not (facts.train_images and SKEW_ADVICE in line)]  # a rule knows better
    checks = [
        *(_warned(line, facts.folder) for line in told[:MOST_WARNINGS]),
        short,
        rules.nothing_learned(epochs, settings, scale, facts.ended),
        None if short else rules.too_short(epochs, settings, scale, facts.ended),
        rules.unstable(facts.history, settings, scale),
        rules.over_fitting(epochs, settings, scale, facts.val_images, facts.probe_images),
        None if short else rules.under_fitting(epochs, settings, scale, facts.ended),
        rules.still_improving(epochs, settings, scale, facts.val_images, facts.ended, facts.folder),
        rules.never_predicted(facts.counts, facts.classes, facts.split, facts.train_images, settings, epochs, scale)
        if is_over
        else None,
        rules.skewed(facts.train_images, facts.classes, facts.counts, settings),
        rules.data_bound(facts.history, settings),
    ]
    return [finding for finding in checks if finding]


def _warned(line: str, folder: Path) -> Finding:
    """What the training has warned of: a line `WHAT; WHAT TO DO`, of which the last may be left out."""
    figure, _, advice = shorten(line, LONGEST_WARNING).replace("`", "'").rpartition("; ")
    if not figure:
        figure, advice = advice, "`train.log` has what was said before and after it"
    advice = advice.replace("cnntrain check lists", f"`{shlex.join(['cnntrain', 'check', str(folder)])}` lists")
    if (first := advice.split(maxsplit=1)[0]).isalpha() and first != "cnntrain":  # no word to type
        advice = advice[0].upper() + advice[1:]
    return Finding("Warned", f"{figure.rstrip('.')}.", f"{advice.rstrip('.')}.")
