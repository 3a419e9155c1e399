"""A sweep answers for its jobs, in whatever process a launcher of Hydra runs them."""

import os
import signal
import sys
import time
import types
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from cnntrain import cli
from cnntrain.cli import dispatch, sweep
from cnntrain.config.compose import make_composer
from cnntrain.errors import DataError, NonFiniteError, UnsafeError
from cnntrain.runtime import signals
from cnntrain.storage.run_folder import SWEEP


class Forking(Launcher):
    """Each job in a process of its own, as joblib's launcher does it; answers nothing of what they answer."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        children = []
        for number, words in enumerate(job_overrides, start=initial_job_idx):
            if "seed=7" in words:  # as if all workers were busy
                _until(lambda: (Path("many") / sweep.NOTES / sweep.END).exists())
            children.append(self._start(list(words), number))
            if "seed=5" in words:
                _until(lambda: any(Path("many").glob("*/begun")))
        if any(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children):
            raise RuntimeError("a worker process has ended")
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=None) for _ in children]

    def _start(self, words: list[str], number: int) -> int:
        if child := os.fork():
            return child
        try:
            config = self.context.config_loader.load_sweep_config(self.config, words)
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            HydraConfig.instance().set_config(config)
            run_job(
                hydra_context=self.context,
                config=config,
                task_function=self.task,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)


def _until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.05)  # what is waited for happens in another process, which tells nobody
    raise TimeoutError


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher above, and a command whose result depends on the seed."""
    package: Any = types.ModuleType("hydra_plugins")  # where Hydra looks for them
    package.__path__ = []
    package.forking = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "hydra_plugins", package)
    monkeypatch.setitem(sys.modules, "hydra_plugins.forking", package.forking)
    monkeypatch.setattr(Forking, "__module__", "hydra_plugins.forking")
    Plugins.instance().register(Forking)
    target = {"_target_": "hydra_plugins.forking.Forking"}
    ConfigStore.instance().store(group="hydra/launcher", name="forking", node=target)
    make_composer().known_options.clear()  # a process has one composer, which may have looked before

    def work(args: Any, chosen: Any) -> None:
        settings = chosen.settings
        if settings.seed == 1:
            raise NonFiniteError("loss: nan\nand more")
        if settings.seed == 2:
            raise DataError("a.png: damaged")
        if settings.seed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.seed >= 5:
            with signals.handle_signals() as stop:
                (args.out / "begun").touch()
                if settings.seed == 6:
                    os.kill(os.getppid(), settings.trainer.epochs)
                _until(lambda: stop.requested)
                assert stop.signum
                raise signals.interrupted(stop.signum)

    monkeypatch.setattr(dispatch, "_load", lambda command: work)
    monkeypatch.chdir(tmp_path)


LINE = ["-m", "hydra/launcher=forking"]


@pytest.mark.parametrize(
    ("word", "code", "told"),
    [
        ("seed=0,4", 0, []),
        (
            "seed=0,2,1",
            3,
            [
                "2 of 3 jobs failed",
                "job 1: exit code 3: seed=2: a.png: damaged",
                "job 2: exit code 5: seed=1: loss: nan",
            ],
        ),
        ("seed=0,3", 7, ["1 of 2 jobs failed", f"job 1: exit code 7: seed=3: {sweep.LOSS}"]),
    ],
)
@pytest.mark.usefixtures("launched")
def test_a_failed_job_in_another_process_is_told_and_has_its_exit_code(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, word: str, code: int, told: list[str]
) -> None:
    assert cli.main([*LINE, word, "out=many"]) == code
    err = capfd.readouterr().err
    assert [line for line in err.splitlines() if "error" not in line] == [f"cnntrain: {line}" for line in told]
    assert "Traceback" not in err
    assert not (tmp_path / "many" / sweep.NOTES).exists()


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.usefixtures("launched")
def test_a_signal_to_a_sweep_reaches_the_jobs_which_save_and_no_further_one_begins(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, signum: int, code: int
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main([*LINE, "seed=5,6,7", f"trainer.epochs={int(signum)}", "out=many"]) == code
    err = capfd.readouterr().err
    assert err.count("stopped and saved") == 2
    assert "jobs begun: 2; resume those that were stopped, and start the others" in err
    assert sorted(path.name for path in (tmp_path / "many").iterdir() if path.is_dir()) == [
        "0_digits_lenet5",
        "1_digits_lenet5",
    ]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str)
@pytest.mark.usefixtures("launched")
def test_a_signal_before_the_first_job_ends_a_sweep_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, signum: int, code: int
) -> None:
    monkeypatch.setattr(Forking, "launch", lambda *rest, **more: signal.raise_signal(signum))
    assert cli.main([*LINE, "seed=0,4", "out=many"]) == code
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("launched")
def test_a_worker_that_is_killed_before_its_job_begins_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def launch(*rest: Any, **more: Any) -> None:
        raise BrokenProcessPool("a worker was terminated")

    monkeypatch.setattr(Forking, "launch", launch)
    assert cli.main([*LINE, "seed=0,4", "out=many"]) == 7
    assert capfd.readouterr().err == f"cnntrain: error: a job of the sweep: {sweep.LOSS}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("launched")
def test_a_signal_between_two_jobs_of_this_process_is_no_lost_job(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    note = sweep.note

    def signal_after(notes: Path, job: sweep.Job) -> None:
        note(notes, job)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(sweep, "note", signal_after)
    assert cli.main(["-m", "seed=0,4", "out=many"]) == 143
    assert capfd.readouterr().err == "cnntrain: ended at once; nothing more was saved\n"


@pytest.mark.usefixtures("launched")
def test_notes_of_an_earlier_sweep_are_not_those_of_this_one(tmp_path: Path) -> None:
    sweep.note(sweep.open_notes(tmp_path / "many"), sweep.Job(7, ["seed=7"], 5, "of yesterday"))
    assert cli.main([*LINE, "seed=0,4", "out=many"]) == 0


@pytest.mark.usefixtures("launched")
def test_a_sweep_of_check_answers_for_its_jobs_too(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["check", *LINE, "seed=0,2"]) == 3
    assert "job 1: exit code 3: seed=2" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_that_fails_by_itself_is_told_in_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["-m", "seed=0,1", "hydra.sweeper.max_batch_size=x"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1


def test_a_note_of_a_stranger_sends_no_signal_to_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, signum: sent.append(process))
    for number, process in enumerate([-1, 0, 1, "7", os.getpid(), 4_000_000]):
        sweep.note(tmp_path, sweep.Job(number, [], process=process))  # type: ignore[arg-type]
    sweep.note(tmp_path, sweep.Job(9, [], machine="another", process=4_000_001))
    assert sweep.end(tmp_path, signal.SIGTERM)
    assert sent == [4_000_000]


def test_no_link_in_the_folder_of_a_sweep_is_written_through(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "7.json").write_text("mine")
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / sweep.NOTES).symlink_to(theirs)
    notes = sweep.open_notes(folder)
    sweep.note(notes, sweep.Job(0, ["seed=0"], 0, ""))
    assert [job.number for job in sweep.read_notes(notes)] == [0]
    assert [path.name for path in theirs.iterdir()] == ["7.json"]
    (folder / SWEEP).symlink_to(theirs / "7.json")
    with pytest.raises(UnsafeError, match=r"multirun\.yaml: is a link"):
        sweep.open_notes(folder)
