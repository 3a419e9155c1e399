"""trainer.devices=N starts N processes of this machine, which train together as under torchrun."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import environment

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.errors import ConfigError
from cnntrain.runtime.launcher import processes_to_start

SHORT = ["data.limit=200", "trainer.epochs=1", "trainer.device=cpu", "trainer.tensorboard=false"]


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """What would be started, in a folder of its own."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dispatch, "launch", lambda count, line: calls.append((count, line)) or 5)
    return calls


def test_train_and_resume_start_as_many_processes_as_the_config_says(launched, tmp_path):
    line = [*SHORT, "trainer.devices=3", "out=run"]
    assert cli.main(line) == 5
    assert launched.pop() == (3, line)
    assert not list(tmp_path.iterdir())
    assert cli.main([*SHORT, "out=run"]) == 0
    assert cli.main(["resume", "run", "trainer.devices=2"]) == 5
    assert launched == [(2, ["resume", "run", "trainer.devices=2"])]


def test_auto_is_one_process_per_gpu_and_one_where_there_is_none(monkeypatch):
    assert processes_to_start(TrainerSettings(devices="auto"), []) == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes_to_start(TrainerSettings(devices="auto"), []) == 4
    assert processes_to_start(TrainerSettings(devices="auto", device="cpu"), []) == 0
    assert processes_to_start(TrainerSettings(devices=2, device="cpu"), []) == 2


def test_processes_that_were_started_start_none(monkeypatch):
    for name, value in environment(1, 2).items():
        monkeypatch.setenv(name, value)
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
    assert any("process" in line and line.startswith("cnntrain: error: ") for line in err.splitlines())

    step = json.loads(Path("run/results.json").read_text())["status"]
    assert step in ("failed", "interrupted")
    process = start("resume", "run", "trainer.epochs=4")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.count("\ndone\n")) == (0, 1), err
