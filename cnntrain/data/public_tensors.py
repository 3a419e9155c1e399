"""Data sets that torchvision fetches and reads into memory whole: MNIST, CIFAR-10 and their like."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnntrain.config.paths import absence
from cnntrain.data import public
from cnntrain.data.common import Request
from cnntrain.data.datasets import Part, TensorSet
from cnntrain.data.public import Place
from cnntrain.errors import DataError
from cnntrain.text import printable

_DIGITS = ("MNIST", "QMNIST", "USPS", "SVHN")  # whose classes are these, and have longer names or none


def tensors(request: Request) -> TensorSet:
    """A data set by its name.

    Raises:
        ConfigError: a package that it needs is not installed.
        DataError: absent, damaged, or not to be had over the network.
        FileSystemError: a download that cannot be written.
    """
    place = public.find(request)
    for file in sorted(place.folder.glob("*")):
        if what := absence(file):  # a read of a pipe would wait for ever
            raise DataError(f"data.root: {printable(file)} {what}; {place.renew}")
    try:
        parts = [place.open(train=train) for train in (True, False)]
    except ModuleNotFoundError as error:
        raise public.lack_of(error, place) from None
    except Exception as error:  # its parsers raise anything from AssertionError to UnpicklingError on damaged files
        raise _damage_fault(place, error) from None
    train, test = (_tensors(part) for part in parts)
    classes = [str(digit) for digit in range(10)] if place.entry.kind in _DIGITS else list(parts[0].classes)
    if place.entry.kind == "EMNIST":  # kept on its side, as its makers did
        train, test = ((images.mT.contiguous(), labels) for images, labels in (train, test))
        if classes[0] == "N/A":  # the letters count from 1
            classes, (train, test) = classes[1:], ((images, labels - 1) for images, labels in (train, test))
    for images, labels in (train, test):
        fault = ""
        if not len(images) == len(labels) > 0:
            fault = f"{len(images)} images but {len(labels)} labels"
        elif not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            fault = f"a label that is not in 0..{len(classes) - 1}"
        if fault:
            raise DataError(f"{printable(place.folder)}: {place.name} has {fault}; {place.renew}")
    return TensorSet(classes, train, test)


def _tensors(part: Any) -> Part:
    """Images and labels of a part, whatever torchvision calls and how it keeps them."""
    images = torch.as_tensor(part.data)
    labels = torch.as_tensor(part.targets if hasattr(part, "targets") else part.labels).long()
    return _planes(images), labels[:, 0] if labels.ndim == 2 else labels  # of QMNIST, with the writer and more


def _planes(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) of images (N, H, W), (N, H, W, 3) or (N, 3, H, W)."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    return (images.permute(0, 3, 1, 2) if images.shape[3] == 3 else images).contiguous()


def _damage_fault(place: Place, error: Exception) -> DataError:
    """Say which file torchvision does not accept."""
    from torchvision.datasets.utils import check_integrity

    folder, name = place.folder, place.name
    for file, md5 in _files(place):
        if not (folder / file).is_file():
            what = f"{printable(folder / file)}: a file of {name} is missing"
            return DataError(f"{what}; set data.download=true, or copy it there")
        if not check_integrity(str(folder / file), md5):
            return DataError(f"{printable(folder / file)}: damaged, its MD5 is not that of {name}; {place.renew}")
        if "idx" in file and (fault := _idx_fault(folder / file)):
            return DataError(f"{printable(folder / file)}: {fault}; {place.renew}")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return DataError(f"{printable(folder)}: {name} is damaged ({reason}); {place.renew}")


def _files(place: Place) -> list[tuple[str, str | None]]:
    """The files of a data set with their MD5; of the unpacked ones of MNIST and its like, nobody tells it."""
    kind = place.kind
    if kind.__name__ == "EMNIST":
        start = f"emnist-{place.args['split']}"
        ends = ("images-idx3-ubyte", "labels-idx1-ubyte")
        return [(f"{start}-{part}-{end}", None) for part in ("train", "test") for end in ends]
    if resources := getattr(kind, "resources", None):
        several = [*resources["train"], *resources["test"]] if isinstance(resources, dict) else resources
        return [(Path(url).stem, None) for url, _ in several]
    if parts := getattr(kind, "split_list", None):
        return [(file, md5) for _, file, md5 in (parts["train"], parts["test"])]
    meta = getattr(kind, "meta", None)
    return [*kind.train_list, *kind.test_list, *([(meta["filename"], meta["md5"])] if meta else [])]


def _idx_fault(file: Path) -> str:
    """What is wrong with a file in MNIST's format, or an empty string: a header of whole numbers, then the values."""
    content = file.read_bytes()
    numbers = np.frombuffer(content[: len(content) // 4 * 4][:16], dtype=">i4")
    sides = int(file.name.partition("-idx")[2][0])
    kind, width = (12, 4) if file.name.endswith("-int") else (8, 1)  # of a value, and its bytes
    if len(numbers) <= sides or numbers[0] != 256 * kind + sides:
        return "its header is not that of MNIST"
    length = 4 * (1 + sides) + width * int(np.prod(numbers[1 : 1 + sides], dtype=np.int64))
    return "" if len(content) == length else f"expected {length} bytes, found {len(content)}"
