"""`cnntrain predict`: its files, its sheet of images, and classes that are not certain enough."""

import csv
import importlib.util
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from predicted import CLASSES, read, run
from pyarrow import parquet
from rich.cells import cell_len

from cnntrain.cli import dispatch
from cnntrain.commands import predict
from cnntrain.data.decode import read_image
from cnntrain.errors import DataError
from cnntrain.evaluation.prediction import Prediction
from cnntrain.plots import prediction_sheet
from cnntrain.plots.sheet import Sheet
from cnntrain.report.run_report import Report
from cnntrain.report.submission import Submission
from cnntrain.text import shorten_apart
from cnntrain.training.load_run import load_job


def test_the_file_holds_the_best_classes_of_each_image(among_runs, capsys):
    assert run("predict", "run", "images=['new/red/0.png','new/blue/1.bmp']", "top=2", "out=a.csv") == 0
    head, first, second = Path("a.csv").read_text().splitlines()
    assert head == "file,class,probability,class_2,probability_2,error"
    assert first.startswith("new/red/0.png,")
    assert second.startswith("new/blue/1.bmp,")
    assert "wrote a.csv" in capsys.readouterr().out
    assert run("predict", "run", "images=new/*/0.*", "tta=hflip", "out=a.json", "top=1") == 0
    found = json.loads(Path("a.json").read_text())
    assert (found["tta"], found["views"], found["images"], sum(found["classes"].values())) == (["hflip"], 2, 3, 3)
    assert [row["file"] for row in found["predictions"]] == [f"new/{name}/0.png" for name in CLASSES]
    assert {len(row["classes"]) for row in found["predictions"]} == {1}


def test_an_archive_is_a_folder_whose_images_go_by_its_name(among_runs, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").resolve()))
    shutil.make_archive("photos", "zip", "new")
    assert run("predict", "run", "images=photos.zip", "top=1", "out=packed.csv") == 0
    assert "photos.zip: unpacked 12 files" in capsys.readouterr().out
    assert run("predict", "run", "images=new", "top=1", "out=plain.csv") == 0
    packed, plain = (Path(file).read_text().splitlines() for file in ("packed.csv", "plain.csv"))
    assert packed == [line.replace("new/", "photos.zip/", 1) for line in plain]
    Path("photos.zip").write_bytes(b"PK")
    assert run("predict", "run", "images=photos.zip") == 3
    assert "photos.zip is damaged (" in capsys.readouterr().err


def test_a_file_has_the_form_of_a_sample(among_runs, capsys):
    assert run("predict", "run", "images=new", "top=12", "out=all.json") == 0
    found = {row["file"]: row for row in json.loads(Path("all.json").read_text())["predictions"]}
    files = sorted(found, reverse=True)
    Path("sample.csv").write_text("id,answer\n" + "".join(f"{file.removeprefix('new/')},?\n" for file in files))
    assert run("predict", "run", "images=new", "like=sample.csv", "out=[a.csv,a.json]") == 0
    lines = Path("a.csv").read_text().splitlines()
    assert lines == ["id,answer", *(f"{file.removeprefix('new/')},{found[file]['class']}" for file in files)]

    few = files[:3]
    Path("wide.csv").write_text(f"id,{CLASSES[1]},{CLASSES[0]}\n" + "".join(f"{file},0,0\n" for file in few))
    assert run("predict", "run", "images=new", "like=wide.csv", "out=b.csv", "top=1") == 0
    for file, line in zip(few, Path("b.csv").read_text().splitlines()[1:], strict=True):
        values = {one["class"]: one["probability"] for one in found[file]["classes"]}
        assert line == f"{file},{values[CLASSES[1]]:.6f},{values[CLASSES[0]]:.6f}"
    said = capsys.readouterr().out
    assert "wrote a.csv\n  12 rows as in sample.csv; answer: its class\n" in said
    assert f"3 rows as in wide.csv; {CLASSES[1]}, {CLASSES[0]}: their probabilities" in said
    assert "9 images that it does not name are left out" in said


def test_the_only_column_of_a_sample_holds_a_probability_where_it_is_called_as_a_class(among_runs, capsys):
    assert run("predict", "run", "images=new", "top=12", "out=all.json") == 0
    (first, *_) = json.loads(Path("all.json").read_text())["predictions"]
    value = next(one["probability"] for one in first["classes"] if one["class"] == CLASSES[1])
    Path("sample.csv").write_text(f"id,{CLASSES[1]}\n{first['file']},0\n")
    assert run("predict", "run", "images=new", "like=sample.csv", "out=a.csv", "top=1") == 0
    assert Path("a.csv").read_text() == f"id,{CLASSES[1]}\n{first['file']},{value:.6f}\n"
    assert f"1 row as in sample.csv; {CLASSES[1]}: its probability" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "cells", "column"),
    [
        (["0", "1"], ["0.5", "0"], "answer: the probability of class 1"),
        (["0", "1"], ["0", "1"], "answer: its class"),
        (["0", "1"], ["-1", "-1"], "answer: its class"),  # stands for nothing
        (["0", "1", "2"], ["0", "0"], "answer: its class"),
        (["0", "1", "2"], ["0.5", "0"], None),
        (["ants", "bees"], ["0", "0"], None),
        (["ants", "bees"], ["", ""], "answer: its class"),
        (["ants", "bees"], ["ants", "0"], "answer: its class"),
    ],
)
def test_the_only_column_of_a_sample_is_read_by_its_cells(tmp_path, classes, cells, column):
    sample = tmp_path / "sample.csv"
    sample.write_text("id,answer\n" + "".join(f"{index},{cell}\n" for index, cell in enumerate(cells)))
    images = ["a/0.png", "a/1.png"]
    if column is None:
        with pytest.raises(DataError, match=r"'answer' holds numbers, such as 0.*call it as the class whose"):
            Submission(sample, images, classes)
        return
    submission = Submission(sample, images, classes)
    assert submission.lines()[0].endswith(f"; {column}")
    found = {index: Prediction(image, (("1", 0.7), ("0", 0.3))) for index, image in enumerate(images)}
    wanted = "0.700000" if submission.has_probabilities else "1"
    assert submission.content(found).splitlines()[1:] == [f"0,{wanted}", f"1,{wanted}"]


def test_a_sample_that_asks_for_other_images_is_told_before_anything_is_computed(among_runs, capsys, monkeypatch):
    monkeypatch.setattr(predict._Call, "ask", lambda self: pytest.fail("computed"))
    told = {
        "id,label\nnowhere,a\n0,a\n": [
            "row 2: nowhere is none of the images",
            "row 3: 0 is the name of several images",
        ],
        "id,x,red\n": ["holds no row"],
        "id,x,red\nnew/red/0.png,1,2\n": ["the column 'x' is no class of the network"],
        "id\n1\n": ["has one column"],
    }
    for text, lines in told.items():
        Path("sample.csv").write_text(text)
        assert run("predict", "run", "images=new", "like=sample.csv", "out=a.csv") == 3
        errors = capsys.readouterr().err
        assert all(line in errors for line in lines), errors
    assert run("predict", "run", "images=new", "like=sample.csv", "out=a.json") == 2
    assert "like: is what out=FILE.csv is to look like (given sample.csv)" in capsys.readouterr().err
    assert run("predict", "run", "images=new", "like=sample.csv", "out=sample.csv") == 2
    assert "out: sample.csv is the sample itself" in capsys.readouterr().err
    assert run("predict", "run", "images=new", "like=none.csv", "out=a.csv") == 3
    assert "like: none.csv is not there" in capsys.readouterr().err


def test_an_image_whose_best_probability_is_below_the_threshold_gets_no_class(among_runs, capsys):
    predict.run(read("run", "images=new", "out=all.json"))
    best = [row["classes"][0] for row in json.loads(Path("all.json").read_text())["predictions"]]
    values = sorted(one["probability"] for one in best)
    threshold = (values[5] + values[6]) / 2
    capsys.readouterr()
    results = predict.run(
        read("run", "images=new", f"threshold={threshold}", "out=[new.csv,new.json,new.parquet]", "top=2")
    )
    out = capsys.readouterr().out
    assert f"no class for 6 of 12 images (50.00%), whose best is below {threshold:g}" in out
    assert sum("  -  " in line for line in out.splitlines()) == 6
    assert [f"wrote new.{kind}" in out for kind in ("csv", "json", "parquet")] == [True] * 3
    assert (results["threshold"], results["images"], results["abstained"]) == (threshold, 12, 6)
    assert sum(results["classes"].values()) == 6

    written = json.loads(Path("new.json").read_text())
    assert {key: written[key] for key in results} == results
    expected = [one["class"] if one["probability"] >= threshold else None for one in best]
    assert [row["class"] for row in written["predictions"]] == expected
    assert [row["classes"][0] for row in written["predictions"]] == best

    head, *rows = csv.reader(Path("new.csv").read_text().splitlines())
    assert head == ["file", "class", "probability", "class_1", "class_2", "probability_2", "error"]
    assert [row[1] or None for row in rows] == expected
    assert [row[3] for row in rows] == [one["class"] for one in best]

    table = parquet.read_table("new.parquet")
    assert table.column_names == head
    assert table["class"].to_pylist() == expected
    assert table["probability"].to_pylist() == [one["probability"] for one in best]
    assert json.loads(table.schema.metadata[b"cnntrain"]) == results


def test_a_threshold_in_per_cent_is_told_as_a_share(among_runs, capsys):
    assert run("predict", "run", "images=new", "threshold=80") == 2
    fault = "threshold: must be a number > 0 and <= 1 (given 80.0); 80 % is 0.8"
    assert capsys.readouterr().err.splitlines() == [f"cnntrain: error: {fault}"]


def test_a_threshold_that_none_can_be_below_is_refused(among_runs, capsys):
    assert run("predict", "run", "images=new", "threshold=0.33", "out=new.csv") == 2
    assert "threshold: must be a number > 0.3333, as the best of 3 classes has that" in capsys.readouterr().err
    assert not Path("new.csv").exists()
    assert predict.run(read("run", "images=new", "threshold=0.34"))["abstained"] == 0


def test_parquet_holds_what_the_other_files_hold_and_names_as_they_are(among_runs):
    Path("new/red/0.png").write_bytes(b"")
    shutil.copy("new/red/1.bmp", "new/=1+1.bmp")
    shutil.copy("new/red/1.bmp", os.fsdecode(b"new/\xff.bmp"))
    files = [f"new.{kind}" for kind in ("csv", "json", "parquet")]
    predict.run(read("run", "images=new", f"out=[{','.join(files)}]"))
    table = parquet.read_table("new.parquet")
    rows = json.loads(Path("new.json").read_text())["predictions"]
    names = [row["file"] for row in rows]
    assert {"new/=1+1.bmp", "new/\udcff.bmp"} < set(names)
    assert [name.replace("\udcff", "\\xff") for name in names] == table["file"].to_pylist()[:-1]
    assert table["class_3"].to_pylist() == [*(row["classes"][2]["class"] for row in rows), None]
    assert table["error"].to_pylist() == [None] * len(rows) + ["the file is empty"]
    assert table["file"].to_pylist()[-1] == "new/red/0.png"
    with open("new.csv", newline="", errors="surrogateescape") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [*names, "new/red/0.png"]


def test_without_pyarrow_parquet_is_refused_before_anything_is_loaded(among_runs, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else find(name, *more)
    )
    monkeypatch.setattr(dispatch, "_load", lambda command: pytest.fail("loaded"))
    assert run("predict", "run", "images=new", "out=[new.csv,new.parquet]") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "out: .parquet needs pyarrow, not installed here (given new.parquet); pip install 'cnntrain[parquet]'" in line
    )


def test_the_sheet_shows_each_image_with_its_answer_sorted_by_class(among_runs, monkeypatch):
    shown = []
    monkeypatch.setattr(prediction_sheet, "Sheet", lambda *parts: shown.append(parts) or Sheet(*parts))
    Path("new/red/0.png").write_bytes(b"")
    words = ["images=new", "tta=crops"]
    predict.run(read("run", *words, "out=[new.json,sheet.png]"))
    with Image.open("sheet.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 10 * 128
    rows = json.loads(Path("new.json").read_text())["predictions"]
    rows.sort(key=lambda row: (CLASSES.index(row["class"]), -row["classes"][0]["probability"]))
    ((title, _, footer, tiled, _),) = shown
    assert (title, footer) == ("What cnn says of 11 images", "run/checkpoints/best")
    tiles = [tile for row in tiled for tile in row.tiles]
    assert [tile.captions[0] for tile in tiles] == [row["class"] for row in rows]
    names = dict(zip([row["file"] for row in rows], shorten_apart([row["file"] for row in rows], 16), strict=True))
    assert [tile.captions[2] for tile in tiles] == [names[row["file"]] for row in rows]  # there are several 1.bmp
    view = load_job(Path("run"), [], Report(None, tensorboard=False))[2].data.view(32)
    for tile, row in zip(tiles, rows, strict=True):
        assert (tile.pixels == view(read_image(Path(row["file"]), 3)).numpy()).all()


def test_a_sheet_of_thousands_shows_some_at_even_distances():
    found = [Prediction(f"{number}.jpg", (("cat", 0.5 + number / 1000),), threshold=0.6) for number in range(160)]
    images = torch.zeros(160, 1, 8, 8, dtype=torch.uint8)
    content = prediction_sheet.draw_predictions("net", "run", images, found, total=5000, classes=["cat"])
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.width == 2 * 16 + 10 * 136
        assert picture.height > 16 * (136 + 3 * 17)


def test_of_many_images_the_first_are_told_and_the_classes_counted(among_runs, capsys):
    for number in range(45):
        shutil.copy("new/red/0.png", f"new/{number}.png")
    Path("new/notes.txt").touch()
    assert run("predict", "run", "images=[new,new/red/0.png]") == 0
    out = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, out)) <= 80
    assert "  images   57, seen as 32 x 32 pixels" in out
    assert "  ignored  1 x .txt file that is no image" in out
    assert sum(line.startswith("new/") for line in out) == 20
    assert "and 37 more images; out=FILE.csv stores all" in out
    counted = [line.split()[1] for line in out[out.index("") + 2 :]]
    assert sum(map(int, counted)) == 57
