"""`cnntrain check` of images that have sets of labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnntrain import cli

WORDS = [
    "data=table",
    "data.root=labels.csv",
    "data.multi_label=true",
    "loss=bce",
    "model=lenet5",
    "data.image_size=32",
]


@pytest.fixture
def table(here: Path) -> Path:
    """Bars across (most images) and posts upright (some) in noise; of three the table says wrongly that it is none."""
    random = np.random.default_rng(0)
    rows = ["file,labels"]
    (here / "images").mkdir()
    for number in range(200):
        classes = ["bar"] * (number % 10 < 7) + ["post"] * (number % 12 == 0)
        pixels = 128 + random.normal(0, 25, (32, 32, 3))
        if "bar" in classes:
            pixels[10:22] += 70
        if "post" in classes:
            pixels[:, 10:22] -= 70
        if number in (1, 2, 3):
            classes.remove("bar")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(here / f"images/{number}.png")
        rows.append(f"{number}.png,{'|'.join(classes)}")
    for number, label in ((20, "bar|post"), (4, "bar")):
        (here / f"images/copy{number}.png").write_bytes((here / f"images/{number}.png").read_bytes())
        rows.append(f"copy{number}.png,{label}")
    (here / "labels.csv").write_text("\n".join(rows) + "\n")
    return here / "labels.csv"


def check(*words: str) -> dict[str, dict[str, Any]]:
    assert cli.main(["check", *words, "out=look"]) == 0
    return {finding["finding"]: finding for finding in json.loads(Path("look/findings.json").read_text())["findings"]}


def names(finding: dict[str, Any]) -> set[str]:
    return {Path(image["file"]).stem for image in finding["images"]}


def test_sets_of_labels_are_checked_label_by_label(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = check(*WORDS, "steps=0", "labels=true")
    assert names(found["contradiction"]) == {"copy20"}  # is bar alone
    assert found["contradiction"]["images"][0]["class"] == "bar, post"
    assert names(found["copy"]) == {"copy4"}
    assert found["no_label"]["serious"] is False
    assert {"1", "2", "3"} < names(found["no_label"])
    assert "skew" in found
    assert "loss.pos_weight=balanced evens that out" in found["skew"]["advice"]
    assert {"1", "2", "3"} <= names(found["label"]) <= {"1", "2", "3", "20", "copy20"}
    notes = {Path(image["file"]).stem: image["note"].partition(" ")[2] for image in found["label"]["images"]}
    assert notes["1"] == "bar"
    assert cli.main(["check", *WORDS, "steps=0", "loss.pos_weight=balanced"]) == 0
    assert "evens that out" not in capsys.readouterr().out.rpartition("data: ")[2]


@pytest.mark.slow
def test_a_network_trained_on_sets_of_labels_doubts_them_label_by_label(table: Path) -> None:
    train = [*WORDS, "trainer.epochs=12", "data.batch_size=16", "augment=none", "trainer.tensorboard=false", "out=run"]
    assert cli.main(train) == 0
    found = names(check("run")["label"])
    assert found <= {"1", "2", "3", "20", "copy20"}
    assert len(found & {"1", "2", "3"}) >= 2
