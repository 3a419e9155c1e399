"""Checkpoints against damage, kills, full disks and foreign code."""

import builtins
import errno
import hashlib
import io
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from states import whole
from torch import nn

import cnntrain
from cnntrain.errors import CheckpointError, FileSystemError, UnsafeError
from cnntrain.storage import atomic, checkpoint, manifest, run_record
from cnntrain.storage.plain import fingerprint


def state_at(step: int, run_id: str = "run") -> dict[str, Any]:
    """The state of a small net after `step` steps of SGD with momentum."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(step):
        optimizer.zero_grad()
        net(torch.randn(8, 1, 4, 4)).square().mean().backward()
        optimizer.step()
    return whole(
        model=net.state_dict(),
        optimizer=optimizer.state_dict(),
        progress={"step": step, "epoch": step // 2, "best_top1": 0.5},
        about={"run_id": run_id},
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with `last` at step 2, `previous` at step 1 and no `best`."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "environment.json").write_text('{"run_id": "run"}')
    checkpoint.save(folder, state_at(1))
    checkpoint.save(folder, state_at(2))
    return folder


def newest_step(run: Path) -> tuple[int, list[str]]:
    """The step of the newest whole checkpoint, and the warnings on the way."""
    lines: list[str] = []
    found = checkpoint.newest(run, lines.append)
    assert found is not None
    return found[1]["progress"]["step"], lines


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def reseal(folder: Path) -> None:
    """Give a folder a manifest that fits its state file, as a forger would."""
    data = (folder / "state.pt").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    manifest.write(folder, run_id="run", step=2, epoch=1, size=len(data), sha256=digest)


# --- what comes back ---


def test_a_loaded_state_has_the_same_bits(run: Path) -> None:
    state = state_at(2) | {"more": (torch.tensor(True), torch.ones(2, dtype=torch.bfloat16), {0: torch.arange(3)}, 0.1)}
    checkpoint.save(run, state)
    loaded = checkpoint.load(run / "checkpoints" / "last")
    assert fingerprint(loaded) == fingerprint(state)
    assert loaded["more"][3] == 0.1
    assert loaded["about"] == state["about"]
    assert type(loaded["model"]) is dict


def test_the_fingerprint_sees_one_bit_one_name_and_one_shape() -> None:
    weight = torch.arange(6.0)
    flipped = weight.clone()
    flipped.view(torch.int32)[3] ^= 1
    variants = [{"w": weight}, {"w": flipped}, {"v": weight}, {"w": weight.view(2, 3)}, {"w": weight.view(torch.int32)}]
    assert len({fingerprint(state) for state in variants}) == 5


def test_the_fingerprint_ignores_order_and_layout() -> None:
    image = torch.randn(2, 3, 4, 4)
    one = {"a": image, "b": torch.ones(1)}
    other = {"b": nn.Parameter(torch.ones(1)), "a": image.to(memory_format=torch.channels_last)}
    assert fingerprint(one) == fingerprint(other)


def test_the_manifest_tells_step_run_size_and_versions(run: Path) -> None:
    known = json.loads((run / "checkpoints/last/manifest.json").read_text())
    data = (run / "checkpoints/last/state.pt").read_bytes()
    assert known["sha256"] == hashlib.sha256(data).hexdigest()
    assert known["size"] == len(data)
    assert (known["format"], known["run_id"], known["step"], known["epoch"]) == (1, "run", 2, 1)
    assert (known["cnntrain"], known["torch"]) == (cnntrain.__version__, torch.__version__)


def test_many_saves_keep_last_previous_and_best(run: Path) -> None:
    for step in range(3, 9):
        checkpoint.save(run, state_at(step), best=step == 4)
    assert names(run) == ["best", "last", "previous"]
    steps = [manifest.verify(run / "checkpoints" / name)["step"] for name in names(run)]
    assert steps == [4, 8, 7]


def test_best_costs_no_space_while_it_is_the_last(run: Path) -> None:
    checkpoint.save(run, state_at(3), best=True)
    assert os.path.samefile(run / "checkpoints/best/state.pt", run / "checkpoints/last/state.pt")


def test_best_is_a_copy_where_links_are_not_supported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save(run, state_at(3), best=True)
    assert not os.path.samefile(run / "checkpoints/best/state.pt", run / "checkpoints/last/state.pt")
    assert checkpoint.load(run / "checkpoints/best")["progress"]["step"] == 3


def test_a_run_that_saved_nothing_has_no_newest(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path, pytest.fail) is None


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ({"model": {"w": object()}}, "state.model.w: .* not object"),
        ({"scores": [1.0, Path("x")]}, r"state.scores.1: .*Path"),
        ({"loss": torch.ones(1).numpy()}, "state.loss: .* ndarray"),
        ({"loss": torch.ones(1).double().numpy()[0]}, "state.loss: .* float64"),
        ({"by": {None: 1}}, "state.by: "),
    ],
)
def test_anything_but_plain_values_is_refused_by_its_place(run: Path, bad: dict[str, Any], place: str) -> None:
    with pytest.raises(TypeError, match=place):
        checkpoint.save(run, state_at(3) | bad)
    assert newest_step(run) == (2, [])


# --- damage ---


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


# --- kills ---


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


# --- full and broken disks ---


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


# --- foreign code ---


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


# --- finding ---


def test_find_takes_a_run_a_checkpoint_and_a_state_file(run: Path) -> None:
    last = run / "checkpoints/last"
    assert checkpoint.find(run) == last
    assert checkpoint.find(run / "checkpoints") == last
    assert checkpoint.find(last / "state.pt") == last
    assert checkpoint.find(run / "checkpoints/previous") == run / "checkpoints/previous"
    checkpoint.save(run, state_at(3), best=True)
    assert checkpoint.find(run) == run / "checkpoints/best"


def test_find_says_what_to_give_instead(run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights" / "weights.pth"
    weights.parent.mkdir()
    weights.write_bytes(b"x")
    fresh = tmp_path / "a fresh run"
    fresh.mkdir()
    run_record.describe(fresh, config_yaml="seed: 0\n", overrides=[], command="cnntrain")
    cases = {
        weights: "no cnntrain checkpoint there; give a run folder",
        weights.parent: "no cnntrain checkpoint there; give a run folder",
        tmp_path: "no cnntrain checkpoint there; did you mean '.*/a fresh run'",
        tmp_path / "nowhere": "no such file or folder; give a run folder",
        fresh: "has saved no checkpoint yet; go on with it by `cnntrain resume '",
    }
    for target, rule in cases.items():
        with pytest.raises(CheckpointError, match=rule):
            checkpoint.find(target)


# --- what a checkpoint says of itself later ---


def test_an_annotated_checkpoint_is_the_same_but_for_what_was_added_and_the_others_stay(run: Path) -> None:
    checkpoint.save(run, state_at(3), best=True)
    best, last = run / "checkpoints" / "best", run / "checkpoints" / "last"
    before, of_last = checkpoint.load(best), (last / "state.pt").read_bytes()
    checkpoint.annotate(best, temperature=1.5)
    after = checkpoint.load(best)
    assert after["about"].pop("temperature") == 1.5
    assert fingerprint(after) == fingerprint(before)
    assert checkpoint.fault_of(best) is None
    assert (last / "state.pt").read_bytes() == of_last
    assert names(run) == ["best", "last", "previous"]
    assert newest_step(run) == (3, [])


@pytest.mark.parametrize("name", ["best", "last"])
def test_what_a_killed_annotation_leaves_is_found_annotated_again_and_tidied_up_by_the_next_save(
    run: Path, name: str
) -> None:
    checkpoint.save(run, state_at(3), best=True)
    folder = run / "checkpoints" / name
    old = folder.with_name(f".old-{name}")
    shutil.copytree(folder, folder.with_name(".tmp-1-new"))
    os.rename(folder, old)  # between the two renames
    assert checkpoint.find(folder) == old
    assert checkpoint.find(run).name == (".old-best" if name == "best" else "best")
    assert newest_step(run) == (3, [])
    assert folder.is_dir()  # also the best one, with which a run that is resumed goes on to compare
    os.rename(folder, old)
    checkpoint.annotate(checkpoint.find(folder), temperature=7.0)
    assert checkpoint.load(folder)["about"]["temperature"] == 7
    assert names(run) == sorted([".tmp-1-new", "best", "last", "previous"])
    shutil.copytree(folder, old)  # after them
    checkpoint.annotate(folder, temperature=8.0)
    assert checkpoint.load(folder)["about"]["temperature"] == 8
    os.rename(folder, old)
    checkpoint.save(run, state_at(4))
    assert names(run) == ["best", "last", "previous"]
    assert manifest.step(run / "checkpoints" / "best") == 3


def test_the_only_checkpoint_is_found_whatever_kills_its_annotation(run: Path) -> None:
    checkpoint.save(run, state_at(3))
    for name in ("best", "previous"):
        shutil.rmtree(run / "checkpoints" / name, ignore_errors=True)
    os.rename(run / "checkpoints" / "last", run / "checkpoints" / ".old-last")
    assert checkpoint.load(checkpoint.find(run))["progress"]["step"] == 3
    assert newest_step(run) == (3, [])


def test_a_checkpoint_that_cannot_be_written_anew_stays_as_it_was(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = run / "checkpoints" / "last"
    before = (last / "state.pt").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileSystemError, match=r"cannot be saved.*free some space"):
        checkpoint.annotate(last, temperature=2.0)
    assert (last / "state.pt").read_bytes() == before
    assert names(run) == ["last", "previous"]
