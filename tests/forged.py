"""Jobs whose network answers what the test says."""

import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import Batch
from cnntrain.training.scoring import Scorer

CPU = torch.device("cpu")


class Answers:
    """A loader whose images are the logits (N, K) that the network answers."""

    decoder = None

    def __init__(self, logits: Tensor, labels: Tensor, batch_size: int = 70) -> None:
        self.logits, self.labels, self.batch_size = logits, labels, batch_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def name(self, index: int) -> str:
        return f"photos/{index}.jpg"

    def batches(self) -> Iterator[Batch]:
        for part in torch.arange(len(self.labels)).split(self.batch_size):
            yield Batch(self.logits[part], self.labels[part], part, len(part))


def job_of(
    classes: list[str],
    temperature: float = 1.0,
    model: nn.Module | None = None,
    thresholds: list[float] | None = None,
    **splits: Answers,
) -> Any:
    """A job whose data has these splits."""
    scorer = Scorer(model or nn.Identity(), lambda images: images, CPU, Precision.fp32)
    return types.SimpleNamespace(
        device=CPU,
        precision=Precision.fp32,
        temperature=temperature,
        thresholds=thresholds,
        data=types.SimpleNamespace(classes=classes, scored_splits=splits, multi_label=False),
        scorer=lambda views=None: scorer,
    )


def random_answers(
    images: int, classes: int, *, seed: int = 0, sharpness: float = 3.0, batch_size: int = 70
) -> Answers:
    """Logits that are often right, and too sure of it where `sharpness` is large."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=random)
    logits = torch.randn(images, classes, generator=random)
    logits[torch.arange(images), labels] += 2
    return Answers(sharpness * logits, labels, batch_size)


def random_sets(images: int, classes: int, *, seed: int = 0, sharpness: float = 2.0, batch_size: int = 70) -> Answers:
    """Sets of labels, the first of them frequent and the last rare, and logits that are often right."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.rand(images, classes, generator=random) < torch.linspace(0.6, 0.05, classes)
    logits = torch.randn(images, classes, generator=random) - 1 + 2 * labels
    return Answers(sharpness * logits, labels, batch_size)
