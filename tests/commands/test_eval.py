"""`cnntrain eval`: what it writes, the temperature that it keeps, and what it says where it cannot."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain import cli
from cnntrain.evaluation.calibration import Fit
from cnntrain.storage import checkpoint, run_folder
from cnntrain.storage.atomic import StreamedFile

QUICK = ["model=lenet5", "data.batch_size=64", "trainer.epochs=3", "trainer.threads=1"]
QUICK += ["trainer.tensorboard=false"]


def run(*words):
    return cli.main([*map(str, words)])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run of three epochs on the digits."""
    folder = tmp_path_factory.mktemp("eval") / "run"
    assert run(*QUICK, f"out={folder}") == 0
    return folder


@pytest.fixture
def trained(here, digits):
    """A copy of it, in the current folder."""
    shutil.copytree(digits, "run")
    return Path("run")


@pytest.fixture
def photos(here):
    """Two classes, `=1+1` and `<b>`, four images each in train/ and three in val/."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for name in ("=1+1", "<b>"):
            folder = here / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    words = ["data=imagefolder", "data.root=photos", "data.image_size=16", "model=softmax", "trainer.epochs=1"]
    assert run(*words, "trainer.tensorboard=false", "data.batch_size=4", "out=run") == 0
    return here / "photos"


def test_a_folder_holds_everything_and_the_terminal_a_glance_at_it(trained, capsys):
    assert run("eval", "run", "out=all") == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert max(map(len, out.splitlines())) <= 80
    assert {path.suffix for path in Path("all").iterdir()} == {".json", ".csv", ".png", ".svg"}
    scores = json.loads(Path("all/scores.json").read_text())
    rows = list(csv.DictReader(Path("all/errors.csv").read_text().splitlines()))
    assert len(rows) == scores["val"]["images"] + scores["test"]["images"]
    for split in ("val", "test"):
        part = [row for row in rows if row["split"] == split]
        right = sum(row["label"] == row["prediction"] for row in part)
        assert right / len(part) == pytest.approx(scores[split]["top1"])
        assert np.mean([float(row["loss"]) for row in part]) == pytest.approx(scores[split]["loss"], rel=1e-4)
    with open("run/splits.csv", newline="") as file:
        told = [(row["split"], row["name"]) for row in csv.DictReader(file)]
    assert [(row["split"], row["file"]) for row in rows] == [pair for pair in told if pair[0] != "train"]
    worst = scores["test"]["worst"]["confident_errors"][0]
    shown = [line for line in out.splitlines() if line.startswith("test/")]
    assert shown[0].split() == [
        worst["file"],
        worst["label"],
        worst["prediction"],
        f"{100 * worst['probability']:.2f}%",
    ]
    row = next(row for row in rows if row["file"] == worst["file"])
    assert (row["label"], row["prediction"]) == (worst["label"], worst["prediction"])
    assert "wrote all/" in out
    assert "next  cnntrain report run\n      cnntrain explain run\n" in out


def test_files_of_images_are_named_and_names_that_a_spreadsheet_would_run_are_text(photos, capsys):
    assert run("eval", "run", "out=all") == 0
    rows = list(csv.DictReader(Path("all/errors.csv").read_text().splitlines()))
    assert {row["file"] for row in rows} == {str(path.relative_to(photos)) for path in photos.glob("val/*/*.png")}
    assert {row["label"] for row in rows} == {"'=1+1", "<b>"}
    assert b"<b>" not in Path("all/classes.svg").read_bytes()
    assert "top5" not in json.loads(Path("all/scores.json").read_text())["val"]
    assert "top-5" not in capsys.readouterr().out
    shutil.make_archive("photos", "zip", photos)
    assert run("eval", "run", f"data.root={Path('photos.zip').resolve()}", "out=packed") == 0
    assert Path("packed/errors.csv").read_text() == Path("all/errors.csv").read_text()


def test_a_temperature_stays_in_the_checkpoint_and_the_run_goes_on_to_the_same_bits(trained, capsys):
    assert run("eval", "run", "out=before.json") == 0
    before = json.loads(Path("before.json").read_text())
    shutil.copytree("run", "other")
    assert run("eval", "run", "calibrate=true", "out=after.json") == 0
    after = json.loads(Path("after.json").read_text())
    temperature = checkpoint.load(Path("run/checkpoints/best"))["about"]["temperature"]
    assert temperature == before["val"]["calibration"]["temperature"]["fitted"]
    assert f"{temperature:.4g}, kept; at 1 the ECE of validation was " in capsys.readouterr().out
    assert after["val"]["calibration"]["temperature"]["used"] == temperature
    assert after["val"]["loss"] == pytest.approx(before["val"]["calibration"]["temperature"]["loss"], rel=1e-4)
    assert after["test"]["calibration"]["ece"] == before["test"]["calibration"]["temperature"]["ece"]
    assert after["test"]["top1"] == before["test"]["top1"]
    assert run("eval", "run") == 0
    assert f"temperature  {temperature:.4g}, fitted to the validation images" in capsys.readouterr().out
    shutil.rmtree("run/checkpoints/last")
    shutil.rmtree("other/checkpoints/last")
    shutil.rmtree("run/checkpoints/previous")
    shutil.rmtree("other/checkpoints/previous")
    for folder in ("run", "other"):
        assert run("resume", folder, "trainer.epochs=4") == 0
    results = [json.loads(Path(folder, "results.json").read_text()) for folder in ("run", "other")]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert results[0]["test"] == results[1]["test"]
    assert "temperature" not in checkpoint.load(Path("run/checkpoints/last"))["about"]


def test_a_checkpoint_alone_is_calibrated_too(trained, capsys):
    shutil.copytree("run/checkpoints/last", "alone")
    assert run("eval", "alone/state.pt", "calibrate=true") == 0
    assert "next  cnntrain eval alone/state.pt out=eval\n" in capsys.readouterr().out
    assert checkpoint.load(Path("alone"))["about"]["temperature"] > 0
    assert sorted(path.name for path in Path("alone").iterdir()) == ["manifest.json", "state.pt"]


def test_a_run_that_is_trained_now_is_not_calibrated(trained, capsys):
    before = Path("run/checkpoints/best/state.pt").read_bytes()
    with run_folder.lock(Path("run")):
        assert run("eval", "run", "calibrate=true") == 9
        assert "in use by pid" in capsys.readouterr().err
        assert run("eval", "run") == 0
    assert Path("run/checkpoints/best/state.pt").read_bytes() == before


def test_without_validation_images_there_is_nothing_to_fit_a_temperature_to(photos, capsys):
    Path("moved").mkdir()
    (photos / "val").rename("moved/test")
    capsys.readouterr()
    assert run("eval", "run", "calibrate=true", "data.root=moved") == 3
    error = capsys.readouterr().err
    assert error.startswith("cnntrain: error: calibrate: there are no validation images to fit a temperature to")


def fitted(monkeypatch, **values):
    """Let every fit be this one."""
    monkeypatch.setattr("cnntrain.evaluation.calibration.TemperatureFit.fit", lambda self, images: Fit(**values))


def test_a_temperature_that_half_of_the_images_does_not_confirm_is_neither_kept_nor_advised(
    trained, capsys, monkeypatch
):
    fitted(monkeypatch, temperature=0.5, loss=0.01, helps=False)
    before = Path("run/checkpoints/best/state.pt").read_bytes()
    assert run("eval", "run", "calibrate=true") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "calibrate: these 144 validation images do not tell a temperature that helps: " in line
    assert Path("run/checkpoints/best/state.pt").read_bytes() == before
    assert run("eval", "run") == 0
    out = capsys.readouterr().out
    assert "             the validation images tell no temperature that helps\n" in out
    assert "calibrate=true" not in out


def test_a_temperature_that_harms_the_test_images_is_told_and_can_be_forgotten(trained, capsys, monkeypatch):
    file = Path("run/checkpoints/best/state.pt")
    plain = file.read_bytes()
    fitted(monkeypatch, temperature=9.0, loss=0.01, helps=True)
    assert run("eval", "run", "out=before.json") == 0
    before = json.loads(Path("before.json").read_text())["test"]
    assert "             temperature 9 of validation would make it " in capsys.readouterr().out
    assert run("eval", "run", "calibrate=true", "out=after.json") == 0
    out = capsys.readouterr().out
    after = json.loads(Path("after.json").read_text())["test"]
    told, error = after["calibration"]["without"], after["calibration"]["ece"]
    assert told == {"loss": pytest.approx(before["loss"]), "ece": before["calibration"]["ece"]}
    assert (
        f"             at temperature 1: ECE {100 * told['ece']:.2f}%, loss {told['loss']:.4f}; "
        f"now {100 * error:.2f}%, {after['loss']:.4f}\n"
    ) in out
    assert "warning: the temperature harms the test images: calibrate=false forgets it\n" in out
    assert "calibrate=true" not in out
    assert max(map(len, out.splitlines())) <= 80
    with run_folder.lock(Path("run")):
        assert run("eval", "run", "calibrate=false") == 9
    assert file.read_bytes() != plain
    capsys.readouterr()
    assert run("eval", "run", "calibrate=false", "out=forgotten.json") == 0
    assert "temperature  1; 9 is forgotten\n" in capsys.readouterr().out
    assert json.loads(Path("forgotten.json").read_text())["test"] == before
    assert "temperature" not in checkpoint.load(file.parent)["about"]
    forgotten, time = file.read_bytes(), file.stat().st_mtime_ns
    assert run("eval", "run", "calibrate=false") == 0
    assert "temperature  1; the checkpoint has no other to forget\n" in capsys.readouterr().out
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (forgotten, time)


def test_views_are_told_with_the_temperature_of_the_plain_images_and_where_they_do_harm(trained, capsys):
    assert run("eval", "run", "out=one.json") == 0
    assert run("eval", "run", "tta=hflip,vflip", "out=more.json") == 0
    out = capsys.readouterr().out
    one, more = (json.loads(Path(name).read_text()) for name in ("one.json", "more.json"))
    temperatures = [scores["test"]["calibration"]["temperature"]["fitted"] for scores in (one, more)]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-3)
    points = 100 * (more["test"]["plain_top1"] - more["test"]["top1"])
    assert points > 1
    assert out.count(f"\ntta lowers top-1 of the test images by {points:.2f} points: leave it out\n") == 1
    assert run("eval", "run", "tta=hflip,vflip", "calibrate=true") == 0
    out = capsys.readouterr().out
    assert f"temperature  {temperatures[1]:.4g}, kept" in out
    assert "calibrate=true" not in out


def test_a_run_without_test_images_is_told_in_80_columns(photos, capsys):
    capsys.readouterr()
    assert run("eval", "run", "robust=all") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("validation, corrupted  weakest") for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("sign", "told"), [(1, "all of them are right"), (-1, "the network is no better than chance")])
def test_where_no_temperature_fits_best_none_is_kept(photos, capsys, sign, told):
    for name, gray in (("=1+1", 0), ("<b>", 255)):
        for file in (photos / "val" / name).iterdir():
            Image.new("RGB", (20, 20), (gray, gray, gray)).save(file)
    state = checkpoint.load(Path("run/checkpoints/best"))
    bright = state["about"]["classes"].index("<b>")
    for tensor in state["model"].values():
        tensor.zero_()
        if tensor.ndim > 1:
            tensor[bright], tensor[1 - bright] = sign, -sign
    checkpoint.save(Path("run"), state, best=True)
    before = Path("run/checkpoints/best/state.pt").read_bytes()
    capsys.readouterr()
    assert run("eval", "run", "calibrate=true") == 3
    assert f"calibrate: no temperature fits the 6 validation images best, as {told}; " in capsys.readouterr().err
    assert Path("run/checkpoints/best/state.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["out=x.txt"], 2, "out: must end in .json, .csv, .png, .svg or .pdf, or be a folder (given x.txt)"),
        (["out="], 2, "out: must end in .json, .csv, .png, .svg or .pdf, or be a folder (given nothing)"),
        (["out=.json"], 2, "out: must have a name before its end (given .json); write out=DIR"),
        (["out=run/command.txt/"], 2, "or be a folder (given run/command.txt/)"),
        (["out=nowhere/x.json"], 6, "out: nowhere is no folder; make it first"),
        (["robust=fog"], 2, "robust: must be among noise, blur, contrast, jpeg, all (given fog)"),
        (["calibrate=maybe"], 2, "calibrate: must be true or false (given maybe)"),
        (["data.classes=[0,1]"], 2, "data.classes: "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(trained, capsys, words, code, told):
    there = sorted(Path().rglob("*"))
    assert run("eval", "run", *words) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert sorted(Path().rglob("*")) == there


def test_a_bad_image_leaves_no_folder_or_is_told(photos, capsys):
    bad = next(photos.glob("val/*/*.png"))
    bad.write_bytes(bad.read_bytes()[:60])
    capsys.readouterr()
    assert run("eval", "run", "out=new/all") == 3
    assert f"{bad.name}: " in capsys.readouterr().err
    assert not list(Path("new").iterdir())
    assert run("eval", "run", "data.on_bad_image=skip") == 0
    warning = f"warning: 1 image cannot be decoded; others of the same class stood in: {bad}"
    assert warning in capsys.readouterr().out
    assert run("eval", "run", "out=run") == 3  # which holds other files
    assert Path("run/config.yaml").exists()
    assert not list(Path("run").glob("*errors.csv"))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_folder(trained, monkeypatch, signum, code):
    write = StreamedFile.write

    def interrupted(file, text):
        write(file, text)
        os.kill(os.getpid(), signum)

    monkeypatch.setattr(StreamedFile, "write", interrupted)
    before = signal.getsignal(signum)
    assert run("eval", "run", "out=new") == code
    assert not Path("new").exists()
    assert signal.getsignal(signum) is before


def test_what_is_no_run_of_ours_is_told(here, trained, capsys):
    Path("empty").mkdir()
    assert run("eval", "empty") == 4
    assert "no cnntrain checkpoint there" in capsys.readouterr().err
    shutil.rmtree("run/checkpoints")
    assert run("eval", "run") == 4
    assert "the run is finished and its checkpoints are gone" in capsys.readouterr().err
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, "other.pth")
    assert run("eval", "other.pth") == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_corruptions_are_scored_on_the_test_images(trained, capsys):
    assert run("eval", "run", "robust=jpeg,contrast", "out=scores.json") == 0
    scores = json.loads(Path("scores.json").read_text())
    assert list(scores["test"]["robustness"]) == ["contrast", "jpeg"]
    assert "robustness" not in scores["val"]
    lines = capsys.readouterr().out.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("test, corrupted"))
    assert lines[place + 1].split() == ["contrast", "0.75", "0.5", "0.4", "0.3", "0.15"]
    assert lines[place + 4].split() == ["jpeg", "80", "65", "58", "50", "40"]
    levels = scores["test"]["robustness"]["jpeg"]
    assert lines[place + 6].split()[:-1] == ["loss", *(f"{level['loss']:.4f}" for level in levels)]
