"""`cnntrain resume RUN_DIR [overrides]`: go on where a run was stopped, killed or finished."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cnntrain.commands.train import Order, Start, work
from cnntrain.config.changes import Change, find_changes
from cnntrain.config.run_config import settings_from_plain
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.errors import ConfigError
from cnntrain.runtime import device as machine
from cnntrain.runtime import distributed
from cnntrain.runtime.distributed import World
from cnntrain.storage import checkpoint, run_folder
from cnntrain.training.load_run import reached, refuse_foreign_code, refuse_other_split
from cnntrain.training.state import Progress


def resume(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Go on with the newest sound checkpoint; a run that has saved none yet starts again from its config.

    Raises:
        ConfigError: no run there, or an override that does not fit.
        CheckpointError: all checkpoints are damaged, or those of a finished run gone, or the changed model or data do
            not fit.
    """
    with distributed.joined(machine.exchange_backend()) as world:
        return go_on(folder, overrides, world) if world.is_first else work(None, world)


def go_on(folder: Path, overrides: list[str], world: World) -> dict[str, Any]:
    """The part of `resume` that the first process does."""
    plain = run_folder.read_config(folder)
    before = settings_from_plain(plain, source=str(folder / "config.yaml"))
    settings = settings_from_plain(plain, overrides, source=str(folder / "config.yaml"))
    refuse_foreign_code(settings, overrides, training=True)
    changes = find_changes(before, settings)
    refuse_other_split(changes)
    with run_folder.lock(folder):
        warnings: list[str] = []
        found = checkpoint.newest(folder, warnings.append)
        state = found[1] if found else None
        if not state and run_folder.is_done(folder):
            raise checkpoint.lost(folder)
        about = state["about"] if state else {}
        if state:
            refuse_end_behind(settings.trainer, state["progress"], changes, is_done=run_folder.is_done(folder))
            warnings += forget_lost_best(folder, state["progress"])
        if not run_folder.run_id(folder):
            warnings.append(f"{folder / run_folder.ENVIRONMENT}: missing or without an id of the run; written anew")
            run_folder.give_id(folder, about.get("run_id"))
        if state and (before_size := about.get("processes", 1)) != world.size:
            changes["processes"] = Change(before_size, world.size)
        return work(Order(settings, folder, overrides, Start(state, warnings, changes)), world)


def refuse_end_behind(
    trainer: TrainerSettings, progress: dict[str, Any], changes: Mapping[str, Change], *, is_done: bool
) -> None:
    """Refuse changes with which nothing would be trained: config.yaml would tell of a run that never was.

    Args:
        progress: of the checkpoint.
        changes: what is to be other than before.
        is_done: the run has come to its end.

    Raises:
        ConfigError: its new end lies behind, or it has come to its end and stays there.
    """
    epochs, steps, seconds = progress["epoch"] + (progress["batch"] > 0), progress["step"], progress["seconds"]
    ends = (
        ("trainer.epochs", trainer.epochs, trainer.epochs, epochs, f"in epoch {epochs}"),
        ("trainer.max_steps", trainer.max_steps, trainer.max_steps, steps, f"at step {steps}"),
        ("trainer.max_time", trainer.max_time, trainer.max_seconds(), seconds, f"at {seconds:.3g} seconds"),
    )
    for key, given, end, done, place in ends:
        if key in changes and end is not None and end < done:
            raise ConfigError(f"{key}: the run is {place} already (given {given}); give more, or leave it out")
    if is_done and changes and (reason := reached(trainer, Progress(**progress))):
        raise ConfigError(
            f"{next(iter(changes))}: the run is finished, {reason} is reached, and nothing would be trained with this "
            "change; raise that too, or start a new run"
        )


def forget_lost_best(folder: Path, progress: dict[str, Any]) -> list[str]:
    """Where the checkpoint of the best epoch is damaged, let it be chosen anew; lines that say so."""
    fault = checkpoint.fault_of(folder / "checkpoints" / "best") if progress["best_epoch"] else None
    if not fault:
        return []
    progress |= {key: value for key, value in asdict(Progress()).items() if key.startswith("best_")}
    return [f"{fault}; the best epoch is chosen anew among those to come"]
