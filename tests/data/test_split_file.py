"""Splits by a file: what a run writes down, another repeats."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tables import pile, write

from cnntrain import cli
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.build import build_data
from cnntrain.errors import DataError, DataErrors

QUICK = ["model=softmax", "data.image_size=16", "data.batch_size=8", "trainer.threads=1", "trainer.tensorboard=false"]
QUICK += ["trainer.epochs=2", "augment=none", "data.workers=0"]


@pytest.fixture
def photos(here):
    """Two classes of noise in train/ and val/; one name begins as a formula does."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for index, name in enumerate(("dark", "light")):
            folder = here / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(120 * index, 120 * index + 100, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}{number:02}.png")
    os.rename(here / "photos" / "train" / "light" / "train00.png", here / "photos" / "train" / "light" / "=1+1.png")
    return here / "photos"


def run(*words) -> int:
    return cli.main([*QUICK, *map(str, words)])


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text())


def splits(folder) -> dict[str, list[str]]:
    """The names of each split."""
    found: dict[str, list[str]] = {}
    with open(Path(folder) / "splits.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "split"]
    for name, split in rows:
        found.setdefault(split, []).append(name)
    return found


def build(root, **arguments):
    settings: dict[str, Any] = {
        "name": "imagefolder",
        "root": str(root),
        "image_size": 8,
        "workers": 0,
        "batch_size": 4,
    }
    settings |= {"mean": [0.5], "std": [0.5]} | arguments
    return build_data(DataSettings(**settings), AugmentSettings(), seed=0, device=torch.device("cpu"), say=print)


def faults(root, file: Path) -> list[str]:
    with pytest.raises(DataErrors) as caught:
        build(root, split_file=str(file))
    return [line.removeprefix(f"{file}: ") for line in caught.value.lines()]


@pytest.mark.parametrize("words", [["data.val=0.25"], ["data.folds=3", "data.fold=1"]])
def test_another_seed_with_the_splits_of_a_run_takes_the_same_steps_as_that_seed_would_there(photos, words):
    shutil.rmtree(photos / "val")
    root = ["data=imagefolder", "data.root=photos"]
    assert run(*root, *words, "out=a") == 0
    found = splits("a")
    assert sum(map(len, found.values())) == 24
    assert run(*root, "data.split_file=a/splits.csv", "out=b") == 0
    assert splits("b") == found
    assert results("b")["weights_sha256"] == results("a")["weights_sha256"]
    assert results("b")["val"] == results("a")["val"]
    assert run(*root, "data.split_file=a/splits.csv", "seed=5", "out=c") == 0
    assert splits("c") == found
    assert cli.main(["eval", "c"]) == 0


def test_a_run_on_some_images_writes_down_these(photos):
    assert run("data=imagefolder", "data.root=photos", "data.limit=10", "out=a") == 0
    found = splits("a")
    assert {split: len(names) for split, names in found.items()} == {"train": 10, "val": 8}
    assert found["val"][0] == "val/dark/val00.png"
    data = build(photos, split_file="a/splits.csv")
    assert [len(data.train.labels), len(data.val.labels), data.test] == [10, 8, None]
    assert any("splits: as splits.csv says; 14 images not named there, and left out" in note for note in data.notes)


def test_images_without_files_are_written_down_by_their_places(here):
    assert cli.main(["debug=smoke", "out=run", "trainer.tensorboard=false"]) == 0
    found = splits("run")
    assert {split: len(names) for split, names in found.items()} == {"train": 64, "val": 144, "test": 360}
    assert all(name.startswith("train/") for name in found["train"] + found["val"])
    assert not set(found["train"]) & set(found["val"])


def test_a_file_moves_images_between_the_folders_of_splits(photos):
    rows = ["val/dark/val00,train", "val01.png,test", "train/light/=1+1.png,val", "train00,val"]
    rows += [f"train/{name}/train{n:02}.png,train" for name in ("light", "dark") for n in (1, 2)]
    file = write(photos.parent / "mine.csv", "image,Partition", *rows[:1], *rows[2:])
    data = build(photos, split_file=str(file))
    names = {
        split: [os.path.relpath(loader.name(i), photos) for i in range(len(loader.labels))]
        for split, loader in {"train": data.train, "val": data.val}.items()
    }
    assert names["train"] == [
        *("train/dark/train01.png", "train/dark/train02.png", "val/dark/val00.png"),
        *("train/light/train01.png", "train/light/train02.png"),
    ]
    assert names["val"] == ["train/dark/train00.png", "train/light/=1+1.png"]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    write(file, "image,Partition", *rows)
    assert faults(photos, file) == ["row 3: val01.png is the name of several images; write its folders and suffix too"]


def test_another_split_is_another_data_set_whose_run_does_not_go_on(photos, capsys):
    shutil.rmtree(photos / "val")
    words = ["data=imagefolder", "data.root=photos"]
    assert run(*words, "out=a") == 0
    assert run(*words, "data.split_file=a/splits.csv", "out=b") == 0
    text = Path("a/splits.csv").read_text()
    first = next(line for line in text.splitlines() if line.endswith(",val"))
    Path("a/splits.csv").write_text(text.replace(first, first.replace(",val", ",train")))
    assert cli.main(["resume", "b", "trainer.epochs=3"]) == 4
    assert "the best epoch was chosen on other validation images" in capsys.readouterr().err


def test_all_faults_are_told_together_each_with_its_row(photos):
    rows = ["train/dark/train01.png,train", "nobody.png,train", "train/light/train01.png,vale", ",train"]
    rows += ["train/dark/train01.png,test", "train/light/train02.png,test", "train/light/train03.png"]
    assert faults(photos, write(photos.parent / "mine.csv", "name,split", *rows)) == [
        "row 3: nobody.png is no image of the data; take the row out, or mend the name",
        "row 4: 'vale' names no split; did you mean val?",
        "row 5: no name; give it one, or take the row out",
        "row 6: train/dark/train01.png is test here and train in row 2; leave one of them",
        "row 7: class 'light' is in test and not in train; put images of it into train, or take the row out",
        "row 8: 1 cell, and the header has 2; give each column one, and quotes to a cell that holds the separator",
    ]


def test_a_file_without_splits_or_train_is_told(photos, capsys):
    file = write(photos.parent / "mine.csv", "name,colour,size", "train/dark/train01.png,red,1")
    with pytest.raises(DataError, match=r"mine\.csv: no column of splits among 'name', .*; call it split"):
        build(photos, split_file=str(file))
    write(file, "name,split", "train/dark/train01.png,val", "train/light/train01.png,val")
    with pytest.raises(DataError, match=r"has no image that mine\.csv puts into train"):
        build(photos, split_file=str(file))
    assert cli.main(["data=imagefolder", f"data.root={photos}", "data.split_file=none.csv"]) == 3
    assert "data.split_file: " in (line := capsys.readouterr().err)
    assert "none.csv is not there" in line
    assert cli.main(["data.split_file=mine.csv"]) == 2
    assert "data.split_file: is for image files of your own, and data=digits has none" in capsys.readouterr().err


def test_a_pack_is_split_by_a_file_as_its_folder_is(photos):
    assert cli.main(["pack", "data=imagefolder", "data.root=photos", "out=packed", "data.workers=0"]) == 0
    images = [
        ("train", "dark", 1),
        ("train", "light", 2),
        ("val", "dark", 2),
        ("val", "light", 3),
        ("train", "dark", 4),
    ]
    rows = [f"{split}/{name}/{split}{n:02}.png,{'val' if n % 2 else 'train'}" for split, name, n in images]
    file = write(photos.parent / "mine.csv", "name,split", *rows)
    data, packed = build(photos, split_file=str(file)), build("packed", split_file=str(file))
    for one, other in ((data.train, packed.train), (data.val, packed.val)):
        assert one.labels.equal(other.labels)
        assert [one.name(i) for i in range(len(one.labels))] == [other.name(i) for i in range(len(one.labels))]
    assert next(packed.train.in_order().batches()).images.equal(next(data.train.in_order().batches()).images)


def test_a_file_overrules_the_column_of_a_table(here):
    pile(here, 8)
    rows = [f"{i}.png,{'cat' if i % 2 == 0 else 'dog'},train" for i in range(8)]
    table = write(here / "labels.csv", "file,label,split", *rows)
    file = write(here / "mine.csv", "id,set", *(f"{i},{'test' if i > 5 else 'train'}" for i in range(8)))
    data = build(table, name="table", split_file=str(file), val=0.34)
    assert sorted(Path(data.test.name(i)).name for i in range(2)) == ["6.png", "7.png"]
    assert [len(data.train.labels), len(data.val.labels)] == [4, 2]
