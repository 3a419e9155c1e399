"""The user's own data set, named `package.module:function`."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnntrain.config.paths import expand_path
from cnntrain.config.schema.data import DATASETS, CropMode, DataSettings, OnBadImage
from cnntrain.data.build_files import load_splits
from cnntrain.data.common import Data, Request, choose_classes
from cnntrain.data.datasets import TensorSet
from cnntrain.data.decode import BadImage
from cnntrain.data.folder import FolderSplit, align
from cnntrain.data.layout import split_of
from cnntrain.data.loaders import Loader
from cnntrain.data.user_items import (
    Items,
    Label,
    Look,
    Pairs,
    Part,
    as_sets,
    as_tensor,
    attribute,
    misfit,
    numbers,
)
from cnntrain.data.user_labels import class_names, read_labels, stack_labels, stored_labels
from cnntrain.registry import call_user_function, check_arguments, import_function
from cnntrain.text import one_line

Tensors = tuple[Tensor, Tensor]
LOOKS = 16  # items, spread over a part, by which it is known
# Bytes of pixels: images of one size that have no more are read once, as a block. It is no share of the memory that is
# free, or the same data set would be another one on another machine.
BLOCK = 2 * 10**9
ITEM_KEYS = ("crop", "crop_mode", "workers", "on_bad_image")  # of data, that are for images one by one


def user_data(request: Request) -> TensorSet | tuple[Data, Mapping[str, Loader]]:
    """Call the function (or class) with `args` and what it has parameters for of `root` (data.root), `split`, `train`
    and `download`: the data sets of torchvision have them.

    One that takes `split` or `train` is called for each part: with "train" and True, then with "test" and False, where
    it may give None. Any other is called once, for all parts: a dict of them by split, a tuple (train, test) or
    (train, val, test), or train alone.

    A part is an object with a length whose items are pairs (image, label), as a torch Dataset is, or a tuple of uint8
    images (N, C, H, W) and labels (N,). The names of the classes are its `classes`, if it has some.

    Images of one size, of up to 2 GB in all, are read once, as a block. Others are read when they are wanted.

    Raises:
        ConfigError: it fails, or gives something else back.
    """
    name = request.settings.name
    has_sets = request.settings.multi_label
    parts = {split: _part(given, split, name, has_sets) for split, given in _call(request).items()}
    names = next((names for part in parts.values() if (names := attribute(part.items, "classes")) is not None), None)
    looks = {split: _look(part, request) for split, part in parts.items()}
    if (block := _read_block(parts, looks, request)) is not None:
        _warn_of_item_keys(request)
        classes = class_names(names, {split: labels for split, (_, labels) in block.items()}, name)
        return TensorSet(classes, block["train"], block.get("test"), block.get("val"))
    return _one_by_one(parts, looks, names, request)


# --- what the function gives -----------------------------------------------------------------------------------------


def _call(request: Request) -> dict[str, Any]:
    """What the function gives for each split."""
    settings = request.settings
    name, root = settings.name, str(expand_path(settings.root))

    def give(split: str) -> Any:
        arguments = {"root": root, "split": split, "train": split == "train", "download": settings.download}
        return call_user_function("data", name, settings.args, **arguments)

    given = give("train")
    if (parts := _together(given, name)) is None:
        parameters = check_arguments("data", name, import_function("data", name), {})
        is_called_again = parameters is None or not {"split", "train"}.isdisjoint(parameters)
        parts = {"train": given, "test": give("test") if is_called_again else None}
    return {split: part for split, part in parts.items() if part is not None or split == "train"}


def _together(given: Any, name: str) -> dict[str, Any] | None:
    """Parts that were given together; None where one was given alone."""
    if isinstance(given, dict):
        parts = {split_of(str(key)): part for key, part in given.items()}
        if "train" not in parts or "" in parts or len(parts) < len(given):
            keys = ", ".join(map(str, given)) or "nothing"
            raise misfit(
                name, f"gave a dict of {keys} back", "let its keys be train, and val and test if there are any"
            )
        return parts
    if not isinstance(given, tuple) or _is_tensors(given) or not all(map(_is_part, given)):
        return None
    splits: dict[int, tuple[str, ...]] = {2: ("train", "test"), 3: ("train", "val", "test")}
    return dict(zip(splits[len(given)], given, strict=True)) if len(given) in splits else None


def _is_part(given: Any) -> bool:
    """Whether an element of a tuple is a part of a data set, and not an item of one."""
    is_item = isinstance(given, (tuple, str, bytes)) or hasattr(given, "ndim")
    return given is None or _is_tensors(given) or (hasattr(given, "__len__") and not is_item)


def _is_tensors(given: Any) -> bool:
    """Whether a part is its images and labels as two tensors or arrays."""
    is_pair = isinstance(given, tuple) and len(given) == 2 and all(hasattr(one, "ndim") for one in given)
    return is_pair and given[1].ndim > 0


def _part(given: Any, split: str, name: str, has_sets: bool) -> Part:
    if _is_tensors(given):
        given = _pairs(given[0], given[1], split, name, has_sets)
    return Part(name, split, given, has_sets)


def _pairs(images: Any, labels: Any, split: str, name: str, has_sets: bool) -> Pairs:
    """Images and labels that the user has as two tensors or arrays."""
    try:
        images, labels = as_tensor(images), as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"gives images or labels that are no numbers ({one_line(error)})"
        raise misfit(name, what, "let them be uint8 (N, C, H, W) and int64 (N,)") from error
    if not len(images) or len(images) != len(labels):
        raise misfit(name, f"has {len(images)} images and {len(labels)} labels for {split}", "give each image one")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        kind = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape[1:])}"
        raise misfit(name, f"gives images {kind}", "let them be Pillow's or uint8 (C, H, W), C being 1 or 3")
    if has_sets:
        with suppress(ValueError):
            labels = as_sets(labels)
        if labels.dtype is not torch.bool or labels.ndim != 2 or labels.shape[1] < 2:
            kind = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
            raise misfit(name, f"gives labels {kind}", "give each image a 0 or 1 for each class, (N, K)")
        return Pairs(images.contiguous(), labels)
    if labels.is_floating_point() or labels.ndim != 1:
        kind = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
        raise misfit(name, f"gives labels {kind}", "give each image one whole number, from 0")
    return Pairs(images.contiguous(), labels.long())


# --- a block ---------------------------------------------------------------------------------------------------------


def _look(part: Part, request: Request) -> Look:
    """Some items.

    Raises:
        ConfigError: one of them is none and may not be left out, or all are.
    """
    looks: Look = {}
    reason, is_steady = "", True
    for index in sorted({round(place) for place in np.linspace(0, part.count - 1, LOOKS)}):
        try:
            looks[index] = part.item(index)
            is_steady = is_steady and torch.equal(looks[index][0], part.image(index))
        except BadImage as error:
            reason = str(error)
            if request.settings.on_bad_image is OnBadImage.error:
                raise part.fault(reason) from error
    if not looks:
        raise part.fault(reason)
    if not is_steady:
        request.warnings.append(
            f"data.name: {part.name} gives other pixels each time that it is asked for an item, so that no run can be "
            "repeated; let cnntrain augment the images"
        )
    return looks


def _read_block(parts: Mapping[str, Part], looks: Mapping[str, Look], request: Request) -> dict[str, Tensors] | None:
    """All images and labels; None where images are of several sizes, too many, or left out as bad."""
    shapes = {image.shape for look in looks.values() for image, _ in look.values()}
    count = sum(part.count for part in parts.values() if not isinstance(part.items, Pairs))
    if len(shapes) > 1 or count * (shape := shapes.pop()).numel() > BLOCK:
        return None
    block: dict[str, Tensors] = {}
    for split, part in parts.items():
        read = _read_part(part, shape, request)
        if read is None:
            return None
        block[split] = read
    return block


def _read_part(part: Part, shape: torch.Size, request: Request) -> Tensors | None:
    """Images of this shape and labels, all of them; None where one is another or left out as bad."""
    if isinstance(part.items, Pairs):
        return part.items.images, part.items.targets
    images, labels = torch.empty((part.count, *shape), dtype=torch.uint8), list[Label]()
    for index in numbers(part.count, part.split, request.say):
        try:
            image, label = part.item(index)
        except BadImage as error:
            if request.settings.on_bad_image is OnBadImage.skip:
                return None
            raise part.fault(str(error)) from error
        if image.shape != shape:
            return None
        images[index] = image
        labels.append(label)
    return images, stack_labels(part, labels)


def _warn_of_item_keys(request: Request) -> None:
    """Say which words do nothing for images that are read as a block."""
    settings, usual = request.settings, DataSettings()
    whole = {"crop": 1.0, "crop_mode": CropMode.center}  # as a checkpoint has them of such images
    for key in ITEM_KEYS:
        if getattr(settings, key) not in (getattr(usual, key), whole.get(key)):
            request.warnings.append(
                f"data.{key}: does nothing here, as images of one size that have up to {BLOCK / 1e9:g} GB in all are "
                "read once, and seen whole"
            )


# --- one by one ------------------------------------------------------------------------------------------------------


def _one_by_one(
    parts: Mapping[str, Part], looks: Mapping[str, Look], names: Any, request: Request
) -> tuple[Data, Mapping[str, Loader]]:
    """The splits of images that are read when they are wanted, as those in files are."""
    settings = request.settings
    labels: dict[str, Tensor] = {}
    for split, part in parts.items():
        known = stored_labels(part, looks[split])
        if known is None:
            known = request.world.once_here(f"labels/{split}", partial(read_labels, part, request.say))
        labels[split] = known
    every = class_names(names, labels, settings.name)
    if len(every) < 2:
        raise misfit(settings.name, f"has one class, {every[0]!r}", "it takes two or more")
    classes = request.classes or choose_classes(every, request)
    splits = {}
    for split, part in parts.items():
        items = Items(part, _mark(labels[split], looks[split]))
        whole = FolderSplit(every, items, labels[split], torch.zeros(part.count, dtype=torch.int64))
        chosen = whole if settings.classes is None else whole.select_classes(settings.classes)
        splits[split] = align(chosen, classes, split, allow_missing=True)
    return load_splits(splits, classes, replace(request, settings=_fitted(settings, looks)))


def _mark(labels: Tensor, look: Look) -> bytes:
    """sha256 of the labels and of some pixels: all of them would take a decoding of the whole data set."""
    digest = hashlib.sha256(labels.numpy().tobytes())
    for image, _ in look.values():
        digest.update(image.contiguous().numpy().tobytes())
    return digest.digest()


def _fitted(settings: DataSettings, looks: Mapping[str, Look]) -> DataSettings:
    """Settings with what the images decide: of one size they are seen whole, else as those in files are."""
    shapes = {image.shape for look in looks.values() for image, _ in look.values()}
    channels = settings.channels or max(shape[0] for shape in shapes)
    sizes = {shape[1:] for shape in shapes}
    if len(sizes) > 1:
        size = settings.image_size or DATASETS.entry("imagefolder").image_size
        return replace(settings, channels=channels, image_size=size)
    height, width = sizes.pop()
    mode = settings.crop_mode or (CropMode.center if height == width else CropMode.squash)
    size = settings.image_size or height
    return replace(settings, channels=channels, image_size=size, crop=settings.crop or 1.0, crop_mode=mode)
