"""The folders of checkpoints change places, so that whenever the process dies each has its old or its new content."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from cnntrain.storage.atomic import fsync_folder
from cnntrain.storage.manifest import MANIFEST, OLD, STATE


def rename(moves: list[tuple[Path, Path]]) -> None:
    """Rename one after the other, skipping what is not there; all are undone if one fails."""
    done = []
    try:
        for source, target in moves:
            if os.path.lexists(source):
                os.rename(source, target)
                done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            with contextlib.suppress(OSError):
                os.rename(target, source)
        raise


def link(source: Path, target: Path) -> None:
    """The files of a checkpoint in another folder too: hard links, or copies where the file system has none."""
    os.mkdir(target)
    for name in (STATE, MANIFEST):
        try:
            os.link(source / name, target / name)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK):
                raise
            shutil.copyfile(source / name, target / name)
            with open(target / name, "rb") as file:
                os.fsync(file.fileno())
    fsync_folder(target)


def tidy(folder: Path) -> None:
    """Remove what a killed or failed save left aside; a checkpoint caught between its two renames comes back."""
    restore(folder)
    for left in [*folder.glob(".tmp-*"), *folder.glob(f"{OLD}*")]:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:  # what stood in place of a checkpoint; of a pipe, rmtree would wait for the other end
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def restore(folder: Path) -> None:
    """Give a checkpoint that was caught between its two renames its name back."""
    for old in folder.glob(f"{OLD}*"):
        with contextlib.suppress(OSError):
            if old.is_dir() and not (own := old.with_name(old.name.removeprefix(OLD))).exists():
                os.rename(old, own)
