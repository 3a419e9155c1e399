"""What a run tells: its lines on the terminal and in its log, and outputs that take no more."""

import csv
import errno
import io
import os
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from reported import ESCAPE, plain, play, step_row, terminal
from rich.cells import cell_len
from rich.console import Console

from cnntrain.cli.exit import READER_GONE, exit_code
from cnntrain.errors import FileSystemError
from cnntrain.report import summary
from cnntrain.report.csv_log import COLUMNS
from cnntrain.report.run_report import Report
from cnntrain.report.terminal import Screen
from cnntrain.text import align_columns, clock, counted, number, percent, rate, short_path, wrap, wrap_facts


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


def test_another_place_than_an_output_with_room_is_full_and_not_the_output(tmp_path, monkeypatch, capsys):
    def work() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as Hydra's own files, which it does not name

    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as pipe, open(tmp_path / "log", "w") as file:
        for stream in (pipe, file):
            monkeypatch.setattr(sys, "stdout", stream)
            assert exit_code(work) == 6
            assert capsys.readouterr().err == "cnntrain: error: No space left on device; free some space\n"


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


def test_what_there_is_to_say_of_a_network_has_80_columns_in_a_log(monkeypatch):
    monkeypatch.setattr(summary, "_rising_alone", lambda job: [])
    notes = [
        "images as timm's tf_efficientnet_lite0.in1k knows them: 224 pixels, bicubic, crop 0.875, mean and std",
        f"loaded 294/296 tensors of /{'long/' * 20}model.safetensors; new: classifier.weight, classifier.bias",
    ]
    console, screen = plain()
    job: Any = SimpleNamespace(notes=notes, loss=SimpleNamespace(class_weights=None), warnings=[])
    summary.show_notes(job, Report(None, tensorboard=False, console=console), looked=True)
    lines = screen.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines) == " ".join(notes)
    assert all(len(line) <= 80 for line in lines if "/long/" not in line)


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
