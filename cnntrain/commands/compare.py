"""`cnntrain compare [lists] [out=DIR]`: each combination of listed values as a run, and one table of all."""

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from cnntrain.compare import plan
from cnntrain.compare.plan import MEASURES, REPEATS, Combination, Outcome, Repeats
from cnntrain.config.overrides import quote
from cnntrain.config.paths import expand_path, need_image_folder, need_weights
from cnntrain.config.schema.commands import CompareArgs
from cnntrain.config.schema.data import DataSettings
from cnntrain.errors import ConfigError, DataError, Interrupted, RunFolderError
from cnntrain.runtime.child import STOPPED, Relay, cnntrain_command, relay
from cnntrain.storage import run_record, spreadsheet
from cnntrain.storage.atomic import file_system_error, read_own, write_atomic
from cnntrain.text import one_line, printable

HOME, WORD = Path("outputs/compare"), "out=DIR"
# After these the next run would fail as well, or meet another process in its folder.
ENDING = (ConfigError.exit_code, DataError.exit_code, RunFolderError.exit_code)
EVENTS = ".compare"  # the end of the name of our event file
TABLE, RECORD = "compare.csv", "compare.json"
CHARTS = {"compare.png": "png", "compare.svg": "svg"}  # by name, their kind


def run(
    args: CompareArgs,
    runs: Sequence[Combination],
    starter: Callable[[], AbstractContextManager[Relay]] = relay,
) -> int:
    """Run what is not finished, each run in a process of its own, and show all of them beside each other.

    Args:
        runs: as `comparison.plan` orders them.

    Returns:
        0, or the exit code of the first run that failed.

    Raises:
        Interrupted: a signal ended the run in hand, which has saved.
        FileSystemError: the folder cannot be written.
        DataError, CheckpointError: images or weights of a run that is not finished are not there.
    """
    words = args.line[1:]  # after the command
    home = args.out or HOME / plan.folder_name(runs)
    folders = [_folder(home, run) for run in runs]
    _need_files(runs, folders)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_system_error(home, error, what="the folder cannot be made", word=WORD) from error
    finished = sum(bool(_done(folder)) for folder in folders)
    _say(f"compare: {len(runs)} runs in {home}" + (f", {finished} of them finished already" if finished else ""))
    with starter() as passing:
        codes = _run_all(runs, folders, passing)
    outcomes = [_outcome(run, folder, codes.get(folder)) for run, folder in zip(runs, folders, strict=True)]
    _show(home, outcomes, words)
    done = sum(outcome.done for outcome in outcomes)
    if passing.signum and done < len(runs):
        raise Interrupted(passing.signum, f"stopped with {done} of {len(runs)} runs finished; go on with {args.typed}")
    return next((code for code in codes.values() if code), 0)


def _need_files(runs: Sequence[Combination], folders: Sequence[Path]) -> None:
    """Find what is missing before the first run starts; those that are finished need nothing any more."""
    for run, folder in zip(runs, folders, strict=True):
        data, weights = run.settings.data, run.settings.model.weights
        if _done(folder):
            continue
        if data.has_files:
            need_image_folder(expand_path(data.root))
            _need_scores(data)
        if weights and not _begun(folder):
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


# --- the runs --------------------------------------------------------------------------------------------------------


def _run_all(runs: Sequence[Combination], folders: Sequence[Path], passing: Relay) -> dict[Path, int]:
    """Run what is not finished, one after the other; the exit codes, by folder."""
    codes: dict[Path, int] = {}
    for number, (run, folder) in enumerate(zip(runs, folders, strict=True), 1):
        if _done(folder):
            continue
        begun = _begun(folder)
        _say(f"run {number} of {len(runs)}: {run.label}" + (", which goes on" if begun else ""))
        codes[folder] = passing.run(_resume(run, folder) if begun else _train(run, folder))
        if passing.signum:
            break
        if codes[folder] in ENDING:
            _say(f"run {number} of {len(runs)} cannot be made (exit code {codes[folder]}); none is started after it")
            break
    return codes


def _train(run: Combination, folder: Path) -> list[str]:
    return cnntrain_command("train", *run.words, f"hydra.run.dir={quote(str(folder))}")


def _resume(run: Combination, folder: Path) -> list[str]:
    return cnntrain_command("resume", str(folder), *run.settings.users_code())


def _folder(home: Path, run: Combination) -> Path:
    """Where this config has run, or is to run: the lists may have been others then, which the name tells of."""
    for folder in sorted(home.glob(f"*_{run.digest}*")):
        if _begun(folder) and run_record.read_config(folder) == run.plain:
            return folder
    number, folder = 1, home / run.name
    while _begun(folder):  # resumed with other values since
        number += 1
        folder = home / f"{run.name}-{number}"
    return folder


def _begun(folder: Path) -> bool:
    """Whether a run has started there."""
    return (folder / run_record.CONFIG).exists()


def _done(folder: Path) -> dict[str, Any]:
    """The results of a finished run; empty of any other."""
    results = run_record.read_results(folder)
    return results if results.get("status") == "done" else {}


def _outcome(run: Combination, folder: Path, code: int | None) -> Outcome:
    """What came of a run.

    Args:
        code: its exit code; None: it was not started.
    """
    results = run_record.read_results(folder)
    known = str(results.get("status", "waiting"))
    if known == "done":
        return Outcome(run, folder, known, plan.measures(results))
    status = ("interrupted" if code in STOPPED else "failed") if code else known
    said = str(results.get("error", "")) if status == known else ""  # else it is that of an earlier end
    return Outcome(run, folder, status, note=": ".join(filter(None, [f"exit code {code}" if code else "", said])))


# --- what is told ----------------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(printable(line), flush=True)  # before a run that writes to the same terminal


def _show(home: Path, outcomes: Sequence[Outcome], words: Sequence[str]) -> None:
    """The table on the terminal and in files; of runs that failed, why."""
    rows, measure = plan.rows(outcomes), plan.judged_by(outcomes)
    best = plan.best(rows, measure)
    if best:
        from cnntrain.compare.table import table

        _say("")
        for line in table(rows, measure, best):
            _say(line)
    for outcome in outcomes:
        if outcome.status == "failed":
            _say(f"failed: {outcome.run.label} ({outcome.note})")
    if best is None:
        with suppress(OSError):
            home.rmdir()  # only where no run has left anything
        return
    tables = _tables(home, words)
    _write_numbers(tables, rows, measure, best, words)
    try:
        _write_pictures(tables, rows, measure, best, title=home.name)
    except Exception as error:  # no fault of drawing or logging ends the work of hours
        _say(f"warning: not all of the pictures: {one_line(error)}")
    first = max(best.done, key=lambda outcome: outcome.measures[measure])
    _say("wrote " + ", ".join([str(tables / TABLE), *(name for name in (RECORD, *CHARTS) if (tables / name).exists())]))
    _say("next  " + shlex.join(["cnntrain", "eval", str(first.folder), *first.run.settings.users_code(training=False)]))
    if _logged(rows):
        _say("      " + shlex.join(["tensorboard", "--logdir", str(home)]))


def _tables(home: Path, words: Sequence[str]) -> Path:
    """Where the tables go: beside the runs, which all comparisons share, if those of no other one lie there already."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _, _, *other = shlex.split(json.loads(read_own(home / RECORD))["command"])
        if plan.subject(other) != plan.subject(words):
            folder = home / plan.tables_name(words)
            folder.mkdir(exist_ok=True)
            return folder
    return home


def _logged(rows: Sequence[Repeats]) -> bool:
    return any(outcome.run.settings.trainer.tensorboard for row in rows for outcome in row.done)


def _write_numbers(tables: Path, rows: Sequence[Repeats], measure: str, best: Repeats, words: Sequence[str]) -> None:
    """compare.json and compare.csv: every row and every run."""
    numbers = [_row_numbers(row) | {"best": row is best} for row in rows]
    runs = [_run_numbers(outcome) for row in rows for outcome in row.outcomes]
    record = {"command": shlex.join(["cnntrain", "compare", *words]), "judged_by": measure, "rows": numbers}
    text = json.dumps(record | {"runs": runs}, indent=2, ensure_ascii=False)
    write_atomic(tables / RECORD, text + "\n", word=WORD)

    keys = [*rows[0].values, *REPEATS]
    spreads = [column for name in MEASURES for column in (name, f"{name}_std")]
    heads = ["kind", *keys, "status", "runs", "best", *spreads, "folder"]
    lines: list[dict[str, Any]] = []
    for line in numbers:
        pairs = {name: pair for name in MEASURES if (pair := line[name])}
        means = {name: pair["mean"] for name, pair in pairs.items()}
        stds = {f"{name}_std": pair["std"] for name, pair in pairs.items()}
        status = "done" if line["done"] == line["runs"] else f"{line['done']} done"
        given = {"status": status, "runs": line["runs"], "best": int(line["best"])}
        lines.append({"kind": "row"} | line["values"] | given | means | stds)
    for line in runs:
        known = {name: line[name] for name in (*MEASURES, "status", "folder")}
        lines.append({"kind": "run"} | line["values"] | known)
    table = spreadsheet.as_csv([heads, *([line.get(head) for head in heads] for line in lines)])
    write_atomic(tables / TABLE, table, word=WORD)


def _row_numbers(row: Repeats) -> dict[str, Any]:
    spreads = {name: row.spread(name) for name in MEASURES}
    pairs = {name: spread and {"mean": spread.mean, "std": spread.std} for name, spread in spreads.items()}
    return {"values": row.values, "runs": len(row.outcomes), "done": len(row.done)} | pairs


def _run_numbers(outcome: Outcome) -> dict[str, Any]:
    run = outcome.run
    known = {name: outcome.measures.get(name) for name in MEASURES}
    return {
        "values": run.values | run.repeat,
        "status": outcome.status,
        "note": outcome.note,
        "folder": str(outcome.folder),
    } | known


def _write_pictures(tables: Path, rows: Sequence[Repeats], measure: str, best: Repeats, *, title: str) -> None:
    """The charts, and a page of TensorBoard beside those of the runs."""
    from cnntrain.compare.table import curves_of, markdown, points
    from cnntrain.plots.comparison import Point, draw_comparison

    def known(outcome: Outcome) -> list[Point]:
        return points(outcome.folder / "metrics.csv", outcome.measures.get("train_seconds", 0.0))

    epochs = [[known(outcome) for outcome in row.done] for row in rows]
    curves = curves_of(rows, measure, epochs)
    if not curves:  # somebody has tidied up
        return
    picture = draw_comparison(curves, f"{title}: {len(rows)} configs, {sum(len(row.done) for row in rows)} runs")
    for name, kind in CHARTS.items():
        write_atomic(tables / name, picture.content(kind), word=WORD)
    for old in tables.glob(f"events.out.tfevents.*{EVENTS}"):
        old.unlink()
    if _logged(rows):
        from cnntrain.report.tensorboard import TensorBoardLog

        log = TensorBoardLog(tables, suffix=EVENTS)
        log.text("compare/table", markdown(rows, measure, best), 0)
        log.picture("compare/curves", picture.pixels(), 0)
        log.close()
