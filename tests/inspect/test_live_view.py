"""The live view: what TensorBoard shows of a network after each epoch."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnntrain.cli import main
from cnntrain.inspect import live_view
from cnntrain.inspect.explain import feature_maps
from cnntrain.inspect.explain.features import map_tile
from cnntrain.inspect.live_view import MOST, SHARE, LiveView

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")

QUICK = ["data.limit=100", "trainer.epochs=3", "trainer.threads=1"]


def pictures(folder: Path) -> dict[str, list[int]]:
    """The steps of each picture of the live view."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {
        tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"] if tag.startswith("live/")
    }


@pytest.mark.parametrize(("cost", "epochs", "epoch_seconds"), [(0.1, 200, 1.0), (5.0, 40, 1.0), (0.001, 1000, 60.0)])
def test_pictures_between_the_first_and_the_last_epoch_cost_two_percent_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch, cost: float, epochs: int, epoch_seconds: float
) -> None:
    now, drawn, between = 0.0, [], 0.0

    def draw(*_: Any) -> None:
        nonlocal now
        now += cost
        drawn.append(epoch)

    monkeypatch.setattr(live_view, "time", SimpleNamespace(perf_counter=lambda: now))
    job: Any = SimpleNamespace(trainer=SimpleNamespace(epochs=epochs))
    view = LiveView(job, SimpleNamespace(draw=draw))  # type: ignore[arg-type]
    for epoch in range(1, epochs + 1):
        seconds, before = epoch * epoch_seconds, len(drawn)
        view(torch.nn.Identity(), epoch, seconds, epoch == epochs)
        if 1 < epoch < epochs:
            between += cost * (len(drawn) - before)
            assert between <= SHARE * seconds
    assert (drawn[0], drawn[-1]) == (1, epochs)
    assert len(drawn) <= MOST + 2
    most = min(SHARE * epochs * epoch_seconds / cost, MOST)
    assert len(drawn) - 2 >= int(most) - 2  # and as many as fit


def test_a_training_that_is_looked_at_takes_the_very_same_steps(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "SHARE", 1000)
    digests = set()
    small = ["model=cnn3", "model.args.blocks=[4,8]", "model.args.hidden=[8]"]  # with batch norms and dropout
    for name, words in (("plain", ["trainer.tensorboard=false"]), ("watched", [])):
        assert main([*QUICK, *small, *words, f"hydra.run.dir={name}"]) == 0
        digests.add(json.loads(Path(name, "results.json").read_text())["weights_sha256"])
        assert len(pictures(Path(name)).get("live/network", [])) == (0 if name == "plain" else 3)
    assert len(digests) == 1


def test_a_run_that_goes_on_shows_each_step_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "SHARE", 1000)
    assert main([*QUICK, "hydra.run.dir=run"]) == 0
    assert main(["resume", "run", "trainer.epochs=4"]) == 0
    first, *others = pictures(Path("run")).values()
    assert first == [first[0] * epoch for epoch in (1, 2, 3, 4)]
    assert others == [first]


def test_a_network_without_convolutions_shows_its_answers_and_templates(here: Path) -> None:
    assert main([*QUICK, "model=softmax", "hydra.run.dir=run"]) == 0
    assert {tag: len(steps) for tag, steps in pictures(Path("run")).items()} == {"live/network": 2, "live/filters": 2}


def test_a_view_that_cannot_be_drawn_costs_one_warning(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(feature_maps, "maps_of", fail)
    monkeypatch.setattr(live_view, "SHARE", 1000)
    assert main([*QUICK, "hydra.run.dir=run"]) == 0
    told = "warning: no live view of the network for TensorBoard: RuntimeError: no such layer; the training goes on"
    assert " ".join(capsys.readouterr().out.split()).count(told) == 1


def test_maps_lie_in_rows_on_one_scale() -> None:
    maps = torch.arange(2 * 5 * 2 * 3, dtype=torch.float32).view(2, 5, 2, 3)
    first, second = live_view._mosaics(maps)
    assert first.shape == second.shape == (5, 11, 3)  # two lines of three maps of 2x3, white between them
    assert all((part == 255).all() for part in (first[2], first[:, 3], first[3:, 8:]))
    for number in range(5):
        top, left = 3 * (number // 3), 4 * (number % 3)
        assert (second[top : top + 2, left : left + 3] == map_tile(maps[1, number], 59.0, False)).all()
