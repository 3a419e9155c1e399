"""Images that are named one by one or by their folders, and whose classes nobody knows."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cnntrain.config.paths import is_archive
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, OnBadImage
from cnntrain.data.archive import unpacked
from cnntrain.data.build_files import decode_threads
from cnntrain.data.common import Data, Request, choose_statistics
from cnntrain.data.decode import BadImage
from cnntrain.data.decoder import Decoder
from cnntrain.data.folder import Images, kinds
from cnntrain.data.loaders import Loader, StreamLoader
from cnntrain.data.paths import Paths
from cnntrain.data.view import EVAL_SHARE, View
from cnntrain.errors import ConfigError, DataError
from cnntrain.text import printable

T = TypeVar("T")


def data_without_images(settings: DataSettings, classes: list[str], fingerprint: str) -> Data:
    """The data of a network whose images are not here: all of it stands in the settings of a trained one.

    Raises:
        ConfigError: a value that only the images could tell.
    """
    size, channels = _need("image_size", settings.image_size), _need("channels", settings.channels)
    _need("mean", settings.mean)
    _need("std", settings.std)
    request = Request(settings, AugmentSettings(), 0, torch.device("cpu"), classes, (), 0, print)
    mean, std = choose_statistics(request, channels, lambda: ([], []))
    return Data(
        name=settings.name,
        classes=classes,
        channels=channels,
        image_size=size,
        eval_size=settings.eval_size or size,
        interpolation=request.interpolation,
        crop=settings.crop or (EVAL_SHARE if settings.has_files else 1.0),
        crop_mode=request.crop_mode,
        multi_label=settings.multi_label,
        batch_size=request.batch_size,
        mean=mean,
        std=std,
        fingerprint=fingerprint,
        notes=[],
    )


def _need(key: str, value: T | None) -> T:
    """A value that stands in the settings."""
    if value is None:
        raise ConfigError(f"data.{key}: null takes the images of the run, which are not read here; leave it out")
    return value


class FilePaths(Paths):
    """Files that were named one by one or found; those of an archive go by its name, `photos.zip/cat.jpg`.

    Args:
        files: their paths.
        archives: of each folder into which one was unpacked, its path.
    """

    def __init__(self, files: Sequence[bytes], archives: Mapping[bytes, bytes]) -> None:
        super().__init__(Path(), b"".join(files), np.cumsum([len(path) for path in files], dtype=np.int64))
        self._archives = archives

    def __getitem__(self, index: int) -> Path:
        path = self.relative(index)
        for folder, archive in self._archives.items():
            if path.startswith(folder + b"/"):
                return Path(os.fsdecode(archive + path[len(folder) :]))
        return super().__getitem__(index)


def find_files(places: Sequence[Path], say: Callable[[str], object] = print) -> tuple[FilePaths, Counter[str]]:
    """The files among the places, and the images at any depth below the folders and in archives; each of them once.

    Args:
        say: takes lines on what is unpacked.

    Returns:
        The files, and the kinds of what is skipped in the folders.

    Raises:
        DataError: none is found, or a folder cannot be read.
        DataError, UnsafeError, FileSystemError: of an archive, see archive.unpacked.
    """
    images = Images()
    files: dict[bytes, None] = {}
    archives: dict[bytes, bytes] = {}
    for place in places:
        folder = unpacked(place, say) if is_archive(place) else place
        if folder != place:
            archives[os.fsencode(folder)] = os.fsencode(place)
        names = (name for name, _ in images.below(str(folder))) if folder.is_dir() else (str(folder),)
        files |= dict.fromkeys(map(os.fsencode, names))
    if not files:
        where = ", ".join(map(printable, places[:3])) + (", …" if len(places) > 3 else "")
        there = f" ({kinds(images.skip_counts)})" if images.skip_counts else ""
        raise DataError(f"images: {where}: no images there{there}; give another folder, or files")
    return FilePaths(list(files), archives), images.skip_counts


class FileDecoder(Decoder):
    """A decoder without classes: a bad file that may be skipped gives black, and `reasons` names it."""

    def __init__(self, paths: Paths, view: View, channels: int, on_bad_image: OnBadImage) -> None:
        numbers = torch.arange(len(paths))
        super().__init__(paths, numbers, channels=channels, view=view, seed=0, on_bad_image=on_bad_image)
        self.most_bad = len(paths)

    @property
    def reasons(self) -> dict[int, str]:
        """What is wrong with the bad files met so far, by their places in the list of files."""
        return dict(sorted(self._faults.items()))

    def image(self, index: int, epoch: int, out: Tensor) -> None:
        """See Decoder."""
        if self.on_bad_image is OnBadImage.error:
            return super().image(index, epoch, out)
        try:
            self._view(index, epoch, out)
        except BadImage as error:
            self._note(index, str(error))
            out.zero_()


def stream(decoder: Decoder, batch_size: int, settings: DataSettings, device: torch.device) -> StreamLoader:
    """The decoder's images in the order of its files."""
    workers = decode_threads(settings.workers)
    return StreamLoader(decoder, batch_size=batch_size, device=device, seed=0, train=False, workers=workers)


def widen(loader: Loader, settings: DataSettings, device: torch.device) -> Loader:
    """An evaluation split with what lies around its view; where there are no files there is nothing around."""
    decoder = loader.decoder
    if decoder is None:
        return loader
    assert isinstance(decoder.view, View)
    return stream(decoder.through(decoder.view.wide_view), loader.batch_size, settings, device)
