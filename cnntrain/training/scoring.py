"""The one way to a network's answer: a scorer, for validation, test, eval, predict and check."""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import Loader
from cnntrain.errors import NonFiniteError
from cnntrain.runtime.algorithms import tunes_by_shape
from cnntrain.runtime.device_memory import release_memory
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.signals import NEVER, StopFlag, asked_for, interrupted
from cnntrain.runtime.world import ALONE, Flags, World
from cnntrain.training.metrics import RunningScores
from cnntrain.training.multi_label import SetAnswers, mean_average_precision, plain_loss
from cnntrain.training.tta import Views, average_views

Forward = Callable[[Tensor], Tensor]  # from normalised images to logits


@dataclass(frozen=True)
class Answer:
    """The answer of a network to the images of a micro-batch.

    Attributes:
        indices: int64 (N,), on the host: which images of the split these are.
        labels: int64 (N,), or of sets bool (N, K), on the device.
        first_logits: float32 (N, K), of the plain images.
        logits: what stands for the logits of all views, see tta; without views, those of the plain images.
    """

    indices: Tensor
    labels: Tensor
    first_logits: Tensor
    logits: Tensor


@dataclass
class Scorer:
    """A network and what it takes to ask it. No more than one micro-batch is ever in memory.

    Where memory runs out in a forward pass, half as many images go through the network at once from there.

    Attributes:
        model: put into evaluation mode.
        normalize: the evaluation transform of a uint8 micro-batch.
        world: the processes among which a loader shares the images; scores and counts are those of all of them.
        views: several of each image, whose probabilities are averaged; None: the image as it is.
        top5: count the images whose label is among the best five classes.
        multi_label: each image has a set of labels.
        forward: the model in compiled form, which is called with full micro-batches only; None: as it is.
        most: images that go through the network at once; 0: those of a batch.
    """

    model: nn.Module
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    precision: Precision
    world: World = ALONE
    views: Views | None = None
    top5: bool = False
    multi_label: bool = False
    forward: Forward | None = None
    most: int = 0

    def __post_init__(self) -> None:
        self.model.eval()

    @torch.no_grad()  # not inference_mode: a loader may decode its images at first use and keep them
    def logits(self, images: Tensor) -> Tensor:
        """The answers to some images: float32 (N, K) of uint8 (N, C, S, S), or of features."""
        parts: list[Tensor] = []
        done = 0
        while done < len(images) or not parts:
            part = images[done : done + (self.most or len(images))]
            try:
                parts.append(self._logits(part))
                done += len(part)
                continue
            except Exception as error:
                if len(part) <= 1 or not is_out_of_memory(error) or mixes_images(self.model):
                    raise
            # The error is gone, and with it the frames that held what the attempt has computed.
            self.most = len(part) // 2
            release_memory(self.device)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            logits: Tensor = (self.forward or self.model)(self.normalize(images))
        # A compiled network may write its next answer over this one.
        return logits.to(torch.float32, copy=self.forward is not None)

    def answer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (N, K) of the plain images, and what stands for the logits of all their views; see tta."""
        if self.views:
            return average_views(self.logits, self.views(images), multi_label=self.multi_label)
        logits = self.logits(images)
        return logits, logits

    @torch.no_grad()
    def answers(
        self, loader: Loader, *, stop: StopFlag = NEVER, advance: Callable[[int], None] | None = None
    ) -> Generator[Answer, None, None]:
        """Yield the answers to all images of a split, a micro-batch at a time; each process those of its images.

        Args:
            stop: read after each micro-batch.
            advance: is told the images of each.

        Raises:
            Interrupted: a signal asked for the end.
        """
        flags = Flags(self.world)
        least = self._least_images(loader)
        with closing(loader.batches()) as batches:
            for batch in batches:
                if count := len(batch.labels):  # of a short last micro-batch, some processes may have no images
                    first_logits, logits = self.answer(filled(batch.images, least))
                    yield Answer(batch.indices, batch.labels, first_logits[:count], logits[:count])
                if advance:
                    advance(len(batch.labels))
                (signum,) = flags.most(asked_for(stop))
                if signum:
                    raise interrupted(signum)

    def _least_images(self, loader: Loader) -> int:
        """How many images a forward pass has at least: so many that the last one has no shape of its own.

        A shape that comes once has a price: a graph of its own, or the search for the fastest algorithms.
        """
        recurs = self.forward is not None or (tunes_by_shape(self.device) and len(loader) > 1)
        return loader.batch_size // self.world.size if recurs and not mixes_images(self.model) else 0

    @torch.no_grad()
    def score(
        self,
        loader: Loader,
        *,
        watch: Callable[[Answer], None] | None = None,
        sets: SetAnswers | None = None,
        stop: StopFlag = NEVER,
        advance: Callable[[int], None] | None = None,
    ) -> dict[str, float]:
        """Score all images of a split: `loss`, `top1` and, of more than five classes, `top5`; of sets `loss` and `map`.

        The loss is the plain cross-entropy (of sets, the binary one), the others are fractions. With several views,
        `plain_loss`, `plain_top1` and so on tell of the first of them alone.

        Args:
            watch: is given each answer.
            sets: is given all of them, where images have sets of labels.
            stop: read after each micro-batch.
            advance: is told the images of each.

        Raises:
            Interrupted: a signal asked for the end.
        """
        top5, world = self.top5, self.world
        scores, first_scores = (
            RunningScores(self.device, top5=top5, multi_label=self.multi_label, world=world) for _ in range(2)
        )
        ranked, first_ranked = sets or SetAnswers(world), SetAnswers(world)
        for answer in self.answers(loader, stop=stop, advance=advance):
            self._count(scores, ranked, answer.logits, answer.labels)
            if self.views:
                self._count(first_scores, first_ranked, answer.first_logits, answer.labels)
            if watch:
                watch(answer)
        result = scores.read() | self._rank(ranked)
        if self.views:
            first = first_scores.read() | self._rank(first_ranked)
            result |= {f"plain_{key}": value for key, value in first.items()}
        return result

    def _count(self, scores: RunningScores, ranked: SetAnswers, logits: Tensor, labels: Tensor) -> None:
        if self.multi_label:
            scores.add(plain_loss(logits, labels), logits, labels)
            ranked.add(logits, labels)
        else:
            scores.add(functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)

    def _rank(self, ranked: SetAnswers) -> dict[str, float]:
        return {"map": mean_average_precision(*ranked.read())} if self.multi_label else {}


def filled(images: Tensor, least: int) -> Tensor:
    """A batch of at least `least` images, (N, ...), the added ones black; in the same layout."""
    if len(images) >= least:
        return images
    is_last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if is_last else torch.contiguous_format
    shape = (least, *images.shape[1:])
    full = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=layout)
    full[: len(images)], full[len(images) :] = images, 0
    return full


def mixes_images(model: nn.Module) -> bool:
    """Whether a layer scales each image by what the others of its batch are, in evaluation too."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    return any(norm.running_mean is None for norm in norms)


def need_finite(value: float, what: str, precision: Precision) -> None:
    """Refuse what a network of finite weights has answered, where that is no number.

    Raises:
        NonFiniteError: the value is NaN or infinite.
    """
    if math.isfinite(value):
        return
    if precision.is_half:
        advice = "try trainer.precision=fp32"
    else:
        advice = "its weights or statistics are too large to be used: train with a lower optimizer.lr"
    raise NonFiniteError(f"{what} is {value}, though all weights are finite; {advice}")
