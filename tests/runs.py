"""Short runs through the command line, what they leave, and photos for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnntrain import cli
from cnntrain.training import loop

QUICK = ["model=lenet5", "data.limit=300", "data.batch_size=64", "trainer.epochs=2", "trainer.threads=1"]
QUICK += ["trainer.tensorboard=false"]


class Killed(BaseException):
    """As sudden as a kill: no handler of ours knows it, so nothing is saved."""


@pytest.fixture
def photos(here):
    """Three classes of flat colour with noise, 12 images each in train/ and 4 in test/."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for index, name in enumerate(("blue", "green", "red")):
            folder = here / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 80, (40, 50, 3))
                pixels[..., 2 - index] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return here / "photos"


def run(*words):
    return cli.main([*map(str, words)])


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text())


def rows(folder):
    header, *lines = (Path(folder) / "metrics.csv").read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def run_killed(monkeypatch, when, *words):
    """Run a command line that dies before the first step of which `when(progress)` is true."""
    step = loop.train_step

    def dies(run, task, *rest):
        if when(run.progress):
            raise Killed
        step(run, task, *rest)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(Killed):
        run(*words)
    monkeypatch.setattr(loop, "train_step", step)
