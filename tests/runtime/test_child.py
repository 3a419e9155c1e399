"""Signals while `cnntrain compare` waits for a run."""

import os
import signal
import subprocess
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
open({ready!r}, "w").close()
time.sleep(20)  # the signal ends it at once; without one the test fails by this
"""


@pytest.mark.parametrize(
    ("name", "code", "signum"),
    [("SIGTERM", 143, 15), ("SIGUSR1", 143, 15), ("SIGHUP", 143, 15), ("SIGINT", 130, 2), ("SIGTERM", 0, 15)],
)
def test_signals_reach_the_run_in_hand(
    name: str, code: int, signum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnntrain.runtime.child._in_foreground", lambda: False)
    ready = tmp_path / "ready"

    def when_ready() -> None:
        while not ready.exists():
            time.sleep(0.01)  # until the child can be signalled
        os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(signal.SIGTERM)
    with relay() as passing:
        threading.Thread(target=when_ready, daemon=True).start()
        assert passing.run([sys.executable, "-c", WAITS.format(name=name, code=code, ready=str(ready))]) == code
        assert passing.signum == signum
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_was_killed_has_the_exit_code_of_a_shell() -> None:
    with relay() as passing:
        assert passing.run(["sh", "-c", "kill -9 $$"]) == 137
        assert passing.signum is None
        assert passing.run(["sh", "-c", "kill -15 $$"]) == 143
        assert passing.signum == signal.SIGTERM


def test_a_run_is_silent_is_watched_and_what_it_says_of_faults_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    looks: list[int] = []
    with relay() as passing:
        code = passing.run(
            ["sh", "-c", "echo out; echo one >&2; sleep 0.8; echo two >&2; exit 3"], lambda: looks.append(1)
        )
        assert (code, passing.said) == (3, ["one", "two"])
        assert passing.run(["true"]) == 0
        assert passing.said == []
    assert capfd.readouterr() == ("", "")
    assert len(looks) >= 2


def shows(command: list[str]) -> str:
    """What a command writes to its standard output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_run_imports_nothing_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random.py", "yaml.py", "cnntrain.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    for safe in ("", "1"):  # where Python itself leaves the folder out, too
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
        assert shows(cnntrain_command("train", "--cfg", "job", "seed=7")).startswith("seed: 7\n")


def test_a_run_is_of_the_package_that_started_it() -> None:
    command = cnntrain_command("--version")
    command[2] = command[2].replace("from cnntrain.cli", "print(cnntrain.__file__, sys.path); from cnntrain.cli")
    home, _, path = shows(command).partition(" ")
    assert home == cnntrain.__file__
    assert "''" not in path
