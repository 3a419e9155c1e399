"""`data.classes`: which classes are learnt, and in which order; weights of the loss by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data import build, content

from cnntrain import cli
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.build import build_data
from cnntrain.storage import checkpoint

QUICK = ["model=softmax", "trainer.epochs=1", "trainer.threads=1", "trainer.tensorboard=false"]


@pytest.fixture
def photos(here):
    """Four classes, each of one colour; an empty folder beside them, which stops a run that learns all."""
    for split, count in (("train", 8), ("test", 2)):
        for index, name in enumerate(("1", "10", "2", "3")):
            folder = here / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((16, 16, 3), 60 * index + number, np.uint8)).save(folder / f"{number}.png")
        (here / "photos" / split / "new").mkdir()
    return here / "photos"


def run(*words) -> int:
    return cli.main([*map(str, words)])


def photo_words(photos) -> list[str]:
    return [*QUICK, "data=imagefolder", f"data.root={photos}", "data.image_size=16", "hydra.run.dir=run"]


def test_chosen_classes_are_learnt_in_their_order_and_kept_in_the_checkpoint(photos, capsys):
    assert run(*photo_words(photos)) == 3  # of the empty folder
    assert run(*photo_words(photos), "data.classes=[2,10]") == 0
    assert "classes: 2 of 5, as data.classes says" in capsys.readouterr().out
    state = checkpoint.load(Path("run/checkpoints/best"))
    assert state["about"]["classes"] == ["2", "10"]
    assert state["about"]["config"]["data"]["classes"] == ["2", "10"]
    assert run("eval", "run", "out=scores.json") == 0
    scores = json.loads(Path("scores.json").read_text())["test"]["classes"]
    assert {name: part["images"] for name, part in scores.items()} == {"2": 2, "10": 2}
    assert run("resume", "run", "trainer.epochs=2") == 0
    assert run("predict", "run", f"images={photos}/test/1", "out=said.json") == 0
    assert list(json.loads(Path("said.json").read_text())["classes"]) == ["2", "10"]


@pytest.mark.parametrize("command", ["eval", "resume"])
def test_the_classes_of_a_run_cannot_be_chosen_again(photos, capsys, command):
    assert run(*photo_words(photos), "data.classes=[2,10]") == 0
    assert run(command, "run", "data.classes=[10,2]") == 2
    assert "data.classes: ['2', '10'] -> ['10', '2']: the outputs of the network" in capsys.readouterr().err


def test_the_labels_of_a_set_in_memory_count_in_the_chosen_order():
    whole, part = build(image_size=8, val=0.2), choose("7", "3", "1")
    assert part.classes == ["7", "3", "1"]
    for name in ("train", "val", "test"):
        images, labels = content(getattr(part, name))
        every, numbers = content(getattr(whole, name))
        assert set(labels.tolist()) == {0, 1, 2}
        if name == "test":
            kept = {key: [image.numpy().tobytes() for image in every[numbers == key]] for key in (7, 3, 1)}
            for label, key in enumerate((7, 3, 1)):
                assert [image.numpy().tobytes() for image in images[labels == label]] == kept[key]
    assert part.fingerprint != whole.fingerprint


def choose(*names: str):
    settings = DataSettings(name="digits", root="nowhere", image_size=8, val=0.2, classes=list(names))
    return build_data(settings, AugmentSettings(), seed=0, device=torch.device("cpu"), say=list)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("[1,11]", "data.classes: no class '11' in the data; did you mean 1?"),
        ("[1,zebra]", "data.classes: no class 'zebra' in the data; there are 0, 1, 2, 3, 4, … (10 in all)"),
        ("[1]", "data.classes: must be two names or more, each of them once, or null for all (given ['1'])"),
        ("[1,1]", "data.classes: must be two names or more, each of them once, or null for all (given ['1', '1'])"),
    ],
)
def test_classes_that_cannot_be_chosen_are_refused(here, capsys, word, told):
    assert run(*QUICK, f"data.classes={word}") == 2
    assert capsys.readouterr().err == f"cnntrain: error: {told}\n"
    assert not list(here.glob("outputs/*"))


def test_names_and_weights_are_told_before_training(photos, capsys):
    assert run(*photo_words(photos), "data.classes=[1,10,2]", "loss.class_weights={2:4,1:1,10:1}") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "class weights, 1 on average over the training images: 1 0.5, 10 0.5, 2 2" in told
    assert checkpoint.load(Path("run/checkpoints/best"))["about"]["config"]["loss"]["class_weights"]["2"] == 4
    assert run("resume", "run", "trainer.epochs=2") == 0
    assert run("eval", "run") == 0


def test_of_many_classes_the_lowest_and_the_highest_weights_are_told():
    from cnntrain.report.summary import _weights_of_classes

    names, weights = [f"c{number}" for number in range(100)], [1 + number / 100 for number in range(100)]
    assert _weights_of_classes(names, weights) == (
        ", ".join(f"c{number} {1 + number / 100:.3g}" for number in range(5))
        + ", … (90 between) …, "
        + ", ".join(f"c{number} {1 + number / 100:.3g}" for number in range(95, 100))
    )
    assert _weights_of_classes(names, [1.0] * 100) == "1 for each"


def test_summary_counts_the_chosen_classes(capsys):
    assert run("summary", "model=lenet5", "data=digits", "data.classes=[1,2,3]") == 0
    assert "3 classes" in capsys.readouterr().out
