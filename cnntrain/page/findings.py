"""What a run's figures say in plain words: each finding with the figure behind it, and what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnntrain.config.schema.settings import Settings
from cnntrain.data.common import LEAST_PROBE, PROBE_SHARE
from cnntrain.page import rules
from cnntrain.page.history import History
from cnntrain.page.rules import ENDS, Finding


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
        classes: names; empty where they are not known.
        matrix: counts of true (rows) by predicted (columns) classes of the split that was scored last.
        split: its name in words.
        train_images: of each class.
        val_images: how many validate.
        ended: why the run ended: a key of TrainerSettings, `interrupted`, `failed`; or "" where that is not known.
        folder: of the run, as one would type it.
    """

    settings: Settings
    history: History = History()
    classes: Sequence[str] = ()
    matrix: Sequence[Sequence[int]] = ()
    split: str = ""
    train_images: Sequence[int] = ()
    val_images: int = 0
    ended: str = ""
    folder: Path = Path()

    @property
    def probe_images(self) -> int:
        """How many training images were scored without augmentation; the fewest that there may be, if not known."""
        images = sum(self.train_images)
        share = max(LEAST_PROBE, images // PROBE_SHARE)
        return min(share, self.settings.trainer.probe, images or LEAST_PROBE) or 1


def find(facts: Facts) -> list[Finding]:
    """All that stands out, what costs most first."""
    epochs, settings, classes = facts.history.epochs, facts.settings, facts.classes
    is_over = facts.ended in ENDS
    short = rules.cut_short(facts.history.rows, settings, facts.ended, facts.folder)
    checks = [
        short,
        rules.nothing_learned(epochs, settings, len(classes), facts.ended),
        None if short else rules.too_short(epochs, settings, len(classes), facts.ended),
        rules.unstable(facts.history, settings, len(classes)),
        rules.over_fitting(epochs, settings, facts.val_images, facts.probe_images),
        None if short else rules.under_fitting(epochs, settings, len(classes), facts.ended),
        rules.still_improving(epochs, settings, facts.val_images, facts.ended, facts.folder),
        rules.never_predicted(facts.matrix, classes, facts.split, facts.train_images, settings, epochs)
        if is_over
        else None,
        rules.skewed(facts.train_images, classes, facts.matrix, settings),
        rules.data_bound(facts.history, settings),
    ]
    return [finding for finding in checks if finding]
