"""Runs that are killed or end, and go on: with the same bits, longer, or changed; and what cannot be changed."""

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from runs import QUICK, Killed, results, rows, run, run_killed

from cnntrain.storage import checkpoint
from cnntrain.training import loop


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
    assert "other classes than the run (without red, with rot); resume with" in capsys.readouterr().err


def test_changed_networks_are_refused_on_resume_and_leave_the_config_alone(here, capsys):
    assert run(*QUICK, "model=mlp", "hydra.run.dir=run") == 0
    before = (here / "run/config.yaml").read_text()
    assert run("resume", "run", "model.args.hidden=[7]", "trainer.epochs=3") == 4
    assert "keep the run's model settings" in capsys.readouterr().err
    assert (here / "run/config.yaml").read_text() == before


@pytest.mark.slow
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
