"""What became of the jobs of a sweep, whatever process or machine of a launcher each of them ran in.

Each job leaves a note in the folder of the sweep, which all of them share; the process that started them reads the
notes at the end. Hydra's own way to answer, a job's return value, is the score that a sweeper may want to improve.
"""

import json
import os
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cnntrain.cli.exit import INTERRUPTED, TERMINATED, say
from cnntrain.errors import CnntrainError, ResourceError, UnsafeError
from cnntrain.storage.atomic import write_atomic
from cnntrain.storage.run_folder import SWEEP
from cnntrain.text import printable

NOTES = ".jobs"  # in the folder of the sweep, while it runs
END = "ended"  # among the notes: no further job is to begin
LOSS = "its process ended without a word: it was killed, or memory was short"


@dataclass(frozen=True)
class Job:
    """One job; as it is noted at its start, it counts as lost."""

    number: int
    overrides: Sequence[str]
    code: int = ResourceError.exit_code
    reason: str = LOSS
    machine: str = field(default_factory=platform.node)
    process: int = field(default_factory=os.getpid)

    @property
    def has_failed(self) -> bool:
        return self.code not in (0, INTERRUPTED, TERMINATED)


def open_notes(folder: Path) -> Path:
    """The folder where the jobs of a sweep leave their notes; those of an earlier sweep go.

    Raises:
        UnsafeError: a link lies where Hydra would write.
    """
    if (folder / SWEEP).is_symlink():
        raise UnsafeError(
            f"{printable(folder / SWEEP)}: is a link, and what it leads to would be written over; remove it"
        )
    notes = (folder / NOTES).absolute()  # a job may run in a folder of its own
    shutil.rmtree(notes, ignore_errors=True)
    if os.path.lexists(notes):  # a link or a file, which is no folder of notes
        notes.unlink()
    return notes


def note(notes: Path, job: Job) -> None:
    """Write down how a job stands; a disk that is full has told of itself in the job."""
    with suppress(OSError, CnntrainError):
        notes.mkdir(parents=True, exist_ok=True)
        write_atomic(notes / f"{job.number}.json", json.dumps(asdict(job)))


def end(notes: Path, signum: int | None = None) -> bool:
    """Let no further job begin; answers whether any runs in another process of this machine, which gets the signal."""
    has_told = False
    with suppress(OSError):
        notes.mkdir(parents=True, exist_ok=True)
        (notes / END).touch()
    for job in _jobs(notes):
        elsewhere = job.machine == platform.node() and job.process != os.getpid()
        if signum and elsewhere and job.reason == LOSS and job.process > 1:  # below stand groups, and all processes
            with suppress(OSError):  # it has just ended
                os.kill(job.process, signum)
                has_told = True
    return has_told


def is_ended(notes: Path) -> bool:
    """Whether a signal has asked for the end of the sweep."""
    return (notes / END).exists()


def _jobs(notes: Path) -> list[Job]:
    jobs = []
    for file in notes.glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            job = Job(**json.loads(file.read_text(encoding="utf-8")))
            jobs += [job] if isinstance(job.process, int) and isinstance(job.number, int) else []
    return sorted(jobs, key=lambda job: job.number)


def read_notes(notes: Path) -> list[Job]:
    """All jobs that have begun, by number; the notes are gone then.

    One that a signal ended in this very process, between its first note and its work, counts as not begun.
    """
    jobs = [job for job in _jobs(notes) if job.reason != LOSS or job.process != os.getpid()]
    shutil.rmtree(notes, ignore_errors=True)
    with suppress(OSError):
        if [path.name for path in notes.parent.iterdir()] == [SWEEP]:  # no job has come as far as its first file
            (notes.parent / SWEEP).unlink()
    return jobs


def tell(jobs: Sequence[Job], *, is_stopped: bool = False) -> None:
    """The jobs that failed, on stderr, and what to do after a signal; nothing where there was neither."""
    failures = [job for job in jobs if job.has_failed]
    if is_stopped and jobs:
        say(f"jobs begun: {len(jobs)}; resume those that were stopped, and start the others by a line of their own")
    if failures:
        say(f"{len(failures)} of {len(jobs)} jobs failed")
    for job in failures:
        say(f"job {job.number}: exit code {job.code}: {printable(' '.join(job.overrides))}: {job.reason}")
