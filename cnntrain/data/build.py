"""From settings to the three splits, with everything that the model must know about the images."""

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DATASETS, CropMode, DataSettings, Interpolation, LoaderKind
from cnntrain.data import statistics
from cnntrain.data.common import (
    Data,
    MemoryBudget,
    Request,
    TrainData,
    check_train,
    choose_classes,
    choose_statistics,
    positions,
    split_val,
    take_limit,
    take_probe,
)
from cnntrain.data.datasets import TensorSet
from cnntrain.data.labels import renumber
from cnntrain.data.loaders import Loader, MemoryLoader, name_of_row
from cnntrain.data.view import resize_planes
from cnntrain.errors import ConfigError, DataError
from cnntrain.runtime.world import ALONE, World
from cnntrain.text import counted


def build_data(
    settings: DataSettings,
    augment: AugmentSettings,
    *,
    seed: int,
    device: torch.device,
    splits: Collection[str] = ("train", "val", "test"),
    probe: int = 0,
    say: Callable[[str], object] = print,
    world: World = ALONE,
) -> TrainData:
    """Load a data set to train on, and make its loaders.

    Args:
        settings: which data, its size, its splits.
        augment: read for one thing: a random resized crop is cut while decoding where files are streamed.
        seed: decides the validation part, the limited part and the order of each epoch.
        device: where the batches go.
        splits: which loaders are wanted, train among them.
        probe: at most so many training images make `TrainData.probe`; 0: none.
        say: takes progress lines.
        world: the processes that share each micro-batch.

    Raises:
        DataError: missing, damaged or inconsistent data.
        ConfigError: settings that do not fit the data.
    """
    data, loaders = _load(Request(settings, augment, seed, device, None, splits, probe, say, world))
    return TrainData(**vars(data), train=loaders["train"], probe=loaders.get("probe"))


def build_eval_data(
    settings: DataSettings,
    *,
    seed: int,
    device: torch.device,
    classes: list[str] | None = None,
    splits: Collection[str] = ("val", "test"),
    say: Callable[[str], object] = print,
) -> Data:
    """Load the images that a trained network is scored on; see build_data.

    Args:
        classes: those of the network; labels are aligned to them.
    """
    return _load(Request(settings, AugmentSettings(), seed, device, classes, splits, 0, say))[0]


def _load(request: Request) -> tuple[Data, Mapping[str, Loader]]:
    """The data without its training images, and the loaders of all splits that were asked for."""
    result = DATASETS.entry(request.settings.name).build(request)
    data, loaders = in_memory(result, request) if isinstance(result, TensorSet) else result
    if data.multi_label and "train" in loaders and not loaders["train"].labels.any():
        raise DataError("data: no training image has a label, so that there is nothing to learn; add images that have")
    for split, loader in data.scored_splits.items() if data.multi_label else ():
        if not loader.labels.any():
            advice = "give a larger data.val or another seed" if split == "val" else "add some"
            data.warnings.append(f"{split}: no image has a label, so that its mAP of 0 tells nothing; {advice}")
    return data, loaders


def in_memory(data_set: TensorSet, request: Request) -> tuple[Data, Mapping[str, Loader]]:
    """The splits of a data set that is decoded already."""
    settings = request.settings
    if settings.loader is LoaderKind.stream:
        raise ConfigError(
            f"data.loader: stream reads files one by one, {settings.name} comes as one block; use auto or memory"
        )
    if (classes := choose_classes(data_set.classes, request)) != data_set.classes:
        data_set = data_set.select_classes(classes)
    shape = data_set.train[0].shape
    channels = settings.channels or shape[1]
    size = settings.image_size or DATASETS.entry(settings.name).image_size or shape[2]
    eval_size = settings.eval_size or size
    places = positions(data_set.classes, request.classes)

    def prepare(images: Tensor, labels: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        result = resize_batch(convert_channels(images, channels), pixels, request.interpolation)
        return result, labels if places is None else renumber(labels, places, len(request.classes or ()))

    data_set = _take_val(data_set, request)
    images, labels = data_set.train
    whole = torch.arange(len(labels))
    train_index, val_index = (whole, whole[:0]) if data_set.val else split_val(labels, request)
    # Resized once at most.
    whole_train = functools.cache(lambda: prepare(images[train_index], labels[train_index], size))
    mean, std = choose_statistics(request, channels, lambda: _statistics(request, channels, lambda: whole_train()[0]))
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    numbers: dict[str, Tensor | None] = {"val": None if data_set.val else val_index, "test": None}  # in their part
    if "train" in request.splits:
        rows = train_index[take_limit(labels[train_index], request)]
        numbers["train"] = rows
        is_whole = len(rows) == len(train_index)
        parts["train"] = whole_train() if is_whole else prepare(images[rows], labels[rows], size)
        request = request.fit_batch_size(len(rows))
    if "val" in request.splits and (data_set.val or len(val_index)):
        parts["val"] = prepare(*(data_set.val or (images[val_index], labels[val_index])), eval_size)
    if "test" in request.splits and data_set.test:
        parts["test"] = prepare(*data_set.test, eval_size)
    budget = MemoryBudget(request.device)
    loaders = {name: _loader(*part, name, numbers[name], budget, request) for name, part in parts.items()}
    if "train" in loaders:
        check_train(loaders["train"], request)
        if request.probe:
            probe_rows = take_probe(loaders["train"].labels, request)
            if eval_size == size:
                loaders["probe"] = loaders["train"].subset(probe_rows)
            else:
                result = prepare(images[rows[probe_rows]], labels[rows[probe_rows]], eval_size)
                loaders["probe"] = _loader(*result, "probe", rows[probe_rows], budget, request)
    data = request.data(
        loaders,
        classes=request.classes or data_set.classes,
        channels=channels,
        image_size=size,
        eval_size=eval_size,
        crop=1.0,
        crop_mode=CropMode.center,
        mean=mean,
        std=std,
        fingerprint=data_set.fingerprint(),
    )
    return data, loaders


def _take_val(data_set: TensorSet, request: Request) -> TensorSet:
    """The data set as its own val part is used: with folds, which take val from train, it may become the test part."""
    if data_set.val is None:
        return data_set
    count = counted(len(data_set.val[1]), "image")
    if request.settings.folds is not None:
        use = "not used" if data_set.test else "test"
        request.notes.append(f"its val part: {use}, {count}, as data.folds takes val from train")
        return replace(data_set, test=data_set.test or data_set.val, val=None)
    request.notes.append(f"val: {count}, its own part")
    if request.settings.val != DataSettings.val:
        request.warnings.append(
            f"data.val: the data set's own {count} validate, and none are taken out of the training images "
            f"(given {request.settings.val})"
        )
    return data_set


def _loader(
    images: Tensor, labels: Tensor, split: str, numbers: Tensor | None, budget: MemoryBudget, request: Request
) -> MemoryLoader:
    part = split if numbers is None else "train"  # probe, and most often val, come out of the training images
    return MemoryLoader(
        images,
        labels,
        **request.loading(split),
        resident=budget.take(images.numel()) == "device" or request.device.type == "cpu",
        name=name_of_row(lambda index: f"{part}/{index}", numbers),
    )


def _statistics(request: Request, channels: int, train_images: Callable[[], Tensor]) -> statistics.Statistics:
    entry = DATASETS.entry(request.settings.name)
    if len(entry.mean) in (1, channels):
        request.notes.append(f"mean and std: the known ones of {entry.name}")
        return list(entry.mean) * (channels // len(entry.mean)), list(entry.std) * (channels // len(entry.std))
    request.notes.append("mean and std: computed on the training images")
    return statistics.compute(train_images())


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 (N, 1 or 3, H, W) to uint8 (N, channels, H, W): grey by ITU-R 601 luma weights, colour by repetition."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(1, 3, 1, 1)  # 0.299, 0.587, 0.114 of 65536
    parts = [((part * weights).sum(1, keepdim=True) + 32768 >> 16).to(torch.uint8) for part in images.split(1000)]
    return torch.cat(parts)


def resize_batch(images: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """uint8 (N, C, H, W) to uint8 (N, C, size, size), with antialias."""
    if images.shape[2:] == (size, size):
        return images
    result = torch.empty((*images.shape[:2], size, size), dtype=torch.uint8)
    for source, target in zip(images.split(1000), result.split(1000), strict=True):
        target.copy_(resize_planes(source, size, size, interpolation))
    return result
