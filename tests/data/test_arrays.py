"""`data=arrays`: images and labels out of an .npz file, without running what is in it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnntrain import cli
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.build import build_data
from cnntrain.errors import DataError, ResourceError

CPU = torch.device("cpu")
DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def build(file: Path, **settings):
    known: dict[str, Any] = {"name": "arrays", "root": str(file), "val": 3}
    return build_data(DataSettings(**known | settings), AugmentSettings(), seed=0, device=CPU, say=list)


def save(file: Path, **arrays) -> Path:
    np.savez(file, **arrays)
    return file


def content(loader):
    batches = sorted(loader.batches(), key=lambda batch: batch.indices.tolist())
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_each_layout_of_the_pixels_gives_the_same_images(tmp_path, layout, channels):
    pixels = DRAW.integers(0, 256, (12, 8, 8, channels), dtype=np.uint8)
    saved = {"NHWC": pixels, "NCHW": pixels.transpose(0, 3, 1, 2), "NHW": pixels[..., 0]}[layout]
    data = build(save(tmp_path / "x.npz", x_train=saved, y_train=LABELS, x_test=saved, y_test=LABELS))
    images, labels = content(data.test)
    known = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    assert torch.equal(images, known[:, :1] if layout == "NHW" else known)
    assert labels.tolist() == LABELS.tolist()
    assert (data.classes, data.image_size) == (["0", "1", "2"], 8)


def test_usual_names_are_the_splits_and_a_val_part_of_its_own_validates(tmp_path, capsys):
    parts = {"train": 12, "val": 6, "test": 3}
    for number, (images, labels) in enumerate((("X_{}", "Y_{}"), ("{}_images", "{}_labels"))):
        arrays = {images.format(split): IMAGES[:count] for split, count in parts.items()}
        arrays |= {labels.format(split): LABELS[:count, None] for split, count in parts.items()}
        data = build(save(tmp_path / f"{number}.npz", extra=LABELS, **arrays))
        assert {"train": data.train.images, "val": data.val.images, "test": data.test.images} == parts
        assert "val: 6 images, its own part" in data.notes
        assert f"not used of {number}.npz: extra" in data.notes
        assert len(data.warnings) == 1  # of data.val=3, which says nothing here
        assert [data.val.name(0), data.test.name(2), data.train.name(1)] == ["val/0", "test/2", "train/1"]
    data = build(save(tmp_path / "plain.npz", images=IMAGES, labels=LABELS))
    assert (data.train.images, data.val.images, data.test) == (9, 3, None)


def test_folds_take_val_from_train_and_its_own_part_tests(tmp_path):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES[:6], "y_val": LABELS[:6]}
    data = build(save(tmp_path / "x.npz", **arrays), folds=4, val=0.1)
    assert (data.train.images, data.val.images, data.test.images) == (9, 3, 6)
    data = build(save(tmp_path / "y.npz", **arrays, x_test=IMAGES[:3], y_test=LABELS[:3]), folds=4, val=0.1)
    assert data.test.images == 3
    assert "its val part: not used, 6 images, as data.folds takes val from train" in data.notes


def test_classes_have_the_names_in_the_file_and_some_can_be_chosen(tmp_path):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES[:6], "y_val": LABELS[:6]}
    file = save(tmp_path / "x.npz", **arrays, classes=np.array(["cat", "dog", "eel"]))
    assert build(file).classes == ["cat", "dog", "eel"]
    data = build(file, classes=["eel", "cat"])
    assert data.val.labels.tolist() == [1, 0, 1, 0]
    assert torch.equal(content(data.val)[0], content(build(file).val)[0][[0, 2, 3, 5]])


GOOD = {"x_train": IMAGES, "y_train": LABELS}
FAULTS = {
    "no labels": ({"x_train": IMAGES}, " has x_train and no y_train; add it"),
    "other names": ({"a": LABELS, "b": LABELS}, " has a, b, none to train on; it takes images and labels, or "),
    "nothing": ({}, " has nothing in it, none to train on; it takes"),
    "floats": (
        {"images": IMAGES / 255, "labels": LABELS},
        r": images is float64 \(12, 6, 5, 3\); images are uint8 .*; of levels 0 to 1, \(255 \* x\)",
    ),
    "four channels": (
        {"images": np.zeros((2, 9, 9, 4), np.uint8), "labels": LABELS},
        r": images is uint8 \(2, 9, 9, 4\); images are uint8 \(N, H, W\)",
    ),
    "flat": ({"images": np.zeros((2, 64), np.uint8), "labels": LABELS}, r": images is uint8 \(2, 64\)"),
    "no image": ({"images": IMAGES[:0], "labels": LABELS}, r": images is uint8 \(0, 6, 5, 3\); it takes images of"),
    "fewer labels": (GOOD | {"y_train": LABELS[:9]}, ": y_train has 9 labels for 12 images of x_train; give"),
    "halves": (GOOD | {"y_train": LABELS + 0.5}, r": y_train is float64 \(12,\); labels are whole numbers"),
    "columns": (
        GOOD | {"y_train": np.eye(3, dtype=int)[LABELS]},
        r": y_train is int64 \(12, 3\); .*y.argmax\(1\) makes them",
    ),
    "below 0": (GOOD | {"y_train": LABELS - 1}, ": y_train has the label -1; count the classes from 0"),
    "a gap": (GOOD | {"y_train": LABELS * 2}, ": y_train has no label 1, and 5 classes; count them from 0"),
    "from 1": (GOOD | {"y_train": LABELS + 1}, ": y_train has no label 0, and 4 classes; count them from 0"),
    "one class": (GOOD | {"y_train": LABELS * 0}, ": y_train has one class; it takes two or more"),
    "a class of test alone": (
        GOOD | {"x_test": IMAGES, "y_test": np.arange(12) % 4},
        ": y_test has the label 3, and y_train none of it; add such images",
    ),
    "fewer names": (GOOD | {"classes": np.array(["a", "b"])}, ": y_train has the label 2; count the 2 classes from 0"),
    "twins": (GOOD | {"classes": np.array(["a", "a", "b"])}, r": classes is <U1 \(3,\); it is a list of names"),
    "objects": (GOOD | {"y_train": np.array([{}] * 12)}, ": y_train holds Python objects, which are not read, as they"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_the_file_the_array_and_what_it_is(tmp_path, name):
    arrays, told = FAULTS[name]
    with pytest.raises(DataError, match=rf"^data\.root: {tmp_path}/x\.npz{told}") as caught:
        build(save(tmp_path / "x.npz", **arrays))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "kind", "told"),
    [
        ("(" * 50, DataError, "x_train is damaged"),
        (str({"descr": "|u1", "fortran_order": False, "shape": (2**40, 9, 9)}), ResourceError, "x_train does not fit"),
    ],
)
def test_an_array_that_claims_what_it_has_not_is_told(tmp_path, header, kind, told):
    save(tmp_path / "x.npz", **{key: array for key, array in GOOD.items() if key != "x_train"})
    text = header.encode().ljust(8000) + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as file:
        file.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(kind, match=rf"^data\.root: {tmp_path}/x\.npz: {told}"):
        build(tmp_path / "x.npz")


def test_a_file_that_is_none_or_damaged_is_told(here, capsys):
    whole = save(here / "x.npz", **GOOD).read_bytes()
    np.save(here / "one.npy", IMAGES)
    place = whole.index(IMAGES.tobytes()[:99]) + 50
    (here / "flipped.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    (here / "half.npz").write_bytes(whole[:300])
    (here / "text.npz").write_text("no zip")
    (here / "empty.npz").write_bytes(b"")
    (here / "folder").mkdir()
    lines = {
        "gone.npz": f"{here}/gone.npz is not there; give the .npz file of the images and labels",
        "folder": f"{here}/folder is a folder, not a file; give the .npz file",
        "one.npy": f"{here}/one.npy holds one array; save images and labels together, by np.savez",
        "flipped.npz": f"{here}/flipped.npz: x_train is damaged (BadZipFile: ",
        **{
            name: f"{here}/{name} is no .npz file, or a damaged one (" for name in ("half.npz", "text.npz", "empty.npz")
        },
    }
    for name, line in lines.items():
        assert cli.main(["model=softmax", "data=arrays", f"data.root={name}"]) == 3
        told = capsys.readouterr().err
        assert told.startswith(f"cnntrain: error: data.root: {line}")
        assert told.count("\n") == 1
    assert cli.main(["data=arrays"]) == 2
    assert "data.root: missing; " in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_a_file_is_trained_on_resumed_and_scored(here, capsys):
    save(here / "x.npz", **GOOD, x_val=IMAGES[:6], y_val=LABELS[:6], x_test=IMAGES[:3], y_test=LABELS[:3])
    words = ["model=softmax", "data=arrays", "data.root=x.npz", "trainer.epochs=1", "trainer.tensorboard=false"]
    assert cli.main(words) == 0
    (run,) = Path("outputs/x.npz/softmax").iterdir()
    assert "softmax on x.npz\n" in capsys.readouterr().out
    assert cli.main(["resume", str(run), "trainer.epochs=2"]) == 0
    assert cli.main(["eval", str(run), "out=scores.json"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    assert {split: scores[split]["images"] for split in ("val", "test")} == {"val": 6, "test": 3}
    capsys.readouterr()
    assert cli.main(["check", *words, "steps=1"]) == 0
    assert "  images   train 12, val 6, test 3\n" in capsys.readouterr().out


def test_a_column_for_each_class_makes_sets_of_labels(tmp_path, capsys):
    labels = (DRAW.random((12, 4)) < 0.5).astype(np.int8)
    file = save(tmp_path / "x.npz", x_train=IMAGES, y_train=labels, x_test=IMAGES, y_test=labels, classes=list("abcd"))
    data = build(file, multi_label=True)
    assert (data.classes, data.multi_label) == (list("abcd"), True)
    assert torch.equal(content(data.test)[1], torch.from_numpy(labels).bool())
    some = build(file, multi_label=True, classes=["d", "a"])
    assert torch.equal(content(some.test)[1], torch.from_numpy(labels[:, [3, 0]]).bool())
    with pytest.raises(DataError, match=r"y_train is int64 \(12,\); labels of data.multi_label=true are 0 or 1"):
        build(save(tmp_path / "y.npz", images=IMAGES, labels=LABELS, y_train=LABELS, x_train=IMAGES), multi_label=True)
    save(file, images=IMAGES, labels=labels, classes=list("abc"))
    with pytest.raises(DataError, match="has 3 names for 4 columns of labels"):
        build(file, multi_label=True)
    few = labels * [1, 0, 1, 1]
    save(file, x_train=IMAGES, y_train=few, x_test=IMAGES, y_test=few | [0, 1, 0, 0], classes=list("abcd"))
    with pytest.raises(DataError, match="y_test has images with the label b, and y_train none; add such images"):
        build(file, multi_label=True)
