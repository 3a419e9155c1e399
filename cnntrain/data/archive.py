"""Archives of images: unpacked once, into a cache, whole or not at all; nothing in one leads out of its folder."""

import contextlib
import errno
import fcntl
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from cnntrain.config.paths import cache_dir
from cnntrain.config.schema.titles import archive_stem, safe_name
from cnntrain.data.layout import folders_in, is_clutter, split_of
from cnntrain.errors import CnntrainError, DataError, UnsafeError
from cnntrain.storage.atomic import file_system_error, open_own, without_locks
from cnntrain.text import counted, printable

MOST_FILES = 5_000_000
MOST_BYTES = 2 * 10**12
# Photos are compressed already: what grows so much, beyond this, is made to fill a disk.
MOST_GROWTH, SMALL = 200, 2 * 10**9
CHUNK = 1 << 20
MOST_READ = 16 << 20  # bytes that a tar file may have for one name
SECONDS = 5.0  # between two lines of progress
DEPTH = 3  # folders in folders that are looked through
CACHE = "XDG_CACHE_HOME=DIR"  # the variable that chooses another place

# What is raised on damage; a gzip.BadGzipFile is an OSError, as is a disk that cannot be read.
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, ValueError, LookupError, OverflowError),
)


@dataclass(frozen=True)
class Entry:
    """A file in an archive: its name as it stands there, its bytes when it is unpacked, and how they are read."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


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
        raise _fault(archive, f"cannot be read ({error.strerror})", "mend that") from None
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
        _make_folder(aside)
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
        shutil.rmtree(folder)


def _make_folder(folder: Path) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise file_system_error(folder, error, word=CACHE) from None


def _extract_all(archive: Path, folder: Path, say: Callable[[str], object]) -> tuple[int, int]:
    """Write all files of an archive below a folder; their number, and their bytes."""
    files = size = 0
    last_line = time.monotonic()
    made = {folder}
    try:
        archive_size = os.path.getsize(archive)
        for entry in _entries(archive):
            parts = _parts(entry.name, archive)
            if any(map(is_clutter, parts)):
                continue
            files, size = files + 1, size + entry.size
            _need_room(archive, archive_size, folder, files, size, entry.size)
            path = folder.joinpath(*parts)
            if path.parent not in made:
                _make_folder(path.parent)
                made.add(path.parent)
            _write(path, entry, archive)
            if time.monotonic() - last_line > SECONDS:
                last_line = time.monotonic()
                say(f"{printable(archive.name)}: {counted(files, 'file')} unpacked, {size / 1e6:,.0f} MB")
    except CnntrainError:
        raise
    except RuntimeError as error:  # zipfile has no other for a password
        raise _fault(archive, f"cannot be unpacked ({reason_of(error)})", "unpack it, and give the folder") from None
    except DAMAGE as error:
        raise _fault(archive, f"is damaged ({reason_of(error)})", "fetch or make it anew") from None
    if not files:
        raise _fault(archive, "holds no files", "give one that holds images")
    return files, size


def _need_room(archive: Path, archive_size: int, folder: Path, files: int, size: int, more: int) -> None:
    """Raises DataError or FileSystemError where so many files of so many bytes, the last of `more`, are too many."""
    if files > MOST_FILES:
        raise _fault(archive, f"holds more than {MOST_FILES:,} files", "unpack it, and give the folder")
    if size > MOST_BYTES:
        raise _fault(archive, f"holds more than {MOST_BYTES / 1e9:,.0f} GB", "unpack it, and give the folder")
    if size > SMALL and size > MOST_GROWTH * archive_size:
        what = f"grows to more than {MOST_GROWTH} times its size, as no images do"
        raise _fault(archive, what, "unpack it, and give the folder, if you trust it")
    if more > CHUNK or files % 100 == 1:
        free = shutil.disk_usage(folder).free
        if more > free:
            raise file_system_error(
                folder.parent, OSError(errno.ENOSPC, ""), what="has no space to unpack", needed=more, word=CACHE
            )


def _write(path: Path, entry: Entry, archive: Path) -> None:
    """Write one file; what its archive says of its bytes is the most that it may have."""
    source = entry.open()
    if source is None:
        raise ValueError(f"no content of {entry.name}")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise _fault(archive, f"holds {printable(entry.name)!r} twice", "make it anew") from None
    except OSError as error:
        raise file_system_error(path, error, word=CACHE) from None
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


# --- the files in an archive -----------------------------------------------------------------------------------------


def _entries(archive: Path) -> Iterator[Entry]:
    """The files in an archive, without its folders.

    Raises:
        UnsafeError: a link or device.
        DataError: one that is encrypted.
    """
    with open(archive, "rb") as file:
        if archive.name.lower().endswith(".zip"):
            yield from _in_zip(file, archive)
        else:
            yield from _in_tar(file, archive)


def _in_zip(file: IO[bytes], archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as content:
        infos = [info for info in content.infolist() if not info.is_dir()]
        if any(info.flag_bits & 1 for info in infos):
            raise _fault(archive, "is encrypted", "unpack it, and give the folder")
        for info in infos:  # all of them, before anything is written
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _unsafe(archive, info.filename, "is a link or device")
            _parts(_zip_name(info), archive)
        total = sum(info.file_size for info in infos)
        _need_room(archive, os.path.getsize(archive), cache_dir() / "archives", len(infos), total, total)
        for info in infos:
            yield Entry(_zip_name(info), info.file_size, partial(content.open, info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a file, which many programs write in UTF-8 without a word of it, and some with backslashes."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name if "/" in name else name.replace("\\", "/")


class Sips(io.BufferedReader):
    """A file of which no large part is read at once: a forged name in a tar file could claim gigabytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        """See BufferedReader."""
        if size is None or not 0 <= size <= MOST_READ:
            raise tarfile.ReadError(f"a name of {size} bytes")
        return super().read(size)


def _in_tar(file: IO[bytes], archive: Path) -> Iterator[Entry]:
    is_plain = archive.name.lower().endswith(".tar")
    raw = file if is_plain else gzip.GzipFile(fileobj=file)
    stream = Sips(raw, CHUNK)  # type: ignore[arg-type]  # a GzipFile does what it takes
    with tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape") as content:
        for info in tar_members(content, stream):
            if info.isdir():
                continue
            if not is_plain_file(info):
                raise _unsafe(archive, info.name, "is a link or device")
            yield Entry(info.name, info.size, partial(content.extractfile, info))
        while stream.read(CHUNK):  # to the checksum behind it
            pass


def tar_members(content: tarfile.TarFile, stream: Sips) -> Iterator[tarfile.TarInfo]:
    """What a tar file says of its members, one after the other; tarfile.ReadError where it is cut short."""
    while info := content.next():
        content.members = []  # type: ignore[attr-defined]  # of a million files they would fill a gigabyte
        yield info
    # `next` takes whatever is no header for the end: that is a block of zeros.
    stream.seek(content.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut short")


def is_plain_file(info: tarfile.TarInfo) -> bool:
    """Whether a member of a tar file holds its content itself."""
    return info.isreg() and not info.issparse()


def _parts(name: str, archive: Path) -> list[str]:
    """The folders and the file that a name names; UnsafeError where they lead out of the archive's own folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _unsafe(archive, name, "leads out of it")
    return parts


# --- faults ----------------------------------------------------------------------------------------------------------


def _fault(archive: Path, what: str, advice: str) -> DataError:
    return DataError(f"data.root: {printable(archive)} {what}; {advice}")


def _unsafe(archive: Path, name: str, what: str) -> UnsafeError:
    advice = "nothing of it is used: unpack it yourself if you trust it, and give the folder"
    return UnsafeError(f"data.root: {printable(archive)}: {printable(name)!r} {what}; {advice}")


def reason_of(error: BaseException) -> str:
    """What a library says of damage, in one line."""
    return printable(" ".join(str(error).split()))[:160] or type(error).__name__
