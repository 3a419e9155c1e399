"""Whole runs through the command line, on the digits and on small folders of photos made here."""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain import cli
from cnntrain.config.schema.pieces import OwnSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import TrainerSettings
from cnntrain.errors import FileSystemError
from cnntrain.plots import confusion, grid
from cnntrain.report import summary
from cnntrain.storage import atomic, checkpoint, run_record
from cnntrain.training import loop
from cnntrain.training.state import Progress

QUICK = ["model=lenet5", "data.limit=300", "data.batch_size=64", "trainer.epochs=2", "trainer.threads=1"]
QUICK += ["trainer.tensorboard=false"]


class Killed(BaseException):
    """As sudden as a kill: no handler of ours knows it, so nothing is saved."""


@pytest.fixture
def photos(here):
    """Three classes of flat colour with noise, 12 images each in train/ and 4 in test/."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for index, name in enumerate(("blue", "green", "red")):
            folder = here / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 80, (40, 50, 3))
                pixels[..., 2 - index] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return here / "photos"


def run(*words):
    return cli.main([*map(str, words)])


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text())


def rows(folder):
    header, *lines = (Path(folder) / "metrics.csv").read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


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


def run_killed(monkeypatch, when, *words):
    """Run a command line that dies before the first step of which `when(progress)` is true."""
    step = loop.train_step

    def dies(run, task, *rest):
        if when(run.progress):
            raise Killed
        step(run, task, *rest)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(Killed):
        run(*words)
    monkeypatch.setattr(loop, "train_step", step)


def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(here, monkeypatch):
    words = [*QUICK, "trainer.save_every=3", "trainer.ema=0.9", "augment=[pad_crop,randaugment,noise,mixup,cutmix]"]
    assert run(*words, "hydra.run.dir=whole") == 0

    run_killed(monkeypatch, lambda progress: progress.step == 7, *words, "hydra.run.dir=killed")
    assert checkpoint.load(here / "killed/checkpoints/last")["progress"]["step"] == 6
    assert run("resume", "killed") == 0
    assert results("killed")["weights_sha256"] == results("whole")["weights_sha256"]
    assert results("killed")["test"] == results("whole")["test"]
    plain = [[(row["step"], row["loss"], row["val_loss"]) for row in rows(name)] for name in ("killed", "whole")]
    assert plain[0] == plain[1]


def test_a_run_killed_before_its_first_save_starts_again_from_its_config(here, monkeypatch, capsys):
    def dies(*args):
        raise Killed

    train = loop.train
    monkeypatch.setattr(loop, "train", dies)
    with pytest.raises(Killed):
        run(*QUICK, "hydra.run.dir=run")
    monkeypatch.setattr(loop, "train", train)
    assert run("resume", "run") == 0
    assert "no checkpoint yet" in capsys.readouterr().out
    assert results("run")["status"] == "done"


def test_a_change_is_kept_though_the_resume_that_made_it_is_killed_before_its_first_save(here, monkeypatch, capsys):
    words = [*QUICK, "data.limit=160", "data.batch_size=32", "trainer.save_every=3", "trainer.probe=0"]
    for name in ("whole", "killed"):
        run_killed(monkeypatch, lambda progress: progress.step == 4, *words, f"hydra.run.dir={name}")
    assert run("resume", "whole", "data.batch_size=16") == 0
    run_killed(monkeypatch, lambda progress: progress.step == 5, "resume", "killed", "data.batch_size=16")
    capsys.readouterr()
    assert run("resume", "killed") == 0
    assert "changed: data.batch_size: 32 -> 16" in capsys.readouterr().out
    assert results("killed")["weights_sha256"] == results("whole")["weights_sha256"]


def test_a_run_that_loses_its_checkpoints_on_the_way_keeps_what_it_has_told(here, monkeypatch):
    write = checkpoint._write

    def lose(folder, state):
        if state["progress"]["step"] < 4:
            return write(folder, state)
        (here / "run/checkpoints").rename(here / "elsewhere")
        raise FileNotFoundError(2, "gone", str(folder))

    monkeypatch.setattr(checkpoint, "_write", lose)
    words = [*QUICK, "trainer.save_every=2", "trainer.log_every=1", "hydra.run.dir=run"]
    assert run(*words) == 6
    assert (here / "run/config.yaml").exists()
    assert len(rows("run")) >= 4
    monkeypatch.setattr(checkpoint, "_write", write)
    assert run("resume", "run") == 0


def test_resume_goes_on_longer_and_prints_the_difference(here, capsys):
    assert run(*QUICK, "hydra.run.dir=run") == 0
    capsys.readouterr()
    assert run("resume", "run", "trainer.epochs=3") == 0
    out = capsys.readouterr().out
    assert "changed: trainer.epochs: 2 -> 3" in out
    assert [row["epoch"] for row in rows("run") if row["kind"] == "epoch"] == ["1", "2", "3"]
    steps = [int(row["step"]) for row in rows("run") if row["kind"] == "step"]
    assert steps == sorted(set(steps))


def test_a_batch_size_changed_in_the_middle_of_an_epoch_starts_that_epoch_anew(here, capsys):
    assert run(*QUICK, "trainer.max_steps=7", "hydra.run.dir=run") == 0
    for size, total in ((20, 7 + 15), (150, 7 + 15 + 2)):
        words = ["trainer.max_steps=null", f"data.batch_size={size}", f"trainer.epochs={2 if size == 20 else 3}"]
        assert run("resume", "run", *words) == 0
        assert checkpoint.load(here / "run/checkpoints/last")["progress"]["step"] == total
    assert "epoch 2 starts anew" in capsys.readouterr().out
    steps = [int(row["step"]) for row in rows("run") if row["kind"] == "epoch"]
    assert steps == [5, 7, 22, 24]
    assert float(rows("run")[-1]["lr"]) < 1e-3  # the schedule still ends with the run


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


def test_a_run_on_few_classes_that_an_older_version_began_goes_on_without_top5(photos, here, capsys):
    words = ["data=imagefolder", f"data.root={photos}", "data.image_size=8", "model=softmax", "data.batch_size=12"]
    assert run(*words, "trainer.epochs=1", "trainer.tensorboard=false", "out=run") == 0
    metrics = here / "run/metrics.csv"
    header, *_, last = metrics.read_text().splitlines()
    row = dict(zip(header.split(","), last.split(","), strict=True)) | {"val_top5": "1"}
    metrics.write_text(f"{header}\n{','.join(row.values())}\n")
    assert run("resume", "run", "trainer.epochs=2") == 0
    assert [(row["epoch"], row["val_top5"]) for row in rows("run") if row["kind"] == "epoch"] == [("1", ""), ("2", "")]
    assert "top-5" not in capsys.readouterr().out


def test_a_bad_image_ends_the_run_with_its_name_or_is_skipped_and_listed(photos, here, capsys):
    bad = photos / "train/red/3.png"
    bad.write_bytes(bad.read_bytes()[:500])
    words = ["data=imagefolder", f"data.root={photos}", "data.image_size=32", "model=cnn", "trainer.epochs=1"]
    words += ["data.val=6", "trainer.tensorboard=false"]
    assert run(*words) == 3
    assert str(bad) in capsys.readouterr().err
    assert run(*words, "data.on_bad_image=skip", "hydra.run.dir=run") == 0
    assert results("run")["bad_images"] == 1
    assert (here / "run/bad_images.tsv").read_text().startswith(str(bad))


def test_a_bad_image_in_the_first_step_leaves_no_folder_and_later_ones_lose_nothing(photos, here, capsys):
    (photos / "train/red/3.png").write_bytes(b"")
    words = ["data=imagefolder", f"data.root={photos}", "data.image_size=32", "model=cnn", "trainer.tensorboard=false"]
    words += ["data.mean=[0.4,0.4,0.4]", "data.std=[0.2,0.2,0.2]", "trainer.epochs=1"]
    assert run(*words, "data.batch_size=30", "out=run") == 3
    assert "3.png: the file is empty" in capsys.readouterr().err
    assert not Path("run").exists()
    assert run(*words, "data.batch_size=2", "out=run", "seed=3") == 3
    assert checkpoint.load(here / "run/checkpoints/last")["progress"]["step"] > 0


def test_a_new_image_is_refused_on_resume_and_told_at_eval(photos, here, capsys):
    words = ["data=imagefolder", f"data.root={photos}", "data.image_size=32", "model=cnn", "trainer.tensorboard=false"]
    assert run(*words, "trainer.epochs=1", "hydra.run.dir=run") == 0
    capsys.readouterr()
    assert run("eval", "run") == 0
    assert "warning" not in capsys.readouterr().out
    (photos / "train/red/new.png").write_bytes((photos / "train/red/1.png").read_bytes())
    assert run("resume", "run", "trainer.epochs=2") == 4
    assert "the images are not those" in capsys.readouterr().err
    assert run("eval", "run") == 0
    assert "these images are not those of the run" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["seed=7", "data.val=0.5", "data.folds=5"])
def test_the_split_of_a_run_cannot_be_changed(here, capsys, word):
    assert run(*QUICK, "trainer.epochs=1", "hydra.run.dir=run") == 0
    for command in ("resume", "eval"):
        assert run(command, "run", word) == 2
        assert "were trained on" in capsys.readouterr().err


def test_a_resume_that_fails_leaves_the_results_alone_and_one_that_runs_replaces_them(here, monkeypatch):
    assert run(*QUICK, "hydra.run.dir=run") == 0
    before = results("run")
    assert run("resume", "run", "trainer.epochs=3", "model.args.activation=tanh", "data.image_size=40") == 4
    assert results("run") == before

    def dies(*args):
        raise Killed

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(Killed):
        run("resume", "run", "trainer.epochs=3")
    assert not Path("run/results.json").exists()


def test_numbers_of_the_optimizer_can_change_on_resume(here):
    assert run(*QUICK, "hydra.run.dir=run") == 0
    assert run("resume", "run", "optimizer.momentum=0.5", "optimizer.weight_decay=0.01", "trainer.epochs=3") == 0
    groups = checkpoint.load(here / "run/checkpoints/last")["optimizer"]["param_groups"]
    assert [(group["momentum"], group["weight_decay"]) for group in groups] == [(0.5, 0.01), (0.5, 0.0)]


def test_switching_the_average_off_on_resume_keeps_the_best_epoch_as_it_was_scored(here):
    assert run(*QUICK, "trainer.ema=0.9", "hydra.run.dir=run") == 0
    before = results("run")["test"]
    Path("run/results.json").unlink()  # as a run that was killed before its test
    assert run("resume", "run", "trainer.ema=null") == 0
    assert results("run")["test"] == before


def test_other_classes_than_the_runs_are_refused_on_resume(photos, here, capsys):
    words = ["data=imagefolder", f"data.root={photos}", "data.image_size=32", "model=cnn", "trainer.tensorboard=false"]
    assert run(*words, "trainer.epochs=1", "hydra.run.dir=run") == 0
    for split in ("train", "test"):
        (photos / split / "red").rename(photos / split / "rot")
    assert run("resume", "run", "trainer.epochs=2") == 4
    assert "blue, green, red" in capsys.readouterr().err


def test_changed_networks_are_refused_on_resume_and_leave_the_config_alone(here, capsys):
    assert run(*QUICK, "model=mlp", "hydra.run.dir=run") == 0
    before = (here / "run/config.yaml").read_text()
    assert run("resume", "run", "model.args.hidden=[7]", "trainer.epochs=3") == 4
    assert "keep the run's model settings" in capsys.readouterr().err
    assert (here / "run/config.yaml").read_text() == before


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(here, capsys):
    assert run("model=torchvision", "model.name=resnet81") == 2
    assert run("data=mnist", "data.root=nowhere") == 3
    assert not any(here.rglob("*.yaml"))
    assert not list(here.glob("outputs/*"))
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("of the user")
    assert run("data=mnist", "data.root=nowhere", "hydra.run.dir=mine") == 3
    assert os.listdir("mine") == ["notes.txt"]


@pytest.mark.parametrize("full", ["config.yaml", "environment.json"])
def test_a_disk_that_is_full_before_the_first_step_leaves_no_folder(here, monkeypatch, capsys, full):
    write, begun = atomic.write_atomic, []

    def refuse(path, content, **more):
        if path.name == full and (full == "config.yaml" or begun):
            raise FileSystemError(f"{path}: cannot be written")
        begun.append(path)
        write(path, content, **more)

    monkeypatch.setattr(run_record, "write_atomic", refuse)
    assert run(*QUICK, "out=run") == 6
    assert f"{full}: cannot be written" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_drop_schedule_without_anything_to_drop_is_refused(here, capsys):
    assert run("data=digits", "model=lenet5", "model.drop_schedule=linear") == 2
    assert "error: model.drop_schedule: lenet5 drops nothing" in capsys.readouterr().err


def test_a_used_folder_is_refused(here, capsys):
    assert run(*QUICK, "trainer.epochs=1", "hydra.run.dir=run") == 0
    assert run(*QUICK, "hydra.run.dir=run") == 9
    assert "cnntrain resume" in capsys.readouterr().err


def test_growing_images_resume_with_the_same_bits_and_need_a_network_for_any_size(here, monkeypatch, capsys):
    words = [*QUICK, "model=resnet20", "data.image_size=16", "data.limit=150", "trainer.epochs=3"]
    words += ["augment=[alternating_flip,progressive]", "trainer.save_every=1"]
    assert run(*words, "hydra.run.dir=whole") == 0
    assert [row["epoch"] for row in rows("whole") if row["kind"] == "epoch"] == ["1", "2", "3"]
    run_killed(monkeypatch, lambda progress: progress.epoch == 1, *words, "hydra.run.dir=killed")
    assert run("resume", "killed") == 0
    assert results("killed")["weights_sha256"] == results("whole")["weights_sha256"]
    capsys.readouterr()
    assert run(*QUICK, "augment=progressive") == 2
    assert "augment.progressive: lenet5 does not take images of 16 pixels" in capsys.readouterr().err


def test_a_function_of_ones_own_augments_but_is_not_followed_out_of_a_run(here, capsys):
    Path("my_augment_of_test.py").write_text("def darker(images, generator):\n    return images // 2\n")
    name = "augment.own.name=my_augment_of_test:darker"
    assert run(*QUICK, "augment=own", name, "data.limit=100", "hydra.run.dir=run") == 0
    assert f"cnntrain resume run trainer.epochs=4 {name}" in capsys.readouterr().out
    assert run("eval", "run") == 0  # which augments nothing
    assert run("resume", "run", "trainer.epochs=3") == 8
    assert f"repeat {name}" in capsys.readouterr().err
    assert run("resume", "run", "trainer.epochs=3", name) == 0


def test_a_diverging_run_ends_with_5_and_advice(here, capsys):
    assert run(*QUICK, "optimizer.lr=1e20", "hydra.run.dir=run") == 5
    assert "try a lower optimizer.lr" in capsys.readouterr().err
    assert results("run")["status"] == "failed"


def test_statistics_that_are_not_finite_end_with_5_and_leave_the_last_good_checkpoint_alone(here, capsys):
    # On the CPU, where the statistics overflow before the loss does.
    words = ["model=resnet20", "data.limit=60", "data.batch_size=10", "schedule=constant", "trainer.device=cpu"]
    assert run(*words, "trainer.tensorboard=false", "trainer.epochs=1", "hydra.run.dir=run") == 0
    before = (here / "run/checkpoints/last/state.pt").read_bytes()
    assert run("resume", "run", "trainer.epochs=2", "optimizer.lr=1e4") == 5
    assert "running_var is NaN or infinite in places" in capsys.readouterr().err
    assert (here / "run/checkpoints/last/state.pt").read_bytes() == before
    assert run("eval", "run") == 0


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


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_saves_and_tells_how_to_go_on(here, signum, code, capsys, monkeypatch):
    step = loop.train_step

    def signalled(run, task, *rest):
        step(run, task, *rest)
        if run.progress.step == 4:
            signal.raise_signal(signum)

    monkeypatch.setattr(loop, "train_step", signalled)
    assert run(*QUICK, "hydra.run.dir=run") == code
    assert "go on with cnntrain resume run" in capsys.readouterr().err
    assert results("run")["status"] == "interrupted"
    assert checkpoint.load(here / "run/checkpoints/last")["progress"]["step"] == 4
    monkeypatch.setattr(loop, "train_step", step)
    assert run("resume", "run") == 0


ONE_EPOCH = ["data.limit=100", "data.batch_size=64", "trainer.epochs=1"]


@pytest.mark.parametrize(
    ("words", "ended", "longer"),
    [
        (["trainer.epochs=1"], "by trainer.epochs=1", "trainer.epochs=2"),
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
    assert run(*QUICK, "trainer.tensorboard=true", *words, "out=my run") == 0
    out = capsys.readouterr().out
    assert re.search(rf"^  ended +{re.escape(ended)}$", out, re.MULTILINE)
    score, page, export, resume, board = (shlex.split(line.removeprefix("next")) for line in out.splitlines()[-5:])
    assert score == ["cnntrain", "eval", "my run"]
    assert page == ["cnntrain", "report", "my run"]
    assert export[:3] == ["cnntrain", "export", "my run"]
    assert re.fullmatch(f"cnntrain resume my run {longer}", " ".join(resume))
    assert any(path.name.startswith("events") for path in Path(board[-1]).iterdir())
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
    assert [line for line in done if "export" not in line][:3] == [
        f"cnntrain eval run {code}",
        f"cnntrain report run {code} augment.own.name=mine:noise",
        f"cnntrain resume run trainer.epochs=20 {code} augment.own.name=mine:noise",
    ]
    assert not any("eval" in line for line in summary.next_commands(settings, Progress(), Path("run"), scored=False))
    settings = replace(settings, trainer=replace(settings.trainer, report=True))  # which has written it
    assert not any("report" in line for line in summary.next_commands(settings, Progress(), Path("run"), scored=True))
    assert summary.resume_command(settings, Path("run")) == f"cnntrain resume run {code} augment.own.name=mine:noise"


@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range(128)"), OSError("cannot open resource")]
)
def test_no_fault_of_drawing_ends_a_training_or_its_curves(here, monkeypatch, capsys, error):
    def fails(*args):
        raise error

    monkeypatch.setattr(grid, "grid", fails)
    monkeypatch.setattr(confusion, "draw_confusion", fails)
    assert run(*QUICK, "trainer.epochs=1", "trainer.tensorboard=true", "hydra.run.dir=run") == 0
    out = capsys.readouterr().out
    for name in ("train/images", "test/confusion"):
        assert out.count(f"warning: no picture {name} for TensorBoard: {type(error).__name__}") == 1
    assert "nothing more" not in out
    assert results("run")["status"] == "done"


def test_a_finished_run_that_is_resumed_has_its_final_scores_once(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(*QUICK, "trainer.epochs=1", "trainer.tensorboard=true", "hydra.run.dir=run") == 0
    assert run("resume", "run") == 0
    assert run("resume", "run", "trainer.epochs=2") == 0
    events = EventAccumulator("run")
    events.Reload()
    assert [event.step for event in events.Scalars("best/test/top1")] == [5, 10]
    assert [event.step for event in events.Images("test/confusion")] == [5, 10]


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
def test_a_run_whose_terminal_is_closed_saves_and_ends_with_143(here):
    child, terminal = pty.fork()
    if child == 0:
        words = [*QUICK, "trainer.epochs=1000", "trainer.save_every=100000", "hydra.run.dir=run"]
        os.execv(sys.executable, [sys.executable, "-m", "cnntrain", *words])
    rescue = threading.Timer(120, os.kill, (child, signal.SIGKILL))
    rescue.start()
    while not Path("run/checkpoints/previous").exists():
        if select.select([terminal], [], [], 0.01)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143
    rescue.cancel()
    assert results("run")["status"] == "interrupted"


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


@pytest.mark.slow
def test_kill_minus_9_in_the_middle_of_an_epoch_loses_no_bit(here):
    words = [sys.executable, "-m", "cnntrain", *QUICK, "trainer.epochs=40", "trainer.save_every=3"]
    subprocess.run([*words, "hydra.run.dir=whole"], check=True, capture_output=True)
    process = subprocess.Popen([*words, "hydra.run.dir=killed"], stdout=subprocess.DEVNULL)
    rescue = threading.Timer(120, process.kill)
    rescue.start()
    while not Path("killed/checkpoints/previous/state.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    rescue.cancel()
    subprocess.run([sys.executable, "-m", "cnntrain", "resume", "killed"], check=True, capture_output=True)
    assert results("killed")["weights_sha256"] == results("whole")["weights_sha256"]
