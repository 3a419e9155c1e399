"""The numbers of `cnntrain compare`, its table, files and pictures."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compared import HOME, LISTS, leave, planned, run
from PIL import Image
from rich.cells import cell_len
from scipy import stats

from cnntrain.compare import outcomes as numbers
from cnntrain.compare.outcomes import Outcome, Spread
from cnntrain.compare.plan import Combination
from cnntrain.compare.table import legend, markdown, points, table
from cnntrain.plots.comparison import Curve, Point

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNTRAIN_DATA", "/data")  # the digits need none, but in each test it is the same


# --- numbers and table -----------------------------------------------------------------------------------------------


def outcomes(values: dict[str, str], *top1: float, test: bool = True, **more: float) -> list[Outcome]:
    settings = planned(*LISTS)[0].settings
    found = []
    for seed, value in enumerate(top1):
        known = {"val_top1": value, "best_epoch": 3, "train_seconds": 61.5, "peak_memory_bytes": 1.5e9}
        known |= {"trainable_parameters": 11_200_000} | ({"test_top1": value} if test else {}) | more
        combination = Combination((), values, replace(settings, seed=seed))
        found.append(Outcome(combination, Path(f"r{seed}"), "done", known, {"test": 393, "val": 40}))
    return found


def test_mean_and_deviation_are_those_of_a_sample() -> None:
    values = [0.91, 0.87, 0.935, 0.9]
    spread = Spread.of(values)
    assert spread is not None
    assert (spread.mean, spread.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert Spread.of([0.5]) == Spread(0.5, None)
    assert Spread.of([]) is None


def test_accuracy_is_that_of_the_test_images_where_each_run_has_some() -> None:
    with_test, without = outcomes({"data": "a"}, 0.9), outcomes({"data": "b"}, 0.8, test=False)
    for found, measure, head in (
        (with_test, "test_top1", "test top-1"),
        (with_test + without, "val_top1", "val top-1"),
    ):
        assert numbers.judged_by(found) == measure
        assert head in table(numbers.rows(found), measure, None)[0]


def test_the_best_row_is_the_one_of_the_highest_mean() -> None:
    rows = numbers.rows(outcomes({"x": "a"}, 0.9, 0.7) + outcomes({"x": "b"}, 0.85, 0.84) + outcomes({"x": "c"}))
    assert numbers.best_row(rows, "val_top1") is rows[1]
    lines = table(rows, "val_top1", rows[1])
    assert [line.endswith(" *") for line in lines] == [False, False, False, True]
    assert "**84.50 ± 0.71**" in markdown(rows, "val_top1", rows[1])
    assert numbers.best_row([], "val_top1") is None


def test_the_table_shows_each_quantity_in_a_unit_that_suits_it() -> None:
    rows = numbers.rows(
        outcomes({"optimizer.lr": "0.1"}, 0.95, 0.96, 0.97)
        + outcomes({"optimizer.lr": "0.2"}, 0.5, train_seconds=8000, peak_memory_bytes=7e8, trainable_parameters=850)
    )
    assert table(rows, "test_top1", rows[0]) == [
        "lr   runs    test top-1       95 %  time     peak  trained   best",
        "                      %   interval     h   memory   params  epoch",
        "0.1     3  96.00 ± 1.00  93.5-98.5  0.02  1.50 GB   11.2 M    3.0 *",
        "0.2     1         50.00  45.1-54.9  2.22   700 MB      850      3",
    ]


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"augment": "[flip_crop,randaugment,cutmix,random_erasing]"},
        {"augment": "[flip_crop,randaugment,cutmix]", "data.root": "/home/someone/photos/of/animals"},
        {"finetune": "lpft", "model": "efficientnet_b0", "lr": "0.001"},
        {"data": "猫" * 40, "model": "犬と狼"},
    ],
)
def test_the_table_fits_80_columns(values: dict[str, str], repeats: int) -> None:
    rows = numbers.rows(outcomes(values, *[1.0, 0.5, 0.25][:repeats], train_seconds=599.9, best_epoch=199))
    lines = table(rows, "test_top1", rows[0])
    assert max(map(cell_len, lines)) <= 80
    assert len({cell_len(line.removesuffix(" *")) for line in lines[:3]}) == 1
    assert ("±" in lines[2]) == (repeats > 1)


def test_keys_that_end_alike_are_shown_whole() -> None:
    row = numbers.rows(outcomes({"data.name": "a", "model.name": "b", "optimizer.lr": "1"}, 0.5))
    assert table(row, "test_top1", None)[0].split()[:3] == ["data", "model", "lr"]
    row = numbers.rows(outcomes({"a.width": "a", "b.width": "b"}, 0.5))
    assert table(row, "test_top1", None)[0].split()[:2] == ["a.width", "b.width"]


def test_settings_without_room_stand_below_the_table() -> None:
    values = {f"trainer.some_setting_{number}": "0.123456" for number in range(5)}
    lines = table(numbers.rows(outcomes(values, 0.5, 0.6)), "test_top1", None)
    assert max(map(len, lines)) <= 80
    assert lines[3:] == ["no room for: trainer.some_setting_2, and 2 more settings differ"]


def test_a_value_is_cut_no_further_than_the_columns_that_are_left_need() -> None:
    values = {"model": "tf_efficientnet_lite0", **{f"trainer.some_long_setting_{number}": "3" for number in range(3)}}
    lines = table(numbers.rows(outcomes(values, 0.5, 0.6)), "test_top1", None)
    assert "…" in lines[2]
    assert len(lines[2]) == 80 - len(" *")


def test_an_interval_that_says_nothing_is_a_dash_with_a_legend() -> None:
    rows = numbers.rows(outcomes({"x": "a"}, 0.5, 0.7))
    assert table(rows, "test_top1", None)[2].split()[3:6] == ["±", "14.14", "-"]
    assert legend(rows, "test_top1")[1:] == ["-: too few repeats for an interval that says anything"]
    assert rows[0].interval("test_top1") == (0.0, 1.0)


def test_the_legend_says_which_interval_is_which() -> None:
    repeated, single = outcomes({"x": "a"}, 0.9, 0.89), outcomes({"x": "b"}, 0.8)
    student = "95 %: interval of the mean over the repeats, Student's t"
    wilson = "95 %: interval of one run's accuracy on 393 test images, Wilson's"
    deviation = "±: standard deviation over the repeats"
    assert legend(numbers.rows(repeated + single), "test_top1") == [deviation, student, wilson]
    assert legend(numbers.rows(single), "test_top1") == [wilson]
    single[0].images.clear()  # of a run that does not tell
    assert legend(numbers.rows(single), "test_top1") == []
    assert table(numbers.rows(single), "test_top1", None)[2].split()[3] == "-"


def test_files_hold_every_row_and_every_run() -> None:
    run(LISTS)
    with (HOME / "compare.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["kind"] for line in lines] == ["row"] * 2 + ["run"] * 4
    best = next(line for line in lines if line["best"] == "1")
    assert (best["optimizer"], best["runs"]) == ("adamw", "2")
    assert float(best["test_top1"]) == pytest.approx(0.805)
    assert float(best["test_top1_std"]) == pytest.approx(np.std([0.8, 0.81], ddof=1))
    assert float(best["seconds"]) == 35
    assert [line["interval"] for line in lines] == ["student"] * 2 + ["wilson"] * 4
    expected = stats.t.interval(0.95, 1, loc=0.805, scale=stats.sem([0.8, 0.81]))
    assert (float(best["test_top1_low"]), float(best["test_top1_high"])) == pytest.approx(expected)
    one = stats.binomtest(288, 360).proportion_ci(0.95, method="wilson")
    assert float(lines[4]["test_top1_low"]) == pytest.approx(one.low)
    assert float(lines[4]["test_top1_high"]) == pytest.approx(one.high)
    record = json.loads((HOME / "compare.json").read_text())
    assert record["judged_by"] == "test_top1"
    assert record["intervals"].keys() == {"student", "wilson"}
    assert record["rows"][1]["test_top1"]["low"] == pytest.approx(expected[0])
    assert [entry["best"] for entry in record["rows"]] == [False, True]
    assert [entry["values"]["seed"] for entry in record["runs"]] == ["0", "1", "0", "1"]
    assert all((Path(entry["folder"]) / "results.json").exists() for entry in record["runs"])


# --- pictures --------------------------------------------------------------------------------------------------------


def test_one_event_file_holds_the_table_and_the_curves(capsys: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        run([*LISTS, "trainer.tensorboard=true"])
    out = capsys.readouterr().out.splitlines()
    assert out[-3] == f"next  tensorboard --logdir {HOME}"
    assert re.fullmatch(rf" {{6}}cnntrain eval {HOME}/optimizer-adamw_seed-1_[\w-]+", out[-2])
    (events,) = HOME.glob("events.out.tfevents.*")
    log = EventAccumulator(str(events))
    log.Reload()
    assert log.Tags()["images"] == ["compare/curves"]
    (tag,) = log.Tags()["tensors"]
    assert b"| adamw" in log.Tensors(tag)[0].tensor_proto.string_val[0].replace(b"**", b"")
    with Image.open(HOME / "compare.png") as picture:
        assert picture.size == (log.Images("compare/curves")[0].width, log.Images("compare/curves")[0].height)


def test_runs_without_tensorboard_get_no_page_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    run(LISTS)
    assert not list(HOME.glob("events*"))
    assert "tensorboard --logdir" not in capsys.readouterr().out
    assert (HOME / "compare.png").exists()
    assert "optimizer=adamw" in (HOME / "compare.svg").read_text()


def test_points_are_the_epochs_of_a_run_and_seconds_add_up() -> None:
    leave(Path("a"), planned(*LISTS)[0].plain, 0)
    found = [(point.epoch, point.seconds, pytest.approx(point.score)) for point in points(Path("a/metrics.csv"))]
    assert found == [(1, 15.0, 0.7), (2, 30.0, 0.75)]
    assert [point.seconds for point in points(Path("a/metrics.csv"), 34.0)] == [19.0, 34.0]  # 4 of encoding came first
    assert points(Path("b/metrics.csv")) == []


def test_runs_whose_metrics_are_gone_are_in_the_table_and_not_in_the_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(LISTS)
    for file in [*HOME.glob("*/metrics.csv"), HOME / "compare.png", HOME / "compare.svg"]:
        file.unlink()
    assert run(LISTS)[0] == 0
    assert not (HOME / "compare.png").exists()
    assert capsys.readouterr().out.splitlines()[-3].endswith("compare.csv, compare.json")


def test_the_mean_is_that_of_the_epochs_that_all_runs_have() -> None:
    longer, shorter = [Point(1, 2, 0.5), Point(2, 4, 0.7)], [Point(1, 4, 0.7)]
    assert Curve("a", "", [longer, shorter]).mean == [Point(1, 3, 0.6)]


def test_comparisons_of_other_keys_share_runs_and_never_tables(capsys: pytest.CaptureFixture[str]) -> None:
    run(LISTS)
    kept = {name: (HOME / name).read_text() for name in ("compare.csv", "compare.json")}
    _, rates = run([*LISTS[:-1], "optimizer.lr=0.1,0.2"])
    assert [word for command in rates.commands for word in command if "optimizer.lr" in word] != []
    _, longer = run([*LISTS, "trainer.epochs=5"])  # the same lists over another config
    assert len(longer.commands) == 4
    assert {name: (HOME / name).read_text() for name in kept} == kept
    tables = sorted(HOME.glob("*/compare.csv"))
    assert [path.parent.name.rpartition("_")[0] for path in tables] == ["lr_optimizer", "optimizer"]
    assert [len(path.read_text().splitlines()) for path in tables] == [1 + 4 + 4, 1 + 2 + 4]
    assert f"wrote {tables[1]}, compare.json" in capsys.readouterr().out
    run([*LISTS, "trainer.epochs=5"])
    assert sorted(HOME.glob("*/compare.csv")) == tables


def test_more_values_and_repeats_make_the_same_table_longer() -> None:
    run(LISTS)
    _, more = run([*LISTS[:-2], "optimizer=sgd,adamw,adam", "seed=0,1,2"])
    assert len(more.commands) == 5
    assert len((HOME / "compare.csv").read_text().splitlines()) == 1 + 3 + 9
    assert list(HOME.glob("*/compare.csv")) == []
