"""Checkpoints that a stranger, or another program, has made under a right manifest: refused, or of no harm."""

import contextlib
import hashlib
import io
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cnntrain import cli
from cnntrain.storage import checkpoint, manifest, state_form

QUICK = ["model=lenet5", "data.limit=40", "data.batch_size=20", "trainer.epochs=2", "trainer.threads=1"]
QUICK += ["trainer.tensorboard=false", "trainer.ema=0.9"]
Place = tuple[Any, ...]
GONE = object()
VALUES = [GONE, None, "text", True, -1, 10**30, 0.5, math.nan, math.inf, [], {}, [[1]], {"a": "b"}, torch.zeros(3)]
TENSORS: list[Callable[[Tensor], Any]] = [
    lambda tensor: tensor[..., None],
    lambda tensor: tensor.flatten()[:-1],
    lambda tensor: torch.full_like(tensor, math.nan) if tensor.is_floating_point() else tensor * 0 - 1,
    lambda tensor: torch.full_like(tensor, math.inf) if tensor.is_floating_point() else tensor + 2**40,
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor.to(torch.int64),
    lambda tensor: tensor.to_sparse(),
    lambda tensor: tensor.to("meta"),
    lambda tensor: torch.zeros(0),
    lambda tensor: tensor.tolist(),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, to be copied."""
    folder = tmp_path_factory.mktemp("runs") / "sound"
    assert cli.main([*QUICK, f"hydra.run.dir={folder}"]) == 0
    for name in ("previous", "best"):  # the resume shall have nothing else
        shutil.rmtree(folder / "checkpoints" / name)
    return folder


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every container and value in a state, but of long lists the first items only."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*place, key))
    elif isinstance(value, (list, tuple)):
        for index, part in list(enumerate(value))[:2]:
            yield from places(part, (*place, index))


def at(state: Any, place: Place) -> Any:
    for key in place:
        state = state[key]
    return state


def changed(value: Any, place: Place, new: Any) -> Any:
    """A copy of a state with something else at a place."""
    if not place:
        return new
    key, *rest = place
    if isinstance(value, dict):
        part = changed(value[key], tuple(rest), new)
        return {k: part if k == key else v for k, v in value.items() if k != key or part is not GONE}
    items = list(value)
    items[key] = changed(items[key], tuple(rest), new)
    return type(value)(item for item in items if item is not GONE)


def seal(folder: Path, state: Any) -> None:
    """Write a checkpoint as a forger would: the manifest fits, whatever the state is."""
    torch.save(state, folder / "state.pt")
    data = (folder / "state.pt").read_bytes()
    run_id = json.loads((folder.parent.parent / "environment.json").read_text())["run_id"]
    digest = hashlib.sha256(data).hexdigest()
    manifest.write(folder, run_id=run_id, step=4, epoch=2, size=len(data), sha256=digest)


def outcome(words: list[str]) -> tuple[int, list[str]]:
    """Exit code and lines of a fault."""
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        code = cli.main(words)
    return code, told.getvalue().splitlines()


def cases(state: dict[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Each place of a state with each value that may be put there."""
    for place in places(state):
        value = at(state, place)
        for new in [*VALUES, *(harm(value) for harm in TENSORS if isinstance(value, Tensor))]:
            yield place, new


def check(sound: Path, folder: Path, state: dict[str, Any], place: Place, new: Any) -> None:
    """Resume and eval of a forged checkpoint end with 4 and one line, or they are sound."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    seal(folder / "checkpoints" / "last", changed(state, place, new))
    for words in (["eval", f"{folder}/checkpoints/last"], ["resume", str(folder), "trainer.epochs=3"]):
        code, lines = outcome(words)
        shown = f"{words[0]}: {'.'.join(map(str, place))} = {str(new)[:40]}: {code}, {lines}"
        # A config of the right form that names what is not here is told as a config is.
        assert code in ((0, 2, 3, 4, 8) if place[:2] == ("about", "config") else (0, 4)), shown
        assert len(lines) == (code > 0), shown
    if code == 0:
        assert math.isfinite(json.loads((folder / "results.json").read_text())["test"]["loss"]), shown
        assert state_form.fault(checkpoint.load(folder / "checkpoints" / "last")) is None, shown


@pytest.mark.parametrize("seed", range(12))
def test_a_forged_state_is_refused_with_4_or_of_no_harm(sound: Path, tmp_path: Path, seed: int) -> None:
    state = checkpoint.load(sound / "checkpoints" / "last")
    place, new = random.Random(seed).choice(list(cases(state)))
    check(sound, tmp_path / "run", state, place, new)


FORGED: dict[str, tuple[str, dict[str, Any]]] = {
    "an offset beyond the steps": ("progress", {"step_offset": 10**9}),
    "an offset far below them": ("progress", {"step_offset": -(10**9)}),
    "steps beyond the plan": ("progress", {"step": 10**9}),
    "images as many as can be counted": ("progress", {"images": 2**53}),
    "seconds beyond all time": ("progress", {"seconds": 1e308}),
    "seconds near the largest number": ("progress", {"seconds": 2.0**53}),
    "seconds of a phase": ("spent", {"run": {"network": 2.0**53}}),
    "updates of the average": ("ema", {"updates": 2**53}),
    "images of a window": ("windows", {"log": {"sums": [0.0] * 3, "images": 2**53}}),
    "sums of a window": ("windows", {"log": {"sums": [1e300] * 3, "images": 4}}),
}


@pytest.mark.parametrize("name", FORGED)
def test_counts_that_no_training_comes_to_are_refused_with_4_before_a_step(
    sound: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(sound, tmp_path / "run")
    state = checkpoint.load(sound / "checkpoints" / "last")
    section, values = FORGED[name]
    state[section] |= values
    seal(tmp_path / "run" / "checkpoints" / "last", state)
    code, lines = outcome(["resume", str(tmp_path / "run"), "trainer.epochs=3"])
    assert (code, len(lines)) == (4, 1), lines


def test_a_forged_pace_begins_anew(tmp_path: Path) -> None:
    last = tmp_path / "run" / "checkpoints" / "last"
    assert cli.main([*QUICK, "trainer.max_time=1h", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    state = checkpoint.load(last)
    state["progress"] |= {"epoch": 1, "step": 2, "validated_step": 2}
    state["ema"]["updates"] = 2
    for values in ({"step": 10**9}, {"first_step": 10**9}, {"step": 2, "first_seconds": 1e15}):
        seal(last, state | {"pace": state["pace"] | {"rate": 1.0, "place": 0.0} | values})
        assert outcome(["resume", str(tmp_path / "run")]) == (0, [])
        assert 0 < checkpoint.load(last)["pace"]["place"] <= 1


def test_a_momentum_that_is_gone_begins_again(sound: Path, tmp_path: Path) -> None:
    state = checkpoint.load(sound / "checkpoints" / "last")
    check(sound, tmp_path / "run", state, ("optimizer", "state", 1, "momentum_buffer"), None)


@pytest.mark.parametrize(
    ("crop", "mode", "told"), [(1.5, "border", None), (1.6, "center", "crop"), (1, "x", "crop_mode")]
)
def test_a_state_may_hold_every_crop_that_a_setting_may_be(
    sound: Path, crop: float, mode: str, told: str | None
) -> None:
    state = checkpoint.load(sound / "checkpoints" / "last")
    state["about"] |= {"crop": crop, "crop_mode": mode}
    assert state_form.fault(state) == (told and f"about.{told}")


@pytest.mark.parametrize("value", [1e-320, 1e300, math.nan, True, "\x1b[31m"])
def test_a_temperature_that_nobody_fits_is_refused_with_4(sound: Path, tmp_path: Path, value: Any) -> None:
    shutil.copytree(sound, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "last"
    state = checkpoint.load(folder)
    state["about"]["temperature"] = value
    seal(folder, state)
    code, lines = outcome(["eval", str(folder)])
    assert (code, len(lines)) == (4, 1)
    assert "its temperature is no number from 0.01 to 100 (found " in lines[0]


@pytest.mark.slow
def test_each_field_of_a_state_may_be_forged(sound: Path, tmp_path: Path) -> None:
    state = checkpoint.load(sound / "checkpoints" / "last")
    every = list(cases(state))
    assert len(every) > 2000
    for place, new in random.Random(1).sample(every, 300):
        check(sound, tmp_path / "run", state, place, new)
