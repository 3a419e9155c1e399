"""Files that are written whole or not at all, and the one line that says why one cannot be written."""

import contextlib
import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from cnntrain.errors import FileSystemError

RUN_DIR = "out=DIR"  # the word that chooses another place, where the caller names none
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "choose a folder that can be written with {word}",
    errno.EACCES: "choose a folder that you may write with {word}",
    errno.EPERM: "choose a folder that you may write with {word}",
    errno.EEXIST: "a file is in the way: move it, or choose another folder with {word}",
    errno.ENOTDIR: "a file is in the way: move it, or choose another folder with {word}",
    errno.ENAMETOOLONG: "choose a shorter name with {word}",
}


def file_system_error(
    path: Path, error: OSError, *, what: str = "cannot be written", needed: int | None = None, word: str = RUN_DIR
) -> FileSystemError:
    """The one line for a failed system call at `path`; of a full disk it tells `needed` (bytes) and the free space."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if needed is not None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason += f"; it needs {needed / 1e6:.1f} MB, {_free_bytes(path) / 1e6:.1f} MB are free"
    advice = _ADVICE.get(error.errno or 0, "check the disk, or choose another folder with {word}")
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


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it; OSError is the caller's to tell."""
    # O_NOFOLLOW: a link planted in a shared folder must not lead the write elsewhere.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
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
    # Python reads words of the command line and names of files so.
    data = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    aside = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        write_synced(aside, data)
        os.replace(aside, path)
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise file_system_error(path, error, needed=len(data), word=word) from error


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
