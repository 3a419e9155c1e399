"""Signals while `cnntrain compare` waits for a run."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import cnntrain
from cnntrain.runtime.child import cnntrain_command, relay

WAITS = """
import signal, sys, time
signal.signal(signal.{name}, lambda *_: sys.exit({code}))
print("ready", flush=True)
time.sleep(20)  # the signal ends it at once; without one the test fails by this
"""


@pytest.mark.parametrize(
    ("name", "code", "signum"),
    [("SIGTERM", 143, 15), ("SIGUSR1", 143, 15), ("SIGHUP", 143, 15), ("SIGINT", 130, 2), ("SIGTERM", 0, 15)],
)
def test_signals_reach_the_run_in_hand(
    name: str, code: int, signum: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnntrain.runtime.child._in_foreground", lambda: False)

    def when_ready() -> None:
        while "ready" not in capfd.readouterr().out:
            time.sleep(0.01)  # until the child can be signalled
        os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(signal.SIGTERM)
    with relay() as passing:
        threading.Thread(target=when_ready, daemon=True).start()
        assert passing.run([sys.executable, "-c", WAITS.format(name=name, code=code)]) == code
        assert passing.signum == signum
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_was_killed_has_the_exit_code_of_a_shell() -> None:
    with relay() as passing:
        assert passing.run(["sh", "-c", "kill -9 $$"]) == 137
        assert passing.signum is None
        assert passing.run(["sh", "-c", "kill -15 $$"]) == 143
        assert passing.signum == signal.SIGTERM


def test_a_run_imports_nothing_of_the_current_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random.py", "yaml.py", "cnntrain.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    for safe in ("", "1"):  # where Python itself leaves the folder out, too
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
        with relay() as passing:
            assert passing.run(cnntrain_command("train", "--cfg", "job", "seed=7")) == 0
        assert capfd.readouterr().out.startswith("seed: 7\n")


def test_a_run_is_of_the_package_that_started_it(capfd: pytest.CaptureFixture[str]) -> None:
    command = cnntrain_command("--version")
    command[2] = command[2].replace("from cnntrain.cli", "print(cnntrain.__file__, sys.path); from cnntrain.cli")
    with relay() as passing:
        assert passing.run(command) == 0
    home, _, path = capfd.readouterr().out.partition(" ")
    assert home == cnntrain.__file__
    assert "''" not in path
