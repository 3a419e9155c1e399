"""What a run folder says of its run."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnntrain.config.changes import Change, find_changes
from cnntrain.config.plain import to_plain
from cnntrain.config.run_config import RunConfig, restore_config
from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.config.schema.settings import Settings
from cnntrain.errors import CnntrainError
from cnntrain.page.history import LARGEST, History, read_history
from cnntrain.registry import is_dotted
from cnntrain.storage import run_record
from cnntrain.storage.atomic import read_own
from cnntrain.storage.manifest import STATE
from cnntrain.storage.run_folder import LOG, WARNING

TITLES = ("data.title", "model.title")  # which name folders, and change nothing of the run


@dataclass(frozen=True)
class Run:
    """The files of a run, as far as they are there and can be read.

    Attributes:
        settings: as the run had them, or as the words of the command have changed them.
        commands: the lines that have started it and resumed it.
        environment, results: see storage.run_record; empty where they are not known.
        warnings: what the training has warned of, each once.
    """

    folder: Path
    settings: Settings
    history: History
    commands: tuple[str, ...]
    environment: dict[str, Any]
    results: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.settings.heading

    @property
    def classes(self) -> list[str]:
        """The names of the classes; none where they are not known."""
        names = self.environment.get("classes")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def ended(self) -> str:
        """Why it ended: a key of TrainerSettings, `interrupted`, `failed`; or "" where that is not known."""
        status = self.results.get("status")
        return str(self.results.get("ended") or "") if status == "done" else str(status or "")

    @property
    def has_checkpoint(self) -> bool:
        return any((self.folder / "checkpoints").glob(f"*/{STATE}"))

    @property
    def best_epoch(self) -> int | None:
        """By validation, as far as the run came; None where nothing validates."""
        scored = [row for row in self.history.epochs if row.val_score is not None]
        if not scored:
            return None
        known = self.results.get("best_epoch")
        if known in (epochs := [row.epoch for row in scored]):
            return epochs[epochs.index(known)]  # not what was read: to Python, True is 1
        return max(scored, key=lambda row: (row.val_score or 0.0, -(row.val_loss or 0.0))).epoch

    def number(self, *keys: str) -> float | None:
        """A number of results.json, by its keys from the outermost in; None where none is there."""
        value: Any = self.results
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
        return float(value) if is_number else None

    def images(self, split: str) -> int:
        """How many images a split has, as results.json says; 0 where that is not known."""
        count = self.number("images", split)
        return int(count) if count and count >= 1 else 0


def read_run(folder: Path, config: RunConfig | None = None) -> Run:
    """Read a run folder.

    Args:
        config: that of the folder, where it has been read.

    Raises:
        CheckpointError: no run lies there.
        ConfigError: its config.yaml cannot be read.
    """
    settings = config.settings if config else restore_config(run_record.read_config(folder)).settings
    environment: dict[str, Any] = {}
    commands = log = ""
    with suppress(CnntrainError):
        environment = run_record.read_environment(folder)
    with suppress(OSError):
        commands = read_own(folder / run_record.COMMAND).decode("utf-8", "surrogateescape")
    with suppress(OSError):
        log = read_own(folder / LOG).decode("utf-8", "backslashreplace")
    warnings = (line.removeprefix(WARNING) for line in log.split("\n") if line.startswith(WARNING))
    return Run(
        folder,
        settings,
        read_history(folder / "metrics.csv"),
        tuple(commands.splitlines()),
        environment,
        run_record.read_results(folder),
        tuple(dict.fromkeys(warnings)),
    )


def differences(settings: Settings) -> dict[str, Change]:
    """The keys whose values are not the defaults, with both values.

    The defaults of optimizer, schedule and network are those of the chosen ones.
    """
    entry = NETWORKS.find(settings.model.name)
    args = to_plain(entry.settings()) if entry and not is_dotted(settings.model.name) else {}
    model = ModelSettings(args={key: args[key] for key in settings.model.args if key in args})
    defaults = Settings(model=model, optimizer=type(settings.optimizer)(), schedule=type(settings.schedule)())
    changes = find_changes(defaults, settings)
    return {key: change for key, change in changes.items() if change.after is not None and key not in TITLES}
