"""Whole runs through the command line, on the digits and on small folders of photos made here."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import QUICK, results, run

from cnntrain.config.schema.pieces import OwnSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.report import summary
from cnntrain.storage import checkpoint
from cnntrain.training.state import Progress


def test_a_run_leaves_what_the_readme_names(here):
    assert run("trainer.epochs=1", "data.limit=200", "trainer.threads=1", "hydra.run.dir=run") == 0
    names = {path.name for path in (here / "run").iterdir()}
    assert {"config.yaml", "overrides.yaml", "command.txt", "environment.json", "metrics.csv", "train.log"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    found = results("run")
    wanted = {"status", "best_epoch", "val", "test", "seconds", "images_per_second", "parameters", "checkpoint"}
    assert wanted | {"peak_memory_bytes", "weights_sha256", "ended"} <= found.keys()
    assert (found["status"], found["parameters"]) == ("done", 61706)
    assert found["images"] == {"train": 200, "val": 144, "test": 360}
    assert 0 <= found["test"]["top1"] <= found["test"]["top5"] <= 1
    assert set(os.listdir("run/checkpoints")) >= {"last", "best"}


def test_eval_needs_the_checkpoint_alone(here, capsys):
    assert run(*QUICK, "hydra.run.dir=run") == 0
    (here / "run/config.yaml").unlink()
    assert run("eval", "run/checkpoints/best", "out=scores.json") == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores["test"]["top1"] == pytest.approx(results("run")["test"]["top1"])
    assert scores["val"]["top1"] == pytest.approx(results("run")["val"]["top1"])
    assert scores["test"]["classes"]["3"]["images"] == 37
    assert run("eval", "run", "out=confusion.SVG") == 0
    text = Path("confusion.SVG").read_text()
    assert all(f">{words}<" in text for words in ("predicted class", "true class", *"0123456789"))
    assert ">360 test images, " in text


def test_check_says_what_a_run_takes_and_writes_nothing(here, capsys):
    assert run("check", "model=cnn", "data.limit=100") == 0
    out = capsys.readouterr().out
    assert "parameters" in out
    assert "epoch" in out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "many"),
    [("trainer.epochs=1", 1), ("trainer.max_steps=1", 1), ("trainer.epochs=2", 0), ("schedule=constant", 0)],
)
def test_a_default_warm_up_that_is_the_whole_run_is_told(photos, here, capsys, word, many):
    small = ["model=softmax", "data.image_size=32", "data.batch_size=16", "data.mean=[0.5]", "data.std=[0.5]"]
    assert run("check", "data=imagefolder", f"data.root={photos}", *small, word) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if "schedule.warmup" in line]
    told = "the whole run is one rise of the learning rate (given 1, in epochs); set schedule.warmup=0, or train longer"
    assert found == [f"warning: schedule.warmup: {told}"] * many


def test_a_folder_of_photos_is_learnt_and_a_moved_copy_evaluated(photos, here):
    words = ["data=imagefolder", f"data.root={photos}", "data.image_size=32", "model=cnn", "trainer.epochs=6"]
    assert run(*words, "data.batch_size=12", "optimizer.lr=0.3", "trainer.tensorboard=false", "hydra.run.dir=run") == 0
    assert results("run")["test"]["top1"] == 1.0
    assert json.loads((here / "run/environment.json").read_text())["classes"] == ["blue", "green", "red"]
    assert all(results("run")[split].keys() == {"loss", "top1"} for split in ("val", "test"))  # of three classes
    photos.rename(here / "moved")
    assert run("eval", "run", "data.root=moved", "out=scores.json") == 0
    assert json.loads(Path("scores.json").read_text())["test"]["top1"] == 1.0


def test_a_function_of_ones_own_augments_but_is_not_followed_out_of_a_run(here, capsys):
    Path("my_augment_of_test.py").write_text("def darker(images, generator):\n    return images // 2\n")
    name = "augment.own.name=my_augment_of_test:darker"
    assert run(*QUICK, "augment=own", name, "data.limit=100", "hydra.run.dir=run") == 0
    assert f"cnntrain resume run trainer.epochs=4 {name}" in capsys.readouterr().out
    assert run("eval", "run") == 0  # which augments nothing
    assert run("resume", "run", "trainer.epochs=3") == 8
    assert f"repeat {name}" in capsys.readouterr().err
    assert run("resume", "run", "trainer.epochs=3", name) == 0


def test_a_network_of_ones_own_trains_but_is_not_followed_out_of_a_run(here, capsys):
    Path("my_nets_of_test.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes, in_channels, image_size, width=4):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, width, 3, 4), nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    name = "model.name=my_nets_of_test:tiny"
    words = ["model=torchvision", name, "model.args.width=3", "trainer.tensorboard=false", "data.limit=100"]
    assert run(*words, "trainer.epochs=1", "hydra.run.dir=run") == 0
    capsys.readouterr()
    assert run("eval", "run") == 8
    assert f"repeat {name}" in capsys.readouterr().err
    assert run("eval", "run", name) == 0


ONE_EPOCH = ["data.limit=100", "data.batch_size=64", "trainer.epochs=1"]


@pytest.mark.parametrize(
    ("words", "ended", "longer"),
    [
        (["trainer.epochs=1", "trainer.tensorboard=true"], "by trainer.epochs=1", "trainer.epochs=2"),
        (["trainer.max_steps=1"], "by trainer.max_steps=1, with 0 of 2 epochs done", "trainer.max_steps=2"),
        ([*ONE_EPOCH, "trainer.max_steps=2"], "by trainer.epochs=1", "trainer.epochs=2 trainer.max_steps=4"),
        (["trainer.max_time=0.001s"], "by trainer.max_time=0.001s, with 0 of 2 epochs done", r"trainer.max_time=\d+s"),
        (
            ["optimizer.lr=1e-30", "trainer.early_stop=1", "trainer.epochs=3", "data.limit=100"],
            "by trainer.early_stop=1: no better epoch since epoch 1",
            "trainer.early_stop=null",
        ),
    ],
)
def test_the_end_says_why_and_all_that_it_proposes_does_something(here, capsys, words, ended, longer):
    assert run(*QUICK, "trainer.probe=0", *words, "out=my run") == 0
    out = capsys.readouterr().out
    assert re.search(rf"^  ended +{re.escape(ended)}$", out, re.MULTILINE)
    lines = out[out.index("next") :].splitlines()
    score, page, predict, export, resume, *board = (shlex.split(line.removeprefix("next")) for line in lines)
    assert score == ["cnntrain", "eval", "my run"]
    assert page == ["cnntrain", "report", "my run"]
    assert predict == ["cnntrain", "predict", "my run", "images=PHOTOS"]
    assert export[:3] == ["cnntrain", "export", "my run"]
    assert re.fullmatch(f"cnntrain resume my run {longer}", " ".join(resume))
    assert len(board) == ("trainer.tensorboard=true" in words)
    for line in board:
        assert any(path.name.startswith("events") for path in Path(line[-1]).iterdir())
    before = checkpoint.load(here / "my run/checkpoints/last")["progress"]["step"]
    assert run(*score[1:]) == run(*resume[1:]) == 0
    assert checkpoint.load(here / "my run/checkpoints/last")["progress"]["step"] > before


def test_a_limit_of_time_is_moved_by_whole_lengths():
    for text, seconds, longer in (
        ("30m", 1803.2, "1h"),
        ("1.5h", 5400.0, "3h"),
        ("90s", 91.0, "3m"),
        ("20", 65, "80s"),
    ):
        trainer = TrainerSettings(max_time=text)
        assert summary._further(trainer, Progress(seconds=seconds)) == [f"trainer.max_time={longer}"]
        assert (TrainerSettings(max_time=longer).max_seconds() or 0) > seconds


def test_what_runs_code_of_the_users_is_named_in_what_the_end_proposes(here):
    settings = replace(Settings(), model=replace(Settings().model, name="nets:tiny"))
    settings = replace(settings, augment=replace(settings.augment, own=OwnSettings(name="mine:noise")))
    done = summary.next_commands(settings, Progress(epoch=10), Path("run"), scored=True)
    code = "model.name=nets:tiny"
    assert [line for line in done if "export" not in line][:4] == [
        f"cnntrain eval run {code}",
        f"cnntrain report run {code} augment.own.name=mine:noise",
        f"cnntrain predict run images=PHOTOS {code}",
        f"cnntrain resume run trainer.epochs=20 {code} augment.own.name=mine:noise",
    ]
    assert not any("eval" in line for line in summary.next_commands(settings, Progress(), Path("run"), scored=False))
    settings = replace(settings, trainer=replace(settings.trainer, report=True))  # which has written it
    assert not any("report" in line for line in summary.next_commands(settings, Progress(), Path("run"), scored=True))
    assert summary.resume_command(settings, Path("run")) == f"cnntrain resume run {code} augment.own.name=mine:noise"


@pytest.mark.slow
def test_names_of_any_letters_train_under_a_locale_that_is_ascii(photos):
    for path in photos.glob("*/red"):
        path.rename(path.with_name("Schlüssel 猫"))
    photos.rename("Größe")
    data = ["data=imagefolder", "data.root='Größe'", "model=lenet5", "data.image_size=32", "trainer.epochs=1"]
    data += ["schedule.warmup=0"]
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in ([*data, "hydra.run.dir=run"], ["eval", "run"], ["predict", "run", "images=Größe/test"]):
        done = subprocess.run(
            [sys.executable, "-m", "cnntrain", *words], capture_output=True, text=True, env=ascii_only
        )
        assert (done.returncode, done.stderr) == (0, "cnntrain: loading torch\n")
        assert "warning" not in done.stdout
    assert "Schl\\xfcssel \\u732b" in done.stdout
    assert json.loads(Path("run/environment.json").read_text())["classes"] == ["Schlüssel 猫", "blue", "green"]
    assert run("eval", "run") == 0


def test_bf16_and_compiled_checkpoints_have_plain_names(here):
    assert run(*QUICK, "trainer.epochs=1", "trainer.precision=bf16", "data.limit=70", "hydra.run.dir=run") == 0
    state = checkpoint.load(here / "run/checkpoints/best")
    assert all(value.dtype == torch.float32 for value in state["model"].values())
    assert not any(name.startswith(("_orig_mod", "module")) for name in state["model"])


@pytest.mark.slow
def test_a_compiled_network_trains_and_its_checkpoint_has_plain_names(here):
    words = [*QUICK, "trainer.epochs=1", "trainer.compile=true", "hydra.run.dir=run"]
    done = subprocess.run([sys.executable, "-m", "cnntrain", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not any("_orig_mod" in name for name in checkpoint.load(here / "run/checkpoints/best")["model"])


@pytest.mark.slow
def test_the_default_run_reaches_97_percent(here):
    assert run("trainer.tensorboard=false", "hydra.run.dir=run") == 0
    assert results("run")["test"]["top1"] >= 0.97
