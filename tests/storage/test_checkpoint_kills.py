"""Checkpoints against kills, and full or broken disks."""

import builtins
import errno
import io
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from saved import names, newest_step, run_folder, state_at

import cnntrain
from cnntrain.errors import FileSystemError
from cnntrain.storage import atomic, checkpoint, manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What checkpoint_kills.py found."""
    root = str(Path(cnntrain.__file__).parent.parent)
    program = Path(__file__).parents[1] / "checkpoint_kills.py"
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    # Python 3.12 warns of forks where a library keeps threads; these threads are idle.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(program), str(tmp_path_factory.mktemp("kills"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(("how", "kills"), [("random", 30), ("beside", 15)])
def test_kill_minus_9_at_any_time_leaves_the_save_before_or_the_one_in_hand(
    killed: dict[str, Any], how: str, kills: int
) -> None:
    rows = killed[how]
    assert len(rows) == kills
    assert rows[-1]["newest"] > 10  # it did save in between
    for row in rows:
        assert row["newest"] in (row["done"], row["done"] + 1), row
        assert row["best"] % 2 == 0, row
        assert row["best"] >= row["done"] - 1, row


def test_death_before_each_system_call_of_a_save_leaves_a_whole_checkpoint(killed: dict[str, Any]) -> None:
    rows = killed["calls"]
    assert len(rows) > 15
    assert [row["status"] for row in rows] == [9] * (len(rows) - 1) + [0]
    for row in rows:
        assert row["newest"] in (row["done"], row["done"] + 1), row
        assert row["best"] is not None, row
        assert row.get("left", ["best", "last", "previous"]) == ["best", "last", "previous"], row


def failing(call: Callable[..., Any], number: int, code: int, calls: Iterator[int]) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            raise OSError(code, os.strerror(code))
        return call(*args, **kwargs)

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("best", [False, True])
def test_a_failed_system_call_leaves_what_was_saved_before(
    run: Path, monkeypatch: pytest.MonkeyPatch, code: int, best: bool
) -> None:
    checkpoint.save(run, state_at(3), best=True)
    failures = 0
    for number in itertools.count(1):
        before = {name: manifest.verify(run / "checkpoints" / name)["step"] for name in names(run)}
        step = before["last"] + 1
        calls = itertools.count(1)
        with monkeypatch.context() as patch:
            for module, name in [(os, "mkdir"), (os, "link"), (os, "rename"), (os, "fsync"), (builtins, "open")]:
                patch.setattr(module, name, failing(getattr(module, name), number, code, calls))
            try:
                checkpoint.save(run, state_at(step), best=best)
            except FileSystemError as error:
                failures += 1
                message = str(error)
                assert message.startswith(f"{run}/checkpoints: the checkpoint cannot be saved ({os.strerror(code)}")
                assert "\n" not in message
                if number < 5:  # nothing was renamed yet
                    assert {n: manifest.verify(run / "checkpoints" / n)["step"] for n in names(run)} == before
            else:
                assert next(calls) <= number
                break
        newest, lines = newest_step(run)
        assert newest in (step - 1, step)
        assert not lines or (best and "a save was cut short; using" in lines[0])
        assert names(run) == ["best", "last", "previous"]
        checkpoint.save(run, state_at(newest + 1))
        assert newest_step(run) == (newest + 1, [])
    assert failures >= (12 if best else 8)


def test_a_disk_full_in_the_midst_of_the_state_is_told_with_needed_and_free(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 2000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(checkpoint, "open", lambda path, mode: Full(path, mode), raising=False)
    monkeypatch.setattr(atomic, "_free_bytes", lambda path: 3_000_000)
    rule = r"checkpoints: .*No space left on device; it needs 4\.0 MB, 3\.0 MB are free\); free some space$"
    with pytest.raises(FileSystemError, match=rule):
        checkpoint.save(run, state_at(3) | {"big": torch.zeros(1_000_000)})
    monkeypatch.undo()
    assert names(run) == ["last", "previous"]
    assert newest_step(run) == (2, [])


def test_a_limit_of_the_system_on_file_sizes_is_told_too(run: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(FileSystemError, match=r"File too large; it needs 4\.0 MB.*ulimit"):
            checkpoint.save(run, state_at(3) | {"big": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(run) == ["last", "previous"]
    assert newest_step(run) == (2, [])


def test_a_file_in_the_way_of_the_checkpoints_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(FileSystemError, match=r"checkpoints: .*File exists.*a file is in the way"):
        checkpoint.save(tmp_path, state_at(1))
    assert (tmp_path / "checkpoints").read_text() == "mine"
