"""`cnntrain predict`, and `eval` with test-time augmentation: whole calls on small runs, and the lines printed."""

import csv
import importlib.util
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from rich.cells import cell_len

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.cli.arguments import read_arguments
from cnntrain.commands import eval, predict
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema.commands import EvalArgs, PredictArgs
from cnntrain.config.schema.data import CropMode, DataSettings, Interpolation
from cnntrain.data.decode import read_image
from cnntrain.data.unlabelled import data_without_images
from cnntrain.data.view import View
from cnntrain.errors import ConfigError, DataError
from cnntrain.evaluation.prediction import Prediction
from cnntrain.plots import prediction_sheet
from cnntrain.plots.sheet import Sheet
from cnntrain.report.predictions import Answers, summary, table
from cnntrain.report.run_report import Report
from cnntrain.storage import checkpoint
from cnntrain.text import shorten, shorten_apart
from cnntrain.training.load_run import load_job, with_preprocessing

CLASSES = ("blue", "green", "red")


def make_photos(root):
    """Three classes of flat colour in noise; 12 images each in train/, 4 in test/, of odd shapes and many kinds."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for index, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 200, (40 + number, 50 - number, 3))
                pixels[..., 2 - index] += 30
                kind = ("png", "bmp", "gif", "webp")[number % 4]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.{kind}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs on photos, one with averaged weights, one of another preprocessing, and one on digits."""
    home = tmp_path_factory.mktemp("trained")
    make_photos(home / "photos")
    common = [
        "trainer.device=cpu",
        "trainer.threads=1",
        "trainer.epochs=1",
        "trainer.tensorboard=false",
        "trainer.probe=0",
    ]
    photos = [f"data.root={home / 'photos'}", "data.image_size=32", "model=cnn", "data.batch_size=10"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        words = [*photos, *common, "trainer.ema=0.5", f"hydra.run.dir={home / 'run'}"]
        assert cli.main(["data=imagefolder", *words]) == 0
        looks = ["data.interpolation=bicubic", "data.crop=1.0", "data.folds=3", "data.batch_size=null"]
        assert cli.main(["data=imagefolder", *photos, *common, *looks, f"hydra.run.dir={home / 'sharp'}"]) == 0
        assert cli.main([*common, "data.limit=200", "model=lenet5", f"hydra.run.dir={home / 'digits'}"]) == 0
    return home


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A current folder with copies of the runs and the test photos, far from the data that they were trained on."""
    for name in ("run", "sharp", "digits"):
        shutil.copytree(trained / name, tmp_path / name)
    shutil.copytree(trained / "photos/test", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return cli.main([*map(str, words)])


def answers(job, loader):
    """Probabilities (N, K) of a split as `eval` sees it."""
    with torch.no_grad():
        model = job.model.eval()
        return torch.cat([model(job.normalize(images)).softmax(1) for images, *_ in loader.batches()])


def stored(file):
    """File -> [(class, probability), ...] of a CSV."""
    rows = list(csv.reader(Path(file).read_text().splitlines()))[1:]
    return {row[0]: list(zip(row[1:-1:2], map(float, row[2:-1:2]), strict=True)) for row in rows}


# ---- whole calls ----


def read(*words: str) -> PredictArgs:
    return read_arguments(PredictArgs, words)


def test_photos_are_seen_as_eval_sees_them(here):
    predict.run(read("run", "images=new", "out=new.csv"))
    _, _, job = load_job(Path("run"), [], Report(None, tensorboard=False))
    expected = answers(job, job.data.test)
    found = stored("new.csv")
    assert [Path(file).parts[:2] for file in found] == [("new", name) for name in CLASSES for _ in range(4)]
    for best, row in zip(found.values(), expected, strict=True):
        assert dict(best) == pytest.approx(dict(zip(CLASSES, row.tolist(), strict=True)), abs=2e-6)
        assert best == sorted(best, key=lambda pair: -pair[1])


def test_eval_and_predict_see_photos_in_the_interpolation_and_crop_of_the_training(here, capsys):
    whole = View(32, 1.0, Interpolation.bicubic)
    files = [
        Path(f"new/{name}") for name in sorted(f"{file.parent.name}/{file.name}" for file in Path("new").rglob("*.*"))
    ]
    expected = torch.stack([whole(read_image(file, 3)).permute(2, 0, 1) for file in files])
    _, state, job = load_job(Path("sharp"), [], Report(None, tensorboard=False))
    (images, *_), *_ = job.data.test.batches()
    assert torch.equal(images, expected)
    assert job.data.batch_size == 64  # of training, 4
    assert (state["about"]["interpolation"], state["about"]["crop"]) == ("bicubic", 1.0)

    for tta in ("", "crops"):
        predict.run(read("sharp", "images=new", "out=new.csv", *([f"tta={tta}"] if tta else [])))
        plain = dict(zip(map(str, files), answers(job, job.data.test).tolist(), strict=True))
        for file, best in stored("new.csv").items():
            same = dict(best) == pytest.approx(dict(zip(CLASSES, plain[file], strict=True)), abs=2e-6)
            assert same != bool(tta)  # of the border, which no crop leaves, its mirror image is seen
    _, _, job = load_job(Path("sharp"), ["data.crop=0.875"], Report(None, tensorboard=False))
    assert (job.data.crop, job.data.interpolation) == (0.875, Interpolation.bicubic)
    assert run("eval", "sharp", "data.fold=1") == run("resume", "sharp", "data.folds=4") == 2
    assert (
        "data.folds: 3 -> 4: would mix images that validate with those that were trained on" in capsys.readouterr().err
    )


def test_checkpoints_that_do_not_tell_interpolation_and_crop_are_bilinear_and_seven_eighths(here):
    _, state, _ = load_job(Path("sharp"), [], Report(None, tensorboard=False))
    older = {key: value for key, value in state["about"].items() if key not in ("interpolation", "crop", "crop_mode")}
    settings = restore_config(older["config"], ["data.interpolation=null", "data.crop=null"]).settings
    data = with_preprocessing(settings, older, []).data
    assert (data.interpolation, data.crop, data.crop_mode) == (Interpolation.bilinear, 0.875, CropMode.center)


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_eval_and_predict_make_squares_as_the_training_did(here, mode):
    about = torch.load("run/checkpoints/best/state.pt", weights_only=True)["about"] | {"crop_mode": mode}
    settings = with_preprocessing(restore_config(about["config"], []).settings, about, [])
    assert settings.data.crop_mode is CropMode[mode]
    _, _, job = load_job(Path("run"), [f"data.crop_mode={mode}"], Report(None, tensorboard=False))
    assert job.about()["crop_mode"] == mode
    _, _, plain = load_job(Path("run"), [], Report(None, tensorboard=False))
    assert plain.about()["crop_mode"] == "center"
    predict.run(read("run", "images=new", "out=new.csv", f"data.crop_mode={mode}"))
    for best, row in zip(stored("new.csv").values(), answers(job, job.data.test), strict=True):
        assert dict(best) == pytest.approx(dict(zip(CLASSES, row.tolist(), strict=True)), abs=2e-6)


def test_images_of_a_small_set_are_seen_whole(here):
    _, _, job = load_job(Path("digits"), [], Report(None, tensorboard=False))
    Path("digit").mkdir()
    (images, *_), *_ = job.data.test.batches()
    for number, image in enumerate(images[:9]):
        Image.fromarray(image[0].numpy()).save(f"digit/{number}.png")
    predict.run(read("digits", "images=digit", "top=10", "out=digits.csv"))
    for best, row in zip(stored("digits.csv").values(), answers(job, job.data.test), strict=False):
        assert dict(best) == pytest.approx({str(label): value for label, value in enumerate(row.tolist())}, abs=2e-6)


def test_a_run_whose_data_are_gone_still_predicts(here, trained, capsys):
    (trained / "photos").rename(trained / "elsewhere")
    try:
        assert run("eval", "run") == 3
        assert run("predict", "run", "images=new/red/0.png") == 0
        assert run("predict", "run/checkpoints/last", "images=new/red/0.png", "tta=crops") == 0
    finally:
        (trained / "elsewhere").rename(trained / "photos")
    out = capsys.readouterr().out
    assert out.count("new/red/0.png") == 2
    assert "tta      crops: 5 views" in out


def test_eval_tells_of_the_plain_view_beside_the_average(here, capsys):
    assert run("eval", "run", "out=plain.json") == 0
    assert run("eval", "run", "tta=[crops,hflip]", "out=tta.json") == 0
    assert "  tta      hflip, crops: 10 views\n" in capsys.readouterr().out
    plain, found = (json.loads(Path(name).read_text()) for name in ("plain.json", "tta.json"))
    assert (found["tta"], found["views"]) == (["hflip", "crops"], 10)
    assert found["test"]["loss"] != plain["test"]["loss"]
    for split in ("val", "test"):
        assert "top5" not in found[split]  # of three classes
        for key in ("loss", "top1"):
            assert found[split][f"plain_{key}"] == pytest.approx(plain[split][key], rel=1e-6)


def test_predict_averages_as_eval_does(here):
    words = ["tta=[hflip,shift,crops]"]
    assert predict.run(read("run", "images=new", "out=new.csv", *words))["views"] == 18
    scores = eval.run(read_arguments(EvalArgs, ["run", *words]))["test"]
    losses = [-np.log(dict(best)[Path(file).parts[1]]) for file, best in stored("new.csv").items()]
    assert np.mean(losses) == pytest.approx(scores["loss"], abs=1e-5)


def test_the_file_holds_the_best_classes_of_each_image(here, capsys):
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


def test_a_bad_image_is_left_out_and_listed_or_ends_the_call_with_its_name(here, capsys):
    Path("new/red/0.png").write_bytes(b"")
    assert run("predict", "run", "images=new", "data.on_bad_image=error") == 3
    assert "new/red/0.png: the file is empty" in capsys.readouterr().err
    results = predict.run(read("run", "images=new", "out=new.csv"))
    assert results["images"] == 11
    *rows, bad = csv.reader(Path("new.csv").read_text().splitlines())
    assert {row[-1] for row in rows} == {"error", ""}
    assert (len(rows), bad[0], bad[-1], set(bad[1:-1])) == (12, "new/red/0.png", "the file is empty", {""})
    assert results["skipped"] == [{"file": "new/red/0.png", "reason": "the file is empty"}]
    assert "left out, 1 of 12 images cannot be decoded:\n  new/red/0.png" in capsys.readouterr().out
    assert run("predict", "run", "images=new/red/0.png") == 3
    assert "images: none of 1 can be decoded" in capsys.readouterr().err


def test_an_image_whose_best_probability_is_below_the_threshold_gets_no_class(here, capsys):
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


def test_a_threshold_in_per_cent_is_told_as_a_share(here, capsys):
    assert run("predict", "run", "images=new", "threshold=80") == 2
    fault = "threshold: must be a number > 0 and <= 1 (given 80.0); 80 % is 0.8"
    assert capsys.readouterr().err.splitlines() == [f"cnntrain: error: {fault}"]


def test_the_table_tells_a_probability_once_and_all_that_rounds_to_one_as_100():
    found = [
        Prediction("a.jpg", (("ant", 0.957), ("bee", 0.043)), threshold=0.99),
        Prediction("b.jpg", (("ant", 0.999999), ("bee", 0.000001)), threshold=0.99),
    ]
    assert [line.split() for line in table(found)[1:]] == [
        ["a.jpg", "-", "ant", "95.70%,", "bee", "4.30%"],
        ["b.jpg", "ant", "100%"],
    ]


def test_a_threshold_that_none_can_be_below_is_refused(here, capsys):
    assert run("predict", "run", "images=new", "threshold=0.33", "out=new.csv") == 2
    assert "threshold: must be a number > 0.3333, as the best of 3 classes has that" in capsys.readouterr().err
    assert not Path("new.csv").exists()
    assert predict.run(read("run", "images=new", "threshold=0.34"))["abstained"] == 0


def test_parquet_holds_what_the_other_files_hold_and_names_as_they_are(here):
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


def test_without_pyarrow_parquet_is_refused_before_anything_is_loaded(here, monkeypatch, capsys):
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


def test_the_sheet_shows_each_image_with_its_answer_sorted_by_class(here, monkeypatch):
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


def test_of_many_images_the_first_are_told_and_the_classes_counted(here, capsys):
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


def test_foreign_code_is_not_followed_out_of_a_run(here, capsys):
    state = checkpoint.load(Path("digits/checkpoints/best"))
    state["about"]["config"]["model"]["name"] = "theirs.nets:build"
    Path("theirs").mkdir()
    checkpoint.save(Path("theirs"), state)
    assert run("predict", "theirs", "images=new") == 8
    assert "repeat model.name=theirs.nets:build" in capsys.readouterr().err


def test_a_run_saved_before_the_menu_of_augmentation_is_still_understood(here):
    state = checkpoint.load(Path("digits/checkpoints/best"))
    plain = state["about"]["config"]
    plain["augment"] = {key: plain["augment"][key] for key in ("pad_crop", "resized_crop", "hflip", "vflip")}
    for section, keys in {
        "data": ("eval_size", "sampling"),
        "loss": ("class_weights", "beta"),
        "optimizer": ("norm_weight_decay", "bias_weight_decay", "embedding_weight_decay"),
        "trainer": ("probe",),
    }.items():
        for key in keys:
            del plain[section][key]
    Path("older").mkdir()
    checkpoint.save(Path("older"), state, best=True)
    scores = [eval.run(read_arguments(EvalArgs, [name]))["test"] for name in ("digits", "older")]
    assert scores[0] == scores[1]
    assert run("predict", "older", "images=new") == 0
    shutil.copy("digits/environment.json", "older")
    (Path("older") / "config.yaml").write_text(json.dumps(plain))  # which is YAML too
    assert run("resume", "older", "trainer.epochs=2") == 0


def test_what_only_the_images_of_the_run_could_tell_is_refused():
    settings = DataSettings(name="imagefolder", root="gone", image_size=32, channels=3, mean=[0.5], std=[0.2, 0.3, 0.4])
    data = data_without_images(settings, ["a", "b"], "")
    assert (data.mean, data.std, data.eval_size) == ([0.5] * 3, [0.2, 0.3, 0.4], 32)
    for wrong in ({"mean": None}, {"image_size": None}, {"channels": 1}):
        with pytest.raises(ConfigError, match=r"^data\.\w+: "):
            data_without_images(replace(settings, **wrong), ["a", "b"], "")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "images: missing; give a file, a folder, or a pattern"),
        (["images="], 2, "images: missing"),
        (["new/red/0.png"], 2, "new/red/0.png: not KEY=VALUE; did you mean images=new/red/0.png?"),
        (["images=none.jpg"], 3, "images: none.jpg is not there; give a file"),
        (["images=[new,none.jpg]"], 3, "images: none.jpg is not there"),
        (["images=new/*.jpg"], 3, "images: new/*.jpg matches nothing"),
        (
            ["images=run/checkpoints"],
            3,
            "images: run/checkpoints: no images there (2 x .json file that is no image, 2 x .pt",
        ),
        (["images=new", "tta=mirror"], 2, "tta: must be among hflip, vflip, shift, crops (given mirror)"),
        (["images=new", "top=0"], 2, "top: must be a whole number >= 1 (given 0)"),
        (["images=new", "top=" + "9" * 5000], 2, "top: must be a whole number >= 1 (given 9999"),
        (["images=new", "out=a.txt"], 2, "out: must end in .csv, .json, .parquet or .png (given a.txt)"),
        (["images=new", "out=.csv"], 2, "out: must have a name before its end (given .csv); write out=FILE.csv"),
        (["images=new", "out=no/a.csv"], 6, "out: no is no folder"),
        (["images=new", "data.image_sise=3"], 2, "did you mean data.image_size?"),
        (["images=new", "model=resnet18"], 2, "model: cannot be chosen again"),
        (["images=new", "--gpu"], 2, "--gpu: no flag of predict"),
    ],
)
def test_each_mistake_is_one_line_with_what_to_do(here, capsys, words, code, told):
    assert run("predict", "run", *words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_no_image_is_written_over(here, capsys):
    photo = next(Path("new").glob("red/*.png"))
    Path("link.png").symlink_to(photo)
    for out in (photo, "link.png"):
        before = photo.read_bytes()
        assert run("predict", "run", "images=new", f"out={out}") == 2
        assert f"out: {photo} is one of the images; write out=FILE.csv\n" in capsys.readouterr().err
        assert photo.read_bytes() == before


def test_all_faults_are_told_at_once(here):
    with pytest.raises(ConfigError) as found:
        read("run", "images=none.jpg", "top=x", "tta=", "out=")
    keys = [line.partition(":")[0] for line in str(found.value).splitlines()]
    assert keys == ["top", "tta", "out", "images"]
    with pytest.raises(DataError):
        read("run", "images=none.jpg")


def test_files_may_have_any_name_and_count_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].jpg", "b,c.jpg", "d e.jpg"):
        Path(name).touch()
    args = read("run", "images=a[1].jpg", "trainer.device=cpu", "top=3")
    assert args.words == ("trainer.device=cpu",)
    assert (args.images, args.top) == ((Path("a[1].jpg"),), 3)
    assert read("run", "images=b,c.jpg").images == (Path("b,c.jpg"),)
    assert read("run", "images=['d e.jpg',*.jpg]").images == (Path("d e.jpg"), Path("a[1].jpg"), Path("b,c.jpg"))


# ---- lines ----


def test_a_table_fits_80_columns_whatever_the_names():
    long = "a class with a name that is far too long for a table"
    names = ["c.jpg", "photos/" + "deep/" * 30 + "猫猫猫.jpg", "new\nline.jpg", "\udcff.jpg"]
    for classes in ((("cat", 0.5), ("dog", 0.3), ("cow", 0.00004)), ((long, 0.9), (long, 0.1)), (("猫" * 30, 1.0),)):
        lines = table([Prediction(name, classes) for name in names])
        assert len(lines) == 5
        assert max(map(cell_len, lines)) <= 80
    assert table([Prediction("c.jpg", (("cat", 0.5), ("dog", 0.3), ("cow", 0.00004)))]) == [
        "file   class   prob.  runners-up",
        "c.jpg  cat    50.00%  dog 30.00%",
    ]


def test_long_names_are_told_apart():
    folder = "photos/2024-07-01 a holiday in Greece/camera front"
    names = [f"IMG_20240701_the_old_harbour_{number:04}_edited.jpg" for number in range(9, 12)]
    found = [Prediction(f"{folder}/{name}", (("a class with a name too long for it 1", 0.5),)) for name in names]
    where, _, *lines = table(found)
    assert where == f"in {folder}/"
    assert [line.split()[0] for line in lines] == [
        f"…1_the_old_harbour_{number:04}_edited.jpg" for number in (9, 10, 11)
    ]
    assert table([replace(one, file=one.file[-8:]) for one in found])[0].startswith("file")
    assert shorten_apart(["a_long_beginning_1.jpg", "a_long_beginning_2.jpg"], 10) == ["…ing_1.jpg", "…ing_2.jpg"]
    assert shorten_apart(["front_1_a_very_long_end", "front_2_a_very_long_end"], 8) == ["front_1…", "front_2…"]
    assert shorten_apart(["same name", "same name"], 5) == [shorten("same name", 5)] * 2
    assert shorten_apart(["short", "a long name on its own"], 9) == ["short", shorten("a long name on its own", 9)]
    assert shorten_apart([], 5) == []
    for width in range(4, 60):
        apart = shorten_apart(names, width)
        assert max(map(cell_len, apart)) <= width
        assert len(set(apart)) == 3


def test_what_is_too_long_loses_its_middle():
    assert shorten("photos/cat.jpg", 14) == "photos/cat.jpg"
    assert shorten("photos/cat.jpg", 12) == "pho…/cat.jpg"
    assert cell_len(shorten("猫" * 20, 13)) <= 13


def test_a_summary_counts_the_most_frequent_classes():
    assert summary([("cat", 1, 0.5), ("cow", 0, 0.0), ("dog", 3, 0.75)], 5) == [
        "class  images   share  mean prob.",
        "dog         3  60.00%      75.00%",
        "cat         1  20.00%      50.00%",
    ]
    lines = summary([(str(number), number, 0.5) for number in range(30)], 435)
    assert len(lines) == 22
    assert lines[-1] == "and 9 classes more"


def file(found: list[Prediction], top: int) -> Answers:
    """What is written of some predictions, and of a bad file."""
    skipped = [{"file": "=bad.png", "reason": "the file is empty"}]
    return Answers(found, top, {"skipped": skipped}, has_threshold=False)


LURID = ["=cmd|' /C calc'!A0", "\x1b[31m[bold]red\x07", "a very long name of a class, " * 20]


def test_names_of_strangers_are_harmless_on_the_terminal_and_in_a_spreadsheet():
    found = [Prediction("-2.png", tuple((name, 0.5) for name in LURID[first:] + LURID[:first])) for first in range(3)]
    lines = [*table(found), *summary([(name, 3, 0.5) for name in LURID], 9)]
    assert max(map(cell_len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    head, first, second, _, last = csv.reader(str(file(found, 3).content("csv")).splitlines())
    assert head[:3] == ["file", "class", "probability"]
    assert first[:4] == ["'-2.png", "'" + LURID[0], "0.500000", LURID[1]]
    assert second[1] == LURID[1]
    assert (last[0], last[-1]) == ("'=bad.png", "the file is empty")
    rows = json.loads(file(found, 3).content("json"))["predictions"]
    assert [(row["file"], row["class"]) for row in rows] == [("-2.png", name) for name in LURID]


def test_a_forged_checkpoint_writes_nothing_but_letters(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    state = checkpoint.load(checkpoint.find(Path("run")))
    state["about"] |= {"classes": LURID}
    state["about"]["config"]["data"]["root"] = "\x1b[31m/nowhere"
    Path("forged").mkdir()
    checkpoint.save(Path("forged"), state, best=True)
    code = {}
    for words in (["predict", "forged", "images=photos/test"], ["eval", "forged"], ["explain", "forged"]):
        code[words[0]] = cli.main(words)
        told = capsys.readouterr()
        assert all(line.isprintable() for line in (told.out + told.err).split("\n"))
    assert code == {"predict": 0, "eval": 3, "explain": 3}
