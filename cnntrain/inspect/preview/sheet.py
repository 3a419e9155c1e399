"""Some training images on their way through the composed augmentation: the sheet of a preview."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from cnntrain.augment.build import BatchContext
from cnntrain.data.loaders import Loader
from cnntrain.data.view import View
from cnntrain.inspect.explain.subject import known_labels, names_of, own_class, spread
from cnntrain.plots.drawing import wrap
from cnntrain.plots.sheet import GAP, LINE, LONGEST_LABEL, MARGIN, SMALL, Row, Sheet, Tile, at_side, rgb
from cnntrain.report.augmentation import class_name, describe, mixing, shares
from cnntrain.text import counted
from cnntrain.training.job import TrainJob

DRAWS = 8  # epochs that one image is shown in, at least
OTHER_EPOCHS = 2  # in which mixed images are shown again
VERSIONS = ("clean", "first mixture", "second mixture")  # of AugMix with its loss
LABELS = 4  # lines for those of an image, at most
WIDEST, SMALLEST_SIDE, LARGEST_SIDE = 1600, 96, 160  # pixels, of the sheet and of an image on it


@dataclass
class Strip:
    """Images after one stage.

    Attributes:
        name, words: of the stage and of its pieces.
        images: uint8 (C, H, W) on the host; their sizes may differ.
        captions: some lines for each image.
        version: which of several versions of each image these are, or "".
        apart: begins a new group of rows.
    """

    name: str
    words: list[str]
    images: list[Tensor]
    captions: Sequence[tuple[str, ...]]
    version: str = ""
    apart: bool = False

    @property
    def tag(self) -> str:
        """The name with the version."""
        return f"{self.name}, {self.version}" if self.version else self.name


class Sample:
    """A few images spread over the classes, as a micro-batch of their own in the first epochs of a run.

    Random numbers come from the run's seed, so that the same config shows the same pictures.
    """

    def __init__(self, job: TrainJob, count: int) -> None:
        train = job.data.train
        self.job, self.train = job, train
        least = 2 if job.mix else 1  # one image alone is not mixed
        self.indices = _in_turns(train.labels, spread(train.labels, min(max(count, least), train.images)))
        self.labels = train.labels[self.indices].to(job.device)
        classes = [class_name(name) for name in job.data.classes]
        self.names = [_captions(names_of(label, classes)) for label in known_labels(self.labels)]

    def strips(self) -> Iterator[Strip]:
        """The images as they are, after each stage, as the network gets them, mixed, and once more in other epochs."""
        job, epochs = self.job, self.job.settings.trainer.epochs
        yield Strip("original", [], list(self.originals().cpu()), self.names)
        yield from self.stages()
        yield from self.inputs()
        if job.mix:
            words = [describe(job.settings.augment, piece) for piece in mixing(job.settings.augment)]
            yield from self.chain(0, "mixed", words)
        if not (job.mix or job.augment.stages):
            return
        for epoch in range(1, min(OTHER_EPOCHS + 1 if job.mix else 2, epochs)):
            yield from self.chain(epoch, f"epoch {epoch + 1}", ["the whole chain, drawn again"])
        if epochs > 1:
            yield self.one_image()

    def originals(self) -> Tensor:
        """The images as validation would see them, uint8 (N, C, S, S)."""
        return _pick(self.train, self.indices, 0, self.job.data.view(self.job.data.image_size))

    def stages(self) -> Iterator[Strip]:
        """The images of the first epoch after each stage of the augmentation."""
        for name, pieces, images in self.job.augment.trace(self._seen(0), self.context(0)):
            words = [describe(self.job.settings.augment, piece) for piece in pieces]
            yield from self._versions(name, words, images.cpu())

    def inputs(self) -> Iterator[Strip]:
        """The normalised images of the first epoch, shown as images again, with their lowest and highest value."""
        inputs, _ = self._input(0, mixed=False)
        ranges = [(f"{image.min():.2f} to {image.max():.2f}",) for image in inputs]
        yield from self._versions(
            "network input", ["normalised, and shown as an image again"], self.job.as_images(inputs), ranges
        )

    def chain(self, epoch: int, name: str, words: list[str]) -> Iterator[Strip]:
        """What the network gets in an epoch (from 0), mixed where the config mixes, with the labels."""
        inputs, targets = self._input(epoch, mixed=True)
        captions = self.names * (len(inputs) // len(self.names))
        if self.job.mix:
            captions = [_captions(lines) for lines in shares(targets, self.job.data.classes)]
        for number, strip in enumerate(self._versions(name, words, self.job.as_images(inputs), captions)):
            yield replace(strip, apart=epoch == 1 and number == 0)

    def one_image(self) -> Strip:
        """The first image as it is in several epochs, before any mixing: the first ones, or some of all if it grows."""
        job, epochs = self.job, self.job.settings.trainer.epochs
        count = min(epochs, max(DRAWS, len(self.indices)))
        grows = job.settings.augment.progressive is not None
        chosen = [round(number * (epochs - 1) / (count - 1)) for number in range(count)] if grows else range(count)
        images = [self.job.as_images(self._input(epoch, mixed=False)[0])[-len(self.indices)] for epoch in chosen]
        sizes = [(f"{image.shape[-1]} pixels",) if grows else () for image in images]
        captions = [(f"epoch {epoch + 1}", *size) for epoch, size in zip(chosen, sizes, strict=True)]
        words = [f"the first, in {counted(count, 'epoch')}" + (", before mixing" if job.mix else "")]
        return Strip("one image", words, images, captions, apart=True)

    def context(self, epoch: int) -> BatchContext:
        """What decides how the images are augmented in an epoch."""
        return self.job.context(epoch, 0, self.indices)

    def _versions(
        self, name: str, words: list[str], images: Tensor, captions: Sequence[tuple[str, ...]] = ()
    ) -> Iterator[Strip]:
        """One strip, or one for each version of the images, (V * N, C, H, W)."""
        count = len(self.indices)
        for first in range(0, len(images), count):
            version = VERSIONS[first // count] if len(images) > count else ""
            own = captions[first : first + count] or [()] * count
            yield Strip(name, words, list(images[first : first + count]), own, version)

    def _seen(self, epoch: int) -> Tensor:
        """What the loader gives in an epoch, uint8 (N, C, S, S): of a folder, random crops may be cut already."""
        return _pick(self.job.loader(epoch), self.indices, epoch)

    def _input(self, epoch: int, *, mixed: bool) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the network, on the host."""
        context, targets = self.context(epoch), self.labels
        inputs = self.job.augment(self._seen(epoch), context)
        if mixed and self.job.mix:
            inputs, targets = self.job.mix(inputs, targets, context)
        return inputs.cpu(), targets.cpu()


def _captions(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines, or the first ones and how many more there are."""
    return tuple(lines) if len(lines) <= LABELS else (*lines[: LABELS - 1], f"and {len(lines) - LABELS + 1} more")


def _in_turns(labels: Tensor, indices: Tensor) -> Tensor:
    """Indices in an order in which neighbours, which are mixed with each other, are of different classes."""
    own = own_class(labels)[indices]
    turns = (own.unsqueeze(0) == own.unsqueeze(1)).tril(-1).sum(1)
    return indices[turns.argsort(stable=True)]


def _pick(train: Loader, indices: Tensor, epoch: int, view: View | None = None) -> Tensor:
    """Some images as a train loader gives them in an epoch, or in another view; of a folder no others are decoded."""
    if train.decoder is None:
        return train.pick(indices)
    decoder = train.decoder.through(view) if view else train.decoder
    (images,) = decoder.batches([indices], epoch, 0, False)
    return images.to(train.device)


def sheet(strips: Sequence[Strip], title: str, notes: Sequence[str], footer: str) -> Sheet:
    """The strips below each other; small images enlarged by a whole factor, large ones reduced."""
    columns = max(len(strip.images) for strip in strips)
    size = max(image.shape[-1] for strip in strips for image in strip.images)
    room = min((WIDEST - 2 * MARGIN - LONGEST_LABEL) // columns - GAP, LARGEST_SIDE)
    side = size * max(room // size, -(-SMALLEST_SIDE // size)) if size <= room else room
    rows = [
        Row(
            _beside(strip, side // LINE),
            [
                Tile(at_side(rgb(image), side), captions)
                for image, captions in zip(strip.images, strip.captions, strict=True)
            ],
            strip.apart,
        )
        for strip in strips
    ]
    return Sheet(title, notes, footer, rows, side)


def _beside(strip: Strip, most: int) -> list[str]:
    """The words beside a row, in at most so many lines: where they are too many, pieces go without their numbers."""
    lines = _wrap([strip.name, strip.version, *strip.words])
    if len(lines) > most:
        lines = _wrap([strip.name, strip.version, ", ".join(word.partition(" ")[0] for word in strip.words)])
    return lines[:most]


def _wrap(words: Sequence[str]) -> list[str]:
    """Words in lines of the width that is left beside a row."""
    return [line for text in words if text for line in wrap(text, LONGEST_LABEL - GAP, SMALL)]
