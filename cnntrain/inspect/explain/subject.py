"""What is explained: a trained network at rest, and some images with their classes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cnntrain.data.decode import BadImage, read_image
from cnntrain.data.view import View
from cnntrain.errors import DataError
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
        labels: the class of each image; None where it is not known.
        names: of each image, for captions.
        about: the network and its data in a few words.
    """

    model: nn.Module
    normalize: Callable[[Tensor], Tensor]
    classes: list[str]
    images: Tensor
    labels: list[int | None]
    names: list[str]
    about: str

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
    present = labels.unique()
    if count < len(present):
        present = present[torch.arange(count) * len(present) // count]
    members = [(labels == label).nonzero().squeeze(1) for label in present]
    rounds = [(turn, place) for turn in range(max(map(len, members))) for place in range(len(members))]
    sample = [(place, turn) for turn, place in rounds if turn < len(members[place])][:count]
    return torch.stack([members[place][turn] for place, turn in sorted(sample)])


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
