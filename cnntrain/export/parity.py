"""Does a file answer as its network does?"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cnntrain.config.schema.export import Format
from cnntrain.errors import ConfigError, NonFiniteError
from cnntrain.export.subject import ExportedFile, Subject

TOLERANCE = 1e-4  # of the largest logit of an image; of a probability, as it is
MOST_IMAGES, CHUNK = 32, 16


@dataclass(frozen=True)
class Parity:
    """The answers of a file beside those of its network.

    Attributes:
        images: how many were asked for.
        difference: the largest; of logits as a part of the largest logit of the same image.
        same_class: images of which both say the same class, or the same set of labels.
    """

    images: int
    difference: float
    same_class: int

    @property
    def fits(self) -> bool:
        return self.difference <= TOLERANCE  # not so for NaN


def compare(file: ExportedFile, subject: Subject, images: Tensor) -> Parity:
    """Ask both for uint8 images (N, C, S, S), one alone and the rest in chunks.

    Raises:
        NonFiniteError: the network answers NaN or infinity.
    """
    differences, same = [], 0
    for chunk in _chunks(images):
        expected, given = subject.answer(chunk), file.ask(subject.inputs(chunk))
        if not expected.isfinite().all():
            raise NonFiniteError("what the network answers is not finite; its weights are too large to be exported")
        gap = (expected - given).abs().amax(1)
        largest = torch.ones_like(gap) if subject.has_preprocessing else expected.abs().amax(1).clamp_min(1e-30)
        differences.append(gap / largest)
        is_same = subject.decide(expected) == subject.decide(given)
        same += int((is_same.all(1) if is_same.ndim == 2 else is_same).sum())
    return Parity(len(images), float(torch.cat(differences).max()), same)


def _chunks(images: Tensor) -> Iterator[Tensor]:
    yield images[:1]
    yield from images[1:].split(CHUNK) if len(images) > 1 else ()


def need_parity(parity: Parity, format: Format) -> None:
    """Refuse a file that answers otherwise; nothing has been written.

    Raises:
        ConfigError: so it does.
    """
    if parity.fits:
        return
    others = ", ".join(f"format={one.name}" for one in (Format.torch_export, Format.onnx) if one is not format)
    raise ConfigError(
        f"format: {format.name} answers otherwise than the network (difference {parity.difference:.1e} over "
        f"{parity.images} images, {TOLERANCE:.0e} are allowed), and is not written; choose {others}"
    )


def random_images(subject: Subject, count: int = MOST_IMAGES) -> Tensor:
    """uint8 (N, C, S, S) of the mean and spread of the run's images, where these are not here; always the same."""
    data = subject.job.data
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(count, data.channels, data.eval_size, data.eval_size, generator=draw)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    return ((noise * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
