"""metrics.csv: one header, a row per step and epoch, on disk at once, and cut where a run goes on."""

import errno
import os

import pytest
from reported import epoch_row, plain, play, rows_of, step_row, steps_of

from cnntrain.errors import FileSystemError
from cnntrain.report.csv_log import COLUMNS, CsvLog
from cnntrain.report.run_report import Report


def test_a_metrics_csv_that_cannot_be_resumed_stays_as_it_was(tmp_path, monkeypatch):
    log = CsvLog(tmp_path / "metrics.csv")
    log.write("step", {"step": 1, "epoch": 1})
    log.close()
    before = (tmp_path / "metrics.csv").read_text()

    def refuse(*paths: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(
        FileSystemError, match=r"metrics\.csv: cannot be written \(No space left on device\); free some"
    ):
        CsvLog(tmp_path / "metrics.csv", resume_step=1)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("metrics.csv", before)]


def test_metrics_csv_has_one_header_and_a_row_per_step_and_epoch(tmp_path):
    report = Report(tmp_path, tensorboard=False, console=plain()[0])
    play(report)
    report.close()
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert steps_of(tmp_path) == [("step", 1), ("step", 2), ("epoch", 2), ("step", 3), ("step", 4), ("epoch", 4)]
    last = rows_of(tmp_path)[-1]
    assert (float(last["loss"]), float(last["val_loss"]), last["best"], last["grad_norm"]) == (1.25, 1.5, "1", "")


def test_every_row_is_on_disk_at_once(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        log.write("step", step_row(step))
        assert len(rows_of(tmp_path)) == step
    log.close()


def test_resume_cuts_the_rows_after_its_step_and_a_torn_one(tmp_path):
    report = Report(tmp_path, tensorboard=False, console=plain()[0])
    play(report, epochs=3)
    report.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("step,3,2,0.")  # killed in the middle of a row
    Report(tmp_path, tensorboard=False, resume_step=3, console=plain()[0]).close()
    assert steps_of(tmp_path) == [("step", 1), ("step", 2), ("epoch", 2), ("step", 3)]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


def test_interrupted_and_resumed_run_leaves_the_same_metrics_as_a_whole_one(tmp_path):
    folders = [tmp_path / "whole", tmp_path / "resumed"]
    for folder in folders:
        folder.mkdir()
        report = Report(folder, tensorboard=False, console=plain()[0])
        play(report)
        report.close()
    # Saved at step 4 before its validation: that epoch is validated and told again.
    report = Report(folders[1], tensorboard=False, resume_step=4, console=plain()[0])
    report.epoch(epoch_row(2, 4))
    report.close()
    report = Report(folders[1], tensorboard=False, resume_step=1, console=plain()[0])
    play(report, first_step=2)
    report.close()
    assert (folders[0] / "metrics.csv").read_bytes() == (folders[1] / "metrics.csv").read_bytes()


def test_run_that_starts_again_from_its_config_starts_an_empty_metrics_csv(tmp_path):
    for _ in range(2):
        report = Report(tmp_path, tensorboard=False, console=plain()[0])
        report.step(step_row(1))
        report.close()
    assert steps_of(tmp_path) == [("step", 1)]
