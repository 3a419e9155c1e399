"""The run or the runs of a checked command line, with what Hydra does around them. Nothing here imports torch."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.cli import sweep
from cnntrain.cli.exit import INTERRUPTED, TERMINATED, exit_code
from cnntrain.cli.failure import reason
from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.scores import main_score
from cnntrain.errors import ConfigError, ResourceError
from cnntrain.runtime import signals
from cnntrain.runtime.group import tells
from cnntrain.runtime.world import World
from cnntrain.storage import run_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from cnntrain.config.compose import Composition
    from cnntrain.config.run_config import RunConfig

Work = Callable[["RunConfig", Path], Any]  # of a config and a run folder; may answer what results.json holds


def run_once(composition: "Composition", folder: Path, work: Work, *, keeps: bool = True) -> int:
    """Do one run, in the surroundings that its `hydra` part asks for; answers its exit code.

    Hydra's run_job makes these (logging, callbacks, environment, current folder), as it does for each job of a sweep;
    nothing is composed or checked again.

    Args:
        keeps: whether the folder of a run stays, and may hold the traceback of a bug.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import configure_log, run_job
    from hydra.types import HydraContext, RunMode
    from omegaconf import read_write

    tree, composer = composition.tree, composition.composer
    with read_write(tree.hydra):
        tree.hydra.run.dir, tree.hydra.mode = str(folder), RunMode.RUN
    config, codes = composition.config, []

    def job(_: "DictConfig") -> None:
        codes.append(_job(lambda cwd: config, work, None, keeps)[0])

    with _hydra_errors():
        configure_log(tree.hydra.hydra_logging, tree.hydra.verbose)
        callbacks = Callbacks(tree)
        callbacks.on_run_start(config=tree, config_name=composer.config_name)
        result = run_job(
            task_function=job,
            config=tree,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(config_loader=composer.loader, callbacks=callbacks),
        )
        callbacks.on_run_end(config=tree, config_name=composer.config_name, job_return=result)
    return codes[0]


def run_sweep(composition: "Composition", words: list[str], folder: Path, work: Work, *, keeps: bool = True) -> int:
    """Let Hydra run all jobs of a sweep; answers the exit code of the first that failed.

    Args:
        words: the overrides of the line.
        folder: of the sweep, where the jobs tell how they ended.
        keeps: whether the folders of jobs stay, and may hold the traceback of a bug.
    """
    from concurrent.futures import BrokenExecutor

    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    from cnntrain.config.check import settings_of
    from cnntrain.config.overrides import quote
    from cnntrain.config.run_config import RunConfig

    codes: list[int] = []
    home, notes = os.getpid(), sweep.open_notes(folder)
    words = [*words, f"hydra.sweep.dir={quote(str(folder))}", "hydra.mode=MULTIRUN"]

    def job(tree: "DictConfig") -> float | None:  # in whatever process the launcher chooses
        from hydra.core.hydra_config import HydraConfig

        config = HydraConfig.get()
        overrides, option = tuple(config.overrides.task), str(config.runtime.choices.model)
        is_child = os.getpid() != home
        with signals.caught(lambda signum, _: signals.end_now(signum)) if is_child else contextlib.nullcontext():
            code, score = _job(lambda cwd: RunConfig(settings_of(tree, cwd), overrides, option), work, notes, keeps)
        codes.append(code)
        if code in (INTERRUPTED, TERMINATED):  # the user wants all of a sweep to end
            if is_child:
                sweep.end(notes)  # a launcher kills the other jobs, which are saving, where one leaves with an error
            else:
                sys.exit(code)
        return score

    composer, error = composition.composer, None
    global_hydra = GlobalHydra.instance()
    global_hydra.clear()
    hydra = Hydra(task_name="cnntrain", config_loader=composer.loader)
    global_hydra.initialize(hydra)
    try:
        with _signals_forwarded(notes, codes), _hydra_errors():
            hydra.multirun(config_name=composer.config_name, task_function=job, overrides=words)
    except SystemExit as end:
        codes.append(end.code if isinstance(end.code, int) else 1)
    except Exception as failure:
        error = failure
    finally:
        global_hydra.clear()
        jobs = sweep.read_notes(notes)
    sweep.tell(jobs, is_stopped=bool({INTERRUPTED, TERMINATED}.intersection(codes)))
    if error and not any(job.code for job in jobs):  # else a launcher or sweeper has stumbled over these
        raise ResourceError(f"a job of the sweep: {sweep.LOSS}") if isinstance(error, BrokenExecutor) else error
    return next((code for code in [*(job.code for job in jobs), *codes] if code), 0)


def ask_hydra(options: argparse.Namespace, overrides: list[str]) -> int:
    """Let Hydra answer the flags that only show something: --cfg, --info, --hydra-help and -sc.

    Args:
        options: the flags, as its own parser has read them.
    """
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from cnntrain.config.sources import TYPES, register_type

    version.setbase("1.3")
    for path in TYPES:
        register_type(path)
    options.overrides = overrides
    argv = sys.argv
    sys.argv = ["cnntrain"]  # it names the program in what it prints, and knows the name from nowhere else
    try:
        with _hydra_errors():
            _run_hydra(options, get_args_parser(), lambda tree: None, str(conf_dir()), "train")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = argv
    return 0


@contextlib.contextmanager
def _signals_forwarded(notes: Path, codes: list[int]) -> Iterator[None]:
    """Inside this block a signal to the process of a sweep is one to its jobs, wherever on this machine they run.

    Args:
        codes: gets the exit code that the signal asks for.
    """

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
def _hydra_errors() -> Iterator[None]:
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


def _job(config: Callable[[str], "RunConfig"], work: Work, notes: Path | None, keeps: bool) -> tuple[int, float | None]:
    """One job: its exit code, and the validation score, which a sweeper may want to improve.

    Args:
        config: its config, where the user's folder is this one; hydra.job.chdir may have changed ours.
        notes: of a sweep.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    results: list[Any] = []
    reasons: list[str] = []
    overrides = list(hydra_config.overrides.task)
    if notes and sweep.is_ended(notes):
        run_folder.remove_empty(folder)
        return 0, None
    if notes:
        print(f"job {hydra_config.job.num}: {' '.join(overrides)}", flush=True)
        sweep.note(notes, sweep.Job(hydra_config.job.num, overrides))

    def attempt() -> None:
        try:
            results.append(work(config(hydra_config.runtime.cwd), folder))
        except BaseException as error:
            reasons.append(reason(error))
            raise

    code = exit_code(attempt, lambda: folder if keeps and World.here().is_first else None, tells)
    if notes:
        sweep.note(notes, sweep.Job(hydra_config.job.num, overrides, code, "".join(reasons)))
        run_folder.remove_empty(folder)
    validation = results[0].get("val") if results and isinstance(results[0], dict) else None
    return code, validation[main_score(validation)] if validation else None
