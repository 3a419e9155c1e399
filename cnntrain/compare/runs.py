"""The runs of a comparison: where each lies, what is missing for it, and what came of it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnntrain.compare import outcomes
from cnntrain.compare.outcomes import SCORES, Outcome, score_title
from cnntrain.compare.plan import Combination
from cnntrain.compare.progress import Line, say
from cnntrain.config.need_images import need_images
from cnntrain.config.overrides import quote
from cnntrain.config.paths import expand_path, need_weights
from cnntrain.config.schema.data import DataSettings
from cnntrain.config.schema.scores import TITLES, main_score
from cnntrain.errors import ConfigError, DataError, RunFolderError
from cnntrain.report.csv_log import latest_rows
from cnntrain.runtime.child import STOPPED, Relay, cnntrain_command
from cnntrain.storage import run_record
from cnntrain.text import clock, percent

# After these the next run would fail as well, or meet another process in its folder.
ENDING = (ConfigError.exit_code, DataError.exit_code, RunFolderError.exit_code)
NAME, FAULT = "cnntrain: ", "cnntrain: error: "  # what a command begins its lines and its reasons with


class End(NamedTuple):
    """The end of a process: its exit code, and what it said of it."""

    code: int
    reason: str = ""


def need_files(runs: Sequence[Combination], folders: Sequence[Path]) -> None:
    """Find what is missing before the first run starts; those that are finished need nothing any more."""
    for run, folder in zip(runs, folders, strict=True):
        data, weights = run.settings.data, run.settings.model.weights
        if finished_results(folder):
            continue
        need_images(data)
        if data.has_files and data.is_users:
            _need_scores(data)
        if weights and not _is_begun(folder):
            need_weights(expand_path(weights))


def _need_scores(data: DataSettings) -> None:
    """Raises ConfigError where no image would judge a run."""
    if data.val or data.folds:
        return
    from cnntrain.data.sources import splits_of  # torch comes with it

    if not {"val", "test"} & splits_of(data):
        raise ConfigError(
            "data.val: must be above 0 to compare by, as the images have neither val nor test (given 0); "
            "leave data.val=0 out"
        )


def run_all(runs: Sequence[Combination], folders: Sequence[Path], child: Relay) -> dict[Path, End]:
    """Run what is not finished, one after the other, with a line for each; how they ended, by folder."""
    ends: dict[Path, End] = {}
    for number, (run, folder) in enumerate(zip(runs, folders, strict=True), 1):
        if finished_results(folder):
            continue
        place = f"run {number} of {len(runs)}"
        ends[folder] = _run(place, run, folder, child)
        if child.signum:
            break
        if (code := ends[folder].code) in ENDING:
            say(f"{place} cannot be made (exit code {code}); none is started after it")
            break
    return ends


def _run(place: str, run: Combination, folder: Path, child: Relay) -> End:
    """Start or resume one run, and show its line."""
    goes_on, start = _is_begun(folder), time.monotonic()
    command = _resume_command(run, folder) if goes_on else _train_command(run, folder)
    with Line(place, run.short_label + (", which goes on" if goes_on else "")) as line:
        code = child.run(command, lambda: line.show(_state(run, folder, child, start)))
        end = End(code, _reason(child.said))
        line.end(_result(outcome_of(run, folder, end), time.monotonic() - start))
    return end


def _reason(said: Sequence[str]) -> str:
    """Why a command failed, from what it has said on stderr: its errors, else the last words that are not its own."""
    errors = [line.removeprefix(FAULT) for line in said if line.startswith(FAULT)]
    others = [line for line in said if line.strip() and not line.startswith(NAME)]
    return "; ".join(errors or others[-1:])


def _state(run: Combination, folder: Path, child: Relay, start: float) -> str:
    """How far a run is, for a line that lives: `epoch 3/10  val top-1 71.20%  0:01:12`."""
    words = [clock(time.monotonic() - start)]
    if child.signum:
        return "  ".join(["stopping after this step", *words])
    rows = latest_rows(folder / "metrics.csv")
    for row in reversed(rows):
        if row["kind"] == "epoch" and (value := row[f"val_{(score := main_score(row, 'val_'))}"]):
            words.insert(0, f"val {TITLES[score]} {percent(float(value))}")
            break
    return "  ".join([f"epoch {rows[-1]['epoch']}/{run.settings.trainer.epochs}" if rows else "starting", *words])


def _result(outcome: Outcome, seconds: float) -> str:
    """What came of a run, for its line."""
    if not outcome.is_done:
        return f"failed: {outcome.note}" if outcome.status == "failed" else outcome.status
    scores = [name for names in SCORES.values() for name in names if name in outcome.measures]
    known = [f"{score_title(name)} {percent(outcome.measures[name])}" for name in scores[:1]]
    return "  ".join([*known, clock(seconds)])


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


def outcome_of(run: Combination, folder: Path, end: End | None) -> Outcome:
    """What came of a run.

    Args:
        end: of its process; None: it was not started.
    """
    results = run_record.read_results(folder)
    status_on_disk = str(results.get("status", "waiting"))
    if status_on_disk == "done":
        return outcomes.outcome(run, folder, results)
    if end is None or not end.code:
        return Outcome(run, folder, status_on_disk, note=str(results.get("error", "")))
    status = "interrupted" if end.code in STOPPED else "failed"
    # What lies on the disk may be the reason of an earlier end.
    reason = end.reason or (str(results.get("error", "")) if status == status_on_disk else "")
    return Outcome(run, folder, status, note=": ".join(filter(None, [f"exit code {end.code}", reason])))
