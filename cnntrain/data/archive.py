"""Archives of images: unpacked once, into a cache, whole or not at all; nothing in one leads out of its folder."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cnntrain.config.paths import cache_dir
from cnntrain.config.schema.titles import archive_stem, safe_name
from cnntrain.data.archive_entries import (
    CACHE,
    CHUNK,
    DAMAGE,
    Entry,
    damage_of,
    entries,
    fault,
    need_room,
    parts_of,
    reason_of,
)
from cnntrain.data.layout import folders_in, is_clutter, split_of
from cnntrain.errors import CnntrainError
from cnntrain.storage.atomic import file_system_error, open_own, without_locks
from cnntrain.text import counted, cut, printable

SECONDS = 5.0  # between two lines of progress
DEPTH = 3  # folders in folders that are looked through


def unpacked(archive: Path, say: Callable[[str], object]) -> Path:
    """The folder that an archive holds, unpacked into the cache where no earlier run has done so.

    A folder is known by the path, the size and the time of its archive. It gets its name when all of it is there.

    Args:
        archive: a file that ends as config.paths.ARCHIVES say.
        say: takes progress lines.

    Raises:
        DataError: it is damaged, encrypted, or too large.
        UnsafeError: a part of it leads out of its folder, or is a link or device.
        FileSystemError: the cache cannot be written, or has too little space.
    """
    try:
        status = os.stat(archive)
    except OSError as error:
        raise fault(archive, f"cannot be read ({error.strerror})", "mend that") from None
    mark = repr((os.fsencode(os.path.abspath(archive)), status.st_size, status.st_mtime_ns))
    stem = safe_name(archive_stem(archive.name)) or "archive"
    folder = cache_dir() / "archives" / f"{stem}-{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        with _alone(folder, archive, say):
            if not folder.is_dir():  # nobody else has done it meanwhile
                _unpack(archive, folder, say)
    return _look_through(folder)


def _look_through(folder: Path) -> Path:
    """The folder itself, or the only one in it: archives are often made of a folder."""
    for _ in range(DEPTH):
        names = folders_in(folder)
        if len(names) != 1 or split_of(names[0]) or not folders_in(folder / names[0]):
            break
        folder = folder / names[0]
    return folder


@contextlib.contextmanager
def _alone(folder: Path, archive: Path, say: Callable[[str], object]) -> Iterator[None]:
    """No other process unpacks into this folder; the kernel frees the lock when this one dies, however it dies."""
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = open_own(lock, os.O_WRONLY)
    except OSError as error:
        raise file_system_error(lock, error, word=CACHE) from None
    try:
        with without_locks():
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{printable(archive.name)}: another process unpacks it; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # the file stays: whoever waits for the lock has it open


def _unpack(archive: Path, folder: Path, say: Callable[[str], object]) -> None:
    """Unpack into a folder beside, which then gets its name."""
    aside = folder.with_name(f".{folder.name}.part")
    _remove(aside)  # what a run that was killed has left
    try:
        try:
            os.mkdir(aside)
        except OSError as error:
            raise file_system_error(aside, error, word=CACHE) from None
        files, size = _extract_all(archive, aside, say)
        os.sync()  # what has its name must be whole after a power cut, too
        try:
            os.replace(aside, folder)
        except OSError as error:
            raise file_system_error(folder, error, word=CACHE) from None
    finally:
        _remove(aside)
    say(
        f"{printable(archive.name)}: unpacked {counted(files, 'file')}, {size / 1e6:,.0f} MB, into "
        f"{printable(folder)}, which may be deleted when no run needs it"
    )


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if folder.is_symlink():  # that somebody has planted: what it leads to is not ours
            folder.unlink()
        shutil.rmtree(folder)


def _extract_all(archive: Path, folder: Path, say: Callable[[str], object]) -> tuple[int, int]:
    """Write all files of an archive below a folder; their number, and their bytes."""
    files = size = 0
    last_line = time.monotonic()
    made = {folder}
    try:
        archive_size = os.path.getsize(archive)
        for entry in entries(archive):
            parts = parts_of(entry.name, archive)
            if any(map(is_clutter, parts)):
                continue
            files, size = files + 1, size + entry.size
            need_room(archive, archive_size, folder, files, size, entry.size)
            path = folder.joinpath(*parts)
            if path.parent not in made:
                try:
                    os.makedirs(path.parent, exist_ok=True)
                except OSError as error:
                    raise _write_error(path, entry, archive, error) from None
                made.add(path.parent)
            _write(path, entry, archive)
            if time.monotonic() - last_line > SECONDS:
                last_line = time.monotonic()
                say(f"{printable(archive.name)}: {counted(files, 'file')} unpacked, {size / 1e6:,.0f} MB")
    except CnntrainError:
        raise
    except RuntimeError as error:  # zipfile has no other for a password
        raise fault(archive, f"cannot be unpacked ({reason_of(error)})", "unpack it, and give the folder") from None
    except DAMAGE as error:
        raise fault(archive, *damage_of(error, "fetch or make it anew")) from None
    if not files:
        raise fault(archive, "holds no files", "give one that holds images")
    return files, size


def _write(path: Path, entry: Entry, archive: Path) -> None:
    """Write one file; what its archive says of its bytes is the most that it may have."""
    source = entry.open()
    if source is None:
        raise ValueError(f"no content of {entry.name}")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _write_error(path, entry, archive, error) from None
    with source, os.fdopen(handle, "wb") as file:
        left = entry.size
        while chunk := source.read(min(CHUNK, left)):
            left -= len(chunk)
            try:
                file.write(chunk)
            except OSError as error:
                raise file_system_error(path, error, needed=entry.size, word=CACHE) from None
        if left:
            raise ValueError(f"{printable(entry.name)} is cut short")


def _write_error(path: Path, entry: Entry, archive: Path, error: OSError) -> CnntrainError:
    """Why a file of an archive cannot be made: for another one in it, for its name, or for the file system."""
    name = cut(printable(entry.name), 100)
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return fault(archive, f"holds {name!r} twice", "make it anew")
    if error.errno == errno.ENAMETOOLONG:
        return fault(archive, f"holds a name that is too long ({name!r})", "make it anew")
    return file_system_error(path, error, word=CACHE)
