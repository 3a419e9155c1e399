"""`cnntrain check` looks at the data: what is planted is found, and nothing else."""

import csv
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from planted import as_jpeg, cut, photo, plant

from cnntrain import cli
from cnntrain.inspect.doctor import look
from cnntrain.inspect.doctor.pairs import exact_pairs
from cnntrain.inspect.doctor.subject import Part, Subject
from cnntrain.inspect.doctor.twins import find_twins
from cnntrain.plots import pairs as sheet_of_pairs

CPU = torch.device("cpu")
TRAIN = {"ant": range(30), "bee": range(100, 124), "wasp": range(200, 208)}
VAL = {"ant": range(300, 310), "bee": range(400, 408)}


def check(*words: str) -> int:
    return cli.main(["check", "data=imagefolder", "data.root=photos", "data.image_size=32", "steps=0", *words])


def findings() -> dict[str, list[dict[str, Any]]]:
    """What was found, by kind, each with its images."""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(Path("look.json").read_text())["findings"]:
        found.setdefault(finding["finding"], []).append(finding)
    return found


def files(finding: dict[str, Any]) -> set[str]:
    """The images of a finding as `val/ant/300.jpg`."""
    return {"/".join(Path(image["file"]).parts[-3:]) for image in finding["images"]}


@pytest.fixture
def photos(here: Path) -> Path:
    plant(here / "photos", {"train": TRAIN, "val": VAL})
    return here / "photos"


def test_nothing_is_found_where_nothing_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(
        here / "photos",
        {"train": {"ant": range(20), "bee": range(20, 40)}, "val": {"ant": range(40, 44), "bee": range(44, 48)}},
    )
    assert check("strict=true") == 0
    out = capsys.readouterr().out
    assert "nothing found in the data that needs a look" in out
    assert "train 40, val 8" in out
    assert "160 x 120 pixels" in out


def test_folders_of_classes_that_look_the_same_are_told_in_check_and_before_training(here: Path, capsys: Any) -> None:
    plant(here / "photos", {"train": {"Ant": range(2), "ant": range(10, 30), "bee": range(40, 60)}})
    assert check("out=look.json") == 0
    (near,) = findings()["near_names"]
    assert (files(near), near["advice"]) == (
        {"train/Ant/0.jpg", "train/Ant/1.jpg"},
        "'Ant' (2 images) and 'ant' (20) differ only in case",
    )
    capsys.readouterr()
    words = ["data=imagefolder", "data.root=photos", "data.image_size=32", "model=softmax", "data.val=0"]
    assert cli.main([*words, "trainer.max_steps=1", "trainer.tensorboard=false"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "'Ant' (2 images) and 'ant' (20) differ only in case; give them one name if they are one class" in said


def test_the_images_of_a_run_are_in_the_splits_of_the_run(here: Path) -> None:
    plant(here / "photos", {"train": {"ant": range(10), "bee": range(20, 30)}})
    for path in sorted((here / "photos").rglob("*.jpg")):
        path.with_stem(f"{path.stem}_copy").write_bytes(path.read_bytes())
    words = ["data=imagefolder", "data.root=photos/train", "data.image_size=32", "model=softmax", "data.val=0.4"]
    assert cli.main([*words, "trainer.max_steps=1", "trainer.tensorboard=false", "out=run"]) == 0
    splits = dict(csv.reader(Path("run/splits.csv").read_text().splitlines()[1:]))
    pairs = [(split, splits[name.replace("_copy", "")]) for name, split in splits.items() if "_copy" in name]
    leaks = sum(one != other for one, other in pairs)
    assert cli.main(["check", "run", "out=look.json", "labels=false"]) == 0
    counts = {kind: sum(finding["count"] for finding in same) for kind, same in findings().items()}
    assert (len(pairs), counts["leak"], counts["copy"]) == (20, leaks, 20 - leaks)
    Path("run/splits.csv").write_text("name,split\nnobody,train\n")  # of other images: as without a run
    assert cli.main(["check", "run", "out=look.json", "labels=false"]) == 0
    ((copies,),) = findings().values()
    assert (copies["finding"], copies["count"]) == ("copy", 20)


def test_each_fault_that_is_planted_is_found_and_no_other(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (photos / "train/ant/0.jpg").read_bytes()
    (photos / "train/ant/half.jpg").write_bytes(content[: len(content) // 2])
    (photos / "val/bee/text.jpg").write_text("no image")
    for number in range(3):
        (photos / f"val/ant/leak{number}.jpg").write_bytes((photos / f"train/ant/{number}.jpg").read_bytes())
    for number in range(2):
        (photos / f"train/bee/wrong{number}.jpg").write_bytes((photos / f"train/ant/{10 + number}.jpg").read_bytes())
    (photos / "train/bee/again.jpg").write_bytes((photos / "train/bee/100.jpg").read_bytes())
    changes = {
        "encoded": lambda image: image.resize((110, 82)),
        "mirrored": ImageOps.mirror,
        "middle": lambda image: cut(image, (0.05, 0.06, 0.96, 0.93)),
        "corner": lambda image: cut(image, (0.14, 0, 1, 0.88)),
        "grey": ImageOps.grayscale,
        "both": lambda image: ImageOps.mirror(cut(image, (0, 0.1, 0.9, 1))),
    }
    for number, (name, change) in enumerate(changes.items()):
        (photos / f"val/bee/{name}.jpg").write_bytes(as_jpeg(change(photo(110 + number)), 40))
    Image.new("RGB", (160, 120), "red").save(photos / "train/wasp/red.png")
    assert check("out=look.json") == 0
    found = findings()
    assert {kind: [finding["count"] for finding in same] for kind, same in found.items()} == {
        "damaged": [2],
        "leak": [3],
        "leak_alike": [6],
        "contradiction": [2],
        "no_images": [1],
        "copy": [1],
        "flat": [1],
    }
    assert files(found["damaged"][0]) == {"train/ant/half.jpg", "val/bee/text.jpg"}
    assert files(found["leak"][0]) == {f"val/ant/leak{number}.jpg" for number in range(3)}
    assert files(found["contradiction"][0]) == {f"train/bee/wrong{number}.jpg" for number in range(2)}
    assert files(found["flat"][0]) == {"train/wasp/red.png"}
    pairs = {Path(image["file"]).stem: image for image in found["leak_alike"][0]["images"]}
    assert {name: Path(pair["other_file"]).stem for name, pair in pairs.items()} == {
        name: str(110 + number) for number, name in enumerate(changes)
    }
    notes = {name: pair["note"] for name, pair in pairs.items()}
    assert notes["encoded"] == notes["grey"] == "encoded anew"
    assert notes["mirrored"] == "mirrored"
    assert notes["middle"].startswith("cut to ")
    assert notes["both"].startswith("mirrored and cut to ")
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any(line.startswith("in train and val, the same bytes ") for line in lines)
    more = "of each, one image is shown; out=FOLDER lists all, and draws the pairs"
    assert more not in lines
    assert check() == 0
    assert more in capsys.readouterr().out.splitlines()


def test_strict_ends_with_3_where_something_serious_is_found(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("strict=true") == 3  # a class has no validation images
    assert capsys.readouterr().err == "cnntrain: error: data: no_images found (given strict=true); mend the data\n"
    assert check() == 0


def test_classes_of_very_different_sizes_are_told_unless_they_are_evened_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(here / "photos", {"train": {"ant": range(30), "bee": range(30, 34)}})
    assert check() == 0
    assert "30 images of ant, 4 of bee, 7.5:1" in " ".join(capsys.readouterr().out.split())
    assert check("loss.class_weights=balanced", "strict=true") == 0


def test_the_files_name_each_image_and_run_no_formula(photos: Path) -> None:
    (photos / "train/ant/=1+1.jpg").write_bytes((photos / "train/ant/3.jpg").read_bytes())
    (photos / "train/wasp").rename(photos / "train/=wasp")
    (photos / "train/=wasp/twin.jpg").write_bytes((photos / "train/ant/4.jpg").read_bytes())
    assert check("out=look") == 0
    assert sorted(path.name for path in Path("look").iterdir()) == ["files.csv", "findings.json", "pairs.png"]
    rows = list(csv.DictReader(Path("look/files.csv").read_text().splitlines()))
    assert [row["finding"] for row in rows] == ["contradiction", "copy"]
    assert rows[0]["other_class"] == "'=wasp"
    assert rows[1]["other_file"].endswith("train/ant/3.jpg")
    with Image.open("look/pairs.png") as sheet:
        assert sheet.size == (620, 475)


def test_pairs_stand_on_the_sheet_with_the_likeness_that_orders_them(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, right in enumerate((1.0, 0.95, 0.9)):
        (photos / f"val/ant/cut{number}.jpg").write_bytes(as_jpeg(cut(photo(number), (0, 0, right, right)), 60))
    (photos / "val/ant/same.jpg").write_bytes((photos / "train/ant/9.jpg").read_bytes())
    drawn: dict[str, Any] = {}
    draw = sheet_of_pairs.draw_pairs
    monkeypatch.setattr(
        sheet_of_pairs, "draw_pairs", lambda groups, *words: drawn.update(all=groups) or draw(groups, *words)
    )
    assert check("out=look") == 0
    exact, alike = ([[one.note for one in pair] for pair in group] for group in drawn["all"].values())
    rows = list(csv.DictReader(Path("look/files.csv").read_text().splitlines()))
    likeness = [float(row["likeness"]) for row in rows if row["finding"] == "leak_alike"]
    assert exact == [["val", "train"]]
    assert alike == [[f"val  {value:.3f}", "train"] for value in likeness]
    assert likeness == sorted(likeness, reverse=True)


def test_some_of_the_images_are_looked_at_on_request(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("images=20", "out=look.json") == 0
    assert json.loads(Path("look.json").read_text())["looked_at"] == 20
    assert "20 of 80, evenly spaced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["out=photos/look"], "out: must not lie in data.root"),
        (["images=0"], "steps: 0 and images=0 leave nothing to do; leave one of them out"),
        (["images=0", "steps=1", "strict=true"], "strict: is of the images that are looked at (given images=0)"),
        (["out=look.txt"], "out: must end in .json, .csv or .png, or be a folder (given look.txt)"),
        (["-m", "seed=0,1", "out=look.csv"], "out: is what one check has found (given look.csv)"),
    ],
)
def test_words_that_cannot_be_followed_are_one_line(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert check(*words) == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in photos.iterdir()) == ["train", "val"]


def test_images_in_memory_are_compared_by_their_pixels() -> None:
    pixels = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[7] = 9
    train, test = pixels[:40], torch.cat([pixels[40:], pixels[3:4], pixels[3:4]])
    labels = torch.zeros(40, dtype=torch.int64), torch.ones(12, dtype=torch.int64)
    subject = Subject(["a", "b"], [Part("train", labels[0], pixels=train), Part("test", labels[1], pixels=test)])
    looks = look.look_at(subject, range(len(subject)), workers=2, advance=lambda images: None)
    assert [(pair.image, pair.other) for pair in exact_pairs(looks)] == [(50, 3), (51, 3)]
    assert np.flatnonzero(looks.is_flat).tolist() == [7]
    assert subject.name(51) == "test/11"


def test_images_in_memory_that_are_nearly_the_same_are_told_by_split_and_number(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [photo(seed, 48, 40) for seed in range(60)]
    changed = [ImageOps.mirror(images[3]), cut(images[7], (0.05, 0.06, 0.96, 0.93)).resize((48, 40)), images[9]]
    pixels, more = (np.stack([np.asarray(image) for image in some]) for some in (images, changed))
    numbers = np.arange(60) % 2
    np.savez("x.npz", x_train=pixels, y_train=numbers, x_test=more, y_test=numbers[[3, 7, 8]])
    words = ["data=arrays", "data.root=x.npz", "steps=0", "out=look.json"]
    assert cli.main(["check", *words]) == 0
    found = findings()
    assert [image["other_file"] for image in found["leak_alike"][0]["images"]] == ["train/3", "train/7"]
    assert {image["file"]: image["other_file"] for image in found["leak"][0]["images"]} == {"test/2": "train/9"}
    assert len(found["contradiction"][0]["images"]) == 1
    capsys.readouterr()
    assert cli.main(["check", "data=digits", "steps=0"]) == 0
    assert "copies   the same pixels alone: of under 32 a side much looks nearly the same" in capsys.readouterr().out


def thumbs(images: list[Image.Image]) -> np.ndarray:
    size = (look.SIDE, look.SIDE)
    return np.stack([np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR)) for image in images])


def test_pictures_that_differ_are_not_taken_for_the_same_and_few_that_are_cut_are_missed() -> None:
    random = np.random.default_rng(0)
    images = [photo(seed, 96, 72) for seed in range(1000, 1200)]
    assert len(find_twins(thumbs(images), CPU).whole) == 0
    parts = []
    for image in images:
        keep, (left, top) = np.sqrt(random.uniform(0.75, 1)), random.uniform(0, 1, 2)
        left, top = left * (1 - keep), top * (1 - keep)
        part = cut(image, (left, top, left + keep, top + keep))
        parts.append(ImageOps.mirror(part) if random.random() < 0.5 else part)
    twins = find_twins(thumbs([*images, *parts]), CPU)
    found = {tuple(sorted(pair)) for pair in zip(twins.whole.tolist(), twins.part.tolist(), strict=True)}
    right = {(number, 200 + number) for number in range(200)}
    assert len(found & right) > 180
    assert found <= right


def test_a_look_that_is_interrupted_leaves_no_thread(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cnntrain.report.terminal.Screen.advance", interrupt)
    assert check("out=look.json", "data.workers=2") == 130
    assert not any(thread.name.startswith("look") for thread in threading.enumerate())
    assert not Path("look.json").exists()


def test_a_training_says_what_a_glance_finds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(
        here / "photos",
        {"train": {"ant": range(30), "bee": range(30, 36)}, "val": {"ant": range(40, 44), "bee": range(44, 48)}},
    )
    for number in range(2):
        (here / f"photos/val/ant/leak{number}.jpg").write_bytes((here / f"photos/train/ant/{number}.jpg").read_bytes())
    words = ["data=imagefolder", "data.root=photos", "data.image_size=16", "model=softmax", "trainer.epochs=1"]
    words += ["data.mean=[0.5]", "data.std=[0.5]", "trainer.tensorboard=false"]
    assert cli.main([*words, "out=run"]) == 0
    out = capsys.readouterr().out
    leak = "warning: data: 2 of 10 val images are in train too, byte for byte (photos/val/ant/leak0.jpg); "
    assert f"{leak}cnntrain check lists them\n" in out
    skew = "warning: data: 30 images of ant, 6 of bee, 5 : 1; loss.class_weights=balanced evens that out\n"
    assert skew in out
    assert cli.main(["check", *words]) == 0
    assert "warning: data:" not in capsys.readouterr().out  # the look has told it
