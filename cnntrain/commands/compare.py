"""`cnntrain compare [lists | RUN_DIR ...] [out=DIR]`: several configs or several runs, and one table of all."""

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from cnntrain.compare import existing, outcomes, plan
from cnntrain.compare.outcomes import Repeats
from cnntrain.compare.plan import Combination
from cnntrain.compare.progress import say
from cnntrain.compare.record import (
    CHARTS,
    RECORD,
    TABLE,
    WORD,
    has_logs,
    tables_folder,
    write_charts,
    write_numbers,
)
from cnntrain.compare.runs import finished_results, folder_of, need_files, outcome_of, run_all
from cnntrain.config.schema.commands import CompareArgs
from cnntrain.errors import ConfigError, Interrupted
from cnntrain.runtime.child import Relay, relay
from cnntrain.storage import run_folder
from cnntrain.text import one_line, wrap

HOME = Path("outputs/compare")


def run(
    args: CompareArgs,
    runs: Sequence[Combination] | Sequence[Path],
    starter: Callable[[], AbstractContextManager[Relay]] = relay,
) -> int:
    """Compare what is to be trained, or what has been.

    Args:
        runs: as `compare.plan` orders them, or folders: of runs, or in which runs lie.

    Returns:
        0, or the exit code of the first run that failed.

    Raises:
        Interrupted: a signal ended the run in hand, which has saved.
        FileSystemError: the folder cannot be written.
        DataError, CheckpointError: images or weights of a run that is not finished are not there; a folder holds no
            run, or one without results.
    """
    folders = [one for one in runs if isinstance(one, Path)]
    if folders:
        return _compare_existing(args, folders)
    return _train(args, [one for one in runs if isinstance(one, Combination)], starter)


def _train(args: CompareArgs, runs: Sequence[Combination], starter: Callable[[], AbstractContextManager[Relay]]) -> int:
    """Run what is not finished, each run in a process of its own, and show all of them beside each other."""
    words = args.line[1:]  # after the command
    home = args.out or HOME / plan.folder_name(runs)
    folders = [folder_of(home, run) for run in runs]
    need_files(runs, folders)
    run_folder.make(home, word=WORD)
    count = sum(bool(finished_results(folder)) for folder in folders)
    say(f"compare: {len(runs)} runs in {home}" + (f", {count} of them finished already" if count else ""))
    with starter() as child:
        ends = run_all(runs, folders, child)
    found = [outcome_of(run, folder, ends.get(folder)) for run, folder in zip(runs, folders, strict=True)]
    rows, measure = outcomes.rows(found), outcomes.judged_by(found)
    best_row = _show_table(rows, measure)
    for outcome in found:
        if outcome.status == "failed":
            say(f"failed: {outcome.run.label} ({outcome.note})")
    if outcomes.best_row(rows, measure):
        _write(tables_folder(home, words), rows, measure, best_row, words, title=home.name)
        commands = [["tensorboard", "--logdir", str(home)]] if has_logs(rows) else []
        if best_row:
            best = best_row.best(measure)
            commands.append(["cnntrain", "eval", str(best.folder), *best.run.settings.users_code(training=False)])
            commands.append(["cnntrain", "train", *plan.row_words(best.run, runs)])
        _show_next(commands)
    else:
        with suppress(OSError):
            home.rmdir()  # only where no run has left anything
    total = sum(outcome.is_done for outcome in found)
    if child.signum and total < len(runs):
        raise Interrupted(
            child.signum, f"stopped with {total} of {len(runs)} runs finished; go on with {args.command_line}"
        )
    return next((end.code for end in ends.values() if end.code), 0)


def _compare_existing(args: CompareArgs, paths: Sequence[Path]) -> int:
    """Show runs that exist beside each other; with `out`, in files too."""
    folders, notes = existing.find(paths)
    found, more_notes = existing.outcomes_of(folders)
    if len(found) < 2:
        raise ConfigError(f"compare: nothing to compare with {folders[0]}; give more runs, or a folder that holds some")
    outcomes.need_one_kind(found)
    home = Path(os.path.relpath(os.path.commonpath([outcome.folder.resolve() for outcome in found])))
    say(f"compare: {len(found)} runs in {home}")
    for number, outcome in enumerate(found, 1):
        name = os.path.relpath(outcome.folder.resolve(), home.resolve())
        for line in wrap(f"run {number} of {len(found)}  {name}  {outcome.run.short_label}", indent=6):
            say(line)
    for note in [*notes, *more_notes]:
        say(note)
    rows, measure = outcomes.rows(found), outcomes.judged_by(found)
    best_row = _show_table(rows, measure)
    if not outcomes.best_row(rows, measure):
        return 0
    if args.out:
        run_folder.make(args.out, word=WORD)
        words = args.line[1:]
        _write(tables_folder(args.out, words), rows, measure, best_row, words, title="comparison")
    logs = [["tensorboard", "--logdir", str(home)]] if has_logs(rows) else []
    use = [["cnntrain", "eval", str(best_row.best(measure).folder)]] if best_row else []
    _show_next([*logs, *use])
    return 0


def _show_table(rows: Sequence[Repeats], measure: str) -> Repeats | None:
    """Show the table where any run has a score; answer its best row, if the images of all rows are the same."""
    best_row = outcomes.best_row(rows, measure)
    if not best_row:
        return None
    from cnntrain.compare.table import legend, table

    is_fair = existing.share_images(rows, measure)
    best_row = best_row if is_fair else None
    for line in ["", *table(rows, measure, best_row), *legend(rows, measure)]:
        say(line)
    if not is_fair:
        say("these runs were not all scored on the same images, so none is the best")
    return best_row


def _write(
    tables: Path, rows: Sequence[Repeats], measure: str, best: Repeats | None, words: Sequence[str], *, title: str
) -> None:
    write_numbers(tables, rows, measure, best, words)
    try:
        write_charts(tables, rows, measure, best, title=title)
    except Exception as error:  # no fault of drawing or logging ends the work of hours
        say(f"warning: not all of the pictures: {one_line(error)}")
    say("wrote " + ", ".join([str(tables / TABLE), *(name for name in (RECORD, *CHARTS) if (tables / name).exists())]))


def _show_next(commands: Sequence[Sequence[str]]) -> None:
    """What one may want to type now; the last one is the likeliest."""
    for number, words in enumerate(commands):
        say(("      " if number else "next  ") + shlex.join(words))
