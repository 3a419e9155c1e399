"""`cnntrain report RUN_DIR [overrides] [out=FILE.html]`: a run on one page, and what stands out in it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cnntrain.config.run_config import RunConfig, restore_config
from cnntrain.config.schema.run_commands import ReportArgs
from cnntrain.config.schema.settings import Settings
from cnntrain.page.build import Page
from cnntrain.report.run_report import Report
from cnntrain.storage import run_record
from cnntrain.storage.atomic import write_atomic
from cnntrain.storage.run_folder import PAGE
from cnntrain.text import one_line, printable, short_path, wrap

WORD = "out=FILE.html"
MOST_FINDINGS = 5  # that the terminal shows


def run(args: ReportArgs, config: RunConfig | None = None) -> Path:
    """Write the page of a run, say what stands out, and answer where it lies.

    Args:
        config: that of the run folder, where it is known.

    Raises:
        CheckpointError: no run lies there.
        UnsafeError: it names functions of a stranger's.
        FileSystemError: the file cannot be written.
    """
    report = Report(None, tensorboard=False)
    try:
        return _write(args.run, args.out or args.run / PAGE, report, config, args.words)
    finally:
        report.close()


def after_training(folder: Path, settings: Settings, commands: Sequence[str]) -> None:
    """Write the page of a run that has just ended, where its settings ask for one; a fault of that costs a warning.

    Args:
        commands: what the user may want to type next, which is told last.
    """
    if not settings.trainer.report:
        return
    report = Report(None, tensorboard=False)
    words = settings.users_code()
    report.say(f"writing {PAGE}: the images are scored once more")
    try:
        config = restore_config(run_record.read_config(folder), words)
        _write(folder, folder / PAGE, report, config, words)
    except Exception as error:  # the run is done, and its results are kept
        again = shlex.join(["cnntrain", "report", short_path(folder), *words])
        report.end_phase()
        report.warn(f"no {PAGE}: {printable(one_line(error))}; the run is whole, try again with {again}")
    finally:
        report.end_phase()
        report.suggest(commands)
        report.close()


def _write(
    folder: Path, out: Path, report: Report, config: RunConfig | None, words: tuple[str, ...] | list[str]
) -> Path:
    page = Page(folder, report, config, words)
    write_atomic(out, page.build(), word=WORD)
    found = [finding.line for finding in page.findings[:MOST_FINDINGS]]
    for line in found or ["nothing stands out: no over-fitting, no unstable loss, no class that is never predicted"]:
        for part in wrap(line, indent=2):
            report.say(part)
    report.say(f"wrote {printable(short_path(out))}", copied=True)
    return out
