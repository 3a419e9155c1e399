"""Checkpoints: what is saved comes back, is found, and may say more of itself later."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from saved import names, newest_step, run_folder, state_at
from torch import nn

import cnntrain
from cnntrain.errors import CheckpointError, FileSystemError
from cnntrain.storage import checkpoint, manifest, run_record
from cnntrain.storage.plain import fingerprint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path)


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
        fresh: "has saved no checkpoint yet; wait for its first one, or go on with it by `cnntrain resume '",
    }
    for target, rule in cases.items():
        with pytest.raises(CheckpointError, match=rule):
            checkpoint.find(target)


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
