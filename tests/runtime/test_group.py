"""Processes meet, say whom they wait for, and tell of a fault once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest
import torch
import torch.distributed
from processes import environment, free_port

from cnntrain import cli
from cnntrain.errors import ConfigError, ResourceError
from cnntrain.runtime import device, group
from cnntrain.runtime.world import World


def test_a_process_says_whom_it_waits_for(started, monkeypatch, capsys):
    started(0, 2)
    monkeypatch.setattr(group, "PATIENCE", (0.01, 60.0))
    monkeypatch.setenv("MASTER_PORT", "29517")
    with group._says_that_it_waits(World.here()):
        time.sleep(0.2)
    with group._says_that_it_waits(World(1, 2, 1, 2)):
        pass
    assert capsys.readouterr().err == "cnntrain: process 0 waits for 2 processes at 127.0.0.1:29517\n"


def test_a_group_is_bound_to_its_device_and_has_a_limit_of_time(started, monkeypatch):
    started(0, 2)
    place, made = torch.device("cuda", 1), {}

    def init(backend, **arguments):
        made.update(arguments, backend=backend)
        raise RuntimeError("Connection refused")

    monkeypatch.setattr(group, "_store", None)  # as it was, at the end
    monkeypatch.setattr(group, "_open_store", torch.distributed.HashStore)
    monkeypatch.setattr(torch.distributed, "init_process_group", init)
    with pytest.raises(ResourceError), group.joined("cuda", False, lambda *said: ("nccl", place)):
        pass
    assert (made["backend"], made["device_id"], made["timeout"]) == ("nccl", place, group.WAIT)


@pytest.mark.parametrize(("text", "code"), [("uncorrectable ECC error encountered", 7), ("misaligned address", 1)])
def test_a_process_that_hangs_in_its_gpu_is_ended_with_the_code_of_its_fault(started, monkeypatch, text, code):
    started(0, 2)
    ended = threading.Event()
    codes = []

    def end(text, code):
        codes.append(code)
        ended.set()

    monkeypatch.setattr(group, "_store", None)  # as it was, at the end
    monkeypatch.setattr(group, "_open_store", torch.distributed.HashStore)
    monkeypatch.setattr(group, "Peers", mock.Mock())
    monkeypatch.setattr(group, "end_process", end)
    monkeypatch.setattr(group, "GRACE", 0.0)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **keywords: None)
    with (
        pytest.raises(RuntimeError),
        group.joined("cuda", False, lambda *said: ("nccl", torch.device("cuda", 0))),
    ):
        raise RuntimeError(f"CUDA error: {text}")
    assert ended.wait(10)
    assert codes == [code]


@pytest.mark.parametrize("rank", [0, 1])
def test_cublas_is_told_to_repeat_its_bits_before_a_group_touches_the_device(started, monkeypatch, rank):
    started(rank, 2)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    shared, touched = torch.distributed.HashStore(), []

    def choose(name, world):
        touched.append((name, os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        raise ConfigError("no such device")

    monkeypatch.setattr(group, "_store", None)  # as it was, at the end
    monkeypatch.setattr(group, "_open_store", lambda: shared)
    monkeypatch.setattr(device, "choose_device", choose)
    said = ("cuda", True)
    if rank:  # which has not read the config of a run that goes on
        torch.distributed.PrefixStore("cnntrain/0", shared).set(group.TRAINER, json.dumps(said))
        said = ("", False)
    with pytest.raises(ConfigError), group.joined(*said, device.exchange_backend):
        pass
    assert touched == [("cuda", ":4096:8")]


WAITING = """
from cnntrain.runtime import device, group
group.PATIENCE = (0.3, 0.3)
with group.joined("cpu", False, device.exchange_backend):
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_for_others_says_so_and_ends_on_ctrl_c(rank):
    env = os.environ | environment(rank, 2, free_port())
    process = subprocess.Popen([sys.executable, "-c", WAITING], env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert any("waits for 2 processes at 127.0.0.1:" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == -signal.SIGINT
    process.stderr.close()


def test_other_commands_and_sweeps_want_one_process(started, capsys):
    started(0, 2)
    for command in ("eval", "check", "models", "summary"):
        assert cli.main([command, "run"]) == 2
        assert capsys.readouterr().err == (
            f"cnntrain: error: {command}: one process does this alone; start it without torchrun\n"
        )
    assert cli.main(["seed=1,2", "-m"]) == 2
    assert "several processes train one network" in capsys.readouterr().err


def test_a_fault_of_the_command_line_is_told_once_on_each_machine(started, capsys):
    for rank, lines in ((0, 1), (1, 0)):
        started(rank, 2)
        assert cli.main(["data.batch_sze=3"]) == 2
        assert capsys.readouterr().err.count("did you mean data.batch_size?") == lines
