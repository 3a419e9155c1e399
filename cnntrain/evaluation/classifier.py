"""A trained network as an object of Python: `cnntrain.load`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, TypeGuard, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cnntrain.config.paths import expand_path
from cnntrain.data.decode import BadImage, read_image, to_pixels
from cnntrain.errors import ConfigError, DataError
from cnntrain.evaluation.prediction import Prediction, Ranks, Reading, predictions, rank
from cnntrain.runtime.algorithms import own_process_kept
from cnntrain.runtime.reporter import Silence
from cnntrain.text import printable
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job
from cnntrain.training.scoring import need_finite

Picture: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

KINDS = "a path, a Pillow image, a uint8 array (H, W) or (H, W, C), or a list of these"
LEVELS = {1: "L", 3: "RGB", 4: "RGBA"}  # the channels that an array may have


def load(run: str | os.PathLike[str], *overrides: str, device: str | torch.device | None = None) -> "Classifier":
    """A trained network, ready to be asked.

    The images of the run are not needed. Random numbers and threads of the process stay as they are.

    Args:
        run: a run folder, whose best epoch is taken, a folder of one checkpoint or its state.pt.
        overrides: values of the run's config to be changed, such as "trainer.precision=bf16".
        device: such as "cpu" or "cuda:1"; None: that of the run's config, which is the GPU where there is one.

    Raises:
        ConfigError: an override or a device that is not to be had.
        CheckpointError: no checkpoint, a damaged one, or one of other software.
        UnsafeError: the network is code of a user's, and its name is not repeated among the overrides.
    """
    words = [*overrides, *([] if device is None else [f"trainer.device={device}"])]
    with own_process_kept():
        *_, job = load_job(expand_path(os.fspath(run)), words, Silence(), images=False, command="load")
    return Classifier(job)


class Classifier:
    """A trained network with its classes and its preprocessing; it answers as `cnntrain predict` does.

    Args:
        job: the network, its weights loaded.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._view = job.data.view(job.data.eval_size)
        job.model.eval()

    def __repr__(self) -> str:
        data = self._job.data
        size = f"{data.eval_size} x {data.eval_size} pixels"
        return f"Classifier({self._job.settings.model.heading}, {len(data.classes):,} classes, {size}, {self.device})"

    @property
    def model(self) -> nn.Module:
        """The network, in evaluation mode: of float32 (N, C, S, S), as `prepare` makes them, logits (N, K)."""
        return self._job.model

    @property
    def classes(self) -> list[str]:
        """The names of the network's outputs, in their order."""
        return list(self._job.data.classes)

    @property
    def temperature(self) -> float:
        """By what the logits are divided before the softmax: 1 where none was fitted (arXiv 1706.04599)."""
        return self._job.temperature

    @property
    def thresholds(self) -> list[float] | None:
        """Of a network that gives each image a set of labels, the probabilities from which on it does; else None."""
        thresholds = Reading.of(self._job).thresholds
        return None if thresholds is None else thresholds.tolist()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._job.device

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a text is a sequence too
        self, images: str | os.PathLike[str], *, top: int | None = ..., threshold: float | None = ...
    ) -> Prediction: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: Sequence[Picture], *, top: int | None = ..., threshold: float | None = ...
    ) -> list[Prediction]: ...

    @overload
    def __call__(self, images: Picture, *, top: int | None = ..., threshold: float | None = ...) -> Prediction: ...

    def __call__(
        self, images: Picture | Sequence[Picture], *, top: int | None = 5, threshold: float | None = None
    ) -> Prediction | list[Prediction]:
        """The classes of an image, or of each image of a list, which may be of several kinds.

        Images are turned upright (EXIF), 16 bits become 8, palettes and CMYK become RGB or grey as the network wants
        it, transparent parts lie on white, and the network sees the same part of them as in validation.

        Args:
            images: paths, Pillow images, arrays of uint8 in 0..255, (H, W) or (H, W, C) with 1, 3 or 4 channels.
            top: how many classes are told of each; None: all.
            threshold: below this probability (0..1) a prediction's `label` is None; of sets it takes the place
                of `thresholds`. None: 0, or these.

        Raises:
            ConfigError: `top` or `threshold` that is no such number.
            DataError: something that is no image, or cannot be decoded.
            NonFiniteError: the network answers NaN.
        """
        names = self._job.data.classes
        count = _need_top(top, len(names))
        _need_threshold(threshold)
        reading = Reading.of(self._job, threshold)
        pictures = _listed(images)
        scorer = self._job.scorer()
        found: list[Prediction] = []
        for start in range(0, len(pictures), self._job.data.batch_size):
            part = pictures[start : start + self._job.data.batch_size]
            _, logits = scorer.answer(self._decode(part, start))
            ranks = Ranks.join([rank(logits, reading, count)])
            need_finite(float(ranks.values.sum()), "what the network answers", self._job.precision)
            rows = torch.arange(len(part))
            found += predictions(map(_file, part), ranks, names, reading, rows=rows, count=count)
        return found if _is_list(images) else found[0]

    def prepare(self, images: Picture | Sequence[Picture]) -> Tensor:
        """What `model` takes of some images: float32 (N, C, S, S), normalised, on the device.

        Raises:
            DataError: see `__call__`; and where there is no image.
        """
        pictures = _listed(images)
        if not pictures:
            raise DataError(f"images: must be one or more (given none); give {KINDS}")
        return self._job.normalize(self._decode(pictures, 0))

    def _decode(self, pictures: Sequence[Picture], start: int) -> Tensor:
        """uint8 (N, C, S, S), channels_last, on the device, as a loader yields them."""
        views = [self._view(self._pixels(picture, place)) for place, picture in enumerate(pictures, start)]
        return torch.stack(views).to(self._job.device).permute(0, 3, 1, 2)

    def _pixels(self, picture: Picture, place: int) -> Tensor:
        """uint8 (H, W, C)."""
        name, channels = _file(picture) or f"images[{place}]", self._job.data.channels
        try:
            if isinstance(picture, (str, os.PathLike)):
                return read_image(Path(name), channels)
            image = _image_of(picture) if isinstance(picture, np.ndarray) else picture
            if isinstance(image, Image.Image):
                return to_pixels(image, channels)
        except BadImage as fault:
            raise DataError(f"{printable(name)}: {fault}; give another image") from None
        raise DataError(f"{name}: must be {KINDS} (given {_kind(picture)})")


def _is_list(images: Picture | Sequence[Picture]) -> TypeGuard[Sequence[Picture]]:
    return isinstance(images, Sequence) and not isinstance(images, (str, bytes))


def _listed(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    return images if _is_list(images) else [cast(Picture, images)]


def _file(picture: Picture) -> str:
    """The file of a picture, as its user means it; empty where there is none."""
    return str(expand_path(os.fspath(picture))) if isinstance(picture, (str, os.PathLike)) else ""


def _image_of(array: NDArray[np.uint8]) -> Image.Image:
    """An array as Pillow has it, which knows what to do with grey and with transparency."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in LEVELS:
        raise BadImage(f"must be {KINDS}, with 1, 3 or 4 channels (given {_kind(array)})")
    if not array.size:
        raise BadImage(f"{_kind(array)} holds no pixels")
    return Image.fromarray(array[:, :, 0] if channels == 1 and array.ndim == 3 else array)


def _kind(value: object) -> str:
    """`float32 array (3, 32, 32)`, or the name of a type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    if isinstance(value, Tensor):
        return f"torch.Tensor {tuple(value.shape)}"
    return type(value).__name__


def _need_top(top: int | None, classes: int) -> int:
    """How many classes are told."""
    if top is None:
        return classes
    if type(top) is not int or top < 1:  # True is an int to Python, and none to torch
        raise ConfigError(f"top: must be a whole number >= 1, or None for all classes (given {top!r})")
    return min(top, classes)


def _need_threshold(threshold: float | None) -> None:
    if threshold is not None and (not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1):
        raise ConfigError(f"threshold: must be a number >= 0 and <= 1 (given {threshold!r})")
