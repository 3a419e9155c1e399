"""What holds on the CPU holds on a GPU: precisions, resuming, images in memory, checkpoints that move to the CPU."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cnntrain import cli
from cnntrain.data.loaders import MemoryLoader
from cnntrain.training import loop

QUICK = ["model=cnn", "data.limit=96", "data.batch_size=16", "trainer.epochs=2", "trainer.threads=1", "trainer.probe=0"]
QUICK += ["trainer.log_every=1", "trainer.tensorboard=false", "trainer.deterministic=true"]


@pytest.fixture(autouse=True)
def _deterministic_algorithms_end_with_the_test() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def losses(folder: str) -> list[float]:
    """The training loss of each step."""
    with Path(folder, "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["kind"] == "step"]


def results(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "results.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_takes_the_steps_of_fp32_up_to_rounding(
    here: Path, device: torch.device, precision: str
) -> None:
    for name in ("fp32", precision):
        words = (f"trainer.device={device}", f"trainer.precision={name}", "trainer.max_steps=4", f"out={name}")
        assert cli.main([*QUICK, *words]) == 0
    assert losses(precision) == pytest.approx(losses("fp32"), rel=0.02)
    assert losses(precision) != losses("fp32")


def test_a_run_that_was_killed_and_resumed_ends_with_the_same_bits(
    here: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    words = [*QUICK, f"trainer.device={device}", "trainer.save_every=3", "trainer.ema=0.9"]
    words += ["augment=[pad_crop,randaugment,noise,mixup,cutmix]", "model.dropout=0.1"]
    assert cli.main([*words, "out=whole"]) == 0

    class Killed(BaseException):
        """No handler of ours knows it, so nothing is saved."""

    step = loop.train_step

    def dies(run: Any, *rest: Any) -> None:
        if run.progress.step == 7:
            raise Killed
        step(run, *rest)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(Killed):
        cli.main([*words, "out=killed"])
    monkeypatch.setattr(loop, "train_step", step)
    assert cli.main(["resume", "killed"]) == 0
    assert losses("killed") == losses("whole")
    assert results("killed")["weights_sha256"] == results("whole")["weights_sha256"]


@pytest.mark.parametrize("resident", [True, False], ids=["on the device", "on the host"])
def test_batches_of_images_in_memory_are_those_that_their_indices_name(device: torch.device, resident: bool) -> None:
    images = torch.randint(0, 256, (37, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(37)
    loader = MemoryLoader(images, labels, batch_size=8, device=device, seed=1, train=True, resident=resident)
    for pixels, classes, indices, _ in loader.batches(epoch=2):
        assert pixels.device.type == classes.device.type == device.type
        assert torch.equal(pixels.cpu(), images[indices])
        assert torch.equal(classes.cpu(), labels[indices])
        assert torch.equal(loader.pick(indices).cpu(), images[indices])


def test_a_checkpoint_of_any_device_is_scored_on_the_cpu(here: Path, device: torch.device) -> None:
    assert cli.main([*QUICK, f"trainer.device={device}", "trainer.precision=fp32", "out=run"]) == 0
    assert cli.main(["eval", "run", "trainer.device=cpu", "out=scores.json"]) == 0
    scores, trained = json.loads(Path("scores.json").read_text()), results("run")
    for split in ("val", "test"):
        assert scores[split]["loss"] == pytest.approx(trained[split]["loss"], rel=1e-4)
        assert scores[split]["top1"] == pytest.approx(trained[split]["top1"], abs=0.01)
