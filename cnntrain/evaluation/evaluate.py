"""All splits of a job: scores, and the worst images."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cnntrain.evaluation.image_scores import Collector, ImageScore, Worst
from cnntrain.evaluation.split_scores import SplitScores, score_all, score_split
from cnntrain.training.job import Job
from cnntrain.training.tta import Views

MOST_IMAGES = 16  # of each kind of the worst


@dataclass(frozen=True)
class Evaluation:
    """What a network is worth on the splits that there are, `val` before `test`.

    Attributes:
        classes: their names.
        found: the scores of each split.
        worst: the worst images of each split.
    """

    classes: Sequence[str]
    found: dict[str, SplitScores]
    worst: dict[str, Worst]

    @property
    def last(self) -> str:
        """The split that pictures and tables of single classes and images are of: the test images, if there are any."""
        return list(self.found)[-1]

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Plain containers by split: its scores, and two more.

        `confusion` has images by true and by predicted class, `worst` images by what is bad about them.
        """
        return {
            split: found.scores | {"confusion": self._confusion(split), "worst": self._worst(split)}
            for split, found in self.found.items()
        }

    def _confusion(self, split: str) -> dict[str, dict[str, int]]:
        """Without the classes that no image of the true class was given."""
        result: dict[str, dict[str, int]] = {name: {} for name in self.classes}
        matrix = self.found[split].matrix
        for row, column in matrix.nonzero().tolist():
            result[self.classes[row]][self.classes[column]] = int(matrix[row, column])
        return result

    def _worst(self, split: str) -> dict[str, list[dict[str, Any]]]:
        return {kind: [self._plain(image) for image in images] for kind, images in self.worst[split].kinds().items()}

    def _plain(self, image: ImageScore) -> dict[str, Any]:
        names = {"label": self.classes[image.label], "prediction": self.classes[image.prediction]}
        return asdict(image) | names


def evaluate(
    job: Job,
    *,
    views: Views | None = None,
    start: Callable[[str], Sequence[Collector]] = lambda split: (),
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score all splits of a job. A temperature is fitted to the validation images and tried on the test images.

    Args:
        views: several of each image, whose probabilities are averaged.
        start: is told each split before it is scored, and gives more that is to be told of its images.
        advance: is told the images of each micro-batch.

    Raises:
        NonFiniteError: the loss is no number.
    """
    worst: dict[str, Worst] = {}

    def score(split: str, others: Sequence[Collector], val: SplitScores | None) -> SplitScores:
        worst[split] = Worst(MOST_IMAGES)
        collectors, fit = [worst[split], *others], val.fit if val else None
        return score_split(job, split, views=views, collectors=collectors, other=fit, advance=advance)

    return Evaluation(job.data.classes, score_all(job, start, score), worst)
