"""What the scores of a run mean: what guessing reaches, how far chance moves them, and how they are put into words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cnntrain.config.schema.scores import MAIN
from cnntrain.page.history import Row
from cnntrain.text import percent

HALF = 0.5  # of the way from guessing to no mistake: a network below it has not learned its training images
NOTHING, TIMES = 0.05, 3  # of that way, and times as often right as guessing: below both, it is as good as guessing
BEST = {"top1": "{capital}t best {score} of the images are right", "map": "{capital}t best the mAP is {score}"}
GUESS = {"top1": "guessing among {classes:,} classes finds {chance}", "map": "guessing has a mAP of {chance}"}
NEVER = {
    "top1": "Not more than {score} of the images are right, in training or in validation.",
    "map": "The mAP is not above {score}, in training or in validation.",
}
APART = {
    "top1": "{train} {images} are right and {val} of the {count:,} validation images",
    "map": "the mAP {images} is {train} and that of the {count:,} validation images {val}",
}


@dataclass(frozen=True)
class Scale:
    """The scores of a run: shares of images that are right, or mean average precisions of sets of labels.

    Attributes:
        measure: the one of scores.MAIN that they are.
        classes: how many there are.
        shares: of sets, the part of the training images that has each label; empty where that is not known.
    """

    measure: str = MAIN[0]
    classes: int = 0
    shares: Sequence[float] = ()

    @property
    def chance(self) -> float | None:
        """What guessing reaches, where that is known: of sets, an order of no sense has the share as its precision."""
        if self.measure != MAIN[0]:
            return sum(self.shares) / len(self.shares) if self.shares else None
        return 1 / self.classes if self.classes > 1 else None

    @property
    def guess_loss(self) -> float | None:
        """The loss of a network that knows how common the classes are and no more, where that is known."""
        if self.measure != MAIN[0]:
            return sum(map(_entropy, self.shares)) if self.shares else None
        return math.log(self.classes) if self.classes > 1 else None

    def is_guess(self, score: float) -> bool:
        """Whether a score is as good as guessing."""
        chance = self.chance or 0.0
        return score < min(chance + NOTHING * (1 - chance), TIMES * chance)

    def is_poor(self, score: float) -> bool:
        """Whether a score is less than half of the way from guessing to no mistake."""
        chance = self.chance or 0.0
        return score - chance < HALF * (1 - chance)

    def error(self, score: float, images: int) -> float:
        """The standard error of a score of so many images; of none or all right, as of one in them.

        The mean of average precisions is taken for one of shares, each of the images that have the label.
        """
        score = min(max(score, 1 / (images + 1)), images / (images + 1))
        known = [share for share in self.shares if share > 0]
        trials = images * (len(known) ** 2 / sum(1 / share for share in known) if known else 1)
        return math.sqrt(score * (1 - score) / trials)

    def best_words(self, score: float, start: str = "") -> str:
        """`At best 10 % of the images are right; guessing among 10 classes finds 10 %.`, behind a start if any."""
        best = BEST[self.measure].format(capital="a" if start else "A", score=percent(score))
        guess = GUESS[self.measure].format(classes=self.classes, chance=percent(self.chance))
        return f"{start}{best}; {guess}."

    def never_words(self, score: float) -> str:
        """That no split has reached a higher score."""
        return NEVER[self.measure].format(score=percent(score))

    def apart_words(self, train: float, images: str, val: float, count: int) -> str:
        """Two scores beside each other: of the training images, as `images` names them, and of `count` others."""
        return APART[self.measure].format(train=percent(train), images=images, val=percent(val), count=count)


def best_known(epochs: Sequence[Row]) -> float | None:
    """The highest score of any epoch, in training or in validation."""
    scores = (score for row in epochs for score in (row.train_score, row.val_score) if score is not None)
    return max(scores, default=None)


def _entropy(share: float) -> float:
    """Of a label that this part of the images has, in nats."""
    return -sum(part * math.log(part) for part in (share, 1 - share) if part > 0)
