"""`cnntrain resume RUN_DIR [overrides]`: go on where a run was stopped, killed or finished."""

from pathlib import Path
from typing import Any

from cnntrain import checkpoint, config, distributed, runfolder
from cnntrain import device as machine
from cnntrain.commands.saved import refuse_foreign_code, refuse_other_split
from cnntrain.commands.train import Order, Start, work
from cnntrain.distributed import World


def resume(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Go on with the newest sound checkpoint; a run without any starts again from its config.

    Raises:
        ConfigError: no run there, or an override that does not fit.
        CheckpointError: all checkpoints are damaged, or the changed model or data do not fit.
    """
    with distributed.joined(machine.exchange_backend()) as world:
        return go_on(folder, overrides, world) if world.is_first else work(None, world)


def go_on(folder: Path, overrides: list[str], world: World) -> dict[str, Any]:
    """The part of `resume` that the first process does."""
    plain = runfolder.read_config(folder)
    before = config.from_plain(plain, source=str(folder / "config.yaml"))
    settings = config.from_plain(plain, overrides, source=str(folder / "config.yaml"))
    refuse_foreign_code(settings, overrides, training=True)
    differences = config.differences(before, settings)
    refuse_other_split(differences)
    with runfolder.lock(folder):
        warnings: list[str] = []
        found = checkpoint.newest(folder, warnings.append)
        if found and (before_size := found[1]["about"].get("processes", 1)) != world.size:
            differences.append(f"processes: {before_size} -> {world.size}")
        start = Start(found[1] if found else None, warnings, differences)
        return work(Order(settings, folder, overrides, start), world)
