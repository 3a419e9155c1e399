"""Image data sets of the Hugging Face hub, read by the library `datasets`: from its cache, a folder, or fetched."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnntrain.config.paths import expand_path, is_hub_name
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.columns import USUAL
from cnntrain.data.folder import FolderSplit
from cnntrain.data.hub_images import HubImages, HubPaths
from cnntrain.data.hub_labels import labels_of, need_learnt, numbered, sets_of
from cnntrain.data.layout import Layout, split_of
from cnntrain.data.pack import SPLITS, Found
from cnntrain.errors import ConfigError, DataError
from cnntrain.text import counted, cut, few, hint, nearest, one_line, printable

LEAST_VERSION = 4  # older ones run the code that a data set brings
IMAGES, LABELS = USUAL["file"], ("labels", "finelabel", "labelid", "cls", *USUAL["label"])


def find_in_hub(settings: DataSettings, known: Collection[str] | None, say: Callable[[str], object]) -> Found:
    """The images of all splits that a data set of the hub has, undecoded and mapped into memory from its cache.

    Code that it may bring is never run. Images without a label, whose number is -1 there, are left out.

    Args:
        settings: data.root is OWNER/NAME, or a folder of its files.
        known: the classes of a trained network, which alone may be there; None: any.

    Raises:
        ConfigError: a configuration, a column or a split that is named is not there, or the library is too old.
        DataError: absent, damaged, not to be had over the network, or no data set of images with one label each.
    """
    root = settings.root if is_hub_name(settings.root) else str(expand_path(settings.root))
    splits, name = _load(root, settings, say), printable(os.path.basename(root))
    places, unused = _choose_splits(splits, settings.args)
    parts = {split: splits[place] for split, place in places.items()}
    features = next(iter(parts.values())).features
    image, label = _choose_columns(features, settings)
    images = HubImages({split: _undecoded(part, image) for split, part in parts.items()}, image)
    labels = {split: labels_of(part, label) for split, part in parts.items()}
    inner = getattr(features[label], "feature", features[label])
    if settings.multi_label:
        classes, numbers = sets_of(inner, labels, label)
    else:
        classes, numbers = numbered(inner, labels, label)
    scans: dict[str, FolderSplit] = {}
    notes, warnings = [f"columns of {name}: file is {printable(image)!r}, label is {printable(label)!r}"], list[str]()
    for split, values in numbers.items():
        rows = np.arange(len(values)) if values.ndim == 2 else np.flatnonzero(values >= 0)
        if len(rows) < len(values):
            gone = f"{split}: {counted(len(values) - len(rows), 'image')} without a label, not used"
            (notes if split == "test" and not len(rows) else warnings).append(gone)
        if len(rows):
            chosen = torch.from_numpy(values[rows])
            paths, sizes = HubPaths(Path(root), images, split, rows), images.sizes(split)[rows]
            part = FolderSplit(classes, paths, chosen, torch.from_numpy(sizes), by_table=True)
            scans[split] = part if settings.classes is None else part.select_classes(settings.classes)
    if unused:
        notes.append(f"not used of {name}: {few(map(printable, unused))}, which no data.args.train, val or test names")
    if not scans:
        raise DataError(f"data.root: {printable(root)} has no image with a label; choose another data set")
    if known is None and "train" in scans:
        need_learnt(scans, root)
    shown = {split: f"{printable(place)!r} of {name}" for split, place in places.items()}
    layout = Layout(dict.fromkeys(scans, Path(root)))
    return Found(Path(root), layout, scans, places=shown, table=name, notes=notes, warnings=warnings)


# --- the library -----------------------------------------------------------------------------------------------------


def _load(root: str, settings: DataSettings, say: Callable[[str], object]) -> Mapping[str, Any]:
    """The parts of the data set by the names that it gives them, each a datasets.Dataset."""
    import datasets

    if int(datasets.__version__.partition(".")[0]) < LEAST_VERSION:
        what = f"datasets {LEAST_VERSION} or newer, which never runs a data set's own code"
        raise ConfigError(f"data: hf needs {what} (here is {datasets.__version__}); pip install -U datasets")
    fetches = settings.download and is_hub_name(root)
    options = {to: str(settings.args[key]) for key, to in _OPTIONS.items() if key in settings.args}
    if fetches:
        say(f"{printable(root)}: looking for it on the Hugging Face hub")
    try:
        with _quiet(datasets), contextlib.nullcontext() if fetches else _offline(datasets):
            is_saved = any(Path(root, file).is_file() for file in ("dataset_dict.json", "state.json"))
            found = datasets.load_from_disk(root) if is_saved else datasets.load_dataset(root, **options)
    except Exception as error:  # of whatever the files hold, and the network does
        raise _load_fault(error, root, settings) from None
    splits = found if isinstance(found, Mapping) else {"train": found}
    if is_hub_name(root) and not fetches:
        _need_revision(splits, root, options.get("revision"))
    return splits


_OPTIONS = {"config": "name", "revision": "revision"}  # of data.args, what load_dataset calls them


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """What HF_HUB_OFFLINE=1 does; that would have to be set before the library is imported."""
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Bars are for terminals, and what is logged is told by errors too."""
    level, has_bars = datasets.logging.get_verbosity(), datasets.utils.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not has_bars:
            datasets.utils.enable_progress_bars()


def _load_fault(error: Exception, root: str, settings: DataSettings) -> Exception:
    """What to say of a data set that cannot be loaded."""
    reason, place = printable(one_line(error)), printable(root)
    reason = cut(re.split(r" *(?:Example of usage|Please specify)", reason)[0], 200)
    if "scripts are no longer supported" in reason:
        return DataError(f"data.root: {place} is made by a program of its own, which is never run; choose another")
    if isinstance(error, ValueError) and "config" in reason.lower():
        return ConfigError(f"data.args.config: {place} has no such one, or several ({reason}); name one of them")
    if not is_hub_name(root):
        return DataError(f"data.root: {place} cannot be read ({reason}); give a folder as the Hugging Face hub has it")
    if settings.download:
        advice = "check the name, the network and `hf auth login`"
        return DataError(f"data.download: {place} could not be fetched ({reason}); {advice}")
    import datasets

    cache = printable(str(datasets.config.HF_DATASETS_CACHE))
    advice = "set data.download=true to fetch it, or data.root to a folder of its files"
    if isinstance(error, ConnectionError):
        return DataError(f"data.root: {place} is no folder here, and not in {cache}; {advice}")
    return DataError(f"data.root: {place} cannot be read from {cache} ({reason}); {advice}")


def _need_revision(splits: Mapping[str, Any], root: str, revision: str | None) -> None:
    """Refuse a cached data set of another revision than the one asked for; its folder has the name of the commit."""
    files = next(iter(splits.values())).cache_files
    commit = Path(files[0]["filename"]).parent.name if files else ""
    if revision is not None and not commit.startswith(revision):
        what = f"{printable(root)} is in the cache with the commit {printable(commit)} (given {printable(revision)})"
        raise DataError(f"data.args.revision: {what}; give that, or set data.download=true")


# --- which splits and columns ----------------------------------------------------------------------------------------


def _choose_splits(splits: Mapping[str, Any], args: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The name that the data set has for train, val and test, where there is one; and the names that are none."""
    named = {split: str(args[split]) for split in SPLITS if split in args}
    for split, place in named.items():
        if place not in splits:
            where = f"there are {few(map(printable, splits))}"
            raise ConfigError(f"data.args.{split}: no split {place!r}{hint(nearest(place, splits), where)}")
    for place in splits:
        split = split_of(place)
        if split and place not in named.values():
            named.setdefault(split, place)
    if not named:
        names = few(map(printable, splits))
        raise DataError(f"data.root: none of its splits is train, val or test ({names}); write data.args.train=NAME")
    if len(set(named.values())) < len(named):
        raise ConfigError("data.args: two splits have the same name; give each one of its own")
    return {split: named[split] for split in SPLITS if split in named}, sorted(set(splits) - set(named.values()))


def _choose_columns(features: Mapping[str, Any], settings: DataSettings) -> tuple[str, str]:
    """The columns of the images and of their labels."""
    image = _choose("file", settings.columns.file, [key for key in features if _is_image(features[key])], IMAGES)
    rest = {key: feature for key, feature in features.items() if key != image}
    if settings.columns.label is None and (known := [key for key in rest if hasattr(rest[key], "str2int")]):
        label = known[0] if len(known) == 1 else _choose("label", None, known, LABELS)
    else:
        usual = [key for key in rest if _plain(key) in LABELS]
        given = settings.columns.label
        label = _choose("label", given, list(rest) if given else usual, LABELS, list(rest))
    feature = features[label]
    is_list = hasattr(feature, "feature")
    if isinstance(feature, (list, dict)) or is_list != settings.multi_label:
        what = "several labels for each image" if is_list else "one label for each image"
        advice = f"set data.multi_label={str(is_list).lower()}, or name another column"
        if isinstance(feature, (list, dict)):
            what, advice = "a record for each image", "name a column of labels, data.columns.label=NAME"
        raise ConfigError(f"data.columns.label: {printable(label)!r} holds {what}; {advice}")
    return image, label


def _choose(role: str, given: str | None, names: Sequence[str], usual: Sequence[str], all_names: Any = None) -> str:
    """The column that the user names, the only one there, or that of the most usual name."""
    there = few(map(printable, names if all_names is None else all_names)) or "none"
    if given:
        if given not in names:
            where = f"there are {there}"
            raise ConfigError(f"data.columns.{role}: no such column {given!r}{hint(nearest(given, names), where)}")
        return given
    places = {_plain(name): name for name in reversed(names)}
    if found := [places[word] for word in usual if word in places] or list(names if len(names) == 1 else ()):
        return found[0]
    what = {"file": "images", "label": "labels"}[role]
    raise DataError(
        f"data.root: no column is known to be that of the {what} ({there}); name it with data.columns.{role}=NAME"
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _is_image(feature: Any) -> bool:
    """Whether a column holds images: by its type, or the bytes and paths that such a type is made of."""
    is_raw = isinstance(feature, dict) and {"bytes", "path"} == set(feature)
    return is_raw or type(feature).__name__ == "Image" or getattr(feature, "dtype", "") in ("binary", "large_binary")


def _undecoded(part: Any, column: str) -> Any:
    import datasets

    return part.select_columns([column]).cast_column(column, datasets.Image(decode=False))
