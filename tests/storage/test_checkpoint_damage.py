"""Checkpoints against damage and foreign code."""

import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from saved import newest_step, reseal, run_folder, state_at

from cnntrain.errors import CheckpointError, UnsafeError
from cnntrain.storage import checkpoint, manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path)


def flips(path: Path, count: int) -> Iterator[bytes]:
    data = path.read_bytes()
    draw = random.Random(0)
    for _ in range(count):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        yield bytes(damaged)


@pytest.mark.parametrize(("name", "count"), [("state.pt", 200), ("manifest.json", 200)])
def test_each_flipped_bit_is_found_and_the_previous_checkpoint_used(run: Path, name: str, count: int) -> None:
    path = run / "checkpoints" / "last" / name
    for damaged in flips(path, count):
        path.write_bytes(damaged)
        step, lines = newest_step(run)
        assert step == 1
        assert len(lines) == 1
        assert f"last/{name}: damaged" in lines[0]
        assert "using" in lines[0]
        assert "previous (step 1)" in lines[0]
        with pytest.raises(CheckpointError, match=f"{name}: damaged.*; use another checkpoint of"):
            checkpoint.load(path.parent)


@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("harm", ["empty", "half", "zeros", "longer", "missing"])
def test_each_other_damage_is_found_too(run: Path, name: str, harm: str) -> None:
    path = run / "checkpoints" / "last" / name
    data = path.read_bytes()
    content = {"empty": b"", "half": data[: len(data) // 2], "zeros": bytes(len(data)), "longer": data + b"\n"}
    path.unlink()
    if harm != "missing":
        path.write_bytes(content[harm])
    step, lines = newest_step(run)
    assert step == 1
    assert name in lines[0]


def test_a_checkpoint_of_another_run_is_not_used(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    checkpoint.save(other, state_at(5, "other"))
    shutil.rmtree(run / "checkpoints/last")
    shutil.copytree(other / "checkpoints/last", run / "checkpoints/last")
    step, lines = newest_step(run)
    assert step == 1
    assert "belongs to run other, not to run" in lines[0]
    shutil.copy(other / "checkpoints/last/state.pt", run / "checkpoints/previous/state.pt")
    with pytest.raises(CheckpointError, match="2 found, 2 damaged"):
        checkpoint.newest(run, pytest.fail)


def test_best_is_used_when_last_and_previous_are_damaged(run: Path) -> None:
    for step in (3, 4, 5):
        checkpoint.save(run, state_at(step), best=step == 3)
    (run / "checkpoints/last/state.pt").write_bytes(b"")
    (run / "checkpoints/previous/manifest.json").unlink()
    step, lines = newest_step(run)
    assert step == 3
    assert "state.pt" in lines[0]
    assert "manifest.json" in lines[0]


def test_best_is_used_when_a_kill_came_between_it_and_last(run: Path) -> None:
    checkpoint.save(run, state_at(3), best=True)
    for name in ("last", "previous"):
        shutil.rmtree(run / "checkpoints" / name)
    (run / "checkpoints/best").rename(run / "best")
    for step in (1, 2):
        checkpoint.save(run, state_at(step))
    (run / "best").rename(run / "checkpoints/best")
    step, lines = newest_step(run)
    assert step == 3
    assert "last: missing or not the newest" in lines[0]


def test_a_run_with_only_damaged_checkpoints_never_starts_again_by_itself(run: Path) -> None:
    (run / "checkpoints/last/state.pt").write_bytes(b"")
    (run / "checkpoints/previous/state.pt").unlink()
    with pytest.raises(CheckpointError, match=r"2 found, 2 damaged \(.*0 bytes instead of.*missing.*\); restore"):
        checkpoint.newest(run, pytest.fail)


def test_the_fault_of_a_damaged_checkpoint_is_told_and_a_whole_one_has_none(run: Path) -> None:
    path = run / "checkpoints/last/state.pt"
    size = path.stat().st_size
    assert checkpoint.fault_of(path.parent) is None
    path.write_bytes(b"")
    assert checkpoint.fault_of(path.parent) == f"{path}: damaged, 0 bytes instead of {size}"


def test_a_damaged_last_does_not_push_the_good_previous_out(run: Path) -> None:
    with open(run / "checkpoints/last/state.pt", "r+b") as file:
        file.truncate(100)
    checkpoint.save(run, state_at(3))
    assert manifest.verify(run / "checkpoints/previous")["step"] == 1
    assert newest_step(run) == (3, [])


def test_a_last_damaged_before_a_resume_is_not_kept_as_previous(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_trusted", set())  # as in a new process
    path = run / "checkpoints/last/state.pt"
    path.write_bytes(next(flips(path, 1)))
    assert newest_step(run)[0] == 1
    checkpoint.save(run, state_at(2))
    assert manifest.verify(run / "checkpoints/previous")["step"] == 1


def test_a_newer_format_is_named_as_newer(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FORMAT", 2)
    reseal(run / "checkpoints/last")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"written by a newer cnntrain \(.*format 2.*; install"):
        checkpoint.load(run / "checkpoints/last")


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "nested"])
def test_a_pickle_with_code_is_refused_and_never_run(run: Path, tmp_path: Path, form: str) -> None:
    canary = tmp_path / "canary"
    payload: Any = Payload(canary)
    path = run / "checkpoints/last/state.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        state = state_at(2) | {"model": {"deep": [payload]}} if form == "nested" else payload
        torch.save(state, path, _use_new_zipfile_serialization=form != "legacy")
    reseal(run / "checkpoints/last")
    with pytest.raises(UnsafeError, match=r"state\.pt: refused.*; use a checkpoint from a source") as caught:
        checkpoint.load(run / "checkpoints/last")
    assert caught.value.exit_code == 8
    with pytest.raises(UnsafeError):
        checkpoint.newest(run, pytest.fail)
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 and no more", [1, 2]])
def test_a_well_sealed_file_without_a_state_is_one_line(run: Path, content: Any) -> None:
    folder = run / "checkpoints/last"
    if isinstance(content, bytes):
        (folder / "state.pt").write_bytes(content)
    else:
        torch.save(content, folder / "state.pt")
    reseal(folder)
    with pytest.raises((CheckpointError, UnsafeError)) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)


def test_a_sealed_state_that_lacks_a_part_is_refused_by_the_name_of_that_part(run: Path) -> None:
    folder = run / "checkpoints/last"
    torch.save({name: part for name, part in state_at(2).items() if name != "progress"}, folder / "state.pt")
    reseal(folder)
    says = rf"/last/state\.pt: no progress in it as cnntrain writes it; use another checkpoint of {run}/checkpoints$"
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("not a zip. Call torch.load otherwise\nor so"), "not a zip"),
        (OSError("x" * 200), "x" * 120),
        (EOFError(), "EOFError"),
        *((kind("odd"), "'?odd'?") for kind in (KeyError, ValueError, TypeError, AttributeError)),
    ],
)
def test_whatever_torch_says_of_a_file_that_it_cannot_read_is_told_in_short(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(CheckpointError, match=rf"state\.pt: no readable training state \({reason}\); use another"):
        checkpoint.load(run / "checkpoints/last")
