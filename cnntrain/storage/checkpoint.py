"""Checkpoints: written whole or not at all, verified when read. The only caller of torch.save and torch.load.

    run/checkpoints/last/      the newest save
    run/checkpoints/previous/  the one before it, used when `last` is damaged
    run/checkpoints/best/      the best validation score; hard links to the same files where the file system has them

Each folder holds `state.pt` (plain containers and tensors) and `manifest.json`. A save is written aside, synced and
renamed: whenever the process or the machine dies, `last` or `previous` is whole.
"""

import os
import pickle
import shlex
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cnntrain.errors import CheckpointError, UnsafeError
from cnntrain.storage import manifest, moves, state_form
from cnntrain.storage.atomic import HashingFile, file_system_error, fsync_folder, need_own_folder, open_own
from cnntrain.storage.manifest import MANIFEST, OLD, STATE, elsewhere, no_checkpoint, set_aside, verify
from cnntrain.storage.plain import leaves, plain
from cnntrain.storage.run_record import is_done, run_id

# Digests that this process wrote or verified: a rotation does not read the last save again to trust it.
_trusted: set[str] = set()


def save(run: Path, state: dict[str, Any], *, best: bool = False) -> None:
    """Save the state as `last`, and as `best` too if asked; the `last` before becomes `previous`.

    Args:
        run: the run folder.
        state: dict, list, tuple, str, int, float, bool, None and tensors, nested; among them `about.run_id` (str),
            `progress.step` and `progress.epoch` (int).

    Raises:
        FileSystemError: the disk is full, read-only or broken; what was saved before is intact.
        TypeError: the state holds anything else (our mistake), named by its place.
    """
    state = plain(state, "state")
    needed = sum(leaf.nbytes for _, leaf in leaves(state) if isinstance(leaf, torch.Tensor))
    folder = run / "checkpoints"
    need_own_folder(folder)
    new, old, new_best = (folder / f".tmp-{os.getpid()}-{name}" for name in ("new", "old", "best"))
    try:
        if not folder.is_dir():
            os.mkdir(folder)
            fsync_folder(run)
        moves.tidy(folder)
        digest = _write(new, state)
        if best:
            # Before `last`: `newest` goes on from it after a kill in between, and no run believes in a missing best.
            moves.link(new, new_best)
            moves.rename([(folder / "best", folder / f"{OLD}best"), (new_best, folder / "best")])
        _rotate(folder, new, old, state["about"]["run_id"])
        fsync_folder(folder)
        _trusted.add(digest)  # not before: a damaged `last` may claim the digest of the same step saved again
    except OSError as error:
        moves.tidy(folder)  # first, so that the free space told is what the user will find
        raise file_system_error(folder, error, what="the checkpoint cannot be saved", needed=needed) from error
    finally:
        moves.tidy(folder)


def load(folder: Path, *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Verify a checkpoint and read its state.

    The file is read, not mapped: mapped tensors handed to an optimizer would stay tied to the file for the whole run.

    Args:
        folder: one that holds `state.pt` and `manifest.json`, see `find`.
        map_location: the device of the tensors.

    Raises:
        CheckpointError: missing, damaged, or written by a newer cnntrain.
        UnsafeError: it holds more than containers and tensors.
    """
    _trusted.add(verify(folder)["sha256"])
    return _read(folder, map_location)


def annotate(folder: Path, **facts: Any) -> None:
    """Let a checkpoint say more of itself: `facts` go into its `about`, and all else stays to the bit.

    It is written anew beside the old one and takes its place. Other checkpoints of the run stay as they are, also those
    that were the same file.

    Args:
        folder: of the checkpoint; its run is in use by nobody else.
        facts: plain values; None takes one away.

    Raises:
        CheckpointError: it is missing or damaged.
        FileSystemError: it cannot be written; it is as it was.
    """
    state = load(folder)
    about = {key: value for key, value in state["about"].items() if key not in facts}
    state["about"] = about | {key: value for key, value in facts.items() if value is not None}
    own = folder.with_name(folder.name.removeprefix(OLD))  # what a kill in here has left is known by `find`
    new, old = folder.with_name(f".tmp-{os.getpid()}-new"), folder.with_name(OLD + own.name)
    needed = (folder / STATE).stat().st_size
    need_own_folder(folder)
    try:
        if folder == own:
            shutil.rmtree(old, ignore_errors=True)
        digest = _write(new, plain(state, "state"))
        moves.rename([(own, old), (new, own)])
        fsync_folder(own.parent)
        _trusted.add(digest)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)  # first, so that the free space told is what the user will find
        what, word = "the checkpoint cannot be saved", "a copy of the run"
        raise file_system_error(folder, error, what=what, needed=needed, word=word) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def newest(run: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a run and its state: in general `last`, else `previous`, else `best`.

    Args:
        run: the run folder.
        warn: takes one line when it is not `last`.

    Returns:
        Its folder and its state on the CPU; None when the run has saved nothing yet.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
        UnsafeError: a checkpoint holds more than containers and tensors.
        FileSystemError: something else is in the place of the folder of checkpoints.
    """
    known_id = run_id(run) or None
    checkpoints = run / "checkpoints"
    need_own_folder(checkpoints)  # before time is spent on what could not be saved
    moves.restore(checkpoints)  # the best one too, which a run goes on to compare with
    last, previous, best = (checkpoints / name for name in ("last", "previous", "best"))
    folders = [folder for folder in (last, previous, best) if folder.exists()]
    if manifest.step(best) > max(manifest.step(last), manifest.step(previous)):
        folders.insert(0, folders.pop())  # killed after `best` was put in place and before `last` was
    faults: list[str] = []
    for folder in folders:
        try:
            manifest_of_it = verify(folder, known_id)
            state = _read(folder)
        except CheckpointError as error:
            faults.append(str(error).partition(";")[0])
            continue
        _trusted.add(manifest_of_it["sha256"])
        if folder != last:
            reason = "; ".join(faults) or f"{last}: missing or not the newest, a save was cut short"
            warn(f"{reason}; using {folder} (step {manifest_of_it['step']})")
        return folder, state
    if not folders:
        return None
    raise CheckpointError(
        f"{checkpoints}: no usable checkpoint, {len(folders)} found, {len(faults)} damaged ({'; '.join(faults)}); "
        "restore one of these folders from a copy, or start a new run"
    )


def fault_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None if it is whole; its content is not looked at."""
    try:
        _trusted.add(verify(folder, trusted=_trusted)["sha256"])
    except CheckpointError as error:
        return str(error).partition(";")[0]
    return None


def read_tensors(path: Path, unsafe: str, harmless: Sequence[Any] = ()) -> dict[str, Any]:
    """What torch.save wrote to a file of any origin: containers and tensors, on the CPU.

    Args:
        unsafe: what to do about a file that is refused.
        harmless: classes and functions that may be called to rebuild other values.

    Raises:
        CheckpointError: it cannot be read, or holds no dict.
        UnsafeError: it holds other objects, such as a whole network.
    """
    with torch.serialization.safe_globals(list(harmless)):
        return _unpickle(path, "cpu", "weights", "give the state dict of a network, or a .safetensors file", unsafe)


def find(target: Path) -> Path:
    """The checkpoint folder meant by a run folder (its best, else last), a checkpoint folder or a state.pt file.

    Raises:
        CheckpointError: there is none.
    """
    if target.name == STATE and target.is_file():
        return target.parent
    if not target.exists():
        if (old := set_aside(target)).is_dir():
            return old
        raise no_checkpoint(target, "no such file or folder")
    if (target / MANIFEST).exists() or (target / STATE).exists():
        return target
    checkpoints = target if target.name == "checkpoints" else target / "checkpoints"
    for name in ("best", f"{OLD}best", "last", f"{OLD}last", "previous"):
        if (checkpoints / name).is_dir():
            return checkpoints / name
    if (target / "config.yaml").exists():
        if is_done(target):
            raise lost(target)
        again = f"cnntrain resume {shlex.quote(str(target))}"
        raise CheckpointError(
            f"{target}: this run has saved no checkpoint yet; wait for its first one, or go on with it by `{again}`"
        )
    raise no_checkpoint(target, "no cnntrain checkpoint there")


def lost(run: Path) -> CheckpointError:
    """The fault of a finished run without checkpoints; were it to start again, its results would be overwritten."""
    return CheckpointError(
        f"{run}: the run is finished and its checkpoints are gone; restore {run / 'checkpoints'} from a copy, or train "
        "anew in another folder, as config.yaml and command.txt tell"
    )


def _write(folder: Path, state: dict[str, Any]) -> str:
    """Write a checkpoint folder, synced; answers the sha256 of the state."""
    os.mkdir(folder)
    with open(open_own(folder / STATE, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        writer = HashingFile(file)
        torch.save(state, writer)  # type: ignore[arg-type]  # write and flush are all it calls
        if writer.error is not None:
            raise writer.error
        file.flush()
        os.fsync(file.fileno())
    digest, progress = writer.hash.hexdigest(), state["progress"]
    manifest.write(
        folder,
        run_id=state["about"]["run_id"],
        step=progress["step"],
        epoch=progress["epoch"],
        size=writer.size,
        sha256=digest,
        torch=torch.__version__,
    )
    fsync_folder(folder)
    return digest


def _rotate(folder: Path, new: Path, old: Path, run_id: str) -> None:
    last, previous = folder / "last", folder / "previous"
    try:
        verify(last, run_id, trusted=_trusted)
    except CheckpointError:
        moves.rename([(last, old), (new, last)])  # missing or damaged: it must not push a good `previous` out
    else:
        moves.rename([(previous, old), (last, previous), (new, last)])


def _read(folder: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    unsafe = "use a checkpoint from a source that you trust"
    state = _unpickle(folder / STATE, map_location, "training state", elsewhere(folder), unsafe)
    if place := state_form.fault(state):
        raise CheckpointError(f"{folder / STATE}: no {place} in it as cnntrain writes it; {elsewhere(folder)}")
    return state


def _unpickle(path: Path, map_location: str | torch.device, what: str, advice: str, unsafe: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():  # on pickle protocols that we never write; the refusal below says enough
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeError(
            f"{path}: refused, it holds more than tensors and plain values and could run a stranger's code; {unsafe}"
        ) from error
    except (RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0][:120]
        raise CheckpointError(f"{path}: no readable {what} ({reason}); {advice}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds no {what} but a {type(content).__name__}; {advice}")
    return content
