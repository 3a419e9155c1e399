"""Runs on sets of labels beside each other: by their mean average precision, and never beside runs on single labels."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compared import leave

from cnntrain import cli
from cnntrain.cli import hydra_jobs
from cnntrain.compare.table import points
from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_plain
from cnntrain.report.csv_log import SET_COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_run(folder: str, *words: str, sets: bool = True) -> None:
    """A run folder as training leaves it, but for its checkpoints."""
    path = Path(folder)
    leave(path, to_plain(compose_settings(["trainer.tensorboard=false", *words])), 0)
    (path / "environment.json").write_text('{"data_fingerprint": "f"}')
    if not sets:
        return
    results: dict[str, Any] = json.loads((path / "results.json").read_text())
    for split in ("val", "test"):
        results[split] = {"map": results[split]["top1"], "loss": 0.1}
    (path / "results.json").write_text(json.dumps(results))
    with (path / "metrics.csv").open() as file:
        rows = [row | {"val_map": row["val_top1"]} for row in csv.DictReader(file)]
    with (path / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, SET_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def compared(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    code = cli.main(["compare", *words])
    told = capsys.readouterr()
    return code, told.out.splitlines(), told.err.splitlines()


def test_runs_are_compared_by_the_map_of_the_test_images(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        a_run(f"outputs/a/{seed}", f"seed={seed}", "optimizer=adamw")
    a_run("outputs/b", "optimizer.lr=0.3")
    code, out, err = compared("outputs/a", "outputs/b", "out=table", capsys=capsys)
    assert (code, err) == (0, [])
    assert not [line for line in out if "top-1" in line or len(line) > 80]
    assert [line for line in out if "test mAP" in line]
    assert "80.50±0.71" in next(line for line in out if line.endswith(" *"))
    assert "-: one run tells no interval of its mAP; repeat it, as with seed=0,1,2" in out
    record = json.loads(Path("table/compare.json").read_text())
    assert record["judged_by"] == "test_map"
    assert [row["interval"] for row in record["rows"]] == ["student", None]
    assert [run["test_map"] for run in record["runs"]] == pytest.approx([0.8, 0.81, 0.7])
    assert {run["test_map_low"] for run in record["runs"]} == {None}  # it is no share of the images
    assert "top1" not in Path("table/compare.csv").read_text()
    assert "validation mAP, %" in Path("table/compare.svg").read_text()
    assert [point.score for point in points(Path("outputs/b/metrics.csv"))] == pytest.approx([0.7, 0.75])


def test_runs_on_single_labels_and_on_sets_have_no_score_in_common(capsys: pytest.CaptureFixture[str]) -> None:
    a_run("outputs/a", "optimizer=adamw")
    a_run("outputs/b", "optimizer=sgd", sets=False)
    code, out, err = compared("outputs/a", "outputs/b", capsys=capsys)
    assert (code, out) == (2, [])
    assert err == [
        "cnntrain: error: compare: runs of different scores, top-1 in outputs/b and mAP in outputs/a; compare single "
        "labels and sets by themselves"
    ]


def test_runs_of_both_kinds_are_not_even_planned(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=table", "data.root=labels.csv", "loss=bce", "data.multi_label=true,false"]
    code, out, err = compared(*words, capsys=capsys)
    assert (code, out) == (2, [])
    assert err == [
        "cnntrain: error: data.multi_label: must be the same in all runs, as a mAP and a top-1 cannot be compared "
        "(given both); compare single labels and sets by themselves"
    ]


def test_a_sweep_goes_by_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    hydra_config = SimpleNamespace(
        runtime=SimpleNamespace(output_dir="run", cwd="."),
        overrides=SimpleNamespace(task=[]),
        job=SimpleNamespace(num=0),
    )
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.get", lambda: hydra_config)
    for val in ({"map": 0.75, "loss": 1.0}, {"top1": 0.75, "top5": 1.0, "loss": 1.0}):

        def work(*_: object, val: dict[str, float] = val) -> dict[str, Any]:
            return {"val": val}

        assert hydra_jobs._job(lambda _: None, work, None, False) == (0, 0.75)  # type: ignore[arg-type, return-value]
