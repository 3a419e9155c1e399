"""Published files: fetched once, verified, and kept where the libraries keep them."""

import contextlib
import logging
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from cnntrain.errors import ConfigError
from cnntrain.storage.atomic import sha256_of
from cnntrain.text import one_line

Say = Callable[[str], None]

PATIENCE = 20  # seconds that a server may be silent
_HASH = re.compile(r"-([0-9a-f]{8,64})\.")  # torch's convention: name-SHA256.pth, of which the first digits
_LOCAL = "or give a file that you have, model.weights=FILE"


def file_of_address(url: str, say: Say, name: str | None = None) -> Path:
    """The file of an address, downloaded into torch's own cache where it is not there; its digest is verified.

    Args:
        say: takes a line before a download, which shows its progress on stderr.
        name: of the file in the cache, in place of the address's.

    Raises:
        ConfigError: it cannot be downloaded, or is damaged.
    """
    place = _folder() / (name or url.rpartition("/")[2])
    digest = _HASH.search(place.name)
    digits = digest.group(1) if digest else ""
    if place.is_file():
        _verify(place, digits)
        return place
    say(f"downloading {url} to {place.parent}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torch sets none, and would wait for ever
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(place), digits or None)
    except Exception as error:  # of the network, the disk or the checksum
        raise _unreachable(url, place, error) from error
    finally:
        socket.setdefaulttimeout(before)
    return place


def file_of_hub(repository: str, names: Sequence[str], say: Say) -> Path:
    """The first of the files that a repository of Hugging Face has, verified, downloaded into its own cache.

    A file that was put into torch's cache by hand, under the name of the repository, comes before it.

    Args:
        repository: `owner/name`, or `owner/name@revision`.
        names: of files, the best first.
        say: takes a line before a download, which shows its progress on stderr.

    Raises:
        ConfigError: none is there, it cannot be downloaded, or is damaged.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = repository.partition("@")
    which: dict[str, Any] = {"repo_id": repository, "revision": revision or None}
    places = [_folder() / (repository.rpartition("/")[2] + Path(name).suffix) for name in names]
    cached = (try_to_load_from_cache(filename=name, **which) for name in names)
    here = [*filter(Path.is_file, places), *(Path(path) for path in cached if isinstance(path, str))]
    if here:
        return here[0]
    for name, place in zip(names, places, strict=True):
        url = hf_hub_url(filename=name, **which)
        try:
            with quiet():
                metadata = get_hf_file_metadata(
                    url, timeout=PATIENCE
                )  # fails at once, where a download tries for minutes
                say(f"downloading {url} to the cache of Hugging Face")
                path = Path(hf_hub_download(filename=name, **which))
        except Exception as error:  # of the network, the disk or the repository
            absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if absent and name != names[-1]:
                continue
            raise _unreachable(url, place, error) from error
        if re.fullmatch("[0-9a-f]{64}", metadata.etag or ""):  # of large files it is their sha256
            _verify(path, str(metadata.etag))
        return path
    raise AssertionError("no names were given")


def damage_error(path: Path, error: Exception) -> ConfigError:
    """The fault of a file in a cache that cannot be used."""
    file = path.resolve()  # Hugging Face keeps links, and would make one again to the same file
    return ConfigError(
        f"model.pretrained: {file} cannot be used ({one_line(error)}); delete it to have it downloaded anew, {_LOCAL}"
    )


def _folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _verify(path: Path, digits: str) -> None:
    if not sha256_of(path).startswith(digits):
        raise damage_error(path, ValueError(f"its sha256 does not begin with {digits[:8]}"))


def _unreachable(url: str, place: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"model.pretrained: {url} cannot be downloaded ({one_line(error)}); "
        f"put it as {place.name} into {place.parent}, {_LOCAL}"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries from telling of retries, of anonymous requests and of layers: what matters is a line of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
