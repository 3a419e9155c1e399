"""`cnntrain resume RUN_DIR [overrides]`: go on where a run was stopped, killed or finished."""

from pathlib import Path
from typing import Any

from cnntrain.report.session import follow, lead
from cnntrain.runtime import device as machine
from cnntrain.runtime import distributed
from cnntrain.storage import run_folder
from cnntrain.training.resume import changed_settings, find_start


def resume(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Go on with the newest sound checkpoint; a run that has saved none yet starts again from its config.

    Raises:
        ConfigError: no run there, or an override that does not fit.
        CheckpointError: all checkpoints are damaged, or those of a finished run gone, or the changed model or data do
            not fit.
    """
    with distributed.joined(machine.exchange_backend()) as world:
        if not world.is_first:
            return follow(world)
        settings, changes = changed_settings(folder, overrides)
        with run_folder.lock(folder):
            return lead(find_start(folder, settings, overrides, changes, world), world)
