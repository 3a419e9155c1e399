"""A folder of pictures to the three splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cnntrain.config.advice import shell_word
from cnntrain.config.paths import expand_path
from cnntrain.config.schema.data import DATASETS, CropMode, DataSettings, LoaderKind
from cnntrain.data import statistics
from cnntrain.data.common import (
    Data,
    MemoryBudget,
    Request,
    check_train,
    choose_classes,
    choose_statistics,
    gigabytes,
    split_val,
    take_limit,
    take_probe,
)
from cnntrain.data.decoder import Decoder
from cnntrain.data.folder import FolderSplit, align, fingerprint, kinds
from cnntrain.data.layout import folders_in, join
from cnntrain.data.loaders import Loader, MemoryLoader, StreamLoader, name_of_row
from cnntrain.data.pack import Found, find_images
from cnntrain.data.quick_look import leak_words
from cnntrain.data.view import EVAL_SHARE, RandomView, View, border
from cnntrain.errors import ConfigError, DataError
from cnntrain.runtime.device_memory import free_memory, shares_memory
from cnntrain.runtime.seeds import generator
from cnntrain.runtime.threads import available_cores
from cnntrain.text import counted, printable

SAMPLE, SAMPLE_IMAGES = -4, 2000  # part of the seed, and images that the statistics are computed on
LOUD_SHARE = 0.1  # of the files of a class, or of all: whoever loses so many is warned
MOST_WORKERS = 16  # above, the interpreter's own work per image is the limit


def image_folder(request: Request) -> tuple[Data, Mapping[str, Loader]]:
    """The data without its training images, and the loaders of all splits that were asked for. See build_data."""
    settings = request.settings
    root = expand_path(settings.root)
    known = settings.classes or request.classes
    found = request.world.once_here("scan", lambda: find_images(root, settings.classes, known, request.say))
    folders, scans = found.layout.folders, found.scans
    if "train" not in folders and "train" in request.splits:
        if found.note:
            raise DataError(
                f"data.root: {printable(root)} holds a pack of {' and '.join(folders)} without train; pack a folder "
                "that has train/ too"
            )
        names = " and ".join(f"{folder.name}/" for folder in folders.values())
        raise DataError(f"data.root: {printable(root)} has {names} but no train/; add it, or name one of class folders")
    first_scan = scans.get("train", next(iter(scans.values())))
    classes = request.classes or choose_classes([*first_scan.classes, *first_scan.left_out], request)
    if len(classes) < 2:
        raise DataError(
            f"{printable(root)}: {classes[0]!r} is the only class folder; {_advise_below(root / classes[0])}"
        )
    splits = {
        name: align(part, classes, name, allow_missing=request.classes is not None) for name, part in scans.items()
    }
    _note_layout(found, request)
    _note_ignored(scans, request)
    return load_splits(splits, classes, request, found.size)


def load_splits(
    splits: dict[str, FolderSplit], classes: list[str], request: Request, packed_size: int = 0
) -> tuple[Data, Mapping[str, Loader]]:
    """The data without its training images, and the loaders of all splits that were asked for.

    Args:
        splits: of train, val and test those that are there, their labels counting in `classes`.
        packed_size: the short side of images that were made smaller, in pixels; 0: they were not.
    """
    settings = request.settings
    mark = fingerprint(splits)
    parts = _three_parts(splits, request)
    looks = settings.has_files and "train" in request.splits and request.world.is_first
    findings = [line] if looks and (line := leak_words(parts)) else []
    entry = DATASETS.entry(settings.name)
    size, channels = settings.image_size or entry.image_size, settings.channels or entry.channels
    assert size is not None
    view = View(size, settings.crop or EVAL_SHARE, request.interpolation, request.crop_mode)
    compute = partial(_statistics, parts.get("train"), view, channels, mark, request)
    mean, std = choose_statistics(request, channels, compute)
    view = replace(view, fill=border(view.mode, mean))
    if "train" in request.splits:
        parts["train"] = parts["train"].take(take_limit(parts["train"].labels, request))
        request = request.fit_batch_size(len(parts["train"].labels))
    budget = MemoryBudget(request.device)
    eval_view = replace(view, size=settings.eval_size or size)
    decoders = {
        name: _decoder(parts[name], view if name == "train" else eval_view, channels, request)
        for name in ("train", "val", "test")
        if name in parts and name in request.splits
    }
    _note_enlarged(packed_size, [decoder.view for decoder in decoders.values()], request)
    loaders: dict[str, Loader] = {name: _loader(name, decoder, budget, request) for name, decoder in decoders.items()}
    if "train" in loaders:
        check_train(loaders["train"], request)
        if request.probe:
            loaders["probe"] = _probe(loaders["train"], decoders["train"].through(eval_view), budget, request)
    data = Data(
        name=settings.name,
        classes=classes,
        channels=channels,
        image_size=size,
        eval_size=eval_view.size,
        interpolation=view.interpolation,
        crop=view.share,
        crop_mode=view.mode,
        batch_size=request.batch_size,
        mean=mean,
        std=std,
        val=loaders.get("val"),
        test=loaders.get("test"),
        fingerprint=mark,
        notes=request.notes,
        warnings=request.warnings,
        findings=findings,
        marks=_marks(splits, settings.folds),
    )
    return data, loaders


def _marks(splits: dict[str, FolderSplit], folds: int | None) -> dict[str, str]:
    """See Data.marks."""
    from_train = folds is not None and "train" in splits
    return {name: fingerprint({name: part}) for name, part in splits.items() if not (name == "val" and from_train)}


def _advise_below(folder: Path) -> str:
    """What to do about an only class folder: archives often hold all the others in one."""
    if folder.is_dir() and len(folders_in(folder)) > 1:
        return f"did you mean {shell_word('data.root', folder)}?"
    return "it takes two classes or more"


def _note_layout(found: Found, request: Request) -> None:
    """Say which folder is which split, and which is none."""
    layout = found.layout
    if found.note:
        request.notes.append(found.note)
    if layout.folders.get("train") != found.source:
        text = ", ".join(f"{folder.name}/ is {split}" for split, folder in layout.folders.items())
        request.notes.append(f"splits: {printable(text)}")
    if layout.other_names:
        names = f"{join(layout.other_names)} {'is' if len(layout.other_names) == 1 else 'are'}"
        request.warnings.append(f"data.root: {names} not used, beside the folders of the splits")


def _note_enlarged(packed_size: int, views: Sequence[View | RandomView], request: Request) -> None:
    """Warn where a pack holds its images smaller than they are seen."""
    side = max((view.short_side for view in views if isinstance(view, View)), default=0)
    if 0 < packed_size < side:
        request.warnings.append(
            f"data.root: images packed at {packed_size} pixels are enlarged to {side}; pack the photos with size={side}"
        )


def _note_ignored(scans: dict[str, FolderSplit], request: Request) -> None:
    """Say what was skipped and which class it costs most; loudly, where that is a tenth of a class or of all."""
    skip_counts: Counter[str] = sum((part.skip_counts for part in scans.values()), Counter())
    losses: Counter[str] = sum((part.loss_counts for part in scans.values()), Counter())
    totals = Counter(losses)
    for part in scans.values():
        counts = part.labels.bincount(minlength=len(part.classes))
        totals.update(dict(zip(part.classes, counts.tolist(), strict=True)))
    if not skip_counts:
        return
    line = f"ignored below data.root: {kinds(skip_counts)}"
    worst_class = max(totals, key=lambda name: losses[name] / totals[name])
    if losses[worst_class]:
        line += f"; class {worst_class!r} loses most, {losses[worst_class]:,} of {totals[worst_class]:,} files"
    outside = skip_counts["image outside the class folders"]
    share = max(losses[worst_class] / totals[worst_class], (losses.total() + outside) / (totals.total() + outside))
    (request.warnings if share >= LOUD_SHARE else request.notes).append(line)


def _three_parts(splits: dict[str, FolderSplit], request: Request) -> dict[str, FolderSplit]:
    """The folder's own splits; val comes out of train where it has none, and wherever there are folds."""
    parts = dict(splits)
    if request.settings.folds is not None and {"train", "val"} <= parts.keys():
        split = parts.pop("val")
        use = "test" if parts.setdefault("test", split) is split else "not used"
        images = counted(len(split.labels), "image")
        request.notes.append(f"{split.paths.place}: {use}, {images}, as data.folds takes val from train/")
    if "val" in parts:
        split = parts["val"]
        request.notes.append(f"val: {counted(len(split.labels), 'image')} of {split.paths.place}")
        if "train" in parts and request.settings.val != DataSettings.val:
            request.warnings.append(
                f"data.val: the images of {split.paths.place} validate, and none are taken out of the training "
                f"images (given {request.settings.val})"
            )
    elif "train" in parts:
        train, val = split_val(parts["train"].labels, request)
        parts["train"] = parts["train"].take(train)
        if len(val):
            parts["val"] = splits["train"].take(val)
    if "test" not in parts:
        request.notes.append("test: none" + (", as there is no test/ folder" if request.settings.has_files else ""))
    return parts


def _statistics(
    train: FolderSplit | None, view: View, channels: int, mark: str, request: Request
) -> statistics.Statistics:
    """Of a sample of the train split in the evaluation view, or those that an earlier run has cached."""
    if train is None:
        raise ConfigError("data.mean: cannot be computed without a train/ folder; give data.mean and data.std")
    view = view.plain_view
    mode = [view.mode.value] * (view.mode is not CropMode.center)  # what was kept before there were modes holds still
    looks = (view.size, view.share, view.interpolation.value, channels, *mode)
    file = statistics.cache_file(mark, train.paths.selection_digest(), *looks)
    if (values := statistics.load(file, channels)) is not None:
        request.notes.append(f"mean and std: computed on train earlier, kept in {printable(file)}")
        return values
    order = torch.randperm(len(train.labels), generator=generator(torch.device("cpu"), 0, SAMPLE))[:SAMPLE_IMAGES]
    request.say(f"computing mean and std on {len(order):,} training images")
    sample = train.take(order.sort().values)
    decoder = _decoder(sample, view, channels, request)
    workers = decode_threads(request.settings.workers)
    result = statistics.compute(decoder.all_images(workers, "mean and std", request.say))
    statistics.save(file, result)
    request.notes.append(f"mean and std: computed on {len(order):,} training images")
    return result


def _decoder(part: FolderSplit, view: View | RandomView, channels: int, request: Request) -> Decoder:
    return Decoder(
        part.paths,
        part.labels,
        channels=channels,
        view=view,
        seed=request.seed,
        on_bad_image=request.settings.on_bad_image,
    )


def decode_threads(workers: int | None) -> int:
    """The number of threads: `data.workers`, or by the cores where it is null."""
    return min(MOST_WORKERS, available_cores()) if workers is None else workers


def _loader(split: str, decoder: Decoder, budget: MemoryBudget, request: Request) -> Loader:
    crop, view = request.augment.resized_crop if split == "train" else None, decoder.view
    if crop is None:
        return _make_loader(split, decoder, decoder, budget, request)
    # A crop on the device needs some room around, however little of it validation sees.
    roomy = View(View(view.size).short_side, 1.0, view.interpolation)
    crop_view = RandomView(view.size, crop, view.interpolation)
    return _make_loader(split, decoder.through(roomy), decoder.through(crop_view), budget, request)


def _probe(train: Loader, decoder: Decoder, budget: MemoryBudget, request: Request) -> Loader:
    """Some training images in the decoder's view: those that lie decoded in memory, else decoded for themselves."""
    rows = take_probe(train.labels, request)
    if isinstance(train, MemoryLoader) and train.decoder and train.decoder.view == decoder.view:
        return train.subset(rows)
    return _make_loader("probe", decoder, decoder, budget, request, rows=rows)


def _make_loader(
    split: str,
    memory_decoder: Decoder,
    stream_decoder: Decoder,
    budget: MemoryBudget,
    request: Request,
    rows: Tensor | None = None,
) -> Loader:
    """A loader of the decoder's images, or of some `rows` of them: kept in memory where they fit, else streamed."""
    settings, workers = request.settings, decode_threads(request.settings.workers)
    labels = memory_decoder.labels if rows is None else memory_decoder.labels[rows]
    crops = isinstance(stream_decoder.view, RandomView)
    place = _place(split, len(labels) * memory_decoder.channels * memory_decoder.view.size**2, crops, budget, request)
    if place is None:
        by = counted(workers, "thread") if workers else "the training thread"
        source = "files" if settings.has_files else settings.name
        request.notes.append(f"{split}: {counted(len(labels), 'image')} streamed from {source} by {by}")
        return StreamLoader(
            stream_decoder,
            batch_size=request.batch_size,
            device=request.device,
            seed=request.seed,
            train=split == "train",
            sampling=settings.sampling,
            world=request.world,
            workers=workers,
            rows=rows,
        )
    return MemoryLoader(
        lambda: memory_decoder.all_images(workers, split, request.say, rows),
        labels,
        batch_size=request.batch_size,
        device=request.device,
        seed=request.seed,
        train=split == "train",
        sampling=settings.sampling,
        world=request.world,
        resident=place == "device",
        decoder=memory_decoder,
        name=name_of_row(memory_decoder.name, rows),
    )


def _place(split: str, size: int, crops: bool, budget: MemoryBudget, request: Request) -> str | None:
    """Where the decoded images go: `device`, `host`, or None for a stream.

    Raises:
        ConfigError: data.loader=memory for more than the memory that is free.
    """
    kind = request.settings.loader
    if kind is LoaderKind.stream or (kind is LoaderKind.auto and crops):
        return None
    place = budget.take(size)
    if place is None and kind is LoaderKind.memory:
        if size > free_memory(torch.device("cpu")):
            raise ConfigError(f"data.loader: memory needs {gigabytes(size)} for {split}, more than is free; use stream")
        place = "device" if shares_memory(request.device) else "host"
    if place is not None:
        where = "memory" if shares_memory(request.device) else f"{place} memory"
        request.notes.append(f"{split}: decoded once, at first use, {gigabytes(size)} in {where}")
    return place
