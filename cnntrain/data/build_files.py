"""Image files, wherever they were found, to the loaders of the three splits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cnntrain.config.paths import expand_path
from cnntrain.config.schema.data import DATASETS, CropMode, DataSettings, LoaderKind
from cnntrain.data import statistics
from cnntrain.data.common import (
    Data,
    MemoryBudget,
    Request,
    check_train,
    choose_statistics,
    gigabytes,
    split_val,
    take_limit,
    take_probe,
)
from cnntrain.data.decoder import Decoder
from cnntrain.data.folder import FolderSplit, fingerprint
from cnntrain.data.loaders import Loader, MemoryLoader, StreamLoader, name_of_row
from cnntrain.data.pack import Found
from cnntrain.data.quick_look import leak_words
from cnntrain.data.shards import ShardPaths
from cnntrain.data.view import EVAL_SHARE, RandomView, View, border
from cnntrain.errors import ConfigError, DataError
from cnntrain.runtime.device_memory import free_memory, shares_memory
from cnntrain.runtime.seeds import generator
from cnntrain.runtime.threads import available_cores
from cnntrain.text import counted, printable

SAMPLE, SAMPLE_IMAGES = -4, 2000  # part of the seed, and images that the statistics are computed on
MOST_WORKERS = 16  # above, the interpreter's own work per image is the limit


def load_splits(
    splits: dict[str, FolderSplit], classes: list[str], request: Request, found: Found | None = None
) -> tuple[Data, Mapping[str, Loader]]:
    """The data without its training images, and the loaders of all splits that were asked for.

    Args:
        splits: of train, val and test those that are there, their labels counting in `classes`.
        found: where their files come from; None: they are none.
    """
    settings = request.settings
    request.notes.extend(found.notes if found else ())
    request.warnings.extend(found.warnings if found else ())
    mark = fingerprint(splits)
    parts = _three_parts(splits, request, found)
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
        rows = take_limit(parts["train"].labels, request)
        if len(rows) < len(parts["train"].labels):
            parts["train"] = parts["train"].take(rows)
        request = request.fit_batch_size(len(parts["train"].labels))
    budget = MemoryBudget(request.device)
    eval_view = replace(view, size=settings.eval_size or size)
    decoders = {
        name: _decoder(parts[name], view if name == "train" else eval_view, channels, request)
        for name in ("train", "val", "test")
        if name in parts and name in request.splits
    }
    _note_enlarged(found.size if found else 0, [decoder.view for decoder in decoders.values()], request)
    loaders: dict[str, Loader] = {name: _loader(name, decoder, budget, request) for name, decoder in decoders.items()}
    if "train" in loaders and (weights := parts["train"].weights) is not None:
        if not weights.sum():
            raise DataError("data.columns.weight: no training image has a weight above 0; give some of them one")
        loaders["train"] = loaders["train"].weigh(weights)
        low, high = (f"{float(value):g}" for value in weights.aminmax())
        request.notes.append(f"sampling: by weight, from {low} to {high}")
    if "train" in loaders and isinstance(paths := parts["train"].paths, ShardPaths):
        loaders["train"] = _shuffled(loaders["train"], paths, request)
    if "train" in loaders:
        check_train(loaders["train"], request)
        if request.probe:
            loaders["probe"] = _probe(loaders["train"], decoders["train"].through(eval_view), budget, request)
    data = request.data(
        loaders,
        classes=classes,
        channels=channels,
        image_size=size,
        eval_size=eval_view.size,
        crop=view.share,
        crop_mode=view.mode,
        mean=mean,
        std=std,
        fingerprint=mark,
        findings=findings,
        marks=_marks(splits, settings.folds),
        home=found.source if found else (expand_path(settings.root) if settings.has_files else None),
    )
    return data, loaders


def _shuffled(train: Loader, paths: ShardPaths, request: Request) -> Loader:
    """The training images in shards, shuffled in a buffer of data.buffer images, or without a bound."""
    buffer = request.settings.buffer
    if buffer is None:
        request.notes.append(f"shuffle: all {len(train.labels):,} images (data.buffer=null)")
        return train
    request.notes.append(f"shuffle: the shards, and images within {buffer:,} places (data.buffer)")
    return train.within(*paths.places(), buffer)


def _marks(splits: dict[str, FolderSplit], folds: int | None) -> dict[str, str]:
    """See Data.marks."""
    from_train = folds is not None and "train" in splits
    return {name: fingerprint({name: part}) for name, part in splits.items() if not (name == "val" and from_train)}


def _note_enlarged(packed_size: int, views: Sequence[View | RandomView], request: Request) -> None:
    """Warn where a pack holds its images smaller than they are seen."""
    side = max((view.short_side for view in views if isinstance(view, View)), default=0)
    if 0 < packed_size < side:
        request.warnings.append(
            f"data.root: images packed at {packed_size} pixels are enlarged to {side}; pack the photos with size={side}"
        )


def _three_parts(splits: dict[str, FolderSplit], request: Request, found: Found | None) -> dict[str, FolderSplit]:
    """The folder's own splits; val comes out of train where it has none, and wherever there are folds."""
    parts = dict(splits)
    places = {name: part.paths.place for name, part in splits.items()} | (found.places if found else {})
    if request.settings.folds is not None and {"train", "val"} <= parts.keys():
        split = parts.pop("val")
        use = "test" if parts.setdefault("test", split) is split else "not used"
        images = counted(len(split.labels), "image")
        request.notes.append(f"{places['val']}: {use}, {images}, as data.folds takes val from {places['train']}")
    if "val" in parts:
        split = parts["val"]
        request.notes.append(f"val: {counted(len(split.labels), 'image')} of {places['val']}")
        if "train" in parts and request.settings.val != DataSettings.val:
            request.warnings.append(
                f"data.val: the images of {places['val']} validate, and none are taken out of the training "
                f"images (given {request.settings.val})"
            )
    elif "train" in parts:
        whole = parts["train"]
        train, val = split_val(whole.labels, request, whole.groups, whole.folds)
        parts["train"] = whole.take(train)
        if len(val):
            parts["val"] = splits["train"].take(val)
    if "test" not in parts:
        request.notes.append("test: none" + (f", as {found.no_test}" if found else ""))
    return parts


def _statistics(
    train: FolderSplit | None, view: View, channels: int, mark: str, request: Request
) -> statistics.Statistics:
    """Of a sample of the train split in the evaluation view, or those that an earlier run has cached."""
    if train is None:
        raise ConfigError("data.mean: cannot be computed without training images; give data.mean and data.std")
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
        source = "files" if settings.has_files else settings.name
        by = counted(workers, "thread") if workers else "the training thread"
        request.notes.append(f"{split}: {counted(len(labels), 'image')} streamed from {source} by {by}")
        return StreamLoader(
            stream_decoder,
            **request.loading(split),
            workers=workers,
            rows=rows,
        )
    return MemoryLoader(
        lambda: memory_decoder.all_images(workers, split, request.say, rows),
        labels,
        **request.loading(split),
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
