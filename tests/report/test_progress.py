"""The bar, the table of epochs and the lines of an output without a bar."""

import re
import time

import pytest
from reported import epoch_row, plain, step_row, terminal
from rich.cells import cell_len

from cnntrain.report.epoch_table import table_head, table_row
from cnntrain.report.progress_bar import Bar
from cnntrain.report.run_report import Report
from cnntrain.report.terminal import Screen


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


def test_what_is_done_after_a_phase_is_not_told_as_part_of_it(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console, screen = plain()
    report = Report(None, tensorboard=False, console=console)
    report.validating(1, phase="comparing")
    report.advance(32)
    report.end_phase()
    for _ in range(3):
        now += 70
        report.advance(32)
    report.close()
    assert screen.getvalue() == ""


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
