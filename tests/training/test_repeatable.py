"""trainer.deterministic: what torch cannot repeat is told before the first step, and a run without it is left alone."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from torch import Tensor
from torch.nn import functional

from cnntrain import cli
from cnntrain.report import session
from cnntrain.training import loop

QUICK = ["data.limit=40", "data.batch_size=20", "trainer.epochs=1", "trainer.threads=1", "trainer.probe=0"]
QUICK += ["trainer.tensorboard=false", "trainer.device=cpu", "hydra.run.dir=run"]


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
