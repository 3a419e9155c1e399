"""What a run tells, on the terminal and in its files."""

import csv
import errno
import io
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cnntrain.cli.exit import READER_GONE, exit_code
from cnntrain.errors import FileSystemError
from cnntrain.report import summary
from cnntrain.report.csv_log import COLUMNS, CsvLog
from cnntrain.report.epoch_table import table_head, table_row
from cnntrain.report.progress_bar import Bar
from cnntrain.report.run_report import Report
from cnntrain.report.terminal import Screen
from cnntrain.text import align_columns, clock, counted, number, percent, rate, short_path, wrap, wrap_facts

ESCAPE = "\x1b"


def step_row(step: int, epoch: int = 1) -> dict[str, Any]:
    return {
        "step": step, "epoch": epoch, "loss": 1 / step, "top1": 0.5, "lr": 0.1,
        "images_per_second": 1234.5, "data_wait": 0.03, "grad_norm": 1.5,
    }  # fmt: skip


def epoch_row(epoch: int, step: int, best: bool = True, top5: float | None = 0.99) -> dict[str, Any]:
    return {
        "epoch": epoch, "step": step, "train_loss": 1.25, "train_top1": 0.6, "val_loss": 1.5, "val_top1": 0.5,
        "val_top5": top5, "lr": 0.1, "seconds": 12.5, "images_per_second": 1000.0, "best": best, "val_images": 7,
    }  # fmt: skip


RESULTS = {
    "status": "done", "best_epoch": 2, "val": {"top1": 0.8, "top5": 0.99, "loss": 0.61, "images": 7},
    "test": {"top1": 0.79, "top5": None, "loss": 0.62}, "seconds": 83.4, "images_per_second": 1234.5,
}  # fmt: skip


def play(report: Report, first_step: int = 1, epochs: int = 2) -> None:
    """A run of two steps per epoch."""
    report.header("lenet5 on digits", [("model", "lenet5, 61,706 parameters"), ("folder", "outputs/" + "deep/" * 30)])
    report.warn("bf16 is slow on this CPU; " + "trainer.precision=fp32 is faster " * 4)
    for epoch in range(1, epochs + 1):
        report.start_epoch(epoch, epochs, 2, 0)
        for step in (2 * epoch - 1, 2 * epoch):
            report.advance(64)
            if step >= first_step:
                report.step(step_row(step, epoch))
        report.validating(1)
        report.advance(64)
        if 2 * epoch >= first_step:
            report.epoch(epoch_row(epoch, 2 * epoch))
    report.finish(RESULTS, ["cnntrain eval " + "x" * 90, "tensorboard --logdir outputs"])


class Gone(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_pipe_whose_reader_is_gone_ends_the_command_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    assert exit_code(lambda: Report(None, tensorboard=False).say("line")) == READER_GONE


class Full(io.StringIO):
    """An output on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_output_that_takes_no_more_ends_no_run_whose_log_has_the_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())

    def work() -> None:
        report = Report(tmp_path, tensorboard=False)
        play(report)
        report.close()

    assert exit_code(work) == 0
    assert (tmp_path / "train.log").read_text().endswith("      tensorboard --logdir outputs\n")
    assert capsys.readouterr().err == ""


def test_an_output_that_takes_no_more_ends_what_has_no_log_and_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    assert exit_code(lambda: Report(None, tensorboard=False).say("line")) == 6
    assert capsys.readouterr().err == "cnntrain: error: standard output: No space left on device\n"
    monkeypatch.setattr(sys, "stdout", Full())
    assert exit_code(lambda: print("line")) == 6
    assert capsys.readouterr().err == "cnntrain: error: standard output: No space left on device\n"


def test_a_log_that_takes_no_more_is_said_once_and_numbers_that_cannot_be_kept_end_the_run(tmp_path):
    console, screen = plain()
    report = Report(tmp_path, tensorboard=False, console=console)
    report._screen.log = Full()
    play(report)
    told = "warning: nothing more for train.log: No space left on device; the training goes on"
    assert screen.getvalue().splitlines().count(told) == 1
    report._csv._writer = csv.DictWriter(Full(), COLUMNS)
    with pytest.raises(FileSystemError, match=r"metrics\.csv: cannot be written \(No space left on device\)"):
        report.step(step_row(100))
    report.close()


def test_long_facts_fill_several_lines_of_the_screen() -> None:
    rows = wrap_facts({"augment": ", ".join(["pad_crop padding=4 mode=reflect"] * 5), "optimizer": "sgd"})
    assert [name for name, _ in rows] == ["augment", "", "", "optimizer"]
    assert max(len(value) for _, value in rows) <= 80 - len("optimizer") - 6
    assert " ".join(value for _, value in rows[:3]) == ", ".join(["pad_crop padding=4 mode=reflect"] * 5)


def terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(
        file=screen, force_terminal=True, width=width, height=24, highlight=False, color_system="standard"
    ), screen


def plain() -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=False, width=80, highlight=False), screen


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(folder: Path) -> list[tuple[str, int]]:
    return [(row["kind"], int(row["step"])) for row in rows_of(folder)]


def test_another_place_than_an_output_with_room_is_full_and_not_the_output(tmp_path, monkeypatch, capsys):
    def work() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as Hydra's own files, which it does not name

    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as pipe, open(tmp_path / "log", "w") as file:
        for stream in (pipe, file):
            monkeypatch.setattr(sys, "stdout", stream)
            assert exit_code(work) == 6
            assert capsys.readouterr().err == "cnntrain: error: No space left on device; free some space\n"


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


def test_output_that_is_no_terminal_has_plain_lines(tmp_path):
    console, screen = plain()
    report = Report(tmp_path, tensorboard=False, console=console)
    play(report)
    report.close()
    text = screen.getvalue()
    assert ESCAPE not in text
    assert "\r" not in text
    assert not re.search("[─│╭━]", text)
    assert len([line for line in text.splitlines() if line.startswith("epoch ")]) == 2
    assert "epoch 2/2  step 4  train loss 1.2500 top-1 60.00%  val loss 1.5000 top-1 50.00% top-5 99.00%" in text
    assert (tmp_path / "train.log").read_text() == text


def test_terminal_shows_at_most_80_columns_but_for_commands_to_copy(tmp_path):
    console, screen = terminal()
    report = Report(tmp_path, tensorboard=False, console=console)
    play(report)
    report.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n")
    wide = [line for line in shown.split("\n") if cell_len(line) > 80 and str(tmp_path) not in line]
    assert wide == ["  folder  outputs/" + "deep/" * 30, "next  cnntrain eval " + "x" * 90]
    assert ESCAPE not in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("width", [80, 60])
def test_a_frame_has_the_width_of_the_screen_whatever_its_title_and_a_long_folder_is_whole_below_it(width: int) -> None:
    console, screen = terminal(width)
    folder = "outputs/很长的文件夹名字/" + "x" * 60
    Screen(None, console).frame(folder, [("data", "digits"), ("folder", folder)])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert {cell_len(line) for line in lines[:-1]} == {width}
    assert lines[0].startswith("╭─ outputs/很长")
    assert lines[-1] == f"  folder  {folder}"


def test_table_rows_line_up_within_80_columns():
    for epochs in (1, 20, 200, 5000):
        splits, head = table_head(epoch_row(1, 4, True), epochs)
        lines = [head]
        for epoch in {1, epochs}:
            lines += [table_row(epoch_row(epoch, 4, best), epochs) for best in (True, False)]
            lines.append(
                table_row(epoch_row(epoch, 4, False, None) | {"train_loss": 123456.0, "lr": 1.23456e-05}, epochs)
            )
        lines = [line.removesuffix(" *") for line in lines]
        assert len({len(line) for line in lines}) == 1, lines
        assert len(lines[0]) + 2 <= 80
        for split, first in (("train", "1.2500"), ("val", "1.5000")):
            assert splits.index(split) == lines[1].index(first)


def test_a_probe_takes_the_place_of_top5_in_the_table():
    row = epoch_row(3, 4, True) | {"probe_top1": 0.8125}
    (splits, head), line = table_head(row, 9), table_row(row, 9)
    assert splits.split() == ["train", "val"]
    assert head.split() == ["epoch", "loss", "top-1", "probe", "loss", "top-1", "lr", "images/s", "time"]
    assert splits.index("val") == head.index("probe") + len("probe") + 2  # of training images, that is
    assert line[: head.index("probe") + 5].endswith("81.25%")
    assert len(head) == len(table_head(epoch_row(3, 4, True), 9)[1])


def test_the_table_of_a_run_without_validation_has_the_columns_of_training_alone():
    row = {key: value for key, value in epoch_row(3, 4, False).items() if not key.startswith("val")}
    splits, head = table_head(row, 9)
    assert (splits.split(), head.split()) == (["train"], ["epoch", "loss", "top-1", "lr", "images/s", "time"])
    assert len(table_row(row, 9)) == len(head)


@pytest.mark.parametrize("width", [80, 40])
def test_bar_has_two_lines_at_any_size_of_its_numbers(width):
    bar = Bar()
    bar.start_epoch(1999, 2000, 1_234_567, 0)
    bar.done = 1_000_000
    for row in ({}, step_row(12_345_678) | {"images_per_second": 1_234_567.0, "loss": 12345.678, "lr": 1.234e-05}):
        bar.row = row
        console, screen = plain()
        console.width = width
        console.print(bar)
        lines = screen.getvalue().splitlines()
        assert len(lines) == 2
        assert max(cell_len(line) for line in lines) <= width


def test_bar_names_epoch_step_speed_time_left_loss_accuracy_rate_and_waiting():
    bar = Bar()
    bar.start_epoch(3, 20, 391, 0)
    bar.done = 200
    bar.row = step_row(12345, 3) | {"loss": 0.43214, "top1": 0.8524, "data_wait": 0.034}
    console, screen = plain()
    console.print(bar)
    first, second = screen.getvalue().splitlines()
    assert re.fullmatch(r"epoch  3/20 +━+╸? + 200/391  \d+:\d\d:\d\d left", first)
    assert second.rstrip() == "step 12,345  loss 0.4321  top-1 85.24%  lr 0.1  1,234 img/s  wait 3%"
    bar.start_phase("validating", 10)
    console.print(bar)
    assert screen.getvalue().splitlines()[2].startswith("validating  3/20 ")


def test_the_test_at_the_end_is_of_no_epoch_and_nothing_follows_it(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bar = Bar()
    bar.start_epoch(3, 20, 10, 0)
    now += 10
    for _ in range(10):
        bar.advance(64)
    bar.start_phase("testing", 4)
    now += 1
    bar.advance(64)
    assert bar.seconds_left() == pytest.approx(3)
    assert bar.words().startswith("testing, batch 1 of 4 ")


def test_time_left_counts_the_epochs_to_come_and_their_validation(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bar = Bar()
    bar.start_epoch(1, 3, 10, 4)  # resumed: 4 of 10 micro-batches were done before
    assert bar.seconds_left() is None
    for _ in range(6):
        now += 2
        bar.advance(64)
    bar.start_phase("validating", 5)
    for _ in range(5):
        now += 1
        bar.advance(64)
    assert bar.seconds_left() == pytest.approx(2 * (20 + 5))
    bar.start_epoch(2, 3, 10, 0)
    now += 2
    bar.advance(64)
    assert bar.seconds_left() == pytest.approx(18 + 5 + 25)


@pytest.mark.parametrize("live", [False, True])
def test_output_without_a_bar_has_a_line_a_minute_within_an_epoch_and_a_terminal_none(tmp_path, monkeypatch, live):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console, screen = terminal() if live else plain()
    report = Report(tmp_path, tensorboard=False, console=console)
    report.advance(64)  # of no phase: nothing whole could be said of it
    report.start_epoch(3, 20, 100, 0)
    for batch in range(1, 20):
        now += 7
        report.advance(64)
        if batch == 10:
            report.step(step_row(210, 3))
    report.validating(10)
    for seconds in (59, 1):
        now += seconds
        report.advance(64)
    report.close()
    lines = [
        "epoch  3/20, batch 9 of 100  9.1 images/s  3:28:57 left",
        "epoch  3/20, batch 18 of 100  loss 0.0048 top-1 50.00%  9.1 images/s  3:27:54 left",
        "validating  3/20, batch 1 of 10  1.1 images/s  6:14:21 left",
    ]
    assert (tmp_path / "train.log").read_text().splitlines() == ([] if live else lines)
    assert "batch" not in screen.getvalue() if live else screen.getvalue().splitlines() == lines


def test_what_there_is_to_say_of_a_network_has_80_columns_in_a_log(monkeypatch):
    monkeypatch.setattr(summary, "_rising_alone", lambda job: [])
    notes = [
        "images as timm's tf_efficientnet_lite0.in1k knows them: 224 pixels, bicubic, crop 0.875, mean and std",
        f"loaded 294/296 tensors of /{'long/' * 20}model.safetensors; new: classifier.weight, classifier.bias",
    ]
    console, screen = plain()
    job: Any = SimpleNamespace(notes=notes, loss=SimpleNamespace(class_weights=None), warnings=[])
    summary.show_notes(job, Report(None, tensorboard=False, console=console))
    lines = screen.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines) == " ".join(notes)
    assert all(len(line) <= 80 for line in lines if "/long/" not in line)


def test_phases_of_less_than_a_minute_have_a_line_a_minute_together(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console, screen = plain()
    report = Report(None, tensorboard=False, console=console)
    for name in ("head", "middle", "stem"):
        report.validating(4, phase=f"range test: {name}")
        for _ in range(4):
            now += 10
            report.advance(32)
    report.close()
    assert [line.partition("  ")[0] for line in screen.getvalue().splitlines()] == [
        "range test: middle, batch 2 of 4",
        "range test: stem, batch 4 of 4",
    ]


def test_lines_said_while_the_bar_is_live_stay_whole():
    console, screen = terminal()
    with_bar = Screen(None, console)
    with_bar.start_bar()
    with_bar.line("resumed at step 7")
    with_bar.stop_bar()
    assert "resumed at step 7" in screen.getvalue()
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is back


def test_note_stands_in_the_bar_in_place_of_its_numbers():
    console, screen = terminal()
    report = Report(None, tensorboard=False, console=console)
    assert not report.note("stopping after this step")
    report.start_epoch(1, 2, 10, 0)
    assert report.note("stopping after this step")
    report.close()
    last = screen.getvalue().rpartition("epoch 1/2")[2]
    assert "stopping after this step" in last
    assert "img/s" not in last


def test_advance_costs_less_than_two_microseconds():
    report = Report(None, tensorboard=False, console=plain()[0])
    start = time.perf_counter()
    for _ in range(100_000):
        report.advance(64)
    assert (time.perf_counter() - start) / 100_000 < 2e-6


def test_report_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = Report(None, tensorboard=True, console=plain()[0])
    play(report)
    report.close()
    report.close()
    report.say("after the end")
    assert list(tmp_path.iterdir()) == []


def test_texts_of_strangers_move_no_cursor_and_are_no_markup(tmp_path):
    odd, plainly = "[bold]\x1b[31mred\x07", r"[bold]\x1b[31mred\x07"
    for console, screen in (terminal(), plain()):
        report = Report(tmp_path, tensorboard=False, console=console)
        report.header(odd, [(odd, odd)])
        report.say(odd)
        report.warn(odd)
        report.close()
        assert "\x1b[31mred" not in screen.getvalue()
        assert screen.getvalue().count(plainly) == 5
    assert (tmp_path / "train.log").read_text().count(plainly) == 10


def test_words_for_numbers():
    assert (percent(0.98765), percent(1), percent(None)) == ("98.77%", "100%", "-")
    assert (clock(3725.4), clock(None), clock(float("inf"))) == ("1:02:05", "-:--:--", "-:--:--")
    assert (number(0.123456), number(123.456), number(None)) == ("0.1235", "123.46", "-")
    assert (rate(12345.6), rate(0.52), rate(None)) == ("12,346", "0.52", "-")
    assert align_columns([["a", "10"], ["long", "5"]]) == ["a     10", "long   5"]


def test_wide_letters_are_wrapped_by_their_columns_and_long_words_stay_whole() -> None:
    lines = wrap("run 1 of 3  " + " ".join(["猫" * 15] * 6) + " " + "x" * 90, 80, indent=6)
    assert max(map(cell_len, lines[:-1])) <= 80
    assert lines[1].startswith("      猫")
    assert lines[-1] == " " * 6 + "x" * 90
    assert " ".join(line.strip() for line in lines) == "run 1 of 3  " + " ".join(["猫" * 15] * 6) + " " + "x" * 90
    assert wrap("") == [""]


def test_one_thing_is_not_told_as_several() -> None:
    assert (counted(1, "epoch"), counted(0, "epoch"), counted(1230, "step")) == ("1 epoch", "0 epochs", "1,230 steps")
    assert (counted(1, "class"), counted(2, "class"), counted(2, "batch")) == ("1 class", "2 classes", "2 batches")


def test_path_below_the_current_folder_is_shown_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "outputs" / "digits") == "outputs/digits"
    assert short_path("/elsewhere/run") == "/elsewhere/run"


def test_screen_without_unicode_still_gets_its_table():
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=True, width=80, color_system=None)
    report = Report(None, tensorboard=False, console=console)
    play(report)
    report.close()
    console.file.flush()
    assert b"  2/2  1.2500" in raw.getvalue()
