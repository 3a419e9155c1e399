"""What is left of the accuracy on pictures that are noisy, blurred, faint or strongly compressed (arXiv 1903.12261)."""

from collections.abc import Callable, Sequence
from contextlib import closing

import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor

from cnntrain.augment.layout import levels
from cnntrain.evaluation.split_scores import loader_of
from cnntrain.runtime.seeds import generator
from cnntrain.training.job import Job
from cnntrain.training.metrics import RunningScores
from cnntrain.training.multi_label import SetAnswers, mean_average_precision, plain_loss
from cnntrain.training.tta import Views

NOISE = -31  # part of the seed that keeps these draws apart from all others
SMALL = 64  # pixels a side, from which the strengths of ImageNet-C hold, and below which those of CIFAR-10-C
# Five strengths: for small images, whose sides are 32 in the paper, and for large ones, whose sides are 224.
STRENGTHS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),  # standard deviation, white is 1
    "blur": ((0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),  # standard deviation in pixels, of images of these sides
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),  # what is left of it
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),  # quality
}
SIDES = (32, 224)
TRUNCATE = 4  # standard deviations, after which a blur ends


def score_corrupted(
    job: Job,
    split: str,
    names: Sequence[str],
    *,
    views: Views | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, list[dict[str, float]]]:
    """The scores of a split at each strength of some corruptions, in one pass: every image is decoded once.

    Args:
        names: among noise, blur, contrast and jpeg, or all.
        views: several of each corrupted image.
        advance: is told the images of each.

    Returns:
        By name, five rows of `strength`, `loss` and `top1`, or of label sets `map`, the weakest corruption first.
    """
    scorer = job.scorer(views=views)
    names = list(STRENGTHS) if "all" in names else names
    strengths = {name: strengths_of(name, job.data.eval_size) for name in names}
    scores = {name: [_Tally(job) for _ in strengths[name]] for name in names}
    with closing(loader_of(job, split, views).batches()) as batches, torch.no_grad():
        for batch in batches:
            for name in names:
                for strength, running in zip(strengths[name], scores[name], strict=True):
                    logits = scorer.answer(corrupt(name, batch.images, strength, batch.indices))[1] / job.temperature
                    running.add(logits, batch.labels)
            if advance:
                advance(len(batch.labels))
    return {
        name: [
            {"strength": strength, **running.read()}
            for strength, running in zip(strengths[name], scores[name], strict=True)
        ]
        for name in names
    }


class _Tally:
    """The scores of all images at one strength."""

    def __init__(self, job: Job) -> None:
        self._multi_label = job.data.multi_label
        self._running = RunningScores(job.device, multi_label=self._multi_label)
        self._sets = SetAnswers()

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take a micro-batch: float32 (N, K), and int64 (N,) or bool (N, K)."""
        if self._multi_label:
            self._running.add(plain_loss(logits, labels), logits, labels)
            self._sets.add(logits, labels)
        else:
            self._running.add(F.cross_entropy(logits, labels, reduction="sum"), logits, labels)

    def read(self) -> dict[str, float]:
        """Means over them."""
        return self._running.read() | ({"map": mean_average_precision(*self._sets.read())} if self._multi_label else {})


def strengths_of(name: str, side: int) -> list[float]:
    """The five strengths of a corruption of images of so many pixels a side."""
    place = int(side >= SMALL)
    unit = side / SIDES[place] if name == "blur" else 1
    return [unit * strength for strength in STRENGTHS[name][place]]


def corrupt(name: str, images: Tensor, strength: float, indices: Tensor) -> Tensor:
    """A batch of corrupted images.

    Args:
        images: uint8 (N, C, S, S).
        strength: see STRENGTHS.
        indices: int64 (N,), on the host: the noise of an image depends on its index alone.

    Returns:
        uint8 (N, C, S, S).
    """
    return _FUNCTIONS[name](images, strength, indices)


def _noise(images: Tensor, strength: float, indices: Tensor) -> Tensor:
    host = torch.device("cpu")
    draws = [torch.randn(images.shape[1:], generator=generator(host, NOISE, index)) for index in indices.tolist()]
    return _levels(images + 255 * strength * torch.stack(draws).to(images.device))


def _blur(images: Tensor, strength: float, _: Tensor) -> Tensor:
    radius = max(1, int(TRUNCATE * strength + 0.5))
    places = torch.arange(-radius, radius + 1, device=images.device)
    line = (-0.5 * (places / strength).square()).softmax(0)
    channels = images.shape[1]
    rows, columns = (line.view(1, 1, *shape).expand(channels, 1, *shape) for shape in ((-1, 1), (1, -1)))
    padded = F.pad(images.float(), [radius] * 4, mode="replicate")
    return _levels(F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels))


def _contrast(images: Tensor, strength: float, _: Tensor) -> Tensor:
    mean = images.float().mean((2, 3), keepdim=True)
    return _levels((images - mean) * strength + mean)


def _jpeg(images: Tensor, strength: float, _: Tensor) -> Tensor:
    kind, sampling = ("GRAY", "Gray") if images.shape[1] == 1 else ("RGB", "420")
    files = (
        simplejpeg.encode_jpeg(pixels, round(strength), kind, sampling)
        for pixels in images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )
    decoded = [torch.from_numpy(simplejpeg.decode_jpeg(file, kind)) for file in files]
    return torch.stack(decoded).permute(0, 3, 1, 2).to(images.device)


def _levels(values: Tensor) -> Tensor:
    """float32 to uint8, rounded, and clipped at black and white."""
    return levels(values.round_().clamp_(0, 255))


_FUNCTIONS: dict[str, Callable[[Tensor, float, Tensor], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "jpeg": _jpeg,
}
