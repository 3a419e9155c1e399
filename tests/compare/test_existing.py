"""`cnntrain compare RUN_DIR ...`: the settings in which runs differ, their scores, and what is no run."""

import csv
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from compared import leave

from cnntrain import cli
from cnntrain.compare.existing import differences
from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_plain

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNTRAIN_DATA", "/data")


@functools.cache
def composed(*words: str) -> dict[str, Any]:
    return to_plain(compose_settings(["trainer.tensorboard=false", *words]))


def a_run(folder: str, *words: str, code: int = 0, **changed: Any) -> Path:
    """A run folder as training leaves it, but for its checkpoints."""
    path = Path(folder)
    leave(path, composed(*words) | changed, code)
    (path / "environment.json").write_text('{"data_fingerprint": "f"}')
    return path


def compared(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    code = cli.main(["compare", *words])
    told = capsys.readouterr()
    return code, told.out.splitlines(), told.err.splitlines()


# --- what differs ----------------------------------------------------------------------------------------------------


def test_columns_are_the_settings_that_differ_by_the_words_that_choose_them() -> None:
    lines: tuple[list[str], ...] = (
        ["model=lenet5", "optimizer.lr=0.1", "seed=3"],
        ["model=mlp", "optimizer=adamw", "augment=[hflip,cutmix]", "trainer.epochs=3"],
        ["model=lenet5", "optimizer=adamw", "optimizer.lr=0.1", "model.args.pooling=avg"],
    )
    columns = differences([compose_settings(line) for line in lines])
    assert list(columns)[:4] == ["model", "augment", "optimizer", "optimizer.lr"]
    assert columns["augment"] == ["pad_crop", "hflip,cutmix", "pad_crop"]
    assert columns["optimizer"] == ["sgd", "adamw", "adamw"]
    assert columns["model.args.pooling"] == ["max", "-", "avg"]
    assert not {"model.title", "data.title"} & columns.keys()
    options = [compose_settings([f"model={name}"]) for name in ("cnn", "cnn3")]
    assert differences(options)["model"] == ["cnn", "cnn3"]
    assert (
        not {"seed", "model.args.hidden", "optimizer.momentum", "optimizer.beta1", "augment.hflip.p"} & columns.keys()
    )


def test_numbers_of_a_choice_that_some_runs_share_are_compared_among_these() -> None:
    lines = (["optimizer.momentum=0.5"], ["optimizer.momentum=0.8"], ["optimizer=adamw"])
    columns = differences([compose_settings(list(line)) for line in lines])
    assert columns["optimizer.momentum"] == ["0.5", "0.8", "-"]


def test_what_no_score_goes_by_is_told_only_where_it_alone_tells_runs_apart() -> None:
    lines: tuple[list[str], ...] = (
        ["loss=bce", "trainer.report=true"],
        ["optimizer.lr=0.3", "data.workers=1", "trainer.save_every=9"],
    )
    assert list(differences([compose_settings(line) for line in lines])) == ["loss", "optimizer.lr"]
    lines = (["trainer.report=true"], ["trainer.report=false", "seed=1"])
    assert not differences([compose_settings(line) for line in lines])
    lines = (["trainer.threads=1"], ["trainer.threads=2"])
    assert differences([compose_settings(line) for line in lines]) == {"trainer.threads": ["1", "2"]}
    roots = [f"data.root=/{name}/photos" for name in "ab"]
    lines = tuple(["data=imagefolder", root, "model=lenet5"] for root in roots)
    assert differences([compose_settings(line) for line in lines]) == {"data.root": ["/a/photos", "/b/photos"]}


# --- the table and its files -----------------------------------------------------------------------------------------


def test_runs_of_one_config_and_other_seeds_make_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        a_run(f"outputs/a/{seed}", f"seed={seed}", "optimizer=adamw")
    a_run("outputs/b/mine", "optimizer.lr=0.3")
    code, out, err = compared("outputs/a", "outputs/b/mine", capsys=capsys)
    assert (code, err) == (0, [])
    assert out[0] == "compare: 3 runs in outputs"
    assert out[1].startswith("run 1 of 3  a/0  optimizer=adamw lr=")
    table = out[5:]
    assert table[0].split()[1] == "lr"
    assert max(map(len, table)) <= 80
    assert table[2].startswith("adamw ")
    assert "80.50±0.71" in table[2]
    assert table[2].endswith(" *")
    assert "70.00  65.1-74.5" in table[3]
    assert "95 %: interval of one run's accuracy on 360 test images, Wilson's" in table
    assert out[-1] == "      cnntrain eval outputs/a/1" or out[-1] == "next  cnntrain eval outputs/a/1"
    assert sorted(path.name for path in Path().iterdir()) == ["outputs"]


def test_out_takes_the_same_files(capsys: pytest.CaptureFixture[str]) -> None:
    for rate in ("0.1", "0.2"):
        a_run(f"=runs/{rate}", f"optimizer.lr={rate}")
    code, out, _ = compared("./=runs", "out=tables", capsys=capsys)
    assert code == 0
    assert "wrote tables/compare.csv, compare.json, compare.png, compare.svg" in out
    with open("tables/compare.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["kind"], line["optimizer.lr"]) for line in lines] == [
        (kind, lr) for kind in ("row", "run") for lr in ("0.1", "0.2")
    ]
    assert lines[2]["folder"] == "'=runs/0.1"  # a spreadsheet would run it
    record = json.loads(Path("tables/compare.json").read_text())
    assert [entry["interval"] for entry in record["rows"]] == ["wilson", "wilson"]
    compared("./=runs/0.1", "./=runs/0.2", "out=tables", capsys=capsys)
    assert len(list(Path("tables").glob("runs_*/compare.csv"))) == 1  # another comparison, beside the first


def test_of_the_same_config_the_later_run_counts_and_runs_in_sight_without_results_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("first", "second"):
        a_run(f"runs/{name}")
    a_run("runs/broken", "optimizer.lr=9", code=5)
    a_run("runs/other", "optimizer.lr=0.4")
    _, out, _ = compared("runs", capsys=capsys)
    assert "left out: runs/first: has the config of runs/second, which is newer" in out
    told = next(line for line in out if line.startswith("left out: runs/broken"))
    assert told.startswith("left out: runs/broken: has no results (failed: step 3: the loss is nan); finish it")
    assert out[0] == "compare: 2 runs in runs"


def test_of_runs_on_other_images_none_is_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    told = "these runs were not all scored on the same images, so none is the best"
    a_run("a")
    b = a_run("b", "optimizer.lr=0.4")
    out = compared("a", "b", capsys=capsys)[1]
    assert told not in out
    assert any(line.endswith(" *") for line in out)
    (b / "environment.json").write_text('{"data_fingerprint": "g"}')
    out = compared("a", "b", "out=tables", capsys=capsys)[1]
    assert told in out
    assert not [line for line in out if line.endswith(" *") or "cnntrain eval" in line]
    with open("tables/compare.csv", newline="") as file:
        assert {line["best"] for line in csv.DictReader(file) if line["kind"] == "row"} == {"0"}


# --- what is no run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        (["good", "nowhere"], 4, "nowhere: is not there; give the folders of runs"),
        (["good", "file"], 4, "file: is a file; give the folders of runs"),
        (["good", "empty"], 4, "empty: no run there (config.yaml is missing)"),
        (["good", "stopped"], 4, "stopped: has no results (no results.json); finish it with cnntrain resume"),
        (["good", "failed"], 4, "failed: has no results (failed: step 3: the loss is nan)"),
        (["good", "foreign"], 4, "foreign: no run there (config.yaml is missing)"),
        (["good", "theirs"], 4, "theirs/config.yaml: "),
        (["good", "optimizer.lr=0.1,0.2"], 2, "compare: takes settings to train with, or runs that exist"),
        (["good"], 2, "compare: nothing to compare with good; give more runs"),
        (["good", "good", "./good"], 2, "compare: nothing to compare with good; give more runs"),
        (["good", "--config-dir", "empty"], 2, "--config-dir: is for runs that are to be trained"),
        (["digits", "seed=0,1"], 2, "digits: neither KEY=VALUE nor a flag"),
        (["good", "good2", "out=file"], 2, "out: file is a file"),
    ],
)
def test_what_is_no_run_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, fault: str
) -> None:
    a_run("good")
    a_run("good2", "optimizer.lr=0.4")
    a_run("stopped", code=130)
    a_run("failed", code=5)
    theirs = a_run("theirs")
    (theirs / "config.yaml").write_text(yaml.safe_dump({"model": {"depth": 3}, "\x1b[31mlr": 1}))
    for folder in ("empty", "foreign"):
        Path(folder).mkdir()
    Path("foreign/model.ckpt").touch()
    Path("file").touch()
    before = sorted(Path().rglob("*"))
    found, out, err = compared(*words, capsys=capsys)
    assert (found, len(err), out) == (code, 1, [])
    assert err[0].startswith(f"cnntrain: error: {fault}")
    assert "\x1b" not in err[0]
    assert sorted(Path().rglob("*")) == before


def test_names_and_values_of_strangers_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    a_run("a\x1b[2J", "optimizer.lr=0.4")
    b = a_run("b")
    plain = yaml.safe_load((b / "config.yaml").read_text())
    plain["data"]["root"] = "/x\x1b[2J\nnext  rm"
    (b / "config.yaml").write_text(yaml.safe_dump(plain))
    code, out, _ = compared("a\x1b[2J", "b", capsys=capsys)
    assert code == 0
    assert "\x1b" not in "".join(out)
    assert not [line for line in out if line.startswith("next  rm")]
