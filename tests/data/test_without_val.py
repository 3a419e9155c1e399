"""`data.val=0`: every image trains, the last epoch counts, and what needs validation images is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnntrain import cli
from cnntrain.storage import checkpoint
from cnntrain.storage.plain import fingerprint

QUICK = ["model=softmax", "data.val=0", "trainer.threads=1", "trainer.epochs=2", "trainer.tensorboard=false"]


@pytest.fixture
def photos(here):
    """Two classes without splits."""
    draw = np.random.default_rng(0)
    for index, name in enumerate(("dark", "light")):
        (here / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(120 * index, 120 * index + 100, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(here / "photos" / name / f"{number}.png")
    return ["data=imagefolder", "data.root=photos", "data.image_size=16"]


def run(*words) -> int:
    return cli.main([*map(str, words)])


def results(folder="run"):
    return json.loads((Path(folder) / "results.json").read_text())


def test_all_images_train_and_the_last_epoch_counts(here, capsys):
    assert run(*QUICK, "hydra.run.dir=run") == 0
    told = capsys.readouterr().out
    assert "train 1,437, test 360" in told
    line = "val: none (data.val=0), all images train: the last epoch counts, as none is the best"
    assert line in " ".join(told.split())
    assert "last epoch  2, none is best without validation" in told
    assert "val loss" not in told
    done = results()
    assert (done["status"], done["best_epoch"], done["val"]) == ("done", 2, None)
    assert done["test"]["top1"] > 0.3
    best, last = (checkpoint.load(Path("run/checkpoints") / name) for name in ("best", "last"))
    assert fingerprint(best["model"]) == fingerprint(last["model"])
    assert run("eval", "run", "out=scores.json") == 0
    scores = json.loads(Path("scores.json").read_text())
    assert "val" not in scores
    assert scores["test"]["top1"] == done["test"]["top1"]
    assert run("resume", "run", "trainer.epochs=3") == 0
    assert results()["best_epoch"] == 3


def test_a_run_without_any_split_trains_and_has_nothing_to_score(photos, capsys):
    assert run(*QUICK, *photos, "hydra.run.dir=run") == 0
    assert "train 16\n" in capsys.readouterr().out
    assert (results()["val"], results()["test"]) == (None, None)
    for command in ("eval", "explain"):
        assert run(command, "run") == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("cnntrain: error: data.val: nothing to score, as the run has no validation images")
    assert run("predict", "run", "images=photos/dark") == 0
    for name in ("dark", "light"):
        shutil.copytree(f"photos/{name}", f"other/val/{name}")
    assert run("eval", "run", "data.root=other", "out=scores.json") == 0
    assert json.loads(Path("scores.json").read_text())["val"]["top1"] > 0.5


def test_a_val_folder_of_its_own_is_used_all_the_same(photos, capsys):
    for split in ("train", "val"):
        shutil.copytree("photos", f"split/{split}")
    assert run(*QUICK, *photos, "data.root=split", "trainer.epochs=3", "trainer.early_stop=1", "hydra.run.dir=run") == 0
    assert "train 16, val 16" in capsys.readouterr().out
    assert results()["val"]["top1"] >= 0.5


def test_more_training_images_may_come_where_none_validates(photos, capsys):
    assert run(*QUICK, *photos, "hydra.run.dir=run") == 0
    shutil.copy("photos/dark/0.png", "photos/dark/new.png")
    assert run("resume", "run", "trainer.epochs=3") == 0
    assert "warning: data.root: the images of train are not those" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trainer.early_stop=2"], "trainer.early_stop: must be null without validation images (data.val=0) (given 2)"),
        (
            ["schedule=plateau"],
            "schedule.name: must be another one without validation images (data.val=0), whose loss it waits for "
            "(given plateau)",
        ),
        (["data.folds=3"], "data.val: must be above 0 with data.folds (3), one of which is for validation (given 0)"),
        (["data.val=-1"], "data.val: must be a number >= 0 (given -1)"),
    ],
)
@pytest.mark.parametrize("source", ["digits", "photos"])
def test_what_needs_validation_images_is_refused(photos, capsys, source, words, told):
    assert run(*QUICK, "trainer.epochs=20", *(photos if source == "photos" else []), *words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "is there twice" not in line]
    assert errors == [f"cnntrain: error: {told}"]
    assert not list(Path().glob("outputs/*"))


def test_a_comparison_that_no_image_judges_is_refused_before_its_first_run(photos, capsys):
    assert run("compare", *QUICK, *photos, "seed=0,1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "cnntrain: error: data.val: must be above 0 to compare by, as the images have neither val nor test"
    )
    assert not Path("outputs").exists()


def test_curves_leave_out_epochs_that_were_not_validated(here):
    from cnntrain.compare.table import points

    assert run(*QUICK, "hydra.run.dir=run") == 0
    assert points(here / "run/metrics.csv") == []


def test_check_needs_no_validation_images(here, capsys):
    assert run("check", *QUICK) == 0
    assert "check passed" in capsys.readouterr().out


@pytest.mark.parametrize(("before", "after"), [("0", "0.1"), ("0.1", "0")])
def test_a_run_cannot_begin_or_end_to_validate(here, capsys, before, after):
    assert run(*QUICK, f"data.val={before}", "trainer.epochs=1", "hydra.run.dir=run") == 0
    assert run("resume", "run", f"data.val={after}") == 2
    assert "would mix images that validate with those that were trained on" in capsys.readouterr().err
