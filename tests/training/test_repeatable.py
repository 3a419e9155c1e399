"""trainer.deterministic: what torch cannot repeat is told before the first step, and a run without it is left alone."""

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from networks import NAMED, conf, on_meta
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.models.layers import make_repeatable
from cnntrain.report import session
from cnntrain.runtime import device as machine
from cnntrain.runtime.algorithms import own_process_kept
from cnntrain.runtime.world import ALONE, World
from cnntrain.training import build, loop

QUICK = ["data.limit=40", "data.batch_size=20", "trainer.epochs=1", "trainer.threads=1", "trainer.probe=0"]
QUICK += ["trainer.tensorboard=false", "trainer.device=cpu", "hydra.run.dir=run"]


# What torch has no repeatable algorithm for on CUDA (torch.use_deterministic_algorithms lists it), of what networks do.
REFUSED = {
    *("adaptive_avg_pool2d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward"),
    *("avg_pool3d_backward", "fractional_max_pool2d_backward", "max_unpool2d", "grid_sampler_2d_backward", "histc"),
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "upsample_linear1d_backward", "nll_loss2d_forward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "_embedding_bag", "put", "put_", "kthvalue"),
}


class Named(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_every_network_can_be_trained_with_algorithms_that_repeat_on_cuda(name: str) -> None:
    model, images = on_meta(conf(name))
    make_repeatable(model.train())
    with Named() as seen:
        answer = model(images)
        answers = answer if isinstance(answer, tuple) else (answer,)
        torch.stack(
            [functional.cross_entropy(a, torch.zeros(2, dtype=torch.int64, device="meta")) for a in answers]
        ).sum().backward()
    assert "nll_loss_backward" in seen.names
    # torchvision's auxiliary classifiers call the function of an adaptive pool: a run is refused.
    assert seen.names & REFUSED == ({"_adaptive_avg_pool2d_backward"} if name == "googlenet" else set())


def test_the_variable_of_cublas_is_set_before_the_device_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []

    def choose(name: str, world: World) -> torch.device:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        return torch.device("cpu")

    monkeypatch.setattr(machine, "choose_device", choose)
    with own_process_kept():
        build._prepare_machine(compose_settings(["trainer.deterministic=true"]), ALONE)
    assert seen == [":4096:8"]


def refusals(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "error" in line]


def test_an_operation_that_cannot_repeat_its_bits_is_told_before_the_first_step_and_leaves_no_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_a_gradient(*args: Any, **kwargs: Any) -> Tensor:  # as torch has them on CUDA alone
        raise RuntimeError(
            "own_loss_backward_cuda does not have a deterministic implementation, but you set 'torch.use"
        )

    monkeypatch.setattr(functional, "cross_entropy", without_a_gradient)
    monkeypatch.setattr(loop, "train_step", mock.Mock(side_effect=AssertionError))
    assert cli.main([*QUICK, "model=cnn", "trainer.deterministic=true"]) == 2
    assert not Path("run").exists()
    (line,) = refusals(capsys)
    start = "cnntrain: error: trainer.deterministic: torch has no repeatable algorithm for own_loss_backward_cuda here"
    assert line.startswith(start)


def test_a_network_of_the_users_that_cannot_repeat_its_bits_is_told_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("unpooled.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes, in_channels, image_size):\n"
        "        super().__init__()\n"
        "        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)\n"
        "        self.head = nn.Linear(in_channels * image_size ** 2, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.unpool(*self.pool(x)).flatten(1))\n"
    )
    monkeypatch.syspath_prepend(str(here))
    words = [*QUICK, "model=own", "model.name=unpooled:Net"]
    assert cli.main([*words, "trainer.deterministic=true"]) == 2
    assert not Path("run").exists()
    (line,) = refusals(capsys)
    assert line.startswith("cnntrain: error: trainer.deterministic: torch has no repeatable algorithm for max_unpool")
    assert cli.main(words) == 0


def test_the_look_ahead_changes_no_bit_of_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*QUICK[:-1], "model=cnn", "model.args.dropout=0.5", "augment=mixup", "trainer.deterministic=true"]
    assert cli.main([*words, "hydra.run.dir=one"]) == 0
    monkeypatch.setattr(session, "check_repeatable", lambda job: None)
    assert cli.main([*words, "hydra.run.dir=two"]) == 0
    one, two = (json.loads(Path(name, "results.json").read_text()) for name in ("one", "two"))
    assert one["weights_sha256"] == two["weights_sha256"]
