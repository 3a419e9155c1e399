"""Runs whose images have changed since: what may go on, what may not, and what is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnntrain import cli
from cnntrain.storage import checkpoint

WORDS = ["data=imagefolder", "data.root=photos", "data.image_size=16", "model=softmax", "trainer.tensorboard=false"]
WORDS += ["trainer.threads=1", "data.batch_size=8", "hydra.run.dir=run"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes in train/, val/ and test/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for index, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(120 * index, 120 * index + 100, (20, 20, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def run(*words) -> int:
    return cli.main([*map(str, words)])


def grow(photos: Path, split: str, count: int = 5) -> None:
    for number in range(count):
        shutil.copy(photos / split / "dark/1.png", photos / split / "dark" / f"new{number}.png")


def test_a_run_with_its_own_val_folder_goes_on_with_more_training_images(photos, capsys):
    assert run(*WORDS, "trainer.epochs=3", "trainer.max_steps=5") == 0  # two micro-batches of the second epoch
    before = checkpoint.load(Path("run/checkpoints/last"))
    assert (before["progress"]["epoch"], before["progress"]["batch"]) == (1, 2)
    grow(photos, "train")
    assert run("resume", "run", "trainer.max_steps=null") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "warning: data.root: the images of train are not those that the run was started on; it goes on" in told
    assert "warning: epoch 2 starts anew" in told
    after = checkpoint.load(Path("run/checkpoints/last"))
    assert (after["progress"]["epoch"], after["progress"]["batch"]) == (3, 0)
    assert after["progress"]["step"] == 5 + 2 * 4  # 29 images of two epochs
    assert (after["about"]["mean"], after["about"]["std"]) == (before["about"]["mean"], before["about"]["std"])
    assert run("resume", "run", "trainer.epochs=4") == 0
    assert "warning" not in capsys.readouterr().out


def test_scores_are_warned_of_only_where_the_scored_images_have_changed(photos, capsys):
    assert run(*WORDS, "trainer.epochs=1") == 0
    grow(photos, "train")
    capsys.readouterr()
    assert run("eval", "run") == 0
    assert "warning" not in capsys.readouterr().out
    grow(photos, "test")
    assert run("eval", "run") == 0
    assert "warning: these images are not those of the run\n" in capsys.readouterr().out


def test_other_validation_images_are_refused_with_the_true_reason(photos, capsys):
    assert run(*WORDS, "trainer.epochs=1") == 0
    grow(photos, "val")
    assert run("resume", "run", "trainer.epochs=2") == 4
    assert "started on, and the best epoch was chosen on other validation images; restore" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["data.val=0.2", "data.folds=3"])
def test_a_validation_part_out_of_train_is_never_mixed_with_new_images(photos, capsys, word):
    if word == "data.val=0.2":
        shutil.rmtree(photos / "val")
    assert run(*WORDS, "trainer.epochs=1", word) == 0
    grow(photos, "train")
    assert run("resume", "run", "trainer.epochs=2") == 4
    assert "started on, and validation would meet images that were trained on; restore" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_know_its_validation_images_is_not_trusted_with_others(photos, capsys, monkeypatch):
    from cnntrain.training.job import Job

    about = Job.about
    monkeypatch.setattr(Job, "about", lambda job: {key: part for key, part in about(job).items() if key != "marks"})
    assert run(*WORDS, "trainer.epochs=1") == 0
    assert run("resume", "run", "trainer.epochs=2") == 0
    grow(photos, "train")
    assert run("resume", "run", "trainer.epochs=3") == 4
    assert "its checkpoint does not tell whether those of validation still are; restore" in capsys.readouterr().err
