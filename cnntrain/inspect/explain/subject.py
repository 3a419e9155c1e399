"""What is explained: a trained network at rest, and some images with their classes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from cnntrain.data.decode import BadImage, read_image
from cnntrain.data.labels import class_counts, is_sets
from cnntrain.data.view import View
from cnntrain.errors import DataError
from cnntrain.evaluation.prediction import Reading
from cnntrain.report.augmentation import NO_LABEL
from cnntrain.runtime.algorithms import set_deterministic
from cnntrain.runtime.seeds import restore_rng_state, rng_state
from cnntrain.text import printable


class NotApplicable(Exception):
    """This network, or these images, have not what a picture needs; the message is the reason."""


@dataclass
class Subject:
    """A network and the images that it is shown.

    Attributes:
        model: maps float32 (N, C, S, S) to logits (N, K).
        normalize: uint8 (N, C, S, S) to what the model takes.
        classes: the K names.
        images: uint8 (N, C, S, S) on the device of the model.
        labels: the class of each image, or the set of its classes; None where it is not known.
        names: of each image, for captions.
        about: the network and its data in a few words.
        reading: how its logits are read.
    """

    model: nn.Module
    normalize: Callable[[Tensor], Tensor]
    classes: list[str]
    images: Tensor
    labels: Sequence[int | frozenset[int] | None]
    names: list[str]
    about: str
    reading: Reading = field(default_factory=Reading)

    @property
    def inputs(self) -> Tensor:
        """The images as the model takes them."""
        return self.normalize(self.images)


@contextmanager
def at_rest(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put a model into evaluation mode; when the block ends, all is as before, the random streams too."""
    modes = [(module, module.training) for module in model.modules()]
    streams, strict = rng_state(device), torch.are_deterministic_algorithms_enabled()
    try:
        model.eval()
        set_deterministic(False)  # on CUDA some derivatives have none
        yield
    finally:
        set_deterministic(strict)
        for module, training in modes:
            module.training = training
        restore_rng_state(streams, device)


def spread(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` images that are spread over the classes, int64, sorted by class.

    The first image of each class comes before the second of any; where there are more classes than images, classes are
    taken at even distances.
    """
    labels = own_class(labels)
    present = labels.unique()
    if count < len(present):
        present = present[torch.arange(count) * len(present) // count]
    members = [(labels == label).nonzero().squeeze(1) for label in present]
    rounds = [(turn, place) for turn in range(max(map(len, members))) for place in range(len(members))]
    sample = [(place, turn) for turn, place in rounds if turn < len(members[place])][:count]
    return torch.stack([members[place][turn] for place, turn in sorted(sample)])


def own_class(labels: Tensor) -> Tensor:
    """One class of each image, int64 (N,): of a set of labels, bool (N, K), the rarest; K where it is empty."""
    if not is_sets(labels):
        return labels
    counts = class_counts(labels, labels.shape[1])
    rarest = torch.where(labels, counts, len(labels) + 1).argmin(1)
    return torch.where(labels.any(1), rarest, labels.shape[1])


def known_labels(labels: Tensor) -> list[int | frozenset[int]]:
    """Labels, int64 (N,) or bool (N, K), as a Subject has them."""
    if is_sets(labels):
        return [frozenset(own.nonzero().flatten().tolist()) for own in labels.cpu()]
    return labels.tolist()


def names_of(label: int | frozenset[int], classes: Sequence[str]) -> list[str]:
    """The names of an image's classes, in their order; of none, that."""
    places = sorted(label) if isinstance(label, frozenset) else [label]
    return [classes[place] for place in places] or [NO_LABEL]


def read_files(files: tuple[Path, ...], channels: int, view: View) -> Tensor:
    """Decode image files as the network knows its images, uint8 (N, C, S, S).

    Raises:
        DataError: a file that cannot be decoded.
    """
    images = []
    for file in files:
        try:
            images.append(view(read_image(file, channels)).permute(2, 0, 1))
        except BadImage as error:
            raise DataError(f"images: {printable(file)}: {error}; give another file") from None
    return torch.stack(images)
