"""The runs of a comparison: where each lies, what is missing for it, and what came of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnntrain.compare import plan
from cnntrain.compare.plan import Combination, Outcome
from cnntrain.config.overrides import quote
from cnntrain.config.paths import expand_path, need_image_folder, need_weights
from cnntrain.config.schema.data import DataSettings
from cnntrain.errors import ConfigError, DataError, RunFolderError
from cnntrain.runtime.child import STOPPED, Relay, cnntrain_command
from cnntrain.storage import run_record
from cnntrain.text import printable

# After these the next run would fail as well, or meet another process in its folder.
ENDING = (ConfigError.exit_code, DataError.exit_code, RunFolderError.exit_code)


def need_files(runs: Sequence[Combination], folders: Sequence[Path]) -> None:
    """Find what is missing before the first run starts; those that are finished need nothing any more."""
    for run, folder in zip(runs, folders, strict=True):
        data, weights = run.settings.data, run.settings.model.weights
        if finished_results(folder):
            continue
        if data.has_files:
            need_image_folder(expand_path(data.root))
            _need_scores(data)
        if weights and not _is_begun(folder):
            need_weights(expand_path(weights))


def _need_scores(data: DataSettings) -> None:
    """Raises ConfigError where no image would judge a run."""
    if data.val or data.folds:
        return
    from cnntrain.data.layout import find_splits  # torch comes with it

    if not {"val", "test"} & find_splits(expand_path(data.root), data.classes).folders.keys():
        raise ConfigError(
            "data.val: must be above 0 to compare by, as the images have neither val/ nor test/ (given 0); "
            "leave data.val=0 out"
        )


def run_all(runs: Sequence[Combination], folders: Sequence[Path], child: Relay) -> dict[Path, int]:
    """Run what is not finished, one after the other; the exit codes, by folder."""
    codes: dict[Path, int] = {}
    for number, (run, folder) in enumerate(zip(runs, folders, strict=True), 1):
        if finished_results(folder):
            continue
        goes_on = _is_begun(folder)
        say(f"run {number} of {len(runs)}: {run.label}" + (", which goes on" if goes_on else ""))
        codes[folder] = child.run(_resume_command(run, folder) if goes_on else _train_command(run, folder))
        if child.signum:
            break
        if codes[folder] in ENDING:
            say(f"run {number} of {len(runs)} cannot be made (exit code {codes[folder]}); none is started after it")
            break
    return codes


def _train_command(run: Combination, folder: Path) -> list[str]:
    return cnntrain_command("train", *run.words, f"hydra.run.dir={quote(str(folder))}")


def _resume_command(run: Combination, folder: Path) -> list[str]:
    return cnntrain_command("resume", str(folder), *run.settings.users_code())


def folder_of(home: Path, run: Combination) -> Path:
    """The folder where this config has run, or is to run: the lists, which its name tells of, may have been others."""
    for folder in sorted(home.glob(f"*_{run.digest}*")):
        if _is_begun(folder) and run_record.read_config(folder) == run.plain:
            return folder
    number, folder = 1, home / run.name
    while _is_begun(folder):  # resumed with other values since
        number += 1
        folder = home / f"{run.name}-{number}"
    return folder


def _is_begun(folder: Path) -> bool:
    """Whether a run has started there."""
    return (folder / run_record.CONFIG).exists()


def finished_results(folder: Path) -> dict[str, Any]:
    """The results of a finished run; empty of any other."""
    results = run_record.read_results(folder)
    return results if results.get("status") == "done" else {}


def outcome_of(run: Combination, folder: Path, code: int | None) -> Outcome:
    """What came of a run.

    Args:
        code: its exit code; None: it was not started.
    """
    results = run_record.read_results(folder)
    status_on_disk = str(results.get("status", "waiting"))
    if status_on_disk == "done":
        return Outcome(run, folder, status_on_disk, plan.measures(results))
    status = ("interrupted" if code in STOPPED else "failed") if code else status_on_disk
    note = str(results.get("error", "")) if status == status_on_disk else ""  # else it is that of an earlier end
    return Outcome(run, folder, status, note=": ".join(filter(None, [f"exit code {code}" if code else "", note])))


def say(line: str) -> None:
    print(printable(line), flush=True)  # before a run that writes to the same terminal
