"""`cnntrain eval` of sets of labels: scores, thresholds, temperature, views, corruptions; what TensorBoard shows."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, hamming_loss
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnntrain import cli
from cnntrain.runtime.reporter import Silence
from cnntrain.storage import checkpoint
from cnntrain.training.load_run import load_job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")

NAMES = ("=1+1", "east", "north")
PLACES = {
    "=1+1": (slice(8, 16), slice(0, 8)),
    "east": (slice(8, 16), slice(8, 16)),
    "north": (slice(0, 8), slice(0, 16)),
}


def run(*words: object) -> int:
    return cli.main([*map(str, words)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on noisy images of which each label makes a part brighter, and the table of them."""
    home, draw = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    rows = [("file", "labels", "split")]
    for number in range(180):
        pixels = draw.normal(120, 60, (16, 16))
        labels = [name for name in NAMES if draw.random() < 0.4]
        for name in labels:
            pixels[PLACES[name]] += draw.normal(40, 25)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(home / f"{number}.png")
        rows.append((f"{number}.png", "|".join(labels), ("train", "val", "test")[number % 3]))
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    (home / "labels.csv").write_text(text.getvalue())
    words = ["data=table", f"data.root={home}/labels.csv", "data.multi_label=true", "loss=bce", "data.image_size=16"]
    words += ["model=softmax", "trainer.epochs=12", "trainer.threads=1", "data.batch_size=10", "data.channels=1"]
    assert run(*words, f"out={home}/run") == 0
    return home


@pytest.fixture
def sets(here: Path, trained: Path) -> Path:
    """A copy of the run, in the current folder."""
    shutil.copytree(trained / "run", "run")
    return here


def scores_of(*words: str) -> dict[str, Any]:
    assert run("eval", "run", *words, "out=scores.json") == 0
    scores: dict[str, Any] = json.loads(Path("scores.json").read_text())
    return scores


def test_a_folder_holds_everything_and_the_terminal_a_glance_at_it(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval", "run", "out=all", "robust=contrast") == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert max(map(len, out.splitlines())) <= 80
    assert "top-1" not in out
    scores, results = (json.loads(Path(path).read_text()) for path in ("all/scores.json", "run/results.json"))
    thresholds = checkpoint.load(Path("run/checkpoints/best"))["progress"]["thresholds"]
    for split in ("val", "test"):
        assert {key: pytest.approx(scores[split][key]) for key in ("map", "loss")} == results[split]
        assert [row["threshold"] for row in scores[split]["classes"].values()] == thresholds
        assert scores[split]["thresholds"] == "checkpoint"
    levels = scores["test"]["robustness"]["contrast"]
    assert len(levels) == 5
    assert all(0 < level["map"] <= 1 and "top1" not in level for level in levels)
    rows = [row for row in csv.DictReader(Path("all/errors.csv").read_text().splitlines()) if row["split"] == "test"]
    labels, given = (
        np.array([[name in row[key].replace("'", "").split("|") for name in NAMES] for row in rows])
        for key in ("labels", "prediction")
    )
    assert scores["test"]["hamming"] == pytest.approx(hamming_loss(labels, given))
    assert scores["test"]["subset_accuracy"] == pytest.approx((labels == given).all(1).mean())
    assert 0 < scores["test"]["subset_accuracy"] < 1
    assert {path.suffix for path in Path("all").iterdir()} == {".json", ".csv", ".png", ".svg"}
    assert not list(Path("all").glob("confusion*"))


def test_a_temperature_moves_the_thresholds_so_that_every_decision_stays(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scores_of()
    state = checkpoint.load(Path("run/checkpoints/best"))
    for name, tensor in state["model"].items():  # far too sure
        state["model"][name] = tensor * 8 if tensor.is_floating_point() else tensor
    state["progress"]["thresholds"] = [
        float((8 * torch.tensor(value, dtype=torch.float64).logit()).sigmoid())
        for value in state["progress"]["thresholds"]
    ]
    checkpoint.save(Path("run"), state, best=True)
    sure, calibrated = scores_of(), scores_of("calibrate=true")
    decisions = ("macro_f1", "micro_f1", "hamming", "subset_accuracy", "map")
    for scores in (sure, calibrated):
        for key in decisions:
            assert scores["test"][key] == pytest.approx(before["test"][key], abs=1e-9)
    assert calibrated["test"]["loss"] < sure["test"]["loss"]
    used = calibrated["test"]["calibration"]["temperature"]["used"]
    assert used == checkpoint.load(Path("run/checkpoints/best"))["about"]["temperature"] > 1
    moved = [row["threshold"] for row in calibrated["test"]["classes"].values()]
    plain = torch.tensor([row["threshold"] for row in sure["test"]["classes"].values()], dtype=torch.float64)
    assert moved == pytest.approx((plain.logit() / used).sigmoid().tolist())
    assert run("eval", "run") == 0
    assert f"temperature  {used:.4g}, fitted to the validation images" in capsys.readouterr().out
    again = scores_of("calibrate=false")["test"]
    for name, row in sure["test"].pop("classes").items():
        assert again["classes"][name] == pytest.approx(row)  # a threshold went there and back
    assert again | {"classes": None} == sure["test"] | {"classes": None}


def test_views_are_averaged_by_their_sigmoids(sets: Path) -> None:
    scores = scores_of("tta=vflip")["test"]
    assert scores["plain_map"] == scores_of()["test"]["map"]
    *_, job = load_job(Path("run"), [], Silence())
    assert job.data.test
    pixels, labels = job.data.test.pick(torch.arange(60)), job.data.test.labels
    mean = sum(job.scorer().logits(images).sigmoid() for images in (pixels, pixels.flip(2))) / 2
    assert scores["map"] == pytest.approx(average_precision_score(labels, mean, average="macro"))
    loss = torch.nn.functional.binary_cross_entropy(mean, labels.float(), reduction="sum") / 60
    assert scores["loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["out=x.svg"], 2, "as sets of labels have no confusion matrix (given x.svg); write out=DIR"),
        (["data.multi_label=false"], 2, "data.multi_label: "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    sets: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    there = sorted(Path().rglob("*"))
    assert run("eval", "run", *words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert sorted(Path().rglob("*")) == there


def test_tensorboard_shows_labels_that_are_missed_or_wrongly_given_and_precision_and_recall(trained: Path) -> None:
    events = EventAccumulator(str(trained / "run"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert "test/errors" in events.Tags()["images"]
    assert "test/confusion" not in events.Tags()["images"]
    (text,) = events.Tensors("test/error_files/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert lines[0] == "| file | wrongly given | missed |"
    assert 3 <= len(lines) <= 2 + 24
    assert {f"pr_test/{name}" for name in NAMES} <= set(events.Tags()["tensors"])
    rows = list(csv.DictReader((trained / "run/projector/images.tsv").read_text().splitlines(), delimiter="\t"))
    assert len(rows) == 60
    told = {row["image"]: set(row["class"].split(" | ")) - {""} for row in rows}
    for row in csv.DictReader((trained / "labels.csv").read_text().splitlines()):
        if row["split"] == "test":
            (found,) = [labels for image, labels in told.items() if Path(image).name == row["file"]]
            assert found == set(row["labels"].split("|")) - {""}
    assert {row["right"] == "yes" for row in rows} == {True, False}
    assert all((row["right"] == "yes") == (row["class"] == row["predicted"]) for row in rows)
