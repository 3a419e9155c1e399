"""Pictures with sets of labels, and a run on them."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from shared import made_once

from cnntrain import cli

COLORS = ("blue", "green", "red")  # which are the channels 2, 1 and 0
SETS = [(), ("blue",), ("green",), ("red",), ("blue", "red"), ("green", "red"), ("blue", "green", "red")]


def make_pictures(home, count=70):
    """A table of pictures of 40 x 40 pixels, grey noise with a spot of each colour that it names."""
    draw = np.random.default_rng(0)
    (home / "pictures").mkdir(parents=True)
    rows = [("file", "labels", "split")]
    for number in range(count):
        names = SETS[number % len(SETS)]
        pixels = draw.integers(60, 120, (40, 40, 3))
        for place, name in enumerate(names):
            down, right = 13 * place + draw.integers(0, 3), draw.integers(0, 27)
            pixels[down : down + 12, right : right + 12] = 0
            pixels[down : down + 12, right : right + 12, 2 - COLORS.index(name)] = 255
        Image.fromarray(pixels.astype(np.uint8)).save(home / f"pictures/{number:02}.png")
        rows.append((f"pictures/{number:02}.png", "|".join(names), "test" if number >= count - 14 else "train"))
    with (home / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def make_run(home):
    make_pictures(home)
    words = ["data=table", f"data.root={home / 'labels.csv'}", "data.multi_label=true", "loss=bce", "data.val=14"]
    words += ["data.image_size=32", "model=cnn", "data.batch_size=14", "optimizer.lr=0.2", "trainer.probe=0", "seed=1"]
    words += ["trainer.device=cpu", "trainer.threads=1", "trainer.epochs=4", "trainer.tensorboard=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        assert cli.main([*words, f"out={home / 'run'}"]) == 0


@pytest.fixture(scope="session")
def set_run(tmp_path_factory):
    """A run on pictures with sets of labels."""
    return made_once(tmp_path_factory, "set_run", make_run)


@pytest.fixture
def among_sets(set_run, tmp_path, monkeypatch):
    """A current folder with a copy of the run, and the pictures of its test split, those in `new`."""
    shutil.copytree(set_run / "run", tmp_path / "run")
    (tmp_path / "new").mkdir()
    for number in range(56, 70):
        shutil.copy(set_run / f"pictures/{number}.png", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path
