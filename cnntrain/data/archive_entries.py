"""The files in a zip or tar archive, by names that lead nowhere else; and how many and how large they may be."""

import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from cnntrain.config.paths import cache_dir
from cnntrain.errors import DataError, UnsafeError
from cnntrain.storage.atomic import file_system_error
from cnntrain.text import printable

MOST_FILES = 5_000_000
MOST_BYTES = 2 * 10**12
# Photos are compressed already: what grows so much, beyond this, is made to fill a disk.
MOST_GROWTH, SMALL = 200, 2 * 10**9
CHUNK = 1 << 20
MOST_READ = 16 << 20  # bytes that a tar file may have for one name
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


def entries(archive: Path) -> Iterator[Entry]:
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
            raise fault(archive, "is encrypted", "unpack it, and give the folder")
        for info in infos:  # all of them, before anything is written
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise unsafe(archive, info.filename, "is a link or device")
            parts_of(_zip_name(info), archive)
        total = sum(info.file_size for info in infos)
        need_room(archive, os.path.getsize(archive), cache_dir() / "archives", len(infos), total, total)
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
                raise unsafe(archive, info.name, "is a link or device")
            yield Entry(info.name, info.size, partial(content.extractfile, info))
        while stream.read(CHUNK):  # to the checksum behind it
            pass


def tar_members(content: tarfile.TarFile, stream: Sips) -> Iterator[tarfile.TarInfo]:
    """What a tar file says of its members, one after the other; tarfile.ReadError where it is cut short."""
    while info := content.next():
        content.members = []  # type: ignore[attr-defined]  # of a million files they would fill a gigabyte
        if info.size < 0:  # which would lead back, for ever
            raise tarfile.ReadError("a member of negative size")
        yield info
    # `next` takes whatever is no header for the end: that is a block of zeros.
    stream.seek(content.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut short")


def is_plain_file(info: tarfile.TarInfo) -> bool:
    """Whether a member of a tar file holds its content itself."""
    return info.isreg() and not info.issparse()


def parts_of(name: str, archive: Path) -> list[str]:
    """The folders and the file that a name names; UnsafeError where they lead out of the archive's own folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise unsafe(archive, name, "leads out of it")
    return parts


def need_room(archive: Path, archive_size: int, folder: Path, files: int, size: int, more: int) -> None:
    """Raises DataError or FileSystemError where so many files of so many bytes, the last of `more`, are too many."""
    if files > MOST_FILES:
        raise fault(archive, f"holds more than {MOST_FILES:,} files", "unpack it, and give the folder")
    if size > MOST_BYTES:
        raise fault(archive, f"holds more than {MOST_BYTES / 1e9:,.0f} GB", "unpack it, and give the folder")
    if size > SMALL and size > MOST_GROWTH * archive_size:
        what = f"grows to more than {MOST_GROWTH} times its size, as no images do"
        raise fault(archive, what, "unpack it, and give the folder, if you trust it")
    if more > CHUNK or files % 100 == 1:
        free = shutil.disk_usage(folder).free
        if more > free:
            raise file_system_error(
                folder.parent, OSError(errno.ENOSPC, ""), what="has no space to unpack", needed=more, word=CACHE
            )


# --- faults ----------------------------------------------------------------------------------------------------------


def fault(archive: Path, what: str, advice: str) -> DataError:
    """What is wrong with an archive."""
    return DataError(f"{printable(archive)} {what}; {advice}")


def unsafe(archive: Path, name: str, what: str) -> UnsafeError:
    """What is wrong with a name in one."""
    advice = "nothing of it is used: unpack it yourself if you trust it, and give the folder"
    return UnsafeError(f"{printable(archive)}: {printable(name)!r} {what}; {advice}")


def damage_of(error: BaseException, advice: str) -> tuple[str, str]:
    """What is wrong with a file that cannot be read, and what to do: `advice` where it is damaged."""
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({error.strerror})", "mend that"
    return f"is damaged ({reason_of(error)})", advice


def reason_of(error: BaseException) -> str:
    """What a library says of damage, in one line."""
    return printable(" ".join(str(error).split()))[:160] or type(error).__name__
