"""`cnntrain resume RUN_DIR [overrides]`: go on where a run was stopped, killed or finished."""

from pathlib import Path
from typing import Any

from cnntrain import checkpoint, config, runfolder
from cnntrain.commands.setup import refuse_foreign_code, refuse_other_split
from cnntrain.commands.train import Start, work


def resume(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Go on with the newest sound checkpoint; a run without any starts again from its config.

    Raises:
        ConfigError: no run there, or an override that does not fit.
        CheckpointError: all checkpoints are damaged, or the changed model or data do not fit.
    """
    plain = runfolder.read_config(folder)
    before = config.from_plain(plain, source=str(folder / "config.yaml"))
    settings = config.from_plain(plain, overrides, source=str(folder / "config.yaml"))
    refuse_foreign_code(settings, overrides, training=True)
    differences = config.differences(before, settings)
    refuse_other_split(differences)
    with runfolder.lock(folder):
        warnings: list[str] = []
        found = checkpoint.newest(folder, warnings.append)
        return work(settings, folder, overrides, Start(found[1] if found else None, warnings, differences))
