"""The user's own data set, named `package.module:function`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnntrain.config.paths import expand_path
from cnntrain.data.common import Request
from cnntrain.data.datasets import TensorSet
from cnntrain.errors import ConfigError
from cnntrain.registry import call_user_function, describe_failure
from cnntrain.text import one_line

Part = tuple[Tensor, Tensor]


def user_data(request: Request) -> TensorSet:
    """Call the function (or class) once for each part, with `args` and what it has parameters for of these.

    `root` (data.root), `split` ("train", then "test"), `train` (True, then False) and `download`: a data set of
    torchvision takes its own of them. It returns pairs of an image and a label, as a torch Dataset with a length does,
    or uint8 images (N, C, H, W) with int64 labels (N,); for "test" also None, where there is no test part. An image is
    one of Pillow's or uint8 (C, H, W), of one size each. The names of the classes are its `classes`, if it has some.

    Raises:
        ConfigError: it fails, or gives something else back.
    """
    settings = request.settings
    name, root = settings.name, str(expand_path(settings.root))
    parts: list[Part | None] = []
    classes: Sequence[Any] | None = None
    for split in ("train", "test"):
        arguments = {"root": root, "split": split, "train": split == "train", "download": settings.download}
        data_set = call_user_function("data", name, settings.args, **arguments)
        classes = getattr(data_set, "classes", None) if classes is None else classes
        parts.append(None if data_set is None and split == "test" else _part(data_set, name, split))
    train, test = parts
    assert train is not None
    labels = torch.cat([train[1], *([test[1]] if test else [])])
    return TensorSet(_class_names(classes, labels, name), train, test)


def _class_names(classes: Any, labels: Tensor, name: str) -> list[str]:
    """The names of the classes: those of the data set, else its labels, counted from 0 without a gap of many."""
    largest = len(labels) - 1  # each class has an image, or nearly so
    if classes is None:
        names = [str(number) for number in range(min(int(labels.max()), largest) + 1)]
    elif isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise _misfit(name, f"has classes={classes!r}", "let classes be a list of names")
    else:
        names = [str(one) for one in classes]
    if len(set(names)) < len(names) or "" in names:
        raise _misfit(name, "has classes without a name or of the same one", "give each class a name of its own")
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        raise _misfit(name, f"has a label that is not in 0..{len(names) - 1}", "count the classes from 0")
    return names


def _part(data_set: Any, name: str, split: str) -> Part:
    """Images uint8 (N, C, H, W) and labels int64 (N,)."""
    if isinstance(data_set, tuple) and len(data_set) == 2 and hasattr(data_set[0], "ndim"):
        images, labels = torch.as_tensor(data_set[0]), _labels(data_set[1], name)
    elif hasattr(data_set, "__getitem__") and hasattr(data_set, "__len__"):
        try:
            pairs = [data_set[index] for index in range(len(data_set))]
        except (Exception, SystemExit) as error:
            raise _misfit(name, f"fails on an item ({describe_failure(error)})", "correct it") from error
        if not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
            raise _misfit(name, "gives items that are no pairs", "let each be (image, label)")
        images = _stack([_pixels(image) for image, _ in pairs], name)
        labels = _labels([label for _, label in pairs], name)
    else:
        raise _misfit(
            name, f"gave {type(data_set).__name__} back", "return pairs (image, label), as a torch Dataset does"
        )
    if not len(images) or len(images) != len(labels):
        raise _misfit(name, f"has {len(images)} images and {len(labels)} labels for {split}", "give each image one")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        kind = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape[1:])}"
        raise _misfit(name, f"gives images {kind}", "let them be Pillow's or uint8 (C, H, W), C being 1 or 3")
    return images.contiguous(), labels


def _labels(values: Any, name: str) -> Tensor:
    """Labels int64 (N,)."""
    try:
        labels = torch.as_tensor(np.asarray(values) if isinstance(values, list) else values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _misfit(
            name, f"gives labels that are no numbers ({one_line(error)})", "count the classes from 0"
        ) from error
    if labels.ndim != 1 or labels.is_floating_point():
        kind = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
        raise _misfit(name, f"gives labels {kind}", "give each image one whole number, from 0")
    return labels.long()


def _pixels(image: Any) -> Tensor:
    if not isinstance(image, Image.Image):
        return torch.as_tensor(image)
    pixels = torch.from_numpy(np.array(image if image.mode in ("L", "RGB") else image.convert("RGB")))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _stack(images: list[Tensor], name: str) -> Tensor:
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        what = f"gives images of several sizes, such as {shapes[0]} and {shapes[-1]}"
        raise _misfit(name, what, "resize them in the function, or use data=imagefolder")
    return torch.stack(images) if images else torch.empty(0)


def _misfit(name: str, what: str, advice: str) -> ConfigError:
    return ConfigError(f"data.name: {name} {what}; {advice}")
