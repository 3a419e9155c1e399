"""Files that are written whole or not at all, and the one line that says why one cannot be written."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cnntrain.errors import FileSystemError, RunFolderError
from cnntrain.text import utf8

RUN_DIR = "out=DIR"  # the word that chooses another place, where the caller names none
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "choose another place with {word}",
    errno.ENOENT: "a folder above it is gone: make it again, or choose another place with {word}",
    errno.EACCES: "make it one that you may write, or choose another place with {word}",
    errno.EPERM: "make it one that you may write, or choose another place with {word}",
    errno.EEXIST: "a file is in the way: move it, or choose another place with {word}",
    errno.ENOTDIR: "a file is in the way: move it, or choose another place with {word}",
    errno.ENAMETOOLONG: "choose a shorter name with {word}",
    errno.ELOOP: "it is a link, and nothing is written through one: put what it leads to in its place, or remove it",
    errno.EISDIR: "a folder is in the way: move it, or choose another place with {word}",
    errno.ENXIO: "it is no plain file: move it, or choose another place with {word}",
}
SMALL = 64 << 20  # bytes that no text of ours comes near, in a run of years


def file_system_error(
    path: Path, error: OSError, *, what: str = "cannot be written", needed: int | None = None, word: str = RUN_DIR
) -> FileSystemError:
    """The one line for a failed system call at `path`; of a full disk it tells `needed` (bytes) and the free space."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if needed is not None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        unit, size = ("MB", 1e6) if needed >= 1e5 else ("kB", 1e3)
        free = _free_bytes(path)
        reason += f"; it needs {needed / size:.1f} {unit}, {free / size:.1f} {unit} are free"
        if error.errno == errno.ENOSPC and free > 2 * needed:  # a small file too many, where files are counted
            reason += ", but the file system may take no further file"
    advice = _ADVICE.get(error.errno or 0, "check the disk, or choose another place with {word}")
    return FileSystemError(f"{path}: {what} ({reason}); {advice.format(word=word)}")


def _free_bytes(path: Path) -> int:
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def open_own(path: Path, flags: int, *, follow: bool = False) -> int:
    """Open a file of ours, the only way to do so for writing; OSError is the caller's to tell.

    A link that a stranger has planted in the folder must not lead elsewhere, nor a pipe or device hold us up.

    Args:
        flags: of os.open; with O_WRONLY or O_RDWR the file is made where there is none.
        follow: a link may lead elsewhere after all.
    """
    more = os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    more |= os.O_CREAT if flags & (os.O_WRONLY | os.O_RDWR) else 0
    handle = os.open(path, flags & ~os.O_TRUNC | more, 0o644)
    try:
        if not stat.S_ISREG(mode := os.fstat(handle).st_mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
            raise OSError(number, os.strerror(number), str(path))
        if flags & os.O_TRUNC:
            os.ftruncate(handle, 0)
    except OSError:
        os.close(handle)
        raise
    return handle


def need_own_folder(folder: Path, *, word: str = RUN_DIR) -> Path:
    """A folder of ours, which need not be there yet.

    Raises:
        FileSystemError: it is a link, which would lead what is written and removed there elsewhere, or no folder.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        number = errno.ELOOP if folder.is_symlink() else errno.EEXIST
        raise file_system_error(folder, OSError(number, ""), what="nothing can be written there", word=word)
    return folder


def read_own(path: Path, *, follow: bool = False) -> bytes:
    """The content of a text of ours; OSError is the caller's to tell, also for a link, no file or far too large a one.

    Args:
        follow: read through a link; not for what is copied into the folder, which others may read.
    """
    with os.fdopen(open_own(path, os.O_RDONLY, follow=follow), "rb") as file:
        if os.fstat(file.fileno()).st_size > SMALL:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def read_kept(path: Path) -> bytes:
    """The content of a file that this user keeps in the cache; OSError as of read_own, or where it is another user's.

    Whoever reads it must take it for a stranger's all the same: it may be damaged, or of another version.
    """
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_size > SMALL:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        return file.read()


def write_kept(path: Path, content: str) -> None:
    """Keep a text in the cache; where that cannot be written, it only costs the next run a moment."""
    with contextlib.suppress(OSError, FileSystemError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it; OSError is the caller's to tell."""
    handle = open_own(path, os.O_WRONLY | os.O_TRUNC)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)


def write_atomic(path: Path, content: str | bytes, *, word: str = RUN_DIR) -> None:
    """Write a file whole or not at all, whatever dies in between.

    Args:
        word: what the user can write to choose another place.
    Raises:
        FileSystemError: the disk is full, read-only or broken; an older `path` is intact.
    """
    data = utf8(content) if isinstance(content, str) else content
    aside = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        write_synced(aside, data)
        os.replace(aside, path)
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise file_system_error(path, error, needed=len(data), word=word) from error


@contextlib.contextmanager
def without_locks() -> Iterator[None]:
    """Go on where the file system knows no locks."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise


class StreamedFile:
    """A file that is written part by part and gets its name when all of it is there.

    It is a context: left by a fault, it leaves nothing. An older file of that name is intact until then.

    Args:
        word: what the user can write to choose another place.
        alone: no other process may write it meanwhile; what one that was killed has left of it is written over.

    Raises:
        FileSystemError: the disk is full, read-only or broken.
        RunFolderError: another process writes it `alone`.
    """

    def __init__(self, path: Path, *, word: str = RUN_DIR, alone: bool = False) -> None:
        self._path, self._word, self._alone = path, word, alone
        self._aside = path.with_name(f".tmp-{path.name}" if alone else f".tmp-{os.getpid()}-{path.name}")

    def __enter__(self) -> "StreamedFile":
        with self._told(self._aside if self._alone else None):
            handle = self._open_alone() if self._alone else open_own(self._aside, os.O_WRONLY | os.O_TRUNC)
            self._file = open(handle, "wb")
        return self

    def _open_alone(self) -> int:
        """Open the hidden file and lock it; the kernel frees the lock when the process dies, however it dies."""
        while True:
            handle = open_own(self._aside, os.O_WRONLY)
            try:
                with without_locks():
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._has_name(handle):  # else whoever had the lock until now has given it its name, or removed it
                    os.ftruncate(handle, 0)
                    return handle
            except BlockingIOError:
                os.close(handle)
                raise RunFolderError(
                    f"{self._path}: another process writes it; wait for it, stop it, or choose another place with "
                    f"{self._word}"
                ) from None
            except OSError:
                os.close(handle)
                raise
            os.close(handle)

    def write(self, content: str | bytes) -> None:
        """Go on with a text, or with bytes."""
        with self._told():
            self._file.write(utf8(content) if isinstance(content, str) else content)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._told():
                self._file.flush()
                os.fsync(self._file.fileno())
                if kind is None:
                    os.replace(self._aside, self._path)
                    fsync_folder(self._path.parent)
        finally:
            # A name is given or removed before the lock is free: afterwards it may be another's.
            with contextlib.suppress(OSError):
                if self._has_name(self._file.fileno()):
                    self._aside.unlink()
            with contextlib.suppress(OSError):
                self._file.close()

    def _has_name(self, handle: int) -> bool:
        """Whether an open file is the hidden one that lies there."""
        try:
            return os.path.samestat(os.fstat(handle), os.lstat(self._aside))
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _told(self, path: Path | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise file_system_error(path or self._path, error, word=self._word) from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal; OSError is the caller's to tell."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class HashingFile:
    """A binary file for torch.save that hashes what is written, so that it is not read again for it.

    Attributes: `hash` (sha256) and `size` (bytes) of what was written; `error`, the first failure.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        # A failure waits for torch.save to end: raised here it would come out as a RuntimeError "unexpected pos".
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                self._file.write(data)
                self.hash.update(data)
                self.size += size
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Nothing yet: the owner of the file flushes and syncs it, where a failure can be told."""
