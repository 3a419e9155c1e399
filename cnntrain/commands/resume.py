"""`cnntrain resume RUN_DIR [overrides]`: go on where a run was stopped, killed or finished."""

from typing import Any

from cnntrain.commands.report import after_training
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.run_commands import ResumeArgs
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.inspect.live_view import LiveView
from cnntrain.report.session import follow, lead
from cnntrain.runtime import device as machine
from cnntrain.runtime.group import joined
from cnntrain.storage import run_folder
from cnntrain.training.load_run import refuse_foreign_code, refuse_other_split
from cnntrain.training.resume import find_start


def run(args: ResumeArgs, config: RunConfig | None) -> dict[str, Any]:
    """Go on with the newest sound checkpoint; a run that has saved none yet starts again from its config.

    Args:
        config: that of the run folder, in the process that has it.

    Raises:
        ConfigError: an override that does not fit.
        CheckpointError: all checkpoints are damaged, or those of a finished run gone, or the changed model or data do
            not fit.
    """
    trainer = config.settings.trainer if config else TrainerSettings()  # those of the first process count
    with joined(trainer.device, trainer.deterministic, machine.exchange_backend) as world:
        if not world.is_first:
            return follow(world)[0]
        assert config is not None
        refuse_foreign_code(config.settings, config.overrides, training=True)
        refuse_other_split(config.changes)
        with run_folder.lock(args.run):
            results, commands = lead(find_start(args.run, config, args.command_line, world), world, LiveView)
    after_training(args.run, config.settings, commands)
    return results
