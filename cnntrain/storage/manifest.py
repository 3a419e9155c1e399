"""The manifest of a checkpoint: what the state file must be, to the byte. torch.load notices hardly any flipped bit."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cnntrain
from cnntrain.config.advice import advise_run
from cnntrain.errors import CheckpointError
from cnntrain.storage.atomic import read_own, sha256_of, write_synced

FORMAT = 1
STATE, MANIFEST = "state.pt", "manifest.json"
OLD = ".old-"  # before the name of a checkpoint that makes room for another one
_FIELDS = {"run_id": str, "step": int, "epoch": int, "size": int, "sha256": str}


def write(folder: Path, *, run_id: str, step: int, epoch: int, size: int, sha256: str, **facts: Any) -> None:
    """Write the manifest of the state file that lies in `folder`.

    Args:
        size: bytes of the state file.
        sha256: of the state file, in hexadecimal.
        facts: more plain values to note, such as versions.
    """
    fields = {"run_id": run_id, "step": step, "epoch": epoch, "size": size, "sha256": sha256}
    content = {"format": FORMAT, **fields, "cnntrain": cnntrain.__version__, **facts}
    write_synced(folder / MANIFEST, _render(content).encode())


def verify(folder: Path, run_id: str | None = None, *, trusted: Collection[str] = ()) -> dict[str, Any]:
    """Check the manifest itself, then size and sha256 of the state file against it.

    Args:
        run_id: the run that the checkpoint must belong to, if given.
        trusted: digests of states that need not be read again.

    Returns:
        The manifest: format, run_id, step, epoch, size, sha256, versions.

    Raises:
        CheckpointError: naming the file that is missing, damaged, of another run or of a newer cnntrain.
    """
    manifest = _read(folder)
    if run_id is not None and manifest["run_id"] != run_id:
        raise CheckpointError(f"{folder}: belongs to run {manifest['run_id']}, not to {run_id}; {elsewhere(folder)}")
    path = folder / STATE
    try:
        size = path.stat().st_size
        if size != manifest["size"]:
            raise CheckpointError(f"{path}: damaged, {size} bytes instead of {manifest['size']}; {elsewhere(folder)}")
        if manifest["sha256"] not in trusted and sha256_of(path) != manifest["sha256"]:
            raise CheckpointError(f"{path}: damaged, its sha256 differs from the manifest's; {elsewhere(folder)}")
    except OSError as error:
        raise _unreadable(path, error) from error
    return manifest


def step(folder: Path) -> int:
    """The step of the checkpoint in `folder`, -1 where no manifest can be read."""
    try:
        return int(_read(folder)["step"])
    except CheckpointError:
        return -1


def need_target(target: Path) -> None:
    """Refuse a run or checkpoint of which there is nothing at all; CheckpointError says what to give."""
    if not target.exists() and not set_aside(target).is_dir():
        raise no_checkpoint(target, "no such file or folder")


def set_aside(target: Path) -> Path:
    """Where a checkpoint lies that a kill caught between two renames."""
    return target.parent / (OLD + target.name)


def no_checkpoint(target: Path, what: str) -> CheckpointError:
    """The fault of a path that is no checkpoint, and what to give."""
    advice = f"give a run folder such as outputs/DATA/MODEL/DATE_TIME, a checkpoint folder or its {STATE}"
    return CheckpointError(f"{target}: {what}; {advise_run(target) or advice}")


def elsewhere(folder: Path) -> str:
    """The advice for a checkpoint that cannot be used."""
    return f"use another checkpoint of {folder.parent}"


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        text = read_own(path, follow=True)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        manifest = json.loads(text)
        del manifest["check"]
        whole = text == _render(manifest).encode() and isinstance(manifest["format"], int)
        if whole and manifest["format"] <= FORMAT:
            whole = all(type(manifest[key]) is kind for key, kind in _FIELDS.items())
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise CheckpointError(f"{path}: damaged; {elsewhere(folder)}")
    if manifest["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: written by a newer cnntrain ({manifest.get('cnntrain')}, format {manifest['format']}, "
            f"this one reads up to {FORMAT}); install that version or a later one"
        )
    return dict(manifest)


def _render(manifest: dict[str, Any]) -> str:
    """The text of a manifest with a sha256 of itself: any other byte in the file is damage.

    It stays the same in each format, so that a newer one is known as newer and not as damaged.
    """
    check = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "check": check}, indent=2, sort_keys=True) + "\n"


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    reason = "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror or error})"
    return CheckpointError(f"{path}: {reason}; {elsewhere(path.parent)}")
