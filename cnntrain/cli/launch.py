"""The job or the jobs of a checked command line, as Hydra's launchers run them. Nothing here imports torch."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.cli import sweep
from cnntrain.cli.exit import INTERRUPTED, TERMINATED, guard, reason
from cnntrain.config.paths import conf_dir
from cnntrain.errors import ConfigError, ResourceError
from cnntrain.runtime import signals
from cnntrain.runtime.distributed import World, tells

if TYPE_CHECKING:
    from omegaconf import DictConfig

Work = Callable[
    [Any, Path, list[str]], Any
]  # of settings, run folder and overrides; may answer what results.json holds

guarded = functools.partial(guard, tells=tells)


def call_hydra(
    flags: list[str], overrides: list[str], work: Work, *, sweep_folder: Path | None = None, keeps: bool = True
) -> int:
    """Let Hydra run one job, or all of a sweep; answers the exit code, of a sweep that of the first job that failed.

    Args:
        sweep_folder: where the jobs of a sweep tell how they ended; None for a single one.
        keeps: whether the folder of a job stays, and may hold the traceback of a bug.
    """
    import hydra

    from cnntrain.config.sources import register_types

    typed, codes, home = sys.argv, [], os.getpid()
    notes = sweep.open_notes(sweep_folder) if sweep_folder else None

    def job(tree: "DictConfig") -> float | None:  # of a sweep, in whatever process the launcher chooses
        sys.argv = typed  # Hydra has read its own line; commands note what the user typed
        apart = os.getpid() != home
        with signals.caught(lambda signum, _: signals.end_now(signum)) if apart else contextlib.nullcontext():
            code, score = _job(tree, work, notes, keeps)
        codes.append(code)
        if code in (INTERRUPTED, TERMINATED):  # the user wants all of a sweep to end
            if notes and apart:
                sweep.end(notes)  # a launcher kills the other jobs, which are saving, where one leaves with an error
            else:
                sys.exit(code)
        return score

    register_types()
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)
    error: Exception | None = None
    sys.argv = ["cnntrain", *flags, *overrides]
    try:
        with _passing_on(notes, codes), _errors_of_hydra():
            entry()
    except SystemExit as end:
        codes.append(end.code if isinstance(end.code, int) else 1)
    except Exception as failure:
        error = failure
    finally:
        sys.argv = typed
        jobs = sweep.read_notes(notes) if notes else []
    sweep.tell(jobs, stopped=bool({INTERRUPTED, TERMINATED}.intersection(codes)))
    if error and not any(job.code for job in jobs):  # else a launcher or sweeper has stumbled over these
        raise ResourceError(f"a job of the sweep: {sweep.LOST}") if isinstance(error, BrokenExecutor) else error
    return next((code for code in [*(job.code for job in jobs), *codes] if code), 0)


@contextlib.contextmanager
def _passing_on(notes: Path | None, codes: list[int]) -> Iterator[None]:
    """Inside this block a signal to the process of a sweep is one to its jobs, wherever on this machine they run.

    Args:
        codes: gets the exit code that the signal asks for.
    """
    if notes is None:
        yield
        return

    def tell_jobs(line: str) -> bool:
        if not sweep.end(notes, stop.signum):
            signals.end_now(signals.asked_for(stop))
        return True  # they say that they are stopping

    with signals.handle_signals(tell_jobs) as stop:
        try:
            yield
        finally:
            codes += [128 + signals.asked_for(stop)] if stop.requested else []


@contextlib.contextmanager
def _errors_of_hydra() -> Iterator[None]:
    """Inside this block Hydra raises its errors and prints no traceback; what it cannot take becomes a ConfigError."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    name = "HYDRA_FULL_ERROR"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(reason(error)) from error
    except (TypeError, ValueError, AssertionError) as error:
        # The jobs tell of their own: this is a value that Hydra has not checked.
        raise ConfigError(f"hydra: {reason(error)}; correct the words that begin with hydra") from error
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _job(tree: "DictConfig", work: Work, notes: Path | None, keeps: bool) -> tuple[int, float | None]:
    """One job: its exit code, and the validation accuracy, which a sweeper may want to improve."""
    from hydra.core.hydra_config import HydraConfig

    from cnntrain.config.check import settings_of

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    results: list[Any] = []
    reasons: list[str] = []
    overrides = list(hydra_config.overrides.task)
    if notes and sweep.is_ended(notes):
        _remove_empty(folder)
        return 0, None
    if notes:
        print(f"job {hydra_config.job.num}: {' '.join(overrides)}", flush=True)
        sweep.note(notes, sweep.Job(hydra_config.job.num, overrides))
    cwd = hydra_config.runtime.cwd  # of the user; hydra.job.chdir may have changed ours

    def attempt() -> None:
        try:
            results.append(work(settings_of(tree, cwd), folder, overrides))
        except BaseException as error:
            reasons.append(reason(error))
            raise

    code = guarded(attempt, lambda: folder if keeps and World.here().is_first else None)
    if notes:
        sweep.note(notes, sweep.Job(hydra_config.job.num, overrides, code, "".join(reasons)))
    _remove_empty(folder)
    validation = results[0].get("val") if results and isinstance(results[0], dict) else None
    return code, validation["top1"] if validation else None


def _remove_empty(folder: Path) -> None:
    """That of a job that failed, or was not to begin, before its first file."""
    with contextlib.suppress(OSError):
        folder.rmdir()
