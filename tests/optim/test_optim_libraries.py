"""What torch.optim and timm.optim offer trains by its name there, with our groups, and goes on with the same bits."""

import json
from pathlib import Path
from unittest import mock

import pytest
import timm.optim
import torch
from omegaconf import OmegaConf
from torch import nn

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.config import library_optimizers
from cnntrain.config.schema.optimizer import TimmOptimizerSettings, TorchOptimizerSettings
from cnntrain.errors import ConfigError
from cnntrain.optim.optimizers import build_optimizer
from cnntrain.training.load_state import load_optimizer

TORCH = ("Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "Rprop")
TIMM = ("adafactorbv", "adan", "adopt", "lamb", "laprop", "larc", "lion", "madgrad", "mars", "muon", "nadamw", "sgdw")
SHORT = ["data.limit=200", "data.batch_size=40", "trainer.tensorboard=false", "trainer.threads=1", "model=lenet5"]


def optimizer_of(library: str, name: str, model: nn.Module, **numbers: object) -> torch.optim.Optimizer:
    kind = TorchOptimizerSettings if library == "torch" else TimmOptimizerSettings
    settings = kind(name=name, lr=0.01, lr_base_batch=None, **numbers)  # type: ignore[arg-type]
    return build_optimizer(settings, model, 0.01, torch.device("cpu"))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        model(torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(("library", "name"), [*(("torch", n) for n in TORCH), *(("timm", n) for n in TIMM)])
def test_each_goes_on_with_the_same_bits(library: str, name: str) -> None:
    whole, half, again = net(), net(), net()
    train(whole, optimizer_of(library, name, whole), range(6))
    optimizer = optimizer_of(library, name, half)
    train(half, optimizer, range(3))
    again.load_state_dict(half.state_dict())
    restored = optimizer_of(library, name, again)
    load_optimizer(restored, optimizer.state_dict())
    train(again, restored, range(3, 6))
    assert not torch.equal(whole[0].weight, net()[0].weight)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "optimizer=muon",
        "optimizer=timm optimizer.name=adafactorbv optimizer.lr=0.01",
        "optimizer=torch optimizer.name=nadam optimizer.lr=0.002 optimizer.args.betas=[0.8,0.99]",
    ],
)
def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(line: str, here: Path) -> None:
    words = [*line.split(), *SHORT]
    assert cli.main([*words, "trainer.epochs=2", "out=whole"]) == 0
    assert cli.main([*words, "trainer.epochs=2", "trainer.max_time=0.0001", "out=cut"]) == 0
    assert json.loads((here / "cut/results.json").read_text())["ended"] == "max_time"
    assert cli.main(["resume", "cut", "trainer.max_time=null"]) == 0
    whole, cut = (json.loads((here / name / "results.json").read_text()) for name in ("whole", "cut"))
    assert whole["weights_sha256"] == cut["weights_sha256"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("optimizer=timm optimizer.name=lamp", "timm has no optimizer of this name (given lamp); did you mean lamb?"),
        ("optimizer=torch optimizer.name=nadm", "torch has no optimizer of this name (given nadm); did you mean NAdam"),
        ("optimizer=torch optimizer.name=zzz", "torch has no optimizer of this name (given zzz); it has "),
        ("optimizer=torch optimizer.name=LBFGS", "this one of torch out, as it computes the loss several times in a"),
        ("optimizer=timm optimizer.name=adahessian", "this one of timm out, as it differentiates twice in a step (gi"),
        ("optimizer=torch optimizer.name=NAdam optimizer.args.betaz=1", "did you mean optimizer.args.betas?"),
        ("optimizer=torch optimizer.name=NAdam optimizer.args.lr=1", "itself (given 1); set optimizer.lr"),
        ("optimizer=torch optimizer.name=Rprop optimizer.weight_decay=0.1", "torch's Rprop has none (given 0.1)"),
        ("optimizer=torch optimizer.name=Muon", "torch's Muon cannot be made (ValueError: Muon only supports 2D"),
        ("optimizer=timm optimizer.name=adan optimizer.args.betas=3", "timm's adan cannot be made (TypeError: "),
    ],
)
def test_what_does_not_fit_is_one_line(line: str, fault: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*line.split(), "optimizer.lr=0.01", *SHORT]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("cnntrain: error: optimizer.")
    assert fault in told
    assert not (here / "outputs").exists()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("optimizer.name=lamb", "choose with optimizer=timm optimizer.name=lamb, or optimizer=torch where"),
        ("optimizer.name=adamm", "choose with optimizer=adam"),
        ("optimizer=timm optimizer.lr=1", "optimizer.name: missing; give a name of the library, such as lamb of timm"),
        ("optimizer.library=timm", "timm and torch have it: optimizer=timm"),
    ],
)
def test_a_name_without_its_library_is_told_where_it_belongs(
    line: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("optimizer=timm optimizer.name=lambb", "timm has no optimizer of this name (given lambb); did you mean lamb?"),
        (
            "optimizer=torch optimizer.name=nadm",
            "torch has no optimizer of this name (given nadm); did you mean NAdam?",
        ),
    ],
)
def test_a_name_that_no_library_has_is_told_with_all_other_faults_before_torch_is_loaded(
    words: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dispatch, "_load", mock.Mock(side_effect=AssertionError))
    assert cli.main([*words.split(), "trainer.epochs=2"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"cnntrain: error: optimizer.name: {name}",
        "cnntrain: error: optimizer.lr: missing; write optimizer.lr=VALUE",
    ]


@pytest.mark.parametrize("library", ["timm", "torch"])
def test_every_name_of_a_library_is_known_without_importing_it(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(map(str, timm.optim.list_optimizers())) if library == "timm" else [*TORCH, "Adam", "SGD", "LBFGS"]
    read = []
    monkeypatch.setattr(library_optimizers, "unknown_name", lambda library, typed, known: read.extend(known))
    library_optimizers.faults(OmegaConf.create({"optimizer": {"library": library, "name": "lambb"}}))
    assert set(read) >= {
        name for name in names if not name.startswith(("bnb", "nesterov"))
    }  # which are registered late
    assert "Optimizer" not in read
    monkeypatch.undo()
    for name in names:
        assert not library_optimizers.faults(
            OmegaConf.create({"optimizer": {"library": library, "name": name.upper()}})
        )


def test_where_a_library_lists_its_optimizers_elsewhere_who_builds_one_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = OmegaConf.create({"optimizer": {"library": "timm", "name": "lambb"}})
    for file, pattern in (("optim/gone.py", "x"), ("__init__.py", "name='none'")):
        monkeypatch.setitem(library_optimizers.SOURCES, "timm", (file, pattern))
        assert library_optimizers.faults(tree) == []


def test_a_weight_decay_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="weight_decay: torch's Rprop has none"):
        optimizer_of("torch", "Rprop", net(), weight_decay=0.1)
