"""Data sets that are decoded already: scikit-learn's digits, and those of torchvision."""

import errno
import hashlib
import http.client
import os
import socket
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnntrain.config.paths import absence, typed
from cnntrain.data.split import stratify
from cnntrain.errors import DataError, FileSystemError
from cnntrain.text import printable

NAMES = ("digits", "mnist", "cifar10", "cifar100")
DIGITS_TEST = (1797, 360)  # seed and size of the digits' test part, the same for every run


@dataclass
class TensorSet:
    """Train and test parts: uint8 (N, C, H, W) and int64 (N,)."""

    classes: list[str]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def only(self, classes: list[str]) -> "TensorSet":
        """The images of some of the classes, whose labels count in `classes`."""
        places = torch.full((len(self.classes),), -1)
        places[[self.classes.index(name) for name in classes]] = torch.arange(len(classes))

        def part(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            kept = places[labels] >= 0
            return images[kept], places[labels[kept]]

        return TensorSet(classes, part(*self.train), part(*self.test))

    def fingerprint(self) -> str:
        """sha256 over all pixels and labels."""
        digest = hashlib.sha256()
        for part in (*self.train, *self.test):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


def load_set(name: str, root: Path, download: bool, say: Callable[[str], object]) -> TensorSet:
    """Load one of NAMES.

    Args:
        name: which.
        root: the folder where torchvision keeps its data sets; the digits need none.
        download: fetch what is missing, with torchvision's progress bar.
        say: takes a line before a download.

    Raises:
        DataError: absent, damaged, or not to be had over the network.
        FileSystemError: a download that cannot be written.
    """
    if name == "digits":
        return _digits()
    data = _torchvision(name, root, download, say)
    for images, labels in (data.train, data.test):
        fault = ""
        if len(images) != len(labels):
            fault = f"{len(images)} images but {len(labels)} labels"
        elif not 0 <= int(labels.min()) <= int(labels.max()) < len(data.classes):
            fault = f"a label that is not in 0..{len(data.classes) - 1}"
        if fault:
            raise DataError(f"{printable(root / _HOMES[name].folder)}: {name} has {fault}; {_renew(name, root)}")
    return data


def _digits() -> TensorSet:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    seed, count = DIGITS_TEST
    test, train = stratify(labels, count, seed, leave=True)
    return TensorSet([str(digit) for digit in range(10)], (images[train], labels[train]), (images[test], labels[test]))


@dataclass(frozen=True)
class _Home:
    """Where torchvision keeps a data set, and how it is called there."""

    kind: str
    folder: str


_HOMES = {
    "mnist": _Home("MNIST", "MNIST/raw"),
    "cifar10": _Home("CIFAR10", "cifar-10-batches-py"),
    "cifar100": _Home("CIFAR100", "cifar-100-python"),
}


def _above(root: Path, home: _Home) -> Path | None:
    """The folder to give in place of one inside the data set's own; None where that is not the mistake."""
    parts, place = Path(home.folder).parts, Path(os.path.abspath(root))
    for depth in range(1, len(parts) + 1):
        above = place.parents[depth - 1] if len(place.parents) >= depth else place
        if place == above.joinpath(*parts[:depth]) and (above / home.folder).is_dir():
            return above
    return None


def _torchvision(name: str, root: Path, download: bool, say: Callable[[str], object]) -> TensorSet:
    import torchvision.datasets

    home = _HOMES[name]
    kind: Any = getattr(torchvision.datasets, home.kind)
    folder = root / home.folder
    if not folder.is_dir() and (above := _above(root, home)):
        raise DataError(
            f"data.root: {printable(root)} is itself {name}, and the folder that holds {home.folder}/ is wanted; "
            f"did you mean {typed('data.root', above)}?"
        )
    if not folder.is_dir() and not download:
        raise DataError(
            f"data.root: {name} is not in {printable(root)} (no {home.folder}/ there); set data.download=true to "
            f"fetch it, or data.root to the folder that holds {home.folder}/"
        )
    if download:
        _download(kind, name, root, say)
    for file in sorted(folder.glob("*")):
        if what := absence(file):  # a read of a pipe would wait for ever
            raise DataError(f"data.root: {printable(file)} {what}; {_renew(name, root)}")
    try:
        parts = [kind(str(root), train=train) for train in (True, False)]
    except Exception as error:  # its parsers raise anything from AssertionError to UnpicklingError on damaged files
        raise _damaged(kind, name, root, error) from None
    if name == "mnist":
        train, test = ((part.data.unsqueeze(1), part.targets) for part in parts)
        return TensorSet([str(digit) for digit in range(10)], train, test)
    train, test = (
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)) for part in parts
    )
    return TensorSet(list(parts[0].classes), train, test)


# URLError is an OSError; the others come from half a file.
_DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException, EOFError, zlib.error, tarfile.TarError)

_DISK_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),  # a path that cannot be made
)


def _download(kind: Any, name: str, root: Path, say: Callable[[str], object]) -> None:
    """Let torchvision fetch what is missing; whatever goes wrong on the way becomes one line."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: a dead connection would hang for ever
    try:
        root.mkdir(parents=True, exist_ok=True)
        kind(str(root), train=True, download=True)
    except _DOWNLOAD_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            what = f"data.root: {printable(root)} cannot be written ({error.strerror})"
            raise FileSystemError(f"{what}; choose another folder") from None
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"data.download: {name} could not be fetched to {printable(root)} ({reason}); check the network and run "
            f"again, or copy {_HOMES[name].folder}/ there from another machine"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)
    say(f"{name} is in {printable(root)}")


def _renew(name: str, root: Path) -> str:
    return f"delete {printable(root / _HOMES[name].folder)} and run again with data.download=true"


def _damaged(kind: Any, name: str, root: Path, error: Exception) -> DataError:
    """Say which file torchvision does not accept."""
    from torchvision.datasets.utils import check_integrity

    folder, renew = root / _HOMES[name].folder, _renew(name, root)
    if name == "mnist":
        wanted = [(Path(url).stem, None) for url, _ in kind.resources]
    else:
        wanted = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    for file, md5 in wanted:
        if not (folder / file).is_file():
            what = f"{printable(folder / file)}: a file of {name} is missing"
            return DataError(f"{what}; set data.download=true, or copy it there")
        if not check_integrity(str(folder / file), md5):
            return DataError(f"{printable(folder / file)}: damaged, its MD5 is not that of {name}; {renew}")
        if name == "mnist" and (fault := _idx_fault(folder / file)):
            return DataError(f"{printable(folder / file)}: {fault}; {renew}")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return DataError(f"{printable(folder)}: {name} is damaged ({reason}); {renew}")


def _idx_fault(file: Path) -> str:
    """What is wrong with a file of MNIST, or an empty string: a header of whole numbers, then a byte per value."""
    content = file.read_bytes()
    numbers = np.frombuffer(content[: len(content) // 4 * 4][:16], dtype=">i4")
    sides = 3 if "images" in file.name else 1
    if len(numbers) <= sides or numbers[0] != 0x800 + sides:
        return "its header is not that of MNIST"
    expected = 4 * (1 + sides) + int(np.prod(numbers[1 : 1 + sides], dtype=np.int64))
    return "" if len(content) == expected else f"expected {expected} bytes, found {len(content)}"
