"""Features of the images that are looked at: of a network with weights to start from, or of the images' own patches."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.config.schema.data import DATASETS, CropMode, DataSettings, OnBadImage
from cnntrain.config.schema.settings import Settings
from cnntrain.data.build import convert_channels, resize_batch
from cnntrain.data.common import Data, gigabytes
from cnntrain.data.loaders import Loader, MemoryLoader
from cnntrain.data.unlabelled import FileDecoder, data_without_images, stream
from cnntrain.errors import ConfigError
from cnntrain.finetune.cached_features import Encoder, Refused
from cnntrain.inspect.doctor.patches import Patches
from cnntrain.inspect.doctor.subject import Part, Subject
from cnntrain.models.head import find_head, head_paths
from cnntrain.models.weights.load import load_weights_into, read_weights
from cnntrain.models.weights.preprocessing import follow_weights
from cnntrain.runtime.device_memory import free_memory
from cnntrain.runtime.reporter import Reporter
from cnntrain.text import counted
from cnntrain.training.build import build_eval_job

PATCHED = 48  # pixels a side of larger images, whose patches are taken
SAMPLE = 2000  # images that patches are drawn from
SHARE = 2  # features may fill this part of the free memory: 1 / SHARE


@dataclass(frozen=True)
class FeatureEncoder:
    """What makes features of images.

    Attributes:
        name: whose they are, in words.
        data: how the images are to be prepared.
        settings: of the data.
        encode: from uint8 (N, C, S, S) on the device to (N, ...).
    """

    name: str
    data: Data
    settings: DataSettings
    device: torch.device
    encode: Callable[[Tensor], Tensor]


def find_encoder(subject: Subject, rows: NDArray[np.int64], settings: Settings, report: Reporter) -> FeatureEncoder:
    """That of the network where it has weights to start from, else one made of patches of the images.

    Args:
        rows: numbers of images in the subject, at least one.

    Raises:
        ConfigError: weights that the network cannot take, or a network that has no one head.
        CheckpointError: damaged weights.
    """
    if settings.model.pretrained or settings.model.weights:
        return _of_weights(subject, settings, report)
    return _of_patches(subject, rows, settings)


def _of_patches(subject: Subject, rows: NDArray[np.int64], settings: Settings) -> FeatureEncoder:
    channels, sides = _shape(subject)
    own = replace(settings.data, channels=settings.data.channels or channels, mean=[0.5], std=[0.5])
    own = replace(own, image_size=min(PATCHED, *sides), eval_size=None, crop=1.0, crop_mode=CropMode.squash)
    data, device = data_without_images(own, subject.classes, ""), torch.device("cpu")
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).round().astype(int)]
    loaders = loaders_of(subject, sample, data, own, device)
    images = torch.cat([batch.images for loader in loaders for batch in loader.batches()])
    return FeatureEncoder("patches of the images", data, own, device, Patches(images, settings.seed))


def _of_weights(subject: Subject, settings: Settings, report: Reporter) -> FeatureEncoder:
    settings, _ = follow_weights(settings)
    channels, sides = _shape(subject)
    size = DATASETS.entry(settings.data.name).image_size or min(sides)
    known = {"channels": channels, "image_size": size, "mean": [0.5], "std": [0.25]}
    missing: dict[str, Any] = {key: value for key, value in known.items() if getattr(settings.data, key) is None}
    settings = replace(settings, data=replace(settings.data, **missing))
    data = data_without_images(settings.data, subject.classes, "")
    job = build_eval_job(settings, report.say, classes=subject.classes, data=data)
    weights = read_weights(settings.model, report.say)
    assert weights is not None
    model, pattern = settings.model, settings.finetune.head
    new = head_paths(job.model, pattern)
    load_weights_into(job.model, weights, new=new, allow_missing=model.allow_missing, allow_unused=model.allow_unused)
    head = find_head(job.model, pattern)
    encode = Encoder(job.model.eval(), head, job.normalize, job.device, job.precision)
    return FeatureEncoder(f"features of {weights.source}", data, settings.data, job.device, encode)


def _shape(subject: Subject) -> tuple[int, tuple[int, ...]]:
    """Channels and sides of images in memory; those of files are made as is wanted."""
    pixels = subject.parts[0].pixels
    return (3, (PATCHED,)) if pixels is None else (pixels.shape[1], tuple(pixels.shape[2:]))


def encode(encoder: FeatureEncoder, subject: Subject, rows: NDArray[np.int64], report: Reporter) -> Tensor:
    """The features of images, float32 (N, D) on the host; maps are averaged.

    Raises:
        ConfigError: they do not fit into memory, or the network has none.
    """
    loaders = loaders_of(subject, rows, encoder.data, encoder.settings, encoder.device)
    report.validating(sum(map(len, loaders)), phase="encoding")
    store, done = torch.empty(0, 0), 0
    try:
        for loader in loaders:
            for batch in loader.batches():
                with torch.no_grad():
                    features = encoder.encode(batch.images).float().cpu()
                features = features.flatten(2).mean(2) if features.ndim > 2 else features
                if not done:
                    store = _reserve(len(rows), features.shape[1])
                store[done : done + len(features)] = features
                done += len(features)
                report.advance(len(features))
    except Refused as refused:
        raise ConfigError(f"labels: {refused}") from None
    report.end_phase()
    return store


def _reserve(count: int, width: int) -> Tensor:
    size = 4 * count * width
    if size > free_memory(torch.device("cpu")) // SHARE:
        raise ConfigError(
            f"labels: the features of {counted(count, 'image')} take {gigabytes(size)}, more than 1/{SHARE} of the "
            "free memory; look at fewer with images=N"
        )
    return torch.empty(count, width)


def loaders_of(
    subject: Subject, rows: NDArray[np.int64], data: Data, settings: DataSettings, device: torch.device
) -> list[Loader]:
    """Images as validation sees them, in their order: a loader for each part that has some of them."""
    return [
        _loader(part, rows[subject.splits[rows] == number] - subject.start(number), data, settings, device)
        for number, part in enumerate(subject.parts)
        if (subject.splits[rows] == number).any()
    ]


def _loader(part: Part, rows: NDArray[np.int64], data: Data, settings: DataSettings, device: torch.device) -> Loader:
    chosen = torch.from_numpy(rows)
    if part.paths:
        decoder = FileDecoder(part.paths.take(chosen), data.view(data.eval_size), data.channels, OnBadImage.skip)
        return stream(decoder, data.batch_size, settings, device)
    assert part.pixels is not None
    pixels = resize_batch(convert_channels(part.pixels[chosen], data.channels), data.eval_size, data.interpolation)
    options = {"batch_size": data.batch_size, "device": device, "seed": 0}
    return MemoryLoader(pixels, part.labels[chosen], train=False, resident=device.type == "cpu", **options)
