"""What both kinds of source share: the result, the request, splitting train, statistics, a budget of memory."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import CropMode, DataSettings, Interpolation, Sampling
from cnntrain.config.schema.limits import AUTO
from cnntrain.data.group_split import group_folds, group_split
from cnntrain.data.labels import class_counts
from cnntrain.data.loaders import Loader
from cnntrain.data.split import count_of, fold_numbers, stratified_split, take_per_class
from cnntrain.data.statistics import Statistics
from cnntrain.data.view import View, border
from cnntrain.errors import ConfigError, DataError
from cnntrain.runtime.device_memory import free_memory, shares_memory
from cnntrain.runtime.world import ALONE, World
from cnntrain.text import counted, hint, nearest

VAL, LIMIT, PROBE = -2, -3, -8  # parts of seeds that keep these draws apart from all others
LEAST_PROBE, PROBE_SHARE = 100, 10  # the probe holds a tenth of the training images at most, if that is 100 or more
BATCH_SIZES = (4, 8, 16, 32, 64)  # that data.batch_size=null chooses from
STEPS = 16  # of an epoch, which it aims at
AUTO_NOTE = "batch size: {} here, as data.batch_size=auto is for training"
SHARE = 4  # decoded images may fill this part of the memory that is free: 1 / SHARE


@dataclass(frozen=True, kw_only=True)
class Data:
    """What scoring needs of a data set: the images to score, and all that a network must know of any image.

    `mean` and `std` are per channel on the 0..1 scale; `fingerprint` is a sha256 over names and sizes of the files, or
    over the pixels of a set in memory; `notes` are one-line facts for the header. A split that was not asked for, or is
    not there, is None.
    """

    name: str
    classes: list[str]
    channels: int
    image_size: int  # pixels a side in training
    eval_size: int  # in val, test and probe
    interpolation: Interpolation
    crop: float  # part of the short side of a file that is seen; of images in memory 1
    crop_mode: CropMode
    batch_size: int  # images of a micro-batch
    mean: list[float]
    std: list[float]
    multi_label: bool = False  # each image has a set of classes, and its labels are bool (K,)
    val: Loader | None = None
    test: Loader | None = None
    fingerprint: str
    notes: list[str]
    warnings: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)  # what a glance at the images has found, see data/quick_look.py
    # A sha256 for each split that is a folder of its own: `val` is among them where no training image validates.
    marks: dict[str, str] = field(default_factory=dict)
    home: Path | None = None  # of files, the folder that splits.csv tells their names from

    @property
    def scored_splits(self) -> dict[str, Loader]:
        """The splits that are there, `val` before `test`."""
        return {name: loader for name, loader in (("val", self.val), ("test", self.test)) if loader}

    def view(self, size: int) -> View:
        """What validation sees of a picture, in `size` pixels a side."""
        return View(size, self.crop, self.interpolation, self.crop_mode, border(self.crop_mode, self.mean))


@dataclass(frozen=True, kw_only=True)
class TrainData(Data):
    """What training needs besides: `probe` shows some of the training images as val and test show theirs."""

    train: Loader
    probe: Loader | None = None


@dataclass(frozen=True)
class Request:
    """The arguments of build_data, and the notes that gather on the way."""

    settings: DataSettings
    augment: AugmentSettings
    seed: int
    device: torch.device
    classes: list[str] | None
    splits: Collection[str]
    probe: int
    say: Callable[[str], object]
    world: World = ALONE
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def interpolation(self) -> Interpolation:
        """data.interpolation, or bilinear."""
        return self.settings.interpolation or Interpolation.bilinear

    @property
    def crop_mode(self) -> CropMode:
        """data.crop_mode, or center."""
        return self.settings.crop_mode or CropMode.center

    @property
    def batch_size(self) -> int:
        """data.batch_size; where it is none yet, that of scoring."""
        size = self.settings.batch_size
        return size if isinstance(size, int) else BATCH_SIZES[-1]

    def loading(self, split: str) -> dict[str, Any]:
        """What every loader of a split is given: which images make its micro-batches, and where these go."""
        return {
            "batch_size": self.batch_size,
            "device": self.device,
            "seed": self.seed,
            "train": split == "train",
            "sampling": self.settings.sampling,
            "world": self.world,
        }

    def data(self, loaders: Mapping[str, Loader], **facts: Any) -> Data:
        """The data without its training images: what is asked for, the loaders, and `facts`, all else of Data."""
        return Data(
            name=self.settings.name,
            multi_label=self.settings.multi_label,
            batch_size=self.batch_size,
            interpolation=self.interpolation,
            val=loaders.get("val"),
            test=loaders.get("test"),
            notes=self.notes,
            warnings=self.warnings,
            **facts,
        )

    def fit_batch_size(self, images: int) -> "Request":
        """This request with the batch size for so many training images, where data.batch_size is null."""
        if self.settings.batch_size == AUTO:
            self.notes.append(AUTO_NOTE.format(self.batch_size))
        if self.settings.batch_size is not None:
            return self
        share = images / self.world.size
        batch_size = min(BATCH_SIZES, key=lambda size: abs(size - share / STEPS))
        self.notes.append(f"batch size: {batch_size}, fitted to {images:,} training images")
        return replace(self, settings=replace(self.settings, batch_size=batch_size))


def split_val(
    labels: Tensor, request: Request, groups: Tensor | None = None, numbers: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of train and val: a stratified seeded part of the training images becomes val, or one of its folds.

    With `data.val=0`, val is empty.

    Args:
        labels: int64 (N,).
        groups: int64 (N,), none of which may be parted.
        numbers: int64 (N,), the fold of each image where the data has folds; None: they are drawn.

    Raises:
        DataError: nothing would be left to train on, or nothing to validate on.
    """
    if request.settings.folds is not None:
        return _take_fold(labels, request.settings.folds, request, groups, numbers)
    if not request.settings.val:
        request.notes.append("val: none (data.val=0), all images train: the last epoch counts, as none is the best")
        return torch.arange(len(labels)), torch.arange(0)
    count = count_of("data.val", request.settings.val, len(labels))
    if count == len(labels) and class_counts(labels, 0).max() > 1:
        raise DataError(f"data.val: {count} of {len(labels)} images leave none to train on; choose fewer")
    if groups is None:
        val, train = stratified_split(labels, count, request.seed, VAL, leave=True)
    else:
        val, train = group_split(labels, groups, count, request.seed, VAL)
    if not len(val):
        two = "two images" if groups is None else "images in two groups"
        raise DataError(f"data.val: no class has {two}, so none can go to val; add images, or set data.val=0")
    how = f"stratified, seed {request.seed}{_groups_in(val, labels, groups)}"
    request.notes.append(f"val: {len(val):,} of the {len(labels):,} training images, {how}")
    return train, val


def _take_fold(
    labels: Tensor, folds: int, request: Request, groups: Tensor | None, numbers: Tensor | None
) -> tuple[Tensor, Tensor]:
    fold, seed = request.settings.fold, request.seed
    how = f"stratified, seed {seed}" if numbers is None else "as the table has them"
    if numbers is not None:
        what, count = "images", len(numbers.unique())
    elif groups is None:
        numbers, what = fold_numbers(labels, folds, seed, VAL), "images (in classes of two or more)"
        count = int((numbers >= 0).sum())
    else:
        numbers, what = group_folds(labels, groups, folds, seed, VAL), "groups (that hold no whole class)"
        count = len(groups[numbers >= 0].unique())
    if count < folds:
        raise DataError(
            f"data.folds: {folds} folds of {count} {what} leave one empty; choose fewer folds, or add images"
        )
    train, val = (mask.nonzero().squeeze(1) for mask in (numbers != fold, numbers == fold))
    which = f"fold {fold} of 0 to {folds - 1}, {how}{_groups_in(val, labels, groups)}"
    request.notes.append(f"val: {len(val):,} of the {len(labels):,} training images, {which}")
    return train, val


def _groups_in(val: Tensor, labels: Tensor, groups: Tensor | None) -> str:
    """How many groups validate, and which classes are in none of them, for a note."""
    if groups is None:
        return ""
    return f", {len(groups[val].unique()):,} of {counted(len(groups.unique()), 'group')}{_no_image_of(labels, val)}"


def _no_image_of(labels: Tensor, rows: Tensor) -> str:
    """How many classes these rows have no image of, for a note; empty where they have all that there are."""
    every, chosen = (int((class_counts(part, 0) > 0).sum()) for part in (labels, labels[rows]))
    return f", no image of {counted(every - chosen, 'class')}" if every > chosen else ""


def take_limit(labels: Tensor, request: Request) -> Tensor:
    """Indices of the stratified seeded part of train that `data.limit` or `data.per_class` asks for.

    Raises:
        DataError: data.limit asks for more than there is.
    """
    if request.settings.per_class is not None:
        return _take_few(labels, request.settings.per_class, request)
    if request.settings.limit is None:
        return torch.arange(len(labels))
    count = count_of("data.limit", request.settings.limit, len(labels))
    rows = stratified_split(labels, count, request.seed, LIMIT)[0]
    what = f"limited to {len(rows):,} of {len(labels):,} images, stratified, seed {request.seed}"
    request.notes.append(f"train: {what}{_no_image_of(labels, rows)}")
    return rows


def _take_few(labels: Tensor, count: int, request: Request) -> Tensor:
    rows = take_per_class(labels, count, request.seed, LIMIT)
    sizes = labels.bincount()
    fewer = int(((sizes > 0) & (sizes < count)).sum())
    tail = f"; {counted(fewer, 'class')} {'have' if fewer > 1 else 'has'} fewer" if fewer else ""
    request.notes.append(
        f"train: {count:,} of each class, {len(rows):,} of {len(labels):,} images, seed {request.seed}{tail}"
    )
    return rows


def take_probe(labels: Tensor, request: Request) -> Tensor:
    """Indices of the stratified seeded training images that are scored as the validation images are."""
    share = max(LEAST_PROBE, len(labels) // PROBE_SHARE)  # of a small set, all would cost a third of an epoch
    count = min(request.probe, share, len(labels))
    request.notes.append(f"probe: {count:,} of the {len(labels):,} training images, without augmentation")
    return stratified_split(labels, count, request.seed, PROBE)[0]


def choose_classes(names: list[str], request: Request) -> list[str]:
    """The classes to learn, in their order: those of `data.classes`, else all that were found.

    Raises:
        ConfigError: data.classes names one that is not there.
    """
    classes = request.settings.classes
    if classes is None:
        return names
    if strangers := [name for name in classes if name not in names]:
        there = ", ".join(names[:5]) + (f", … ({len(names):,} in all)" if len(names) > 5 else "")
        otherwise = hint(nearest(strangers[0], names), f"there are {there}")
        raise ConfigError(f"data.classes: no class {strangers[0]!r} in the data{otherwise}")
    request.notes.append(f"classes: {len(classes):,} of {len(names):,}, as data.classes says")
    return classes


def positions(names: list[str], classes: list[str] | None) -> Tensor | None:
    """The place in `classes` of each class of the data; None where nothing moves.

    Raises:
        DataError: a class that is not among them.
    """
    if classes is None or names == classes:
        return None
    if strangers := [name for name in names if name not in classes]:
        raise DataError(
            f"data.name: class {strangers[0]!r} is not among the {len(classes)} classes of the checkpoint "
            f"({', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}); choose the data it was trained on"
        )
    return torch.tensor([classes.index(name) for name in names])


def choose_statistics(request: Request, channels: int, compute: Callable[[], Statistics]) -> Statistics:
    """data.mean and data.std where they are given, else the data set's own.

    Raises:
        ConfigError: three numbers for one channel.
    """
    numbers = {"mean": request.settings.mean, "std": request.settings.std}
    for key, values in numbers.items():
        if values is not None and len(values) not in (1, channels):
            raise ConfigError(f"data.{key}: {len(values)} numbers for {channels} channel; give one per channel")
    mean, std = (None if values is None else list(values) * (channels // len(values)) for values in numbers.values())
    if mean is None or std is None:
        result = compute()
        mean, std = mean or result[0], std or result[1]
    else:
        request.notes.append("mean and std: as given")
    return mean, std


class MemoryBudget:
    """How much decoded data may lie in memory: a quarter of what is free, on the device first, then on the host."""

    def __init__(self, device: torch.device) -> None:
        self.device_bytes = free_memory(device) // SHARE
        self.host_bytes = 0 if shares_memory(device) else free_memory(torch.device("cpu")) // SHARE

    def take(self, size: int) -> str | None:
        """Reserve `size` bytes: `device`, `host`, or None where neither has them."""
        if size <= self.device_bytes:
            self.device_bytes -= size
            return "device"
        if size <= self.host_bytes:
            self.host_bytes -= size
            return "host"
        return None


def recut(data: TrainData, batch_size: int, world: World) -> TrainData:
    """The same images in batches of another size in each process."""
    loaders = {"train": data.train, "val": data.val, "test": data.test, "probe": data.probe}
    cut: dict[str, Any] = {name: loader.cut(batch_size * world.size) for name, loader in loaders.items() if loader}
    of_size = (*_left_out(data.train, world.size), AUTO_NOTE.format(data.batch_size))
    notes = [note for note in data.notes if note not in of_size]
    return replace(data, batch_size=batch_size, notes=notes + _left_out(cut["train"], world.size), **cut)


def _left_out(train: Loader, processes: int) -> list[str]:
    """A note on the images of an epoch that are too few for a micro-batch; empty where there are none."""
    left_out = len(train.labels) - train.images
    if not left_out:
        return []
    one = "1 image is" if left_out == 1 else f"{left_out} images are"
    reason_of_one = "for every network: batch norm would fail on a last micro-batch of 1"
    why = "too few for all processes" if processes > 1 else reason_of_one
    return [f"train: {one} left out per epoch ({why})"]


def check_train(train: Loader, request: Request) -> None:
    """Say what a train loader leaves out and what it repeats.

    Raises:
        DataError: no micro-batch is left.
    """
    total, processes = len(train.labels), request.world.size
    if train.images == 0:
        for_each = f" for each of {processes} processes" if processes > 1 else ""
        raise DataError(f"data: the train split has {counted(total, 'image')}; it takes 2 or more{for_each} to train")
    request.notes.extend(_left_out(train, processes))
    if request.settings.sampling is Sampling.balanced:
        sizes = train.labels.bincount()
        sizes = sizes[sizes > 0]
        low, remainder = divmod(total, len(sizes))
        share = f"{low:,} or {low + 1:,}" if remainder else f"{low:,}"
        spread = f"{int(sizes.min()):,} to {int(sizes.max()):,} images per class"
        request.notes.append(f"sampling: balanced, {spread} become {share} each")


def gigabytes(size: int) -> str:
    """`1.3 GB` or `12 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
