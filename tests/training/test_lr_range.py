"""`cnntrain find_lr`: what rises, what learns, and what the curve suggests."""

import csv
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from cnntrain import cli
from cnntrain.commands.find_lr import _course, _factors
from cnntrain.config.compose import compose_settings
from cnntrain.training import lr_range
from cnntrain.training.loop import train_step
from cnntrain.training.lr_range import RangeCurve

NET = ["model=cnn", "model.args.blocks=[4,8]", "model.args.norm=batch", "trainer.threads=1"]
QUICK = [*NET, "data.limit=200", "steps=20"]


def curve(fall: float, best: float, noise: float = 0.01, steps: int = 100, high: float = 1.0) -> RangeCurve:
    """A loss that falls by `fall` up to the rate `best`, and rises steeply after it."""
    rates = np.geomspace(1e-7, high, steps)
    place = np.log10(rates / best)
    losses = 2.3 - fall * np.exp(-((place / 0.7) ** 2)) + np.exp(np.clip(place, -9, 2) * 6 - 8)
    losses += noise * np.random.default_rng(0).standard_normal(steps)
    return RangeCurve("all", rates.tolist(), losses.tolist())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one; the cache is that of all tests, as matplotlib fills it slowly."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the curve -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [1e-4, 3e-3, 0.1])
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_the_suggestion_is_half_of_the_rate_of_the_lowest_loss(best: float, noise: float) -> None:
    found = curve(1.0, best, noise, steps=101).suggestion
    assert found is not None
    assert best / 2 / 1.8 < found < best / 2 * 1.8


def test_noise_alone_suggests_nothing() -> None:
    rates, random = np.geomspace(1e-7, 10, 100).tolist(), np.random.default_rng(0)
    curves = [RangeCurve("all", rates, (2.3 + 0.1 * random.standard_normal(100)).tolist()) for _ in range(100)]
    assert sum(curve.suggestion is not None for curve in curves) <= 3


def test_a_fall_near_the_noise_is_told_beside_its_suggestion() -> None:
    sure, faint = curve(1.0, 3e-3, 0.1), curve(0.2, 3e-3, 0.1)
    assert (sure.falls, sure.is_faint, faint.falls, faint.is_faint) == (True, False, True, True)
    assert "near the noise" not in _course(sure, is_lower=False)
    assert _course(faint, is_lower=False).endswith("% is near the noise: train to see, or take steps=200")


def test_a_loss_that_only_rises_suggests_nothing() -> None:
    rates = np.geomspace(1e-7, 10, 100).tolist()
    assert RangeCurve("all", rates, np.linspace(2.2, 2.4, 100).tolist()).suggestion is None


def test_smoothing_leaves_a_line_where_it_is_and_does_not_lag() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    smooth = RangeCurve("all", rates.tolist(), (3 - 0.2 * np.log10(rates)).tolist()).smooth
    assert smooth[10:-10] == pytest.approx((3 - 0.2 * np.log10(rates))[10:-10])


def test_a_loss_that_falls_to_the_end_is_told() -> None:
    assert curve(1.0, 1.0, high=0.1).is_open
    assert not curve(1.0, 0.1).is_open


def test_what_is_due_to_the_choice_of_the_images_is_taken_out() -> None:
    found, wave = curve(0.1, 1e-3), np.random.default_rng(1).standard_normal(100)
    wavy = RangeCurve("all", found.rates, (found.losses + wave).tolist(), rest=(2 + wave).tolist())
    assert wavy.suggestion == found.suggestion
    assert RangeCurve("all", wavy.rates, wavy.losses).suggestion is None


def test_a_group_without_a_suggestion_learns_as_the_one_above_it() -> None:
    rates = {"head": 0.01, "top": 0.02, "middle": 0.005, "low": None}
    assert _factors(rates, ["frozen", "low", "middle", "top", "head"]) == [0.0, 0.5, 0.5, 1.0, 1.0]


# --- the command -----------------------------------------------------------------------------------------------------


def find(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The lines that find_lr prints, and the rows of its table in `found`."""
    assert cli.main(["find_lr", *words, "out=found"]) == 0
    lines = capsys.readouterr().out.splitlines()
    with open("found/find_lr.csv", newline="") as file:
        return lines, list(csv.DictReader(file))


def test_it_leaves_curves_and_a_command_with_the_users_own_words(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RangeCurve, "suggestion", 0.012)
    lines, rows = find(*QUICK, "optimizer.lr=3", "optimizer=adamw", "low=1e-5", "high=1", capsys=capsys)
    assert sorted(str(path) for path in here.rglob("*.*")) == [
        str(here / "found" / f"find_lr.{kind}") for kind in ("csv", "png", "svg")
    ]
    expected = ["cnntrain", "train", *NET, "data.limit=200", "optimizer=adamw", "optimizer.lr=0.012"]
    assert shlex.split(lines[-1].removeprefix("next ")) == expected
    rates = [float(row["lr"]) for row in rows]
    assert rates == pytest.approx(np.geomspace(1e-5, 1, 20)[: len(rates)])
    assert all(len(line) <= 80 for line in lines if not line.startswith(("next", "      ")))
    with Image.open("found/find_lr.png") as picture:
        assert picture.width > 700
    assert "optimizer.lr" in Path("found/find_lr.svg").read_text()


def test_rates_are_as_they_are_typed_whatever_the_batch(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use: list[float] = []
    monkeypatch.setattr("cnntrain.training.loop.optimizers.set_lr", lambda optimizer, lr: in_use.append(lr))
    words = ["optimizer.lr_base_batch=64", "data.batch_size=16", "low=0.001", "high=0.1"]
    _, rows = find(*QUICK, *words, capsys=capsys)
    assert [4 * lr for lr in in_use] == pytest.approx([float(row["lr"]) for row in rows])


def test_a_first_step_at_the_lowest_rate_has_the_loss_of_the_run_itself(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rows = find(*QUICK, capsys=capsys)
    words = [*NET, "data.limit=200", "trainer.max_steps=1", "trainer.log_every=1", "trainer.tensorboard=false"]
    assert cli.main([*words, "trainer.probe=0", "out=run"]) == 0
    with open("run/metrics.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert float(rows[0]["loss"]) == pytest.approx(float(first["loss"]), rel=1e-6)


@pytest.fixture
def tuned(here: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The words of a fine-tuning whose weights are those of a short run."""
    words = [*NET, "data.limit=200", "trainer.tensorboard=false"]
    assert cli.main([*words, "trainer.epochs=2", "out=source"]) == 0
    capsys.readouterr()
    return [*NET, "model.weights=source", "model.new_head=true", "data.limit=200", "steps=20", "low=1e-5"]


@pytest.mark.slow
def test_with_mode_c_each_layer_group_learns_alone_and_gets_a_factor(
    tuned: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[str, set[str]]] = []
    test = lr_range._test

    def watched(job: Any, name: str, *args: Any) -> RangeCurve:
        before = {key: value.detach().clone() for key, value in job.model.named_parameters()}
        found = test(job, name, *args)
        moved.append((name, {key for key, value in job.model.named_parameters() if not value.equal(before[key])}))
        return found

    monkeypatch.setattr(lr_range, "_test", watched)
    lines, rows = find("finetune=C", *tuned, "finetune.lr_decay=0.5", capsys=capsys)
    names = list(dict.fromkeys(row["group"] for row in rows))
    assert names[0] == "head"
    assert len(names) > 2
    tests = [name for name, _ in moved if name != "head, half-way"]
    assert tests == ["head", "at rest", *names[1:]]
    assert not dict(moved)["at rest"]
    groups = [parameters for name, parameters in moved if name in names]
    assert not set.intersection(*groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    words = shlex.split(lines[-1].removeprefix("next "))[2:]
    assert "finetune.lr_decay=0.5" not in words
    settings = compose_settings(words).finetune
    assert settings.lr_factors is not None
    assert len(settings.lr_factors) == len(names)
    assert settings.lr_factors[-1] == 1
    assert all(0 <= factor <= 1 for factor in settings.lr_factors)


@pytest.mark.slow
def test_with_mode_c_parameters_keep_the_factors_that_the_optimizer_gives_them(
    tuned: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    factors: set[tuple[str, float]] = set()

    def watched(state: Any, *args: Any) -> Any:
        names = {parameter: name for name, parameter in state.model.named_parameters()}
        for group in state.optimizer.param_groups:
            moving = [names[parameter] for parameter in group["params"] if parameter.requires_grad]
            factors.update((name, group["lr_factor"]) for name in moving)
        return train_step(state, *args)

    monkeypatch.setattr("cnntrain.training.lr_range.train_step", watched)
    find("finetune=C", *tuned, "finetune.lr_decay=0.5", "optimizer.lr_factors={*.bias: 4}", capsys=capsys)
    assert factors == {(name, 4.0 if name.endswith(".bias") else 1.0) for name, _ in factors}
    assert {factor for _, factor in factors} == {1.0, 4.0}


@pytest.mark.slow
def test_with_mode_a_the_head_learns_alone_and_on_features_where_the_run_would(
    tuned: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines, rows = find("finetune=A", *tuned, capsys=capsys)
    assert {row["group"] for row in rows} == {"all"}
    assert any("features cached of train 200" in line for line in lines)
    assert re.fullmatch(r"next  cnntrain train finetune=A .* optimizer.lr=\S+", lines[-1])


def test_ctrl_c_ends_it_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnntrain.training.loop import train_step as step

    def interrupted(*args: Any) -> None:
        step(*args)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(lr_range, "train_step", interrupted)
    assert cli.main(["find_lr", *QUICK]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "cnntrain: stopped; nothing was kept"
    assert list(here.iterdir()) == []


def test_a_loss_that_is_no_number_ends_the_test_there(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [0]

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        count[0] += 1
        return logits.sum() * (float("nan") if count[0] > 7 else 0.0)

    monkeypatch.setattr("cnntrain.training.build._build_loss", lambda *_: Loss(loss))
    lines, rows = find(*QUICK, capsys=capsys)
    assert len(rows) == 7
    assert "next" not in lines[-1]


class Loss:
    """A loss without class weights."""

    class_weights = None

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        result: Tensor = self.function(logits, targets)
        return result


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("low=20", "low: must be below high (10) (given 20); leave one of them out"),
        ("low=0", "low: must be a number > 0 (given 0.0)"),
        ("high=fast", "high: must be a number > 0 (given fast)"),
        ("steps=3", "steps: must be a whole number >= 20"),
        ("out=full", "out: full is not empty; give the name of a new folder, out=DIR"),
    ],
)
def test_faulty_arguments_are_told_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], word: str, fault: str
) -> None:
    (here / "full").mkdir()
    (here / "full" / "file").touch()
    assert cli.main(["find_lr", word]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line != "cnntrain: loading torch"]
    assert len(lines) == 1
    assert lines[0].startswith(f"cnntrain: error: {fault}")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_suggestion_trains_the_digits_well(here: Path, capsys: pytest.CaptureFixture[str], optimizer: str) -> None:
    import json

    words = ["model=lenet5", f"optimizer={optimizer}"]
    lines, _ = find(*words, capsys=capsys)
    line = shlex.split(lines[-1].removeprefix("next "))[1:]
    assert cli.main([*line, "trainer.epochs=10", "trainer.tensorboard=false", "out=run"]) == 0
    assert json.loads(Path("run/results.json").read_text())["test"]["top1"] > 0.95
