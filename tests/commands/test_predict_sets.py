"""What `predict` and `cnntrain.load` say where images have sets of labels."""

import csv
import json
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from PIL import Image
from rich.cells import cell_len

import cnntrain
from cnntrain import cli
from cnntrain.config.schema.data import ColumnSettings, DataSettings
from cnntrain.data.table_images import find_in_table
from cnntrain.errors import ConfigError
from cnntrain.runtime.reporter import Silence
from cnntrain.training.load_run import load_job


def predict(*words):
    return cli.main(["predict", "run", "images=new", *words])


def by_hand(threshold=None):
    """File -> the labels whose probability reaches their threshold, the most probable first; and the job."""
    *_, job = load_job(Path("run"), [], Silence())
    with torch.no_grad():
        logits = torch.cat([job.model.eval()(job.normalize(batch.images)) for batch in job.data.test.batches()])
    probabilities = (logits / job.temperature).sigmoid()
    limits = torch.tensor(job.thresholds if threshold is None else [threshold] * 3)
    found = {}
    for index, row in enumerate(probabilities):
        places = [place for place in row.argsort(descending=True).tolist() if row[place] >= limits[place]]
        found[Path(job.data.test.name(index)).name] = [job.data.classes[place] for place in places]
    return found, job


def test_an_image_has_the_labels_whose_probability_reaches_the_threshold_of_the_checkpoint(among_sets, capsys):
    assert predict("top=2", "out=[a.csv,a.json,a.parquet,a.png]") == 0
    wanted, job = by_hand()
    assert len({*map(len, wanted.values())}) > 1, "the run is to give some images more labels than others"
    rows = list(csv.DictReader(Path("a.csv").read_text().splitlines()))
    assert list(rows[0]) == ["file", "labels", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert {Path(row["file"]).name: row["labels"].split("|") if row["labels"] else [] for row in rows} == wanted
    results = json.loads(Path("a.json").read_text())
    assert [row["labels"] for row in results["predictions"]] == list(wanted.values())
    assert all(len(row["classes"]) == 2 for row in results["predictions"])
    assert results["thresholds"] == pytest.approx(dict(zip(job.data.classes, job.thresholds, strict=True)))
    assert results["abstained"] == sum(not labels for labels in wanted.values())
    assert results["classes"] == {name: sum(name in labels for labels in wanted.values()) for name in job.data.classes}
    assert pyarrow.parquet.read_table("a.parquet")["labels"].to_pylist() == list(wanted.values())
    with Image.open("a.png") as sheet:
        assert sheet.width > 1000
    said = capsys.readouterr().out
    assert "fitted to the validation images" in said
    assert max(cell_len(line) for line in said.splitlines() if not line.startswith("wrote")) <= 80


def test_the_object_of_python_gives_the_same_labels(among_sets):
    assert predict("out=a.json") == 0
    rows = json.loads(Path("a.json").read_text())["predictions"]
    network = cnntrain.load("run")
    assert network.thresholds == pytest.approx(list(by_hand()[1].thresholds))
    found = network([row["file"] for row in rows])
    assert [list(answer.labels) for answer in found] == [row["labels"] for row in rows]
    assert [answer.label for answer in found] == [(row["labels"] or [None])[0] for row in rows]
    assert [list(answer.labels) for answer in network([row["file"] for row in rows], threshold=0.5, top=1)] == list(
        by_hand(0.5)[0].values()
    )
    with pytest.raises(ConfigError, match="threshold: must be a number"):
        network("new/56.png", threshold=2)


def test_a_threshold_takes_the_place_of_those_of_the_checkpoint_however_low(among_sets, capsys):
    assert predict("threshold=0.02", "top=1", "out=a.json") == 0
    rows = json.loads(Path("a.json").read_text())["predictions"]
    assert [row["labels"] for row in rows] == list(by_hand(0.02)[0].values())
    assert predict("threshold=1") == 0
    said = capsys.readouterr().out
    assert "1 for every class, in place of those of the checkpoint" in said
    assert "no label for 14 of 14 images (100%)" in said


def test_what_is_predicted_is_a_table_of_labels_to_learn_from(among_sets):
    assert predict("out=a.csv", "threshold=0.3") == 0
    settings = DataSettings(name="table", root="a.csv", multi_label=True, columns=ColumnSettings())
    part = find_in_table(settings, None).scans["train"]
    wanted = {name: sorted(labels) for name, labels in by_hand(0.3)[0].items()}
    found = {
        Path(part.paths[index]).name: [name for name, has in zip(part.classes, row, strict=True) if has]
        for index, row in enumerate(part.labels.tolist())
    }
    assert found == wanted


def test_a_bad_file_among_them_costs_no_label_of_another(among_sets):
    Path("new/00.png").write_bytes(b"no picture")
    assert predict("out=[a.csv,a.json]") == 0
    results = json.loads(Path("a.json").read_text())
    wanted = by_hand()[0]
    assert [row["labels"] for row in results["predictions"]] == list(wanted.values())
    assert sum(results["classes"].values()) == sum(map(len, wanted.values()))
    last = list(csv.DictReader(Path("a.csv").read_text().splitlines()))[-1]
    assert (last["file"], last["labels"]) == ("new/00.png", "")
    assert last["error"]


@pytest.mark.parametrize(("cells", "sign"), [("blue|red", "|"), ("blue red", " "), ("", " ")])
def test_labels_are_parted_as_those_of_a_sample_are_and_one_column_by_the_name_of_a_class_has_its_probability(
    among_sets, cells, sign
):
    wanted = by_hand(0.3)[0]
    Path("sample.csv").write_text("id,tags\n" + "".join(f"{name},{cells}\n" for name in wanted))
    assert predict("like=sample.csv", "out=[a.csv,a.json]", "threshold=0.3") == 0
    assert Path("a.csv").read_text().splitlines()[1:] == [f"{one},{sign.join(own)}" for one, own in wanted.items()]
    Path("one.csv").write_text("id,red\n" + "".join(f"{name},0\n" for name in wanted))
    assert predict("like=one.csv", "out=b.csv") == 0
    rows = json.loads(Path("a.json").read_text())["predictions"]
    found = [next(one["probability"] for one in row["classes"] if one["class"] == "red") for row in rows]
    assert [line.split(",")[1] for line in Path("b.csv").read_text().splitlines()[1:]] == [
        f"{value:.6f}" for value in found
    ]
