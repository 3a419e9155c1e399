"""What a run tells whose images have a set of labels each: the mean average precision in the place of top-1."""

import io

import pytest
from reported import epoch_row, plain, rows_of, step_row, terminal
from rich.cells import cell_len
from rich.console import Console

from cnntrain.report.csv_log import COLUMNS, SET_COLUMNS, latest_rows
from cnntrain.report.epoch_table import table_head, table_row
from cnntrain.report.progress_bar import Bar
from cnntrain.report.run_report import Report
from cnntrain.report.tensorboard import LAYOUT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")
SCORES = {"val_map": 0.5, "probe_loss": 1.125, "probe_map": 0.75}
RESULTS = {
    "status": "done", "best_epoch": 2, "val": {"map": 0.5, "loss": 1.5}, "test": {"map": 0.4875, "loss": 1.625},
    "seconds": 83.4, "images_per_second": 1234.5,
}  # fmt: skip


def step_of(step: int, epoch: int = 1) -> dict[str, object]:
    return {key: value for key, value in step_row(step, epoch).items() if key != "top1"}


def epoch_of(epoch: int, step: int, **scores: object) -> dict[str, object]:
    row = {key: value for key, value in epoch_row(epoch, step).items() if "top" not in key}
    return row | (scores or SCORES)


def play(report: Report, first_step: int = 1, epochs: int = 2) -> None:
    for epoch in range(1, epochs + 1):
        report.start_epoch(epoch, epochs, 2, 0)
        for step in (2 * epoch - 1, 2 * epoch):
            report.advance(64)
            if step >= first_step:
                report.step(step_of(step, epoch))
        if 2 * epoch >= first_step:
            report.epoch(epoch_of(epoch, 2 * epoch))
    report.finish(RESULTS, ["cnntrain eval outputs"])


def test_the_table_of_epochs_has_the_map_of_both_splits_and_no_score_of_the_steps() -> None:
    row = epoch_of(3, 4)
    (splits, head), line = table_head(row, 200), table_row(row, 200)
    assert head.split() == ["epoch", "loss", "mAP", "loss", "mAP", "lr", "images/s", "time"]
    assert [splits.index(split) for split in ("train", "val")] == [line.index(loss) for loss in ("1.2500", "1.5000")]
    assert "1.2500  75.00%  1.5000  50.00%" in line
    assert len(line.removesuffix(" *")) == len(head) <= 78
    without_images = {key: value for key, value in row.items() if "val" not in key and "probe" not in key}
    assert table_head(without_images, 200)[1].split() == ["epoch", "loss", "lr", "images/s", "time"]


def test_the_bar_tells_the_loss_alone() -> None:
    report = Report(None, tensorboard=False, score="map", console=plain()[0])
    bar: Bar = report._screen.bar
    bar.start_epoch(1, 9, 100, 0)
    console, screen = plain()
    for row in ({}, step_of(12, 1)):
        bar.row = row
        console.print(bar)
    assert "top" not in screen.getvalue()
    assert bar.words().startswith("epoch 1/9, batch 0 of 100  loss 0.0833  ")
    assert screen.getvalue().splitlines()[3].rstrip() == "step 12  loss 0.0833  lr 0.1  1,234 img/s  wait 3%"


@pytest.mark.parametrize("live", [True, False])
def test_a_run_is_told_in_80_columns_without_a_word_of_top1(live: bool) -> None:
    console, screen = terminal() if live else plain()
    play(Report(None, tensorboard=False, score="map", console=console))
    text = screen.getvalue()
    assert "top-1" not in text
    assert "mAP 50.00%, loss 1.5000" in text
    if not live:
        assert "epoch 2/2  step 4  train loss 1.2500 mAP 75.00%  val loss 1.5000 mAP 50.00%  lr 0.1" in text
        assert max(cell_len(line) for line in text.splitlines() if not line.startswith("epoch")) <= 80


def test_metrics_csv_has_columns_of_its_own_and_goes_on_as_a_whole_run(tmp_path) -> None:
    folders = [tmp_path / "whole", tmp_path / "resumed"]
    for folder in folders:
        folder.mkdir()
        report = Report(folder, tensorboard=False, score="map", console=plain()[0])
        play(report)
        report.close()
    report = Report(folders[1], tensorboard=False, resume_step=2, score="map", console=plain()[0])
    play(report, first_step=3)
    report.close()
    assert (folders[0] / "metrics.csv").read_bytes() == (folders[1] / "metrics.csv").read_bytes()
    assert set(COLUMNS) - set(SET_COLUMNS) == {"top1", "val_top1", "val_top5", "probe_top1"}
    rows = rows_of(folders[0])
    assert tuple(rows[0]) == SET_COLUMNS
    assert [row["val_map"] for row in rows] == ["", "", "0.5"] * 2
    assert latest_rows(folders[0] / "metrics.csv") == rows


def test_tensorboard_has_the_map_and_a_chart_of_it(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    report = Report(tmp_path, tensorboard=True, score="map", console=Console(file=io.StringIO()))
    play(report)
    report.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"val/map", "probe/map", "val/loss", "train/loss"} < tags
    assert not [tag for tag in tags if "top" in tag]
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for page in layout.category for chart in page.chart}
    assert charts["mAP: probe, validation"] == ["^probe/map$", "^val/map$"]
    assert len(charts) == sum(map(len, LAYOUT.values()))
    assert not [title for title in charts if "top" in title]
