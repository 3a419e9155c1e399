"""`cnntrain check` tells labels that look wrong: to a trained network, or to heads that have not seen the image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain import cli
from cnntrain.data.split import fold_numbers
from cnntrain.inspect.doctor import cross_validation, tables

WORDS = ["data=imagefolder", "data.root=photos", "data.image_size=16", "model=softmax", "data.batch_size=16"]
WRONG = {f"train/{name}/{number}.png" for name in ("dark", "light") for number in range(3)}


@pytest.fixture
def photos(here: Path) -> Path:
    """Dark and light images, of which three of each class lie in the folder of the other."""
    random = np.random.default_rng(0)
    levels = {"dark": 60, "light": 180}
    for split, count in (("train", 40), ("val", 10)):
        for name in levels:
            (here / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                is_wrong = split == "train" and number < 3
                seen = ({*levels} - {name}).pop() if is_wrong else name
                pixels = levels[seen] + random.normal(0, 20, (40, 40, 3))
                pixels[:20] -= 30 if seen == "dark" else 0  # patches see the horizon
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(here / f"photos/{split}/{name}/{number}.png")
    return here / "photos"


def files(finding: dict[str, Any]) -> set[str]:
    """The images of a finding as `val/dark/3.png`."""
    return {"/".join(Path(image["file"]).parts[-3:]) for image in finding["images"]}


def test_labels_that_a_trained_network_does_not_believe_are_told(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "augment=none", "trainer.epochs=8", "trainer.tensorboard=false"]
    assert cli.main([*words, "out=run"]) == 0
    assert cli.main(["check", "run", "out=look", "strict=true"]) == 3
    plain = json.loads(Path("look/findings.json").read_text())
    (finding,) = plain["findings"]
    assert finding["finding"] == "label"
    assert files(finding) == WRONG
    assert finding["images"][0]["note"].split()[1] in ("dark", "light")
    assert plain["labels"] == {"judge": "the network", "agreement": 0.94}
    with Image.open("look/pairs.png") as sheet:
        assert sheet.width > 6 * 112
    capsys.readouterr()
    assert cli.main(["check", "run", "images=0"]) == 2
    assert "images: 0 leaves nothing to look at; leave it out" in capsys.readouterr().err
    assert cli.main(["check", "run", "labels=false", "strict=true"]) == 0  # the network is not asked


def test_weights_to_start_from_lend_their_features(photos: Path) -> None:
    words = ["data=imagefolder", "data.root=photos", "model=lenet5"]
    options = ["data.image_size=32", "trainer.max_steps=6", "trainer.tensorboard=false", "augment=none", "out=run"]
    assert cli.main([*words, *options]) == 0
    assert cli.main(["check", *words, "model.weights=run", "steps=0", "labels=true", "out=look.json"]) == 0
    plain = json.loads(Path("look.json").read_text())
    assert plain["labels"]["judge"] == "heads on features of run (lenet5)"
    assert files(next(one for one in plain["findings"] if one["finding"] == "label")) == WRONG
    assert cli.main(["check", *WORDS, "model.weights=run", "steps=0", "labels=true"]) == 4  # of another network


def test_labels_that_look_wrong_are_told_without_a_trained_network(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["check", *WORDS, "steps=0", "labels=true", "out=look", "strict=true"]) == 3
    plain = json.loads(Path("look/findings.json").read_text())
    (finding,) = plain["findings"]
    assert (finding["finding"], finding["serious"]) == ("label", True)
    assert files(finding) <= WRONG
    assert finding["count"] >= 5
    assert plain["labels"] == {"judge": "heads on patches of the images", "agreement": 0.94}
    out = capsys.readouterr().out
    assert "labels   94.00% confirmed by heads on patches of the images" in out
    assert "most of those" not in " ".join(out.split())
    monkeypatch.setattr(tables, "RELIABLE", 0.95)
    assert cli.main(["check", *WORDS, "steps=0", "labels=true"]) == 0
    assert "of the images below 95%, most of those that look wrong may be right" in " ".join(
        capsys.readouterr().out.split()
    )
    assert cli.main(["check", *WORDS, "steps=0", "out=look.json"]) == 0
    assert json.loads(Path("look.json").read_text())["labels"] is None  # nothing is asked without the word
    assert cli.main(["check", *WORDS, "images=0", "labels=true"]) == 2
    assert "labels: is of the images that are looked at (given images=0)" in capsys.readouterr().err


def test_labels_of_images_in_memory_are_looked_at_and_those_of_digits_are_right(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "data=digits", "steps=0", "labels=true"]) == 0
    out = capsys.readouterr().out
    assert float(out.partition("labels   ")[2].partition("%")[0]) > 98


@pytest.mark.parametrize("width", [4, 90])  # fewer features than images, and more
def test_each_image_is_judged_by_a_head_that_was_fitted_without_its_fold(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(cross_validation, "SHRINKAGES", (0.5,))
    monkeypatch.setattr(cross_validation, "TEMPERATURES", (0.25,))
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, width, generator=random), torch.randint(3, (60,), generator=random)
    labels[17] = 3  # the only image of its class is in no fold
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    folds = fold_numbers(labels, cross_validation.FOLDS, 7)
    targets = torch.eye(4)[labels]
    shares = targets.mean(0)
    expected = targets.clone()
    for fold in range(cross_validation.FOLDS):
        rest, own = folds != fold, folds == fold
        wide = torch.cat([standard[rest], (0.5 * width) ** 0.5 * torch.eye(width)])  # shrinking is fitting zeros
        weights = torch.linalg.lstsq(wide, torch.cat([targets[rest] - shares, torch.zeros(width, 4)])).solution
        expected[own] = standard[own] @ weights + shares
    judged = cross_validation.judge(features, labels, 4, 7)
    torch.testing.assert_close(judged, (expected / 0.25).softmax(1), rtol=1e-4, atol=1e-5)
