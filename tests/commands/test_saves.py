"""Saves beside the training, through the command line: nothing is read before it is written, no fault is lost."""

import errno
import json
import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from cnntrain import cli
from cnntrain.errors import FileSystemError, ResourceError
from cnntrain.report import session
from cnntrain.storage import checkpoint

QUICK = ["model=lenet5", "data.limit=300", "data.batch_size=64", "trainer.epochs=2", "trainer.threads=1"]
QUICK += ["trainer.tensorboard=false", "trainer.ema=0.9"]


def run(*words):
    return cli.main(list(words))


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text())


def late_save(after):
    """checkpoint.save that begins to work a tenth of a second late; one more than `after` of them meets a full disk."""
    save, begun = checkpoint.save, []

    def late(*args, **words):
        time.sleep(0.1)
        begun.append(args)
        if len(begun) != after + 1:
            save(*args, **words)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "link", full)
            patch.setattr(os, "fsync", full)
            save(*args, **words)

    return late


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_whose_saves_are_late_ends_as_one_whose_saves_are_not(here, monkeypatch):
    assert run(*QUICK, "out=prompt") == 0
    monkeypatch.setattr(checkpoint, "save", late_save(99))
    assert run(*QUICK, "out=late", "trainer.save_every=3") == 0
    for key in ("test", "val", "best_epoch", "weights_sha256"):
        assert results("late")[key] == results("prompt")[key]
    assert checkpoint.load(here / "late/checkpoints/last")["progress"]["epoch"] == 2


def test_a_disk_that_is_full_during_a_save_ends_the_run_with_6_and_a_resume_with_the_same_bits(
    here, monkeypatch, capsys
):
    assert run(*QUICK, "out=whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", late_save(2))  # after the steps 2 and 4; that of the best epoch, 5, is lost
        assert run(*QUICK, "trainer.save_every=2", "out=run") == 6
    said = capsys.readouterr().err
    assert "run/checkpoints: the checkpoint cannot be saved (No space left on device; it needs" in said
    assert said.count("error") == 1
    assert results("run")["status"] == "failed"
    assert checkpoint.load(here / "run/checkpoints/last")["progress"]["step"] == 4
    assert run("resume", "run") == 0
    for key in ("weights_sha256", "best_epoch", "val", "test"):
        assert results("run")[key] == results("whole")[key]


def test_what_the_machine_ends_names_the_command_that_goes_on(here, monkeypatch, capsys):
    for error, code in ((FileSystemError("run: is full"), 6), (ResourceError("another process has ended"), 7)):
        for place, way_on in (("score", True), ("build_state", False)):  # after the last save, and before the first
            with monkeypatch.context() as patch:
                patch.setattr(session, place, Mock(side_effect=type(error)(f"{error}")))
                assert run(*QUICK, "trainer.epochs=1", f"out={code}{place}") == code
            advice = f"; once mended, the run goes on with cnntrain resume {code}{place}" if way_on else ""
            assert capsys.readouterr().err.endswith(f"cnntrain: error: {error}{advice}\n")
        assert results(f"{code}score")["error"] == str(error)
