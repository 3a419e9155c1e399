"""Data sets that torchvision fetches: where they lie, and what is said where they do not."""

import errno
import http.client
import os
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnntrain.config.advice import shell_word
from cnntrain.config.paths import expand_path
from cnntrain.config.schema.data import DATASETS, DataEntry
from cnntrain.data.common import Request
from cnntrain.errors import ConfigError, DataError, FileSystemError
from cnntrain.text import printable, shorten

_BY_SPLIT = ("SVHN", "STL10", "GTSRB")  # split="train" in place of train=True
_IN_PARTS = ("QMNIST", "SVHN", "USPS", "GTSRB")  # the training and the test part are fetched one by one
_FLAT = ("SVHN", "USPS")  # that have no folder of their own in the one which torchvision is given: they get one


@dataclass(frozen=True)
class Place:
    """Where torchvision keeps a data set.

    Attributes:
        entry: of DATASETS.
        args: which of its variants, as torchvision's class is called with.
        root: data.root.
        home: the folder of the data set below it.
    """

    entry: DataEntry
    args: dict[str, Any]
    root: Path
    home: str

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def folder(self) -> Path:
        return self.root / self.home

    @property
    def renew(self) -> str:
        """What to do with damaged files."""
        return f"delete {printable(self.folder)} and run again with data.download=true"

    @property
    def kind(self) -> Any:
        """Torchvision's class."""
        import torchvision.datasets

        return getattr(torchvision.datasets, self.entry.kind)

    def open(self, *, train: bool, download: bool = False) -> Any:
        """Torchvision's data set: of one part, where it knows parts."""
        part: dict[str, Any] = {} if self.entry.has_files else {"train": train}
        if self.entry.kind in _BY_SPLIT:
            part = {"split": "train" if train else "test"}
        root = self.folder if self.entry.kind in _FLAT else self.root
        return self.kind(str(root), **part, **self.args, download=download)

    def above(self) -> Path | None:
        """The folder to give in place of one inside the data set's own; None where that is not the mistake."""
        parts, place = Path(self.home).parts, Path(os.path.abspath(self.root))
        for depth in range(1, len(parts) + 1):
            above = place.parents[depth - 1] if len(place.parents) >= depth else place
            if place == above.joinpath(*parts[:depth]) and (above / self.home).is_dir():
                return above
        return None


def find(request: Request) -> Place:
    """Where the data set of a request lies, fetched if data.download says so.

    Raises:
        DataError: absent, or not to be had over the network.
        FileSystemError: a download that cannot be written.
    """
    settings = request.settings
    entry = DATASETS.entry(settings.name)
    args = entry.arguments(settings.args)
    place = Place(entry, args, expand_path(settings.root), entry.home.format(**args))
    _need_folder(place, download=settings.download)
    if settings.download:
        _download(place, request.say)
    return place


def lack_of(module: ModuleNotFoundError, place: Place) -> ConfigError:
    """The fault of a package that a data set needs, and that cnntrain does without."""
    package = (module.name or "").partition(".")[0]
    return ConfigError(
        f"data.name: {place.name} needs {package} to read its files, not installed here; pip install {package}"
    )


def _need_folder(place: Place, *, download: bool) -> None:
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
_DOWNLOAD_ERRORS = (
    *(OSError, RuntimeError, http.client.HTTPException, EOFError),
    *(zlib.error, tarfile.TarError, zipfile.BadZipFile),
)

_DISK_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),  # a path that cannot be made
)


def _download(place: Place, say: Callable[[str], object]) -> None:
    """Let torchvision fetch what is missing; whatever goes wrong on the way becomes one line."""
    root, patience = printable(place.root), socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: a dead connection would hang for ever
    try:
        place.root.mkdir(parents=True, exist_ok=True)
        for train in (True, False) if place.entry.kind in _IN_PARTS else (True,):
            place.open(train=train, download=True)
    except ModuleNotFoundError as error:
        raise lack_of(error, place) from None
    except _DOWNLOAD_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            what = f"data.root: {root} cannot be written ({error.strerror})"
            raise FileSystemError(f"{what}; choose another folder") from None
        reason = shorten(" ".join(str(error).split()), 160)
        raise DataError(
            f"data.download: {place.name} could not be fetched to {root} ({reason}); check the network and run "
            f"again, or copy {place.home}/ there from another machine"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)
    say(f"{place.name} is in {root}")
