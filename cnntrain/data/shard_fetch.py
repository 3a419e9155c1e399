"""Shards that lie elsewhere: each is fetched once, into the user's cache, whole or not at all."""

import errno
import hashlib
import http.client
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import cnntrain
from cnntrain.config.paths import cache_dir
from cnntrain.config.schema.titles import safe_name
from cnntrain.data.archive_entries import CACHE, reason_of
from cnntrain.errors import DataErrors, RunFolderError
from cnntrain.storage.atomic import StreamedFile, file_system_error
from cnntrain.text import counted, printable

THREADS = 4  # that fetch at the same time
PATIENCE = 30  # seconds without a byte
TRIES = 3
CHUNK = 1 << 20
SECONDS = 5.0  # between two lines of progress
MOST_TOLD = 5
_LOST = (OSError, http.client.HTTPException, ValueError)  # URLError and timeouts are OSErrors


class _ShardError(Exception):
    """Why a shard cannot be had, without its address."""


def fetch_shards(urls: Sequence[str], say: Callable[[str], object]) -> dict[str, Path]:
    """Where each shard lies once it is here; those that earlier runs have fetched are not fetched again.

    Args:
        urls: of http and https.
        say: takes lines of progress.

    Raises:
        DataErrors: shards that cannot be had, told together.
        FileSystemError: the cache cannot be written, or has too little space.
    """
    places = {url: _place(url) for url in urls}
    missing = [url for url, path in places.items() if not path.is_file()]
    if not missing:
        return places
    say(f"fetching {counted(len(missing), 'shard')} into {printable(cache_dir() / 'shards')}")
    faults, size, last_line, stop = dict[str, str](), 0, time.monotonic(), threading.Event()
    with ThreadPoolExecutor(THREADS, "fetch") as pool:
        tasks = {pool.submit(_fetch, url, places[url], len(missing), stop): url for url in missing}
        waiting = set(tasks)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=SECONDS, return_when=FIRST_COMPLETED)
                for task in done:
                    try:
                        size += task.result()
                    except _ShardError as error:
                        faults[tasks[task]] = str(error)
                if time.monotonic() - last_line > SECONDS:
                    last_line = time.monotonic()
                    say(f"{len(missing) - len(waiting):,} of {len(missing):,} shards fetched, {size / 1e6:,.0f} MB")
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    _raise_all(faults)
    say(f"fetched {size / 1e6:,.0f} MB; the folder may be deleted when no run needs it")
    return places


def _raise_all(faults: dict[str, str]) -> None:
    lines = [f"data.root: {printable(url)} {fault}" for url, fault in sorted(faults.items())[:MOST_TOLD]]
    if (more := len(faults) - MOST_TOLD) > 0:
        lines.append(f"data.root: and {counted(more, 'more shard')} that cannot be had")
    if lines:
        raise DataErrors(lines)


def _place(url: str) -> Path:
    """Where a shard lies in the cache: in a folder for its host and folder there, under a name that leads nowhere."""
    parts = urllib.parse.urlsplit(url)
    base, _, name = urllib.parse.unquote(parts.path).rpartition("/")
    home = f"{parts.scheme}://{parts.netloc}{base}"
    stem, is_plain = safe_name(name.removesuffix(".tar")), not parts.query and name.endswith(".tar")
    if not is_plain or f"{stem}.tar" != name:
        stem = f"{stem or 'shard'}-{_digest(url)}"
    folder = safe_name(f"{parts.hostname} {base.rpartition('/')[2]}")[:60]
    return cache_dir() / "shards" / f"{folder}-{_digest(home)}" / f"{stem}.tar"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _fetch(url: str, path: Path, count: int, stop: threading.Event) -> int:
    """Fetch a shard, one of so many; its bytes, or 0 where another process has fetched it meanwhile."""
    reason = ""
    for number in range(TRIES):
        try:
            return _read_alone(url, path, count, stop)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"{error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                advice = "fetch the shards yourself" if error.code in (401, 403) else "mend the address"
                raise _ShardError(f"is not to be had ({printable(reason)}); {advice}") from None
        except _LOST as error:
            reason = reason_of(error)
        if number + 1 < TRIES:
            stop.wait(2**number)
    raise _ShardError(f"could not be fetched in {TRIES} tries ({printable(reason)}); check the network, and run again")


def _read_alone(url: str, path: Path, count: int, stop: threading.Event) -> int:
    """Wait for another process that fetches the same shard, or read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_system_error(path.parent, error, word=CACHE) from None
    while not path.is_file():
        try:
            with StreamedFile(path, word=CACHE, alone=True) as file:
                return _read(url, file, path.parent, count, stop)
        except RunFolderError:
            if stop.wait(0.5):
                raise
    return 0


def _read(url: str, file: StreamedFile, folder: Path, count: int, stop: threading.Event) -> int:
    request = urllib.request.Request(url, headers={"User-Agent": f"cnntrain/{cnntrain.__version__}"})
    with _opener().open(request, timeout=PATIENCE) as answer:
        told = answer.headers.get("Content-Length")
        length = int(told) if told and told.isdecimal() else None
        _need_room(folder, length or 0, count)
        size = 0
        while not stop.is_set() and (chunk := answer.read(CHUNK)):
            file.write(chunk)
            size += len(chunk)
    if stop.is_set():
        raise OSError("stopped")
    if length is not None and size != length:
        raise OSError(f"{size:,} of {length:,} bytes came")
    return size


def _opener() -> urllib.request.OpenerDirector:
    """It follows addresses of http and https alone, wherever it is sent."""
    opener = urllib.request.OpenerDirector()
    kinds = (
        *(urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler),
        *(urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler),
        *(urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler),
    )
    for kind in kinds:
        opener.add_handler(kind())
    return opener


def _need_room(folder: Path, length: int, count: int) -> None:
    """Raises FileSystemError where so many shards of this size do not fit, before the first of them is there."""
    needed = length if any(folder.glob("*.tar")) else length * count
    if needed > shutil.disk_usage(folder).free:
        what = f"has no space for {counted(count, 'shard')}"
        raise file_system_error(folder, OSError(errno.ENOSPC, ""), what=what, needed=needed, word=CACHE)
