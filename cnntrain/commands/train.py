"""`cnntrain train`: from settings to a finished run."""

from typing import Any

from cnntrain.commands.report import after_training
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import TrainArgs
from cnntrain.errors import CheckpointError, ConfigError, DataError, FileSystemError, UnsafeError
from cnntrain.inspect.live_view import LiveView
from cnntrain.report.csv_log import has_rows
from cnntrain.report.session import describe, follow, lead
from cnntrain.runtime import device as machine
from cnntrain.runtime.group import joined, note_run
from cnntrain.storage import run_folder
from cnntrain.training.resume import Start


def run(args: TrainArgs, config: RunConfig) -> dict[str, Any]:
    """Train from scratch in a new run folder, which is `out`; answers what results.json holds."""
    folder = args.out
    assert folder is not None
    trainer = config.settings.trainer
    with joined(trainer.device, trainer.deterministic, machine.exchange_backend) as world:
        if not world.is_first:
            return follow(world)[0]
        start = Start(config.settings, folder, list(config.overrides), args.command_line)
        with run_folder.lock(folder):
            run_folder.refuse_used(folder)
            note_run(folder)
            try:
                # Before anything that takes time: a run killed before its first save starts again from this.
                describe(start)
                results, commands = lead(start, world, LiveView)
            except (ConfigError, DataError, CheckpointError, UnsafeError, FileSystemError):
                # One that has lost its checkpoints on the way can start again from its config.
                if not (folder / "checkpoints").exists() and not has_rows(folder):
                    run_folder.remove_unstarted(folder)
                raise
    after_training(folder, config.settings, commands)
    return results
