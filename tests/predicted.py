"""Photos, runs on them, and what `predict` says."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared import made_once

from cnntrain import cli
from cnntrain.cli.arguments import read_arguments
from cnntrain.config.schema.run_commands import PredictArgs

LURID = ["=cmd|' /C calc'!A0", "\x1b[31m[bold]red\x07", "a very long name of a class, " * 20]
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


def make_runs(home):
    make_photos(home / "photos")
    common = ["trainer.device=cpu", "trainer.threads=1", "trainer.epochs=1", "trainer.tensorboard=false"]
    photos = [f"data.root={home / 'photos'}", "data.image_size=32", "model=cnn", "data.batch_size=10"]
    looks = ["data.interpolation=bicubic", "data.crop=1.0", "data.folds=3", "data.batch_size=null"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        for name, *words in (
            ("run", "data=imagefolder", *photos, "trainer.ema=0.5"),
            ("sharp", "data=imagefolder", *photos, *looks),
            ("digits", "data.limit=200", "model=lenet5"),
        ):
            assert cli.main([*words, *common, "trainer.probe=0", f"out={home / name}"]) == 0


@pytest.fixture(scope="session")
def photo_runs(tmp_path_factory):
    """Two runs on photos, one with averaged weights, one of another preprocessing, and one on grey digits."""
    return made_once(tmp_path_factory, "photo_runs", make_runs)


@pytest.fixture
def among_runs(photo_runs, tmp_path, monkeypatch):
    """A current folder with copies of the runs and the test photos, far from the data that they were trained on."""
    for name in ("run", "sharp", "digits"):
        shutil.copytree(photo_runs / name, tmp_path / name)
    shutil.copytree(photo_runs / "photos/test", tmp_path / "new")
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


def read(*words: str) -> PredictArgs:
    return read_arguments(PredictArgs, words)
