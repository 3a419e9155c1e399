"""`cnntrain predict`: images are seen as `eval` sees them, in runs new and old."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predicted import CLASSES, answers, read, run, stored

from cnntrain.cli.arguments import read_arguments
from cnntrain.commands import eval, predict
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema.data import CropMode, Interpolation
from cnntrain.config.schema.run_commands import EvalArgs
from cnntrain.data.decode import read_image
from cnntrain.data.view import View
from cnntrain.report.run_report import Report
from cnntrain.storage import checkpoint
from cnntrain.training.load_run import load_job, with_preprocessing


def test_photos_are_seen_as_eval_sees_them(among_runs):
    predict.run(read("run", "images=new", "out=new.csv"))
    _, _, job = load_job(Path("run"), [], Report(None, tensorboard=False))
    expected = answers(job, job.data.test)
    found = stored("new.csv")
    assert [Path(file).parts[:2] for file in found] == [("new", name) for name in CLASSES for _ in range(4)]
    for best, row in zip(found.values(), expected, strict=True):
        assert dict(best) == pytest.approx(dict(zip(CLASSES, row.tolist(), strict=True)), abs=2e-6)
        assert best == sorted(best, key=lambda pair: -pair[1])


def test_eval_and_predict_see_photos_in_the_interpolation_and_crop_of_the_training(among_runs, capsys):
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


def test_checkpoints_that_do_not_tell_interpolation_and_crop_are_bilinear_and_seven_eighths(among_runs):
    _, state, _ = load_job(Path("sharp"), [], Report(None, tensorboard=False))
    older = {key: value for key, value in state["about"].items() if key not in ("interpolation", "crop", "crop_mode")}
    settings = restore_config(older["config"], ["data.interpolation=null", "data.crop=null"]).settings
    data = with_preprocessing(settings, older, []).data
    assert (data.interpolation, data.crop, data.crop_mode) == (Interpolation.bilinear, 0.875, CropMode.center)


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_eval_and_predict_make_squares_as_the_training_did(among_runs, mode):
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


def test_images_of_a_small_set_are_seen_whole(among_runs):
    _, _, job = load_job(Path("digits"), [], Report(None, tensorboard=False))
    Path("digit").mkdir()
    (images, *_), *_ = job.data.test.batches()
    for number, image in enumerate(images[:9]):
        Image.fromarray(image[0].numpy()).save(f"digit/{number}.png")
    predict.run(read("digits", "images=digit", "top=10", "out=digits.csv"))
    for best, row in zip(stored("digits.csv").values(), answers(job, job.data.test), strict=False):
        assert dict(best) == pytest.approx({str(label): value for label, value in enumerate(row.tolist())}, abs=2e-6)


def test_a_run_whose_data_are_gone_still_predicts(among_runs, capsys):
    state = checkpoint.load(Path("run/checkpoints/best"))
    state["about"]["config"]["data"]["root"] = "/gone"
    Path("moved").mkdir()
    checkpoint.save(Path("moved"), state, best=True)
    assert run("eval", "moved") == 3
    assert run("predict", "moved", "images=new/red/0.png") == 0
    assert run("predict", "moved/checkpoints/last", "images=new/red/0.png", "tta=crops") == 0
    out = capsys.readouterr().out
    assert out.count("new/red/0.png") == 2
    assert "tta      crops: 5 views" in out


def test_eval_tells_of_the_plain_view_beside_the_average(among_runs, capsys):
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


def test_predict_averages_as_eval_does(among_runs):
    words = ["tta=[hflip,shift,crops]"]
    assert predict.run(read("run", "images=new", "out=new.csv", *words))["views"] == 18
    scores = eval.run(read_arguments(EvalArgs, ["run", *words]))["test"]
    losses = [-np.log(dict(best)[Path(file).parts[1]]) for file, best in stored("new.csv").items()]
    assert np.mean(losses) == pytest.approx(scores["loss"], abs=1e-5)


def test_a_run_saved_before_the_menu_of_augmentation_is_still_understood(among_runs):
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
