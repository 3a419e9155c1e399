"""`cnntrain compare [lists] [out=DIR]`: each combination of listed values as a run, and one table of all."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from cnntrain.compare import plan
from cnntrain.compare.plan import Combination, Outcome
from cnntrain.compare.record import CHARTS, RECORD, TABLE, WORD, has_logs, tables_folder, write_charts, write_numbers
from cnntrain.compare.runs import finished_results, folder_of, need_files, outcome_of, run_all, say
from cnntrain.config.schema.commands import CompareArgs
from cnntrain.errors import Interrupted
from cnntrain.runtime.child import Relay, relay
from cnntrain.storage.atomic import file_system_error
from cnntrain.text import one_line

HOME = Path("outputs/compare")


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
    folders = [folder_of(home, run) for run in runs]
    need_files(runs, folders)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_system_error(home, error, what="the folder cannot be made", word=WORD) from error
    count = sum(bool(finished_results(folder)) for folder in folders)
    say(f"compare: {len(runs)} runs in {home}" + (f", {count} of them finished already" if count else ""))
    with starter() as child:
        codes = run_all(runs, folders, child)
    outcomes = [outcome_of(run, folder, codes.get(folder)) for run, folder in zip(runs, folders, strict=True)]
    _show(home, outcomes, words)
    total = sum(outcome.is_done for outcome in outcomes)
    if child.signum and total < len(runs):
        raise Interrupted(
            child.signum, f"stopped with {total} of {len(runs)} runs finished; go on with {args.command_line}"
        )
    return next((code for code in codes.values() if code), 0)


def _show(home: Path, outcomes: Sequence[Outcome], words: Sequence[str]) -> None:
    """The table on the terminal and in files; of runs that failed, why."""
    rows, measure = plan.rows(outcomes), plan.judged_by(outcomes)
    best_row = plan.best_row(rows, measure)
    if best_row:
        from cnntrain.compare.table import table

        say("")
        for line in table(rows, measure, best_row):
            say(line)
    for outcome in outcomes:
        if outcome.status == "failed":
            say(f"failed: {outcome.run.label} ({outcome.note})")
    if best_row is None:
        with suppress(OSError):
            home.rmdir()  # only where no run has left anything
        return
    tables = tables_folder(home, words)
    write_numbers(tables, rows, measure, best_row, words)
    try:
        write_charts(tables, rows, measure, best_row, title=home.name)
    except Exception as error:  # no fault of drawing or logging ends the work of hours
        say(f"warning: not all of the pictures: {one_line(error)}")
    best = max(best_row.finished_outcomes, key=lambda outcome: outcome.measures[measure])
    say("wrote " + ", ".join([str(tables / TABLE), *(name for name in (RECORD, *CHARTS) if (tables / name).exists())]))
    say("next  " + shlex.join(["cnntrain", "eval", str(best.folder), *best.run.settings.users_code(training=False)]))
    if has_logs(rows):
        say("      " + shlex.join(["tensorboard", "--logdir", str(home)]))
