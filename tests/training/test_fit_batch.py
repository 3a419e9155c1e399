"""data.batch_size=auto: the largest batch that fits, and a run that knows nothing of how it was found."""

import json
import types
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from test_loop import make_job
from torch import Tensor

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.runtime.reporter import Reporter, Silence
from cnntrain.runtime.world import World
from cnntrain.storage import checkpoint
from cnntrain.training import fit_batch, loop
from cnntrain.training.micro_batches import cut

QUICK = ("trainer.epochs=1", "trainer.max_steps=2", "trainer.tensorboard=false", "data.val=100", "augment=hflip")


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class Card:
    """A device on which so many images fit at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.most, self.sizes = most, list[int]()
        monkeypatch.setattr(fit_batch, "tells_when_full", lambda device: True)
        monkeypatch.setattr(loop, "cut", self.cut)

    def cut(self, inputs: Tensor, targets: Tensor, most: int | None):
        for part in cut(inputs, targets, most):
            self.sizes.append(len(part[0]))
            yield part
            if len(part[0]) > self.most:  # behind the forward and backward passes, which have left their marks
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def results(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "results.json").read_text())


@pytest.mark.parametrize(("most", "found"), [(36, 34), (5, 4), (2, 2), (70, 64)])
def test_the_largest_batch_is_found_by_doubling_and_halving(here, monkeypatch, capsys, most, found):
    card, released = Card(monkeypatch, most), list[torch.device]()
    monkeypatch.setattr(fit_batch, "release_memory", released.append)
    assert cli.main([*QUICK, "data.batch_size=auto", "hydra.run.dir=run"]) == 0
    assert len(set(card.sizes)) <= 10
    assert len(released) == 1 + sum(size > most for size in card.sizes)  # after each that failed, and at the end
    out = " ".join(capsys.readouterr().out.split())
    assert f"batch size: {found}, as {most} images at once fit into memory and" in out
    assert f"steps of {found} images" in out
    assert "64 here" not in out
    assert f"batch_size: {found}\n" in Path("run/config.yaml").read_text()
    assert checkpoint.load(here / "run/checkpoints/last")["about"]["config"]["data"]["batch_size"] == found


@pytest.mark.slow
def test_the_run_is_the_one_that_is_started_with_the_number(here, monkeypatch):
    """Weights, statistics of batch norms, random numbers and the optimizer: nothing of the trials is left."""
    Card(monkeypatch, 36)
    words = [*QUICK[:-1], "model=cnn3", "optimizer=adamw", "trainer.ema=0.9", "augment=[hflip,mixup]"]
    words += ["data.image_size=16", "trainer.probe=0"]
    assert cli.main([*words, "data.batch_size=auto", "hydra.run.dir=auto"]) == 0
    assert cli.main([*words, "data.batch_size=34", "hydra.run.dir=number"]) == 0
    assert results("auto")["weights_sha256"] == results("number")["weights_sha256"]
    assert results("auto")["test"] == results("number")["test"]
    ends = [checkpoint.load(here / name / "checkpoints/last") for name in ("auto", "number")]
    assert torch.equal(*(end["rng"]["torch"] for end in ends))


@pytest.mark.slow
def test_a_resume_keeps_the_number(here, monkeypatch, capsys):
    Card(monkeypatch, 36)
    assert cli.main([*QUICK, "data.batch_size=auto", "hydra.run.dir=run"]) == 0
    Card(monkeypatch, 999)
    assert cli.main(["resume", "run", "trainer.max_steps=3"]) == 0
    assert "of 34 images" in capsys.readouterr().out
    assert cli.main(["resume", "run", "trainer.max_steps=4", "data.batch_size=auto"]) == 0
    assert "of 83 images" in capsys.readouterr().out  # a sixteenth of 1,337
    assert "batch_size: 83\n" in Path("run/config.yaml").read_text()


@pytest.mark.slow
def test_check_and_find_lr_find_it_too(here, monkeypatch, capsys):
    Card(monkeypatch, 36)
    assert cli.main(["check", *QUICK, "data.batch_size=auto"]) == 0
    assert "for 34 images" in capsys.readouterr().out
    assert cli.main(["find_lr", *QUICK, "data.batch_size=auto", "steps=20", "out=lr"]) == 0
    assert "steps of 34 images" in " ".join(capsys.readouterr().out.split())


def test_a_network_for_which_two_images_are_too_many_is_told(here, monkeypatch, capsys):
    Card(monkeypatch, 1)
    assert cli.main([*QUICK, "data.batch_size=auto", "hydra.run.dir=run"]) == 7
    assert "error: data.image_size: not even 2 images at once fit into memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("each", "free", "found"),
    [
        pytest.param(10, 1000, 72, marks=pytest.mark.slow),
        (10, 200, 11),
        pytest.param(1, 10_000, 83, marks=pytest.mark.slow),
    ],
)
def test_on_a_cpu_few_images_tell_how_many_fit(here, monkeypatch, capsys, each, free, found):
    """A process that holds 500 MiB and takes `each` more for an image: four fifths of what is free are filled."""
    mebi, largest = 2**20, [0]

    def step(trial, images):
        largest.append(images)

    monkeypatch.setattr(fit_batch._Trial, "step", step)
    monkeypatch.setattr(
        fit_batch, "peak_memory", lambda device: (500 + 50 * (len(largest) > 1) + each * largest[-1]) * mebi
    )
    monkeypatch.setattr(fit_batch, "free_memory", lambda device: free * mebi)
    assert cli.main([*QUICK, "data.batch_size=auto", "hydra.run.dir=run"]) == 0
    assert max(largest) <= 16
    assert 50 + each * max(largest) <= 0.8 * free
    out = " ".join(capsys.readouterr().out.split())
    assert f"steps of {found} images" in out
    assert (
        "so that an epoch has 16 steps; memory is not the limit (auto)"
        if found == 83
        else f"as an image takes {each} MiB and {free} MiB are free"
    ) in out


@pytest.mark.parametrize(("other", "kept"), [(3, 3), (99, 5), (7, 5)])
def test_all_processes_take_the_number_of_the_one_with_the_least_room(monkeypatch, other, kept):
    """For trainer.micro_batch=auto, where a batch has 7 images and this process takes 5 at once."""
    built = []

    def build(settings, report, **words):
        built.append(settings)
        return make_job()

    monkeypatch.setattr(fit_batch, "build_train_job", build)
    monkeypatch.setattr(fit_batch, "_find", lambda job, most: (5, f"of {most}"))
    settings = compose_settings(
        ["data=digits", "trainer.micro_batch=auto", "trainer.compile=true", "model.sync_bn=true"]
    )
    world = cast(World, types.SimpleNamespace(size=2, gather=lambda size: [size, other]))
    job = fit_batch.build_fitting_job(settings, cast(Reporter, Silence()), world=world)
    assert [part.trainer.micro_batch for part in built] == [None, kept]
    assert [(part.trainer.compile, part.model.sync_bn) for part in built] == [(False, False), (True, True)]
    assert job.notes == [f"micro-batches: of {kept} images, of 7"]


def test_words_that_are_no_size_are_told_in_one_line(capsys):
    for word in ("0", "1.5", "true", "all"):
        assert cli.main([f"data.batch_size={word}"]) == 2
        rule = "a whole number >= 1, or auto, or null"
        assert capsys.readouterr().err == f"cnntrain: error: data.batch_size: must be {rule} (given {word})\n"
    assert cli.main(["data.batch_size=auto", "trainer.micro_batch=auto"]) == 2
    line = "cnntrain: error: trainer.micro_batch: must be null with data.batch_size=auto, which finds a batch that fits"
    assert capsys.readouterr().err.startswith(line)


def test_a_number_out_of_the_environment_is_one(here, monkeypatch, capsys):
    monkeypatch.setenv("BATCH", "48")
    assert cli.main([*QUICK, "data.batch_size=${oc.env:BATCH}", "hydra.run.dir=run"]) == 0
    assert "steps of 48 images" in capsys.readouterr().out
