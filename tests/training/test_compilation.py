"""trainer.compile: one graph for each size that comes back, the same network, one line where nothing compiles."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from cnntrain import cli
from cnntrain.config.schema.trainer import Precision
from cnntrain.errors import ConfigError
from cnntrain.models.head import AvgMaxPool2d
from cnntrain.models.layers import GlobalMaxPool2d
from cnntrain.runtime.precision import autocast
from cnntrain.training import compilation, loop, scoring
from cnntrain.training.compilation import Compiler
from cnntrain.training.scoring import Scorer, filled

CPU = torch.device("cpu")
# 60 images make two full batches and one of 10; the last of those that validate holds 19.
QUICK = ["data.limit=60", "data.image_size=16", "data.batch_size=25", "trainer.epochs=3", "trainer.log_every=1"]
QUICK += ["trainer.device=cpu", "trainer.threads=1", "trainer.probe=0", "trainer.tensorboard=false"]

Graphs = list[tuple[int, ...]]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    """The shapes of the images for which a graph is made, in a run that compiles with torch's plain kernels."""
    shapes: Graphs = []
    real = torch.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        shapes.extend(tuple(value.shape) for value in inputs if value.ndim == 4 and not isinstance(value, nn.Parameter))
        return graph.forward

    def compile(network: nn.Module, dynamic: bool, mode: str | None) -> Any:
        return real(network, dynamic=dynamic, backend=backend)

    monkeypatch.setattr(torch, "compile", compile)
    limits = {"recompile_limit": 1, "accumulated_recompile_limit": 1, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(**limits):
        yield shapes


@pytest.fixture
def own_nets(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words for networks that end in a global pool."""
    Path("own.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels, keeps=True):\n"
        "    layers = [nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4, track_running_stats=keeps), nn.ReLU()]\n"
        "    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
        "def mixer(num_classes, in_channels):\n"
        "    return net(num_classes, in_channels, False)\n"
    )
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    return ["model=own"]


def run(name: str, *words: str) -> dict[str, Any]:
    model = () if "model=own" in words else ("model=cnn",)
    assert cli.main([*QUICK, *model, *words, f"hydra.run.dir={name}"]) == 0
    found: dict[str, Any] = json.loads(Path(name, "results.json").read_text())
    return found


def scores(name: str) -> list[tuple[str, str]]:
    """Losses of all steps and epochs."""
    with Path(name, "metrics.csv").open(newline="") as file:
        return [(row["loss"], row["val_loss"]) for row in csv.DictReader(file)]


def test_full_batches_and_validation_have_a_graph_each_and_a_short_batch_none(
    here: Path, graphs: Graphs, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled, plain = run("compiled", "trainer.compile=true"), run("plain")
    assert graphs == [(25, 1, 16, 16), (25, 1, 16, 16)]
    assert compiled["weights_sha256"] == plain["weights_sha256"]
    assert scores("compiled") == scores("plain")
    said = capsys.readouterr().out
    assert said.count("compiling the network for training, 25 inputs of 1x16x16") == 1
    assert said.count("compiling the network for scoring, 25 inputs of 1x16x16") == 1


@pytest.mark.slow
def test_images_that_grow_have_a_graph_for_each_size_within_torchs_limit(
    here: Path, graphs: Graphs, own_nets: list[str]
) -> None:
    words = [*own_nets, "model.name=own:net", "augment=progressive", "augment.progressive.multiple=2"]
    compiled, plain = run("compiled", *words, "trainer.compile=true"), run("plain", *words)
    assert compiled["weights_sha256"] == plain["weights_sha256"]
    assert sorted(shape[2] for shape in graphs) == [8, 12, 16, 16]  # and one scores


@pytest.mark.slow
def test_averaged_weights_and_the_network_are_compiled_apart(here: Path, graphs: Graphs) -> None:
    words = ["trainer.ema=0.9", "trainer.accumulate=2"]
    compiled, plain = run("compiled", *words, "trainer.compile=true"), run("plain", *words)
    assert scores("compiled") == scores("plain")
    assert compiled["weights_sha256"] == plain["weights_sha256"]
    assert len(graphs) == 2


@pytest.mark.slow
def test_a_resumed_compiled_run_has_the_bits_of_an_unbroken_one(here: Path, graphs: Graphs) -> None:
    whole = run("whole", "trainer.compile=true")
    for stop in (2, 3):  # before and behind the short batch
        with mock.patch.object(loop, "asked_for", side_effect=[*[0] * (stop - 1), 15, *[0] * 99]):
            assert cli.main([*QUICK, "model=cnn", "trainer.compile=true", f"hydra.run.dir=cut{stop}"]) == 143
        assert cli.main(["resume", f"cut{stop}"]) == 0
        assert json.loads(Path(f"cut{stop}/results.json").read_text())["weights_sha256"] == whole["weights_sha256"]


@pytest.mark.slow
def test_gradients_of_several_micro_batches_outlive_the_replay_of_a_graph(
    here: Path, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run("plain", "trainer.accumulate=3")
    owned: list[int] = []
    monkeypatch.setattr(Compiler, "_need_tools", lambda self: None)
    monkeypatch.setattr(compilation, "replays_graphs", lambda device: True)

    def own(parameters: list[nn.Parameter]) -> None:
        before = [parameter.grad for parameter in parameters]
        compilation.own_gradients(parameters)
        assert all(old is not new.grad for old, new in zip(before, parameters, strict=True))
        for old in before:
            assert old is not None
            old.fill_(torch.nan)  # as the next pass of the graph would
        owned.append(len(before))

    monkeypatch.setattr(loop, "own_gradients", own)
    words = ["trainer.compile=reduce-overhead", "trainer.accumulate=3"]
    assert run("replayed", *words)["weights_sha256"] == plain["weights_sha256"]
    assert len(owned) == 3  # a step in each of three epochs


def test_a_network_that_no_cuda_graph_can_replay_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(inputs: Tensor) -> Tensor:
        torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] += 1
        return inputs

    said: list[str] = []
    monkeypatch.setattr(compilation, "replays_graphs", lambda device: True)
    compiled = compilation.Compiled(network, Compiler("reduce-overhead", CPU, said.append))
    for _ in range(2):
        compiled(torch.zeros(2, 3))
    assert len(said) == 2
    assert said[1].startswith("for training, torch cannot replay this network as a CUDA graph")


@pytest.mark.slow
def test_layer_groups_that_open_are_compiled_anew_within_the_limit(
    here: Path, graphs: Graphs, capsys: pytest.CaptureFixture[str]
) -> None:
    run("start", "trainer.epochs=1")
    words = ["model.weights=start", "finetune=C", "finetune.unfreeze=[2,3]"]
    capsys.readouterr()
    compiled, plain = run("compiled", *words, "trainer.compile=true"), run("plain", *words)
    assert compiled["weights_sha256"] == plain["weights_sha256"]
    assert scores("compiled") == scores("plain")
    assert 2 <= len(graphs) <= 6
    assert capsys.readouterr().out.count("compiling the network for training") == 3  # the head, and two more groups


@pytest.mark.parametrize("count", [1, 5, 8])
def test_a_filled_batch_is_scored_as_it_is_alone(count: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(8, 4)).to(memory_format=torch.channels_last)
    images = torch.randint(256, (count, 3, 9, 9), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    scorer = Scorer(model, lambda images: images.float() / 255, CPU, Precision.fp32)
    full = filled(images, 8)
    assert full.is_contiguous(memory_format=torch.channels_last)
    assert len(full) == 8
    torch.testing.assert_close(scorer.logits(full)[:count], scorer.logits(images), rtol=0, atol=1e-7)


def test_where_the_fastest_kernels_are_sought_for_each_size_the_last_batch_is_filled_and_scores_stay(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: set[tuple[int, int]] = set()
    tunes = [False]

    def fill(images: Tensor, least: int) -> Tensor:
        full = filled(images, least)
        sizes.add((len(images), len(full)))
        return full

    monkeypatch.setattr(scoring, "filled", fill)
    monkeypatch.setattr(scoring, "tunes_by_shape", lambda device: tunes[-1])
    plain = run("plain", "trainer.epochs=1", "trainer.probe=20")
    assert sizes == {(25, 25), (19, 19), (10, 10), (20, 20)}
    tunes.append(True)
    sizes.clear()
    assert run("filled", "trainer.epochs=1", "trainer.probe=20")["test"] == plain["test"]
    assert scores("filled") == scores("plain")
    assert sizes == {(25, 25), (19, 25), (10, 25), (20, 20)}  # a probe of one batch has no other size to agree with


@pytest.mark.slow
def test_a_network_that_looks_at_the_whole_batch_is_scored_without_added_images(
    here: Path, graphs: Graphs, own_nets: list[str]
) -> None:
    words = [*own_nets, "model.name=own:mixer", "trainer.epochs=1"]
    run("compiled", *words, "trainer.compile=true")
    run("plain", *words)
    assert scores("compiled") == scores("plain")
    assert [shape[0] for shape in graphs] == [25, 25, 19]  # training, scoring, and its last batch


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["trainer.compile=fast"],
            "trainer.compile: must be true or false, or reduce-overhead, or max-autotune (gi",
        ),
        (
            ["trainer.compile=max-autotune", "trainer.deterministic=true"],
            "trainer.compile: must be reduce-overhead with trainer.deterministic=true",
        ),
        (
            ["trainer.compile=reduce-overhead", "model.drop_schedule=linear", "model.dropout=0.1"],
            "trainer.compile: must be false with model.drop_schedule=linear",
        ),
    ],
)
def test_what_cannot_be_compiled_is_told_before_the_start(
    here: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*QUICK, *words, "hydra.run.dir=run"]) == 2
    assert f"cnntrain: error: {line}" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_machine_without_a_compiler_is_told_in_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch._inductor import cpp_builder, exc

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", mock.Mock(side_effect=exc.InvalidCxxCompiler()))
    assert cli.main([*QUICK, "trainer.compile=true", "hydra.run.dir=run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "cnntrain: error: trainer.compile: torch needs a C++ compiler, and there is none (given true)"
    )
    assert not Path("run").exists()


@pytest.mark.parametrize(("triton", "missing"), [(False, "needs Triton"), (True, "needs a C compiler")])
def test_a_gpu_without_triton_or_a_c_compiler_is_told_in_one_line(
    triton: bool, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: triton)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ConfigError, match=f"trainer.compile: .*{missing}"):
        Compiler("reduce-overhead", torch.device("cuda"), print).prepare(1)


@pytest.mark.slow
def test_a_run_compiled_by_inductor_is_resumed_with_the_same_bits(here: Path) -> None:
    words = ["trainer.compile=true", "trainer.epochs=2"]
    whole = run("whole", *words)
    with mock.patch.object(loop, "asked_for", side_effect=[0, 15, *[0] * 99]):
        assert cli.main([*QUICK, "model=cnn", *words, "hydra.run.dir=cut"]) == 143
    assert cli.main(["resume", "cut"]) == 0
    assert json.loads(Path("cut/results.json").read_text())["weights_sha256"] == whole["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("pool", [GlobalMaxPool2d, AvgMaxPool2d])
def test_largest_values_of_maps_have_a_gradient_where_bf16_is_compiled(pool: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), pool(), nn.Flatten(), nn.Linear(8, 4)]
    network = nn.Sequential(*layers)
    with autocast(Precision.bf16, CPU):
        logits = torch.compile(network, dynamic=False)(torch.randn(16, 3, 8, 8))
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
