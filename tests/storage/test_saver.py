"""Saves beside the training: the state of their moment, one at a time, and no fault of the disk is lost."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from states import whole

from cnntrain.errors import CheckpointError, CnntrainError, FileSystemError, Interrupted
from cnntrain.runtime import device as machine
from cnntrain.storage import checkpoint
from cnntrain.storage.plain import fingerprint
from cnntrain.storage.saver import Saver

CPU = torch.device("cpu")


def state_at(step: int, weight: torch.Tensor | None = None) -> dict[str, Any]:
    weight = torch.full((2, 3, 4, 4), float(step)) if weight is None else weight
    return whole(progress={"step": step, "epoch": step}, model={"weight": weight})


def step_of(run: Path, name: str = "last") -> int:
    step: int = checkpoint.load(run / "checkpoints" / name)["progress"]["step"]
    return step


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Saver]:
    with Saver(tmp_path, CPU) as saver:
        yield saver


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds every save up until it is set."""
    gate, save = threading.Event(), checkpoint.save

    def late(*args: Any, **words: Any) -> None:
        assert gate.wait(30)
        save(*args, **words)

    monkeypatch.setattr(checkpoint, "save", late)
    yield gate
    gate.set()


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_save_holds_the_state_of_its_moment_while_the_training_goes_on(
    tmp_path: Path, saver: Saver, gate: threading.Event
) -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = state_at(1, weight)
    before = fingerprint(state)
    saver.save(state)
    weight.zero_()  # the next step, before a byte is written
    state["progress"]["step"] = 2
    gate.set()
    saver.join()
    loaded = checkpoint.load(tmp_path / "checkpoints/last")
    assert fingerprint(loaded) == before
    assert loaded["model"]["weight"].stride() == weight.stride()


def test_the_next_save_waits_for_the_one_before(tmp_path: Path, saver: Saver, gate: threading.Event) -> None:
    saver.save(state_at(1))
    threading.Timer(0.05, gate.set).start()
    saver.save(state_at(2))
    assert step_of(tmp_path) >= 1
    saver.join()
    assert (step_of(tmp_path), step_of(tmp_path, "previous")) == (2, 1)


def test_saves_take_the_same_memory_again(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    monkeypatch.setattr(checkpoint, "save", lambda run, state, best: weights.append(state["model"]["weight"]))
    for step in range(3):
        saver.save(state_at(step))
        saver.join()
        assert weights[step].eq(step).all()
    assert len({weight.data_ptr() for weight in weights}) == 1
    saver.save(state_at(3, torch.ones(7)))  # of another shape: other memory
    saver.join()
    assert weights[3].tolist() == [1.0] * 7


@pytest.mark.parametrize("call", ["save", "join", "leave"])
def test_a_full_disk_is_told_by_the_next_call_and_all_later_ones_and_the_save_before_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    saver = Saver(tmp_path, CPU)
    calls = {"save": lambda: saver.save(state_at(3)), "join": saver.join, "leave": lambda: saver.__exit__(None)}
    saver.save(state_at(1))
    saver.join()
    monkeypatch.setattr(os, "fsync", full)
    saver.save(state_at(2), best=True)
    with pytest.raises(FileSystemError, match=r"the checkpoint cannot be saved \(No space.*; free some space"):
        calls[call]()
    monkeypatch.undo()
    # There is room again; but a later state knows of a best epoch that is not there.
    for again in calls.values():
        with pytest.raises(FileSystemError, match="free some space"):
            again()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["last"]
    assert step_of(tmp_path) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [(CheckpointError("mine"), CheckpointError), (Interrupted(15, "stopped and saved"), FileSystemError)],
)
def test_of_a_failed_save_and_another_error_the_other_is_told_unless_it_claims_that_all_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: CnntrainError, told: type[CnntrainError]
) -> None:
    def ends() -> None:
        with Saver(tmp_path, CPU) as saver:
            saver.save(state_at(1))
            raise error

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(told):
        ends()


def test_nothing_is_written_before_the_device_has_copied_all(
    tmp_path: Path, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a copy from a GPU ends later: here the thread's wait for it is what brings the values."""
    weight = torch.zeros(3)

    def mark(device: torch.device) -> Callable[[], None]:
        def wait() -> None:
            saver._copies["state.model.weight"].fill_(7.0)

        return wait

    monkeypatch.setattr(machine, "mark", mark)
    saver.save(state_at(1, weight))
    saver.join()
    assert checkpoint.load(tmp_path / "checkpoints/last")["model"]["weight"].tolist() == [7.0] * 3


def test_cuda_is_waited_for_by_an_event_behind_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own names in place of a GPU: the event is recorded on the stream in use, and waited for later."""
    event, stream = Mock(), object()
    monkeypatch.setattr(torch.cuda, "Event", Mock(return_value=event))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    wait = machine.mark(torch.device("cuda:0"))
    event.record.assert_called_once_with(stream)
    event.synchronize.assert_not_called()
    wait()
    event.synchronize.assert_called_once_with()
    torch.cuda.Event.assert_called_once_with(blocking=True)  # type: ignore[attr-defined]


def test_what_a_checkpoint_cannot_hold_is_refused_at_once(saver: Saver) -> None:
    with pytest.raises(TypeError, match=r"state\.model\.weight: .* not object"):
        saver.save(whole(model={"weight": object()}))
