"""trainer.profile: a trace of a few steps beside a training that takes the same steps."""

import gzip
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.report import profile
from cnntrain.report.run_report import Report
from cnntrain.storage import run_record
from cnntrain.training.build import build_train_job
from cnntrain.training.state import Progress

NET = ["model=cnn", "model.args.blocks=[4,8]", "trainer.threads=1", "data.limit=200", "trainer.tensorboard=false"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_few_steps_are_traced_and_the_training_is_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*NET, "trainer.max_steps=20", "trainer.profile=true", "out=with"]) == 0
    said = capsys.readouterr()
    with gzip.open(here / "with" / profile.TRACE, "rt") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert sum(str(name).startswith("ProfilerStep#") for name in names) == profile.STEPS
    assert "aten::convolution_backward" in names
    lines = said.out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("profile of a step"))
    assert any("convolution_backward" in line for line in lines[start : start + profile.LONGEST])
    assert max(map(len, lines[start : start + profile.LONGEST + 1])) <= 80
    assert "wrote with/trace.json.gz" in said.out
    assert "USDT" not in said.err
    assert cli.main([*NET, "trainer.max_steps=20", "out=without"]) == 0
    weights = [run_record.read_results(here / name)["weights_sha256"] for name in ("with", "without")]
    assert weights[0] == weights[1]
    assert not (here / "without" / profile.TRACE).exists()


def test_a_trace_is_never_written_through_a_link_that_lies_in_the_run_folder(here: Path) -> None:
    (here / "letter.txt").write_text("precious")
    words = [*NET, "trainer.profile=true"]
    assert cli.main([*words, "trainer.max_steps=2", "out=run"]) == 0
    for name in (profile.TRACE, f"new.{profile.TRACE}"):
        (here / "run" / name).symlink_to(here / "letter.txt")
    assert cli.main(["resume", "run", "trainer.max_steps=20"]) == 0
    assert (here / "letter.txt").read_text() == "precious"
    assert not (here / "run" / profile.TRACE).is_symlink()
    with gzip.open(here / "run" / profile.TRACE, "rt") as file:
        assert json.load(file)["traceEvents"]
    assert not list((here / "run").glob(".tmp-*"))


def test_a_run_that_is_too_short_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*NET, "trainer.max_steps=3", "trainer.profile=true", "out=run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    start = said.index("trainer.profile: no trace, as 3 steps to train are too few: 10 pass, and 4 of one epoch")
    assert said.index("raise trainer.max_steps") > start
    assert start < said.index("best epoch")
    assert not (here / "run" / profile.TRACE).exists()


@pytest.mark.parametrize(("more", "steps"), [([], 4), (["data.batch_size=80"], 2), (["trainer.accumulate=2"], 3)])
def test_nothing_but_steps_is_traced_though_epochs_are_short(here: Path, more: list[str], steps: int) -> None:
    assert cli.main([*NET, *more, "trainer.max_steps=30", "trainer.epochs=30", "trainer.profile=true", "out=run"]) == 0
    with gzip.open(here / "run" / profile.TRACE, "rt") as file:
        names = Counter(event.get("name") for event in json.load(file)["traceEvents"])
    assert sum(count for name, count in names.items() if str(name).startswith("ProfilerStep#")) == steps
    assert names["aten::convolution"] == names["aten::convolution_backward"] > 0  # scoring has none of the latter


def test_steps_are_chosen_within_an_epoch_behind_its_first() -> None:
    settings = compose_settings([*NET, "trainer.epochs=3"])
    job = build_train_job(settings, Report(None, tensorboard=False), splits=("train",))
    assert job.plan.steps(0) == 7
    assert profile.traced_steps(job, Progress()) == (10, 4)
    assert profile.traced_steps(job, Progress(step=2, batch=2)) == (13, 4)  # an epoch ends with the 12th
    assert profile.traced_steps(job, Progress(step=14, epoch=2)) == (0, 0)


def test_compiled_passes_stand_in_the_list_by_what_they_are() -> None:
    forward, backward = (f"## Call CompiledFxGraph fnl2p7xy3rswfdzgjsvb5w24mc{end} ##" for end in "ab")
    entries = [
        SimpleNamespace(device_type=torch.autograd.DeviceType.CPU, self_cpu_time_total=time, count=4, key=key)
        for key, time in ((backward, 9e3), (forward, 8e3))
    ]
    step = SimpleNamespace(name="ProfilerStep#12", cpu_parent=None)
    engine = SimpleNamespace(name="autograd::engine::evaluate_function: CompiledFunctionBackward", cpu_parent=step)
    inner = SimpleNamespace(name="CompiledFunctionBackward", cpu_parent=engine)
    events = [step, engine, inner]
    events += [SimpleNamespace(name=name, cpu_parent=above) for name, above in ((forward, step), (backward, inner))]
    lines = profile._table(entries, 4, False, profile._backward_graphs(events))
    assert [line.split("  ")[0] for line in lines[1:]] == ["compiled backward pass", "compiled forward pass"]


def test_a_trace_that_cannot_be_written_ends_no_training(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", full)
    assert cli.main([*NET, "trainer.max_steps=18", "trainer.profile=true", "out=run"]) == 0
    assert "trainer.profile: no trace: OSError: [Errno 28]" in capsys.readouterr().out
    assert not list((here / "run").glob("*trace*"))
