"""trainer.devices=N starts N processes of this machine, which train together as under torchrun."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cnntrain import cli
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.errors import ConfigError, DataError, ResourceError
from cnntrain.runtime import group, launcher, launcher_link, lost_process
from cnntrain.runtime.launcher import processes_to_start

SHORT = ["data.limit=200", "trainer.epochs=1", "trainer.device=cpu", "trainer.tensorboard=false"]


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """What would be started, in a folder of its own."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "launch", lambda count, line: calls.append((count, line)) or 5)
    return calls


def test_train_and_resume_start_as_many_processes_as_the_config_says(launched, tmp_path):
    line = [*SHORT, "trainer.devices=3", "out=run"]
    assert cli.main(line) == 5
    assert launched.pop() == (3, line)
    assert not list(tmp_path.iterdir())
    assert cli.main([*SHORT, "out=run"]) == 0
    assert cli.main(["resume", "run", "trainer.devices=2"]) == 5
    assert launched == [(2, ["resume", "run", "trainer.devices=2"])]


def test_batch_norms_over_processes_on_a_cpu_are_refused_before_any_is_started(launched, capsys):
    assert cli.main([*SHORT, "trainer.devices=2", "model.sync_bn=true"]) == 2
    fault = "cnntrain: error: model.sync_bn: torch has no batch norm over several processes on cpu (given True); leave"
    assert capsys.readouterr().err.startswith(fault)
    assert launched == []


def test_auto_is_one_process_per_gpu_and_one_where_there_is_none(monkeypatch):
    assert processes_to_start(TrainerSettings(devices="auto"), []) == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes_to_start(TrainerSettings(devices="auto"), []) == 4
    assert processes_to_start(TrainerSettings(devices="auto", device="cpu"), []) == 0
    assert processes_to_start(TrainerSettings(devices=2, device="cpu"), []) == 2


def test_processes_that_were_started_start_none(started):
    started(1, 2)
    assert processes_to_start(TrainerSettings(devices=4), []) == 0
    assert processes_to_start(TrainerSettings(devices=2), ["trainer.devices=2"]) == 0
    with pytest.raises(ConfigError, match=r"trainer.devices: 2 processes were started already \(given 4\); leave it"):
        processes_to_start(TrainerSettings(devices=4), ["trainer.devices=4"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.devices=0"], "trainer.devices: must be a whole number >= 1, or auto"),
        (["trainer.devices=al"], "trainer.devices: "),
        (["trainer.devices=2", "trainer.device=cuda:1"], "trainer.device: must be auto, cuda or cpu with trainer.dev"),
        (["trainer.devices=2", "seed=1,2", "-m"], "trainer.devices: a job of a sweep runs in one process (given 2)"),
    ],
)
def test_what_several_processes_cannot_do_is_told_before_any_starts(launched, capsys, words, line):
    assert cli.main(words) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"cnntrain: error: {line}")
    assert not launched


def start(*words):
    line = [sys.executable, "-m", "cnntrain", *words]
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(process, word):
    assert any(word in line for line in process.stdout)


@pytest.mark.slow
def test_two_processes_are_started_speak_once_stop_on_a_signal_and_miss_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*SHORT, "trainer.devices=2", "trainer.epochs=3000", "trainer.save_every=5", "out=run"]
    process = start(*words)
    until(process, "epoch    2/3000")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines()[-1] == "cnntrain: stopped and saved; go on with cnntrain resume run"
    assert not out.count("epoch    1/3000")
    assert json.loads(Path("run/environment.json").read_text())["processes"] == 2

    process = start("resume", "run")
    until(process, "resumed at step")
    until(process, "epoch ")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 7
    (line,) = (line for line in err.splitlines() if line.startswith("cnntrain: error: "))
    assert line.startswith("cnntrain: error: trainer.devices: process 1 was ended by SIGKILL; ")

    step = json.loads(Path("run/results.json").read_text())["status"]
    assert step in ("failed", "interrupted")
    process = start("resume", "run", "trainer.epochs=4")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.count("\ndone\n")) == (0, 1), err


@pytest.mark.slow
def test_processes_whose_launcher_was_killed_save_and_end_and_its_folder_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    process = start(*SHORT, "trainer.devices=2", "trainer.epochs=3000", "trainer.save_every=100h", "out=run")
    until(process, "epoch    2/3000")
    assert list(tmp_path.glob("tmp/cnntrain-*"))
    process.kill()
    _, err = process.communicate(timeout=60)  # both have ended, as nobody holds the pipe any more
    assert err.splitlines()[-1] == "cnntrain: stopped and saved; go on with cnntrain resume run"
    assert json.loads(Path("run/results.json").read_text())["status"] == "interrupted"
    assert not list(tmp_path.glob("tmp/cnntrain-*"))


PARENT = """
import subprocess, sys, time
from pathlib import Path
from cnntrain.runtime.launcher_link import introduced
with introduced(Path(sys.argv[1])):
    subprocess.Popen([sys.executable, "-c", sys.argv[2]])
time.sleep(60)
"""
CHILD = """
import os, signal, sys, time
from cnntrain.runtime import launcher_link
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), os._exit(0)))
launcher_link.TICK = 0.01
launcher_link.watch_launcher()
assert launcher_link.VARIABLE not in os.environ
print("works", flush=True)
time.sleep(60)
"""


def test_a_process_is_asked_to_end_when_its_launcher_was_killed(tmp_path):
    (tmp_path / "launcher").mkdir()
    words = [sys.executable, "-c", PARENT, str(tmp_path / "launcher"), CHILD]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "works\n"
    process.kill()
    assert process.communicate(timeout=30)[0] == "saved\n"
    assert not (tmp_path / "launcher").exists()


@pytest.fixture
def missing(started, monkeypatch, tmp_path):
    """As if this process, of two that our launcher has started in that folder, had lost the other."""
    started(1, 2)
    monkeypatch.setattr(launcher_link, "_folder", tmp_path)
    monkeypatch.setattr(launcher_link, "_run", "")
    monkeypatch.setattr(group, "_store", SimpleNamespace(add=lambda name, number: 1))
    return lost_process.error_of(RuntimeError("Connection reset by peer"))


def fail(folder, **codes):
    """Let processes end with these exit codes, in this order."""
    ends = enumerate(codes.items())
    failures = {int(rank[1:]): SimpleNamespace(exitcode=code, timestamp=time) for time, (rank, code) in ends}
    return launcher._code(SimpleNamespace(failures=failures), folder)


def test_of_a_process_that_was_killed_the_launcher_alone_tells(missing, tmp_path):
    assert not group.tells(missing)
    with pytest.raises(ResourceError, match=r"^trainer.devices: process 0 was ended by SIGKILL; .* use fewer$"):
        fail(tmp_path, r1=7, r0=-9)


def test_of_a_process_that_was_killed_the_launcher_tells_how_the_run_goes_on(missing, tmp_path):
    """Also where no process has left a line: NCCL's watchdog ends those that wait, by SIGABRT."""
    launcher_link.note_way_on(tmp_path / "saves", "cnntrain resume run")
    way_on = "; once mended, the run goes on with cnntrain resume run"
    with pytest.raises(ResourceError, match=r"use fewer$"):  # as nothing is saved
        fail(tmp_path, r1=7, r0=-9)
    (tmp_path / "saves").mkdir()
    with pytest.raises(ResourceError, match=rf"process 0 was ended by SIGABRT; .* use fewer{way_on}$"):
        fail(tmp_path, r1=7, r0=-6)


def test_a_process_that_ends_itself_as_it_waits_for_a_lost_one_tells_how_the_run_goes_on(
    missing, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr(launcher_link, "_folder", None)
    monkeypatch.setattr(group, "end_process", lambda line, code: told.append((line, code)))
    launcher_link.note_way_on(tmp_path, "cnntrain resume run")
    group._end()
    line = "another process of this run has ended; its own message says why"
    assert told == [(f"{line}; once mended, the run goes on with cnntrain resume run", 7)]


def test_the_launcher_tells_of_a_process_that_ended_without_a_word(missing, tmp_path):
    """As by os._exit in a function of the user's."""
    assert not group.tells(missing)
    with pytest.raises(ResourceError, match=r"^another process of this run has ended .*\(Connection reset by peer\)"):
        fail(tmp_path, r0=3)


def test_the_launcher_is_silent_of_a_fault_that_was_told(missing, tmp_path):
    assert group.tells(DataError("one file is bad"))
    assert not group.tells(missing)
    assert fail(tmp_path, r0=3) == 3


@pytest.mark.parametrize("code", [-signal.SIGTERM, 143])
def test_a_process_that_the_launcher_has_ended_is_not_the_fault(tmp_path, code):
    assert fail(tmp_path, r0=9, r1=code) == 9
    assert fail(tmp_path, r0=code, r1=3) == 3
    with pytest.raises(ResourceError, match=r"process 1 was ended by SIGKILL"):
        fail(tmp_path, r0=code, r1=-signal.SIGKILL)
    with pytest.raises(ResourceError, match=r"process 1 was ended by SIGTERM"):  # by someone else
        fail(tmp_path, r0=143, r1=-signal.SIGTERM)


def test_without_our_launcher_a_process_tells_whom_it_has_lost(missing, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher_link, "_folder", None)
    assert group.tells(missing)
    assert not list(tmp_path.iterdir())
