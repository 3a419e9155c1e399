"""The page of a real run on label sets: what stands there, and that nothing of single labels does."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pages import QUOTED, Reader, read, sections
from PIL import Image

from cnntrain import cli

NAMES = ("left", "right", QUOTED)


def make_photos(home: Path) -> Path:
    """A table of photos with bright parts: on the left, on the right, below, several of them or none."""
    random, rows = np.random.default_rng(0), []
    (home / "photos").mkdir()
    for number in range(96):
        sides = [place for place in range(3) if number >> place & 1]
        pixels = random.integers(0, 90, (32, 32, 3), dtype=np.uint8)
        for side, part in ((0, np.s_[:16, :16]), (1, np.s_[:16, 16:]), (2, np.s_[16:, :])):
            pixels[part] += np.uint8(150 * (side in sides))
        file = f"photos/{number}.png"
        Image.fromarray(pixels).save(home / file)
        rows.append((file, "|".join(NAMES[side] for side in sides), "test" if number % 4 == 3 else "train"))
    with (home / "tags.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("file", "labels", "split"), *rows])
    return home / "tags.csv"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three epochs with its page."""
    home = tmp_path_factory.mktemp("sets")
    words = ["data=table", f"data.root={make_photos(home)}", "data.multi_label=true", "loss=bce", "model=lenet5"]
    words += ["data.image_size=32", "trainer.epochs=3", "trainer.tensorboard=false", "augment=mixup"]
    assert cli.main([*words, "trainer.report=true", f"out={home}/run"]) == 0
    return home


@pytest.fixture(scope="module")
def page(home: Path) -> Reader:
    return read(home / "run")


def test_the_page_has_labels_in_place_of_classes_and_no_word_of_top1(home: Path, page: Reader) -> None:
    shown = sections(home / "run")
    assert {"findings", "scores", "curves", "classes", "errors", "augmentation", "data"} <= set(shown)
    assert "top-1" not in page.text.lower()
    test = json.loads((home / "run" / "results.json").read_text())["test"]
    assert f"test mAP {100 * test['map']:.2f}%" in page.text
    for words in ("average precision", "Hamming loss", "subset accuracy", "the best epoch and the thresholds"):
        assert words in page.text
    assert "labels of a train image" in page.text
    assert QUOTED in page.text  # as text, whatever it holds


def test_the_errors_of_sets_name_the_labels_of_each_image(page: Reader) -> None:
    assert "misses" in page.text or "wrongly given" in page.text
    assert [image for image in page.named("img") if str(image["alt"]).startswith("what speaks for")]
    assert " photos/" in page.text  # files are told from the folder of the table


def test_the_page_is_made_again_without_its_images_from_what_the_run_has_written(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "photos").rename(home / "elsewhere")
    try:
        assert cli.main(["report", f"{home}/run", f"out={home}/bare.html"]) == 0
    finally:
        (home / "elsewhere").rename(home / "photos")
    text = Reader((home / "bare.html").read_text()).text
    assert "test mAP" in text
    assert "validation mAP" in text
    assert "top-1" not in text.lower()


def test_a_map_of_validation_images_without_a_label_is_no_over_fitting(home: Path, page: Reader) -> None:
    rows = list(csv.reader((home / "tags.csv").read_text().splitlines()))
    train = [row for row in rows[1:] if row[2] == "train"]
    others = [
        (name, "", "val") if number < 20 else (name, tags, "train") for number, (name, tags, _) in enumerate(train)
    ]
    with (home / "others.csv").open("w", newline="") as table:
        csv.writer(table).writerows([rows[0], *others])
    words = ["data=table", f"data.root={home}/others.csv", "data.multi_label=true", "loss=bce", "model=softmax"]
    words += ["data.image_size=32", "trainer.epochs=1", "trainer.tensorboard=false", "schedule=constant"]
    assert cli.main([*words, "trainer.report=true", f"out={home}/other"]) == 0
    assert "Over-fitting" not in (home / "other/report.html").read_text()
