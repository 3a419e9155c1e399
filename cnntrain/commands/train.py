"""`cnntrain train`: from settings to a finished run."""

from pathlib import Path
from typing import Any

from cnntrain.config.schema.settings import Settings
from cnntrain.errors import CheckpointError, ConfigError, DataError, FileSystemError, UnsafeError
from cnntrain.report.session import describe, follow, lead
from cnntrain.runtime import device as machine
from cnntrain.runtime import distributed
from cnntrain.storage import run_folder
from cnntrain.training.resume import Start


def train(settings: Settings, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train from scratch in a new run folder; answers what results.json holds."""
    with distributed.joined(machine.exchange_backend()) as world:
        if not world.is_first:
            return follow(world)
        start = Start(settings, folder, overrides)
        with run_folder.lock(folder):
            run_folder.refuse_used(folder)
            try:
                # Before anything that takes time: a run killed before its first save starts again from this.
                describe(start)
                return lead(start, world)
            except (ConfigError, DataError, CheckpointError, UnsafeError, FileSystemError):
                if not (folder / "checkpoints").exists():
                    run_folder.remove_unstarted(folder)
                raise
