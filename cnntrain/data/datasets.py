"""Data sets that are decoded already: the handwritten digits, and those of torchvision."""

import errno
import gzip
import hashlib
import http.client
import os
import socket
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnntrain.config.advice import shell_word
from cnntrain.config.paths import absence, expand_path
from cnntrain.config.schema.data import DATASETS
from cnntrain.data.common import Request
from cnntrain.data.split import stratified_split
from cnntrain.errors import DataError, FileSystemError
from cnntrain.text import printable

DIGITS = Path(__file__).parent / "digits" / "digits.gz"  # 64 pixels and a label each
DIGITS_TEST = (1797, 360)  # seed and size of the digits' test part, the same for every run


@dataclass
class TensorSet:
    """Train and test parts: uint8 (N, C, H, W) and int64 (N,). A data set of the user's may have no test part."""

    classes: list[str]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor] | None

    def select_classes(self, classes: list[str]) -> "TensorSet":
        """The images of some of the classes, whose labels count in `classes`."""
        places = torch.full((len(self.classes),), -1)
        places[[self.classes.index(name) for name in classes]] = torch.arange(len(classes))

        def part(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            mask = places[labels] >= 0
            return images[mask], places[labels[mask]]

        return TensorSet(classes, part(*self.train), part(*self.test) if self.test else None)

    def fingerprint(self) -> str:
        """sha256 over all pixels and labels."""
        digest = hashlib.sha256()
        for part in (*self.train, *(self.test or ())):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


# --- the builders of the entries -------------------------------------------------------------------------------------


def digits(request: Request) -> TensorSet:
    """Handwritten digits."""
    images, labels = read_digits()
    seed, count = DIGITS_TEST
    test, train = stratified_split(labels, count, seed, leave=True)
    return TensorSet([str(digit) for digit in range(10)], (images[train], labels[train]), (images[test], labels[test]))


def read_digits() -> tuple[Tensor, Tensor]:
    """All of them, uint8 (1797, 1, 8, 8) of 17 levels, and int64 (1797,); their licence lies beside them."""
    rows = np.frombuffer(gzip.decompress(DIGITS.read_bytes()), dtype=np.uint8).reshape(-1, 65)
    images = np.rint(rows[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return torch.from_numpy(images), torch.from_numpy(rows[:, 64].astype(np.int64))


def mnist(request: Request) -> TensorSet:
    """MNIST, from torchvision's folder."""
    data = _torchvision("MNIST", request)
    return replace(data, classes=[str(digit) for digit in range(10)])


def cifar10(request: Request) -> TensorSet:
    """CIFAR-10, from torchvision's folder."""
    return _torchvision("CIFAR10", request)


def cifar100(request: Request) -> TensorSet:
    """CIFAR-100, from torchvision's folder."""
    return _torchvision("CIFAR100", request)


# --- the data sets of torchvision ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where torchvision keeps a data set.

    Attributes:
        name: ours.
        kind: torchvision's class.
        root: that the class is given.
        home: the folder of the data set below it.
    """

    name: str
    kind: Any
    root: Path
    home: str

    @property
    def folder(self) -> Path:
        return self.root / self.home

    @property
    def renew(self) -> str:
        """What to do with damaged files."""
        return f"delete {printable(self.folder)} and run again with data.download=true"

    def above(self) -> Path | None:
        """The folder to give in place of one inside the data set's own; None where that is not the mistake."""
        parts, place = Path(self.home).parts, Path(os.path.abspath(self.root))
        for depth in range(1, len(parts) + 1):
            above = place.parents[depth - 1] if len(place.parents) >= depth else place
            if place == above.joinpath(*parts[:depth]) and (above / self.home).is_dir():
                return above
        return None


def _torchvision(kind: str, request: Request) -> TensorSet:
    """The data set of a class of torchvision.datasets.

    Raises:
        DataError: absent, damaged, or not to be had over the network.
        FileSystemError: a download that cannot be written.
    """
    import torchvision.datasets

    settings = request.settings
    home = DATASETS.entry(settings.name).home
    place = _Place(settings.name, getattr(torchvision.datasets, kind), expand_path(settings.root), home)
    _need_folder(place, download=settings.download)
    if settings.download:
        _download(place, request.say)
    for file in sorted(place.folder.glob("*")):
        if what := absence(file):  # a read of a pipe would wait for ever
            raise DataError(f"data.root: {printable(file)} {what}; {place.renew}")
    try:
        parts = [place.kind(str(place.root), train=train) for train in (True, False)]
    except Exception as error:  # its parsers raise anything from AssertionError to UnpicklingError on damaged files
        raise _damage_fault(place, error) from None
    classes = list(parts[0].classes)
    train, test = ((_pixels(part.data), torch.as_tensor(part.targets)) for part in parts)
    for images, labels in (train, test):
        fault = ""
        if len(images) != len(labels):
            fault = f"{len(images)} images but {len(labels)} labels"
        elif not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            fault = f"a label that is not in 0..{len(classes) - 1}"
        if fault:
            raise DataError(f"{printable(place.folder)}: {place.name} has {fault}; {place.renew}")
    return TensorSet(classes, train, test)


def _pixels(data: Any) -> Tensor:
    """uint8 (N, C, H, W), of grey images (N, H, W) or of coloured ones (N, H, W, 3) as torchvision keeps them."""
    images = torch.as_tensor(data)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


def _need_folder(place: _Place, *, download: bool) -> None:
    if place.folder.is_dir():
        return
    name, root, home = place.name, printable(place.root), place.home
    if above := place.above():
        raise DataError(
            f"data.root: {root} is itself {name}, and the folder that holds {home}/ is wanted; "
            f"did you mean {shell_word('data.root', above)}?"
        )
    if not download:
        raise DataError(
            f"data.root: {name} is not in {root} (no {home}/ there); set data.download=true to "
            f"fetch it, or data.root to the folder that holds {home}/"
        )


# URLError is an OSError; the others come from half a file.
_DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException, EOFError, zlib.error, tarfile.TarError)

_DISK_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),  # a path that cannot be made
)


def _download(place: _Place, say: Callable[[str], object]) -> None:
    """Let torchvision fetch what is missing; whatever goes wrong on the way becomes one line."""
    root, patience = printable(place.root), socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: a dead connection would hang for ever
    try:
        place.root.mkdir(parents=True, exist_ok=True)
        place.kind(str(place.root), train=True, download=True)
    except _DOWNLOAD_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            what = f"data.root: {root} cannot be written ({error.strerror})"
            raise FileSystemError(f"{what}; choose another folder") from None
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"data.download: {place.name} could not be fetched to {root} ({reason}); check the network and run "
            f"again, or copy {place.home}/ there from another machine"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)
    say(f"{place.name} is in {root}")


def _damage_fault(place: _Place, error: Exception) -> DataError:
    """Say which file torchvision does not accept."""
    from torchvision.datasets.utils import check_integrity

    kind, folder, name = place.kind, place.folder, place.name
    if is_idx := hasattr(kind, "resources"):
        files = [(Path(url).stem, None) for url, _ in kind.resources]
    else:
        files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    for file, md5 in files:
        if not (folder / file).is_file():
            what = f"{printable(folder / file)}: a file of {name} is missing"
            return DataError(f"{what}; set data.download=true, or copy it there")
        if not check_integrity(str(folder / file), md5):
            return DataError(f"{printable(folder / file)}: damaged, its MD5 is not that of {name}; {place.renew}")
        if is_idx and (fault := _idx_fault(folder / file)):
            return DataError(f"{printable(folder / file)}: {fault}; {place.renew}")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return DataError(f"{printable(folder)}: {name} is damaged ({reason}); {place.renew}")


def _idx_fault(file: Path) -> str:
    """What is wrong with a file of MNIST, or an empty string: a header of whole numbers, then a byte per value."""
    content = file.read_bytes()
    numbers = np.frombuffer(content[: len(content) // 4 * 4][:16], dtype=">i4")
    sides = 3 if "images" in file.name else 1
    if len(numbers) <= sides or numbers[0] != 0x800 + sides:
        return "its header is not that of MNIST"
    length = 4 * (1 + sides) + int(np.prod(numbers[1 : 1 + sides], dtype=np.int64))
    return "" if len(content) == length else f"expected {length} bytes, found {len(content)}"
