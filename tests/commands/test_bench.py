"""`cnntrain bench`: what the rungs do, what they count, and what is advised."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cnntrain import cli
from cnntrain.cli.arguments import read_arguments
from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.commands import COMMANDS
from cnntrain.report.ladder import Findings, advice, table
from cnntrain.report.run_report import Report
from cnntrain.runtime import device as machine
from cnntrain.runtime import device_load
from cnntrain.runtime.device_load import Load
from cnntrain.training import ladder, loop
from cnntrain.training.build import build_state, build_train_job
from cnntrain.training.ladder import RUNGS, Ladder, Rung

NET = ["model=cnn", "model.args.blocks=[4,8]", "model.args.norm=batch", "trainer.threads=1", "data.limit=200"]
QUICK = [*NET, "rounds=2", "steps=2", "trainer.tensorboard=false"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_part_is_told_and_nothing_is_kept_but_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *QUICK, "out=bench.json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for name in RUNGS for line in said if line.startswith(f"{name}  ")] != []
    assert max(map(len, said)) <= 80
    assert [path.name for path in here.iterdir()] == ["bench.json"]
    found = json.loads((here / "bench.json").read_text())
    assert [rung["name"] for rung in found["rungs"]] == list(RUNGS)
    assert all(len(rung["shares"]) == 2 and rung["images_per_second"] > 0 for rung in found["rungs"])
    assert found["rungs"][0]["share"] == 1
    operations = [rung["operations"] for rung in found["rungs"]]
    assert operations == sorted(operations)
    assert operations[0] > 20
    assert found["words"] == [*NET, "trainer.tensorboard=false"]


def test_what_is_typed_wrong_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "round=3"]) == 2
    assert "round: no such argument; did you mean rounds=3?" in capsys.readouterr().err
    assert cli.main(["bench", "out=bench.csv"]) == 2
    assert not list(here.iterdir())


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_timed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    may = os.access
    (here / "read-only").mkdir()
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: may(path, mode, **more) and Path(path).name != "read-only"
    )
    monkeypatch.setattr(Ladder, "climb", lambda *words: pytest.fail("it was timed"))
    assert cli.main(["bench", *QUICK, "out=read-only/bench.json"]) == 6
    said = " ".join(capsys.readouterr().err.split())
    assert "read-only cannot be written; choose another place with out=FILE.json" in said


@pytest.mark.parametrize("command", ["bench", "find_lr"])
def test_what_only_a_run_has_is_refused_where_it_is_asked_for(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, *NET, "trainer.devices=2", "trainer.profile=true", "trainer.report=True"]) == 2
    said = capsys.readouterr().err
    for key, value in (("devices", "2"), ("profile", "true"), ("report", "True")):
        assert f"trainer.{key}: {command} does not read it (given {value}); leave it out" in said
    kind = COMMANDS[command]
    assert read_arguments(kind, ["trainer.devices=1", "trainer.profile=false", "trainer.report=False"]).faults() == []


@pytest.mark.parametrize("more", [[], ["trainer.accumulate=2", "augment=[hflip,mixup]"], ["data.batch_size=150"]])
def test_the_steps_below_the_loop_move_no_weight_and_count_their_images(more: list[str]) -> None:
    job = build_train_job(compose_settings([*NET, *more]), Report(None, tensorboard=False), splits=("train",))
    run = build_state(job)
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    climbed = Ladder(run, job)
    for number in range(3):
        with_closed = climbed._take(number)
        images = [next(with_closed) for _ in range(3)]
        with_closed.close()
        assert images[0] == job.data.batch_size * job.trainer.accumulate
    assert all(torch.equal(value, before[name]) for name, value in run.model.named_parameters())


def test_the_last_rung_is_the_loop_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    job = build_train_job(compose_settings(NET), Report(None, tensorboard=False), splits=("train",))
    climbed, taken = Ladder(build_state(job), job), []
    step = loop.train_step

    def watched(run: Any, job: Any, batches: Any, images: int) -> None:
        taken.append(images)
        step(run, job, batches, images)

    monkeypatch.setattr(loop, "train_step", watched)
    now = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    timing = climbed._time_loop(30)
    assert len(taken) == 31  # the first one is not timed
    assert timing.images == sum(taken[1:])


def test_a_signal_ends_it(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ladder, "asked_for", lambda stop: signal.SIGINT)
    assert cli.main(["bench", *QUICK, "out=bench.json"]) == 130
    assert "stopped; nothing was kept" in capsys.readouterr().err
    assert not list(here.iterdir())


def findings(rates: list[float], busy: float | None = None, save: float = 0.0) -> Findings:
    rungs = [
        Rung(name, [100 / rate], [100 / rate], [rate], Load(9, busy)) for name, rate in zip(RUNGS, rates, strict=True)
    ]
    return Findings(rungs, save, 0.1, 2**30)


GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("found", "device", "words", "told"),
    [
        (findings([1000, 990, 985, 980]), "cpu", [], "the loop keeps 98.0% of the bare step"),
        (findings([1000, 700, 690, 680]), "cpu", ["augment=[hflip,randaugment]"], "try augment without randaugment"),
        (findings([1000, 700, 690, 680]), "cuda", [], "augmentation takes 30.0%: a larger data.batch_size"),
        (findings([1000, 990, 600, 590]), "cpu", [], "gathering and sending images takes 39.4%"),
        (findings([1000, 990, 980, 700]), "cpu", ["trainer.log_every=1"], "trainer.log_every=null"),
        (findings([1000, 990, 980, 970], save=0.3), "cpu", [], "trainer.save_every=5m"),
        (findings([1000, 990, 985, 980], busy=0.05), "cuda", [], "data.batch_size=64, or trainer.compile=true"),
        (findings([1000, 990, 985, 980], busy=0.10), "cuda", ["trainer.precision=fp32"], "trainer.precision=auto"),
    ],
)
def test_the_advice_names_the_key_of_what_costs_most(found: Findings, device: str, words: list[str], told: str) -> None:
    settings = compose_settings(words)
    job = build_train_job(settings, Report(None, tensorboard=False), splits=("train",))
    line = advice(found, replace(job, device=torch.device(device)))
    assert told in line, line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("rounds", "told"),
    [
        # The rows of a round: bare step, augmentation, loader, loop.
        ([[1000, 990, 700, 690], [1000, 980, 1553, 1550], [1000, 985, 893, 880]], "'+ loop and logging' keeps 69.0%"),
        ([[1000, 990, 850, 840], [1000, 850, 860, 850], [1000, 970, 880, 870]], "'+ loader' keeps 85.9% to 101.2%"),
        ([[1000, 990, 850, 840], [1000, 980, 860, 850], [1000, 970, 880, 870]], "images takes 12.2%"),
        ([[1000, 990, 985, 958], [1000, 1100, 985, 958], [1000, 1200, 950, 958]], "the loop keeps 95.8% of the bare"),
        ([[1000, 1500, 3000, 7011]], "'+ loop and logging' keeps 701.1% of the bare step; close"),
    ],
)
def test_timings_that_are_too_noisy_or_near_the_limit_advise_nothing(rounds: list[list[float]], told: str) -> None:
    rungs = [
        Rung(name, [100 / rate for rate in rates], [], list(rates), Load(9, None))
        for name, rates in zip(RUNGS, zip(*rounds, strict=True), strict=True)
    ]
    job = build_train_job(compose_settings([]), Report(None, tensorboard=False), splits=("train",))
    line = advice(Findings(rungs, 0.0, 0.1, 2**30), job)
    assert told in line, line
    is_noisy = "keeps" in told and "'" in told
    assert ("too noisy to tell" in line and f"rounds={3 * len(rounds)}" in line) == is_noisy


def test_bench_speaks_before_it_warms_up_and_after_each_round(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    take = Ladder._time

    def watched(self: Ladder, number: int, steps: int) -> Any:
        said.append(capsys.readouterr().out)
        return take(self, number, steps)

    monkeypatch.setattr(Ladder, "_time", watched)
    assert cli.main(["bench", *QUICK]) == 0
    said.append(capsys.readouterr().out)
    assert "warming up" in said[0]
    assert "timing 4 parts in 2 rounds of 2 steps each, about " in said[8]
    assert "round 1 of 2" in said[12]
    assert "round 2 of 2" in said[16]


def test_the_table_has_a_row_for_each_part_and_fits_80_columns() -> None:
    lines = table(findings([123_456, 110_000, 100_000, 99_999.5], busy=1e-4))
    assert [line.partition("  ")[0] for line in lines] == ["a step", *RUNGS, "+ saves"]
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith("launches")


def test_kernels_of_a_device_are_counted_by_its_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(kind: Any, microseconds: float, named: bool = False) -> Any:
        span = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(device_type=kind, time_range=span, is_user_annotation=named)

    kind = torch.autograd.DeviceType
    found = SimpleNamespace(
        events=lambda: [event(kind.CUDA, 5), event(kind.CPU, 90), event(kind.CUDA, 7), event(kind.CUDA, 99, named=True)]
    )

    class Profile:
        def __enter__(self) -> Any:
            return found

        def __exit__(self, *error: object) -> None:
            """Nothing is to be ended."""

    monkeypatch.setattr(machine, "is_async", lambda device: True)
    monkeypatch.setattr(machine, "synchronize", lambda device: None)
    monkeypatch.setattr(device_load, "profiler", lambda device: Profile())
    assert device_load.load_of(lambda: None, GPU) == (2, pytest.approx(12e-6))
