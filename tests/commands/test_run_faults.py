"""Whole runs in which something goes wrong: what is told, with which exit code, and what is left behind."""

import os
import shlex
import shutil
from pathlib import Path

import pytest
from runs import QUICK, results, run

from cnntrain.errors import FileSystemError
from cnntrain.plots import confusion, grid
from cnntrain.storage import atomic, checkpoint, run_record


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


def test_a_bad_image_that_ends_a_command_is_told_with_what_lists_them_all(photos, here, capsys):
    for name in ("3", "4"):
        (photos / f"train/red/{name}.png").write_bytes(b"")
    words = ["data=imagefolder", "data.root=photos", "data.image_size=32", "model=cnn", "trainer.max_steps=9"]
    words += ["data.mean=[0.4,0.4,0.4]", "data.std=[0.2,0.2,0.2]", "data.batch_size=2", "trainer.tensorboard=false"]
    data = [word for word in words if word.startswith("data")]
    for given, told in (
        ([*words, "out=run", "seed=3"], ["cnntrain", "check", *data, "steps=0", "out=look"]),
        (["resume", "run"], ["cnntrain", "check", "run", "labels=false", "out=look"]),
    ):
        assert run(*given) == 3
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.endswith(f"or set data.on_bad_image=skip; `{shlex.join(told)}` lists all such images")
        assert run(*told[1:]) == 0
        assert Path("look/files.csv").read_text().count("damaged,") == 2
        shutil.rmtree("look")


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
