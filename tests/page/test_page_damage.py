"""`cnntrain report`: a page is there with less, with mistakes, and with whatever a folder holds."""

import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import EVIL, OF_NETWORK, SECTIONS, read, report, sections

from cnntrain import cli
from cnntrain.page.build import Page
from cnntrain.page.chart import Chart, Line


def test_without_a_checkpoint_the_page_holds_what_the_folder_knows(copied_run):
    shutil.rmtree(copied_run / "checkpoints")
    report("run")
    assert sections() == ["missing", *(name for name in SECTIONS if name not in (*OF_NETWORK, "next"))]
    assert "has saved no checkpoint" in read().text
    (copied_run / "results.json").unlink()  # as of a run that was killed before its first save
    report("run")
    assert "cnntrain resume run go on where the run stopped" in read().text
    assert "cnntrain predict" not in read().text


def test_a_damaged_checkpoint_is_named(copied_run, capsys):
    for state in copied_run.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"broken")
    report("run")
    assert "missing" in sections()
    assert "not on the page" in capsys.readouterr().out


def test_a_run_that_was_stopped_has_a_page(copied_run):
    (copied_run / "results.json").write_text(json.dumps({"status": "interrupted", "error": "stopped", "seconds": 1.0}))
    lines = (copied_run / "metrics.csv").read_text().splitlines(keepends=True)
    (copied_run / "metrics.csv").write_text("".join(lines[:3]))  # in its first epoch
    report("run")
    text = read().text
    assert "that was interrupted" in text
    assert "cnntrain resume run go on" in text


@pytest.mark.parametrize("lines", [0, 1])
def test_without_rows_there_are_no_curves(copied_run, lines):
    whole = (copied_run / "metrics.csv").read_text().splitlines(keepends=True)
    (copied_run / "metrics.csv").write_text("".join(whole[:lines]))
    (copied_run / "results.json").unlink()
    report("run")
    assert "curves" not in sections()
    assert "confusion" in sections()


def test_images_that_are_gone_cost_the_parts_that_show_them(here, strange, capsys):
    shutil.copytree(strange, "run")
    report("run", "data.root=/gone")
    left = [name for name in OF_NETWORK if name != "filters"]
    assert sections() == ["missing", *(name for name in SECTIONS if name not in left)]
    assert "/gone" in read().text
    assert "not on the page" in capsys.readouterr().out


def test_a_network_without_convolutions_is_shown_without_heat(here):
    words = ["model=mlp", "trainer.epochs=1", "data.limit=100", "trainer.tensorboard=false", "out=run"]
    assert cli.main([*words, "data.val=0"]) == 0
    report("run")
    page = read()
    assert "filters" in sections()
    assert "evidence for" not in page.text
    assert "taken for" in page.text
    assert "best epoch" not in page.text


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["run", "out=page.pdf"], 2, "out: must end in .html (given page.pdf); write out=FILE.html"),
        (["run", "optimizer.lr=1"], 2, "optimizer.lr: report trains nothing"),
        (["gone"], 4, "gone: no run there (config.yaml is missing)"),
        (["run", "out=gone/page.html"], 6, "gone"),
    ],
)
def test_a_mistake_is_told_in_a_line(copied_run, capsys, words, code, told):
    (copied_run / "report.html").unlink()
    report(*words, code=code)
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not [path for path in Path().rglob("*") if path.suffix in (".html", ".pdf")]


def test_a_fault_of_the_page_does_not_spoil_the_training(here, monkeypatch, capsys):
    def fail(self: Page) -> Iterator[str]:
        raise ValueError("no ink")

    monkeypatch.setattr(Page, "build", fail)
    words = ["trainer.epochs=1", "data.limit=60", "trainer.tensorboard=false", "trainer.report=true", "out=run"]
    assert cli.main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    told = "no report.html: ValueError: no ink; the run is whole, try again with cnntrain report run next "
    assert told in printed
    assert json.loads(Path("run/results.json").read_text())["status"] == "done"
    assert not Path("run/report.html").exists()


def test_a_file_that_cannot_be_read_costs_the_answers_alone(here, strange, capsys):
    shutil.copytree(strange.parent / "<b>images", "photos")
    shutil.copytree(strange, "run")
    for path in Path("photos").rglob("*.jpg"):
        path.write_bytes(b"broken")
    report("run", "data.root=photos")
    assert sections() == ["missing", *(name for name in SECTIONS if name not in OF_NETWORK or name == "filters")]
    assert "Scores by class and errors" in capsys.readouterr().out


def test_a_function_of_a_strangers_is_called_only_where_it_is_repeated(here, monkeypatch):
    Path("my_page_parts.py").write_text("def same(images, generator):\n    return images\n")
    monkeypatch.syspath_prepend(here)
    own = "augment.own.name=my_page_parts:same"
    words = ["augment=own", own, "trainer.epochs=1", "data.limit=60", "trainer.tensorboard=false"]
    assert cli.main([*words, "trainer.report=true", "out=run"]) == 0
    assert "augmentation" in sections()
    report("run")
    assert "augmentation" not in sections()
    assert f"repeat {own}" in read().text
    report("run", own)
    assert "augmentation" in sections()


VALUES = (
    None,
    "text",
    EVIL,
    True,
    -1,
    10**40,
    0.5,
    math.nan,
    math.inf,
    [],
    {},
    [[1]],
    {"top1": "x"},
    {"top1": 2.0},
    {"val": -1},
)


def test_whatever_the_files_of_a_run_hold_there_is_a_page(copied_run):
    shutil.rmtree(copied_run / "checkpoints")
    draw = random.Random(0)
    files = {name: json.loads((copied_run / name).read_text()) for name in ("environment.json", "results.json")}
    head, *rows = (copied_run / "metrics.csv").read_text().splitlines()
    for _ in range(15):
        for name, content in files.items():
            changes = {draw.choice(list(content)): draw.choice(VALUES) for _ in range(4)}
            (copied_run / name).write_text(json.dumps(content | changes))
        cells = [row.split(",") for row in rows]
        for row in cells:
            row[draw.randrange(1, len(row))] = draw.choice(["", "nan", "inf", "-1", "1e308", "-1e308", str(2**63 - 1)])
        (copied_run / "metrics.csv").write_text(
            "\n".join([head, *map(",".join, draw.sample(cells, len(cells)))]) + "\n"
        )
        report("run")
        assert "config" in sections()
        assert not re.search(r' d="[^"]*(nan|inf)', (copied_run / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", {"val": -1}),
        ("val", {"top1": 10**400, "loss": -math.inf}),
        ("best_epoch", 10**400),
        ("train_seconds", 10**400),
    ],
)
def test_a_number_beyond_reason_is_none(copied_run, name, value):
    shutil.rmtree(copied_run / "checkpoints")
    results = json.loads((copied_run / "results.json").read_text())
    (copied_run / "results.json").write_text(json.dumps(results | {name: value}))
    report("run")
    assert "config" in sections()


def test_a_chart_has_an_axis_whatever_a_damaged_file_holds():
    for points in ([(2.0**62, -5.0)], [(0.0, -1e29), (1e18, -1e29)], [(0.0, 0.0)]):
        drawn = Chart("Loss", [Line("one", "one", points)], from_zero=True).draw()
        assert drawn
        assert "nan" not in drawn
