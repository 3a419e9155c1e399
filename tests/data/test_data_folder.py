"""A user's own folder of pictures: what counts as a class, what is ignored, what is refused."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import CropMode, DataSettings, Interpolation
from cnntrain.data.build import build_data, build_eval_data
from cnntrain.data.folder import scan
from cnntrain.data.layout import find_splits
from cnntrain.data.paths import Paths
from cnntrain.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def paint(folder, names=("a", "b", "c"), count: int = 4):
    """A class folder per name; all images of class k have the grey level 40 * (k + 1)."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            grey = np.full((12, 12 + index, 3), 40 * (number + 1), np.uint8)
            Image.fromarray(grey).save(folder / name / f"{index}.png")
    return folder


def build(root, said=None, **arguments):
    settings: dict[str, Any] = {"name": "imagefolder", "root": str(root), "image_size": 8, "workers": 0}
    options: dict[str, Any] = {
        "seed": 0,
        "device": torch.device("cpu"),
        "say": (said if said is not None else []).append,
    }
    options |= {key: arguments.pop(key) for key in ("classes", "splits", "seed") if key in arguments}
    chosen = DataSettings(**settings | arguments)
    if "splits" in options:
        return build_eval_data(chosen, **options)
    return build_data(chosen, AugmentSettings(), **options)


def greys(loader) -> list[tuple[int, int]]:
    """(grey level, label) of each image."""
    return [
        (int(image.float().mean()), int(label))
        for images, labels, *_ in loader.batches()
        for image, label in zip(images, labels, strict=True)
    ]


# ---- layout ----


def test_one_folder_of_class_folders_gives_train_and_val(tmp_path):
    data = build(paint(tmp_path), val=0.25)
    assert data.classes == ["a", "b", "c"]
    assert (data.train.images, data.val.images, data.test) == (9, 3, None)
    assert set(greys(data.train)) == set(greys(data.val)) == {(40, 0), (80, 1), (120, 2)}
    assert any("no test/" in note for note in data.notes)


def test_classes_stand_in_the_order_of_their_folders_whatever_their_names_look_like_in_a_message(tmp_path):
    names = ["\x1b[31mred", "=cmd()", "LLL"]  # escaped, the first would come last
    assert build(paint(tmp_path, names)).classes == ["\\x1b[31mred", "=cmd()", "LLL"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_folders_own_splits_are_used(tmp_path, name):
    for split, count in (("train", 4), (name, 2), ("test", 3)):
        paint(tmp_path / split, count=count)
    data = build(tmp_path)
    assert [loader.images for loader in (data.train, data.val, data.test)] == [12, 6, 9]
    for loader in (data.train, data.val, data.test):
        assert set(greys(loader)) == {(40, 0), (80, 1), (120, 2)}


def test_a_choice_of_val_that_the_folders_own_overrules_is_told(tmp_path):
    for split in ("train", "Valid"):
        paint(tmp_path / split)
    assert build(tmp_path).warnings == []
    for val in (0.3, 0):
        (warning,) = build(tmp_path, val=val).warnings
        assert warning.startswith("data.val: the images of Valid/ validate, and none are taken out of the training")
    assert build(tmp_path, val=0.3, folds=2).warnings == []


def test_val_comes_out_of_train_and_never_out_of_test(tmp_path):
    paint(tmp_path / "train")
    paint(tmp_path / "test", count=2)
    data = build(tmp_path)
    assert (data.train.images, data.val.images, data.test.images) == (9, 3, 6)


def test_two_val_folders_are_refused(tmp_path):
    for split in ("train", "val", "valid"):
        paint(tmp_path / split)
    with pytest.raises(DataError, match="holds both val/ and valid/; keep one"):
        build(tmp_path)


def test_class_folders_that_happen_to_be_called_test_are_classes(tmp_path):
    assert find_splits(paint(tmp_path, ("good", "test"))).folders == {"train": tmp_path}


def test_training_without_train_names_what_is_there(tmp_path):
    paint(tmp_path / "val")
    with pytest.raises(DataError, match=r"^data\.root: .* has val/ but no train/"):
        build(tmp_path)
    data = build(tmp_path, splits=("val", "test"), mean=[0.5], std=[0.5])
    assert (data.val.images, data.test) == (12, None)
    with pytest.raises(ConfigError, match=r"^data\.mean: cannot be computed without training images"):
        build(tmp_path, splits=("val",))


def test_a_root_that_is_not_there_or_a_file_says_so(tmp_path):
    with pytest.raises(DataError, match=r"^data\.root: .*/none is not there; give the folder"):
        build(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"file is a file, not a folder"):
        build(tmp_path / "file")


# ---- classes ----


def test_a_class_missing_in_a_split_is_named(tmp_path):
    paint(tmp_path / "train")
    paint(tmp_path / "val", ("b", "c"))
    with pytest.raises(DataError, match=r"/val: the val split lacks class 'a'; add images of it"):
        build(tmp_path)


def test_a_class_extra_in_a_split_is_named(tmp_path):
    paint(tmp_path / "train")
    paint(tmp_path / "test", ("a", "b", "c", "d", "e"))
    with pytest.raises(
        DataError, match=r"/test: the test split has classes 'd', 'e', not among the known classes 'a', 'b', 'c'"
    ):
        build(tmp_path)


def test_labels_are_aligned_by_name_to_a_checkpoint(tmp_path):
    paint(tmp_path / "train")
    paint(tmp_path / "test", ("b", "c"))
    data = build(tmp_path, splits=("test",), classes=["c", "x", "b", "a"], mean=[0.5], std=[0.5])
    assert set(greys(data.test)) == {(40, 2), (80, 0)}
    with pytest.raises(DataError, match="has class 'c', not among the known classes 'a', 'b'; rename"):
        build(tmp_path, splits=("test",), classes=["a", "b"], mean=[0.5], std=[0.5])


def test_an_empty_class_is_named(tmp_path):
    paint(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("soon")
    with pytest.raises(DataError, match=r"/d: the class folder holds no images .*; fill it or remove it"):
        build(tmp_path)


def test_photos_that_cannot_be_read_are_to_be_converted(tmp_path):
    paint(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"holds no images \(1 x \.heic file, to be converted to JPEG first\)"):
        build(tmp_path)


def test_fewer_than_two_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"'a' is the only class folder; it takes two"):
        build(paint(tmp_path / "one", ("a",)))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"/none: the train split has no class folders; put the images"):
        build(tmp_path / "none")


def test_one_image_of_each_class_is_too_few_to_split(tmp_path):
    with pytest.raises(DataError, match=r"^data\.val: no class has two images"):
        build(paint(tmp_path, count=1))


# ---- what is ignored ----


def test_hidden_system_and_other_files_are_ignored_and_counted(tmp_path):
    paint(tmp_path)
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "x.png")
    for name in (".DS_Store", "a/Thumbs.db", "a/._0.png", "b/readme.md", "labels.csv"):
        (tmp_path / name).write_bytes(b"x")
    data = build(tmp_path)
    assert data.classes == ["a", "b", "c"]
    assert data.train.images + data.val.images == 12
    note = next(note for note in data.warnings if note.startswith("ignored"))
    assert "6 x hidden or system entry" in note
    assert "1 x .md file that is no image" in note
    assert "1 x file outside the class folders" in note


def test_folders_inside_a_class_belong_to_it_and_endings_have_any_case(tmp_path):
    paint(tmp_path)
    (tmp_path / "a" / "day1" / "deep").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "a" / "day1" / "deep" / "x.PNG")
    Image.new("L", (4, 4)).save(tmp_path / "a" / "y.JpEg")
    assert scan(tmp_path, "train").labels.bincount().tolist() == [6, 4, 4]


def test_links_pipes_and_loops_neither_hang_nor_count_twice(tmp_path):
    paint(tmp_path / "real")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).symlink_to(tmp_path / "real" / name)  # class folders may be links
    (root / "c").mkdir()
    (root / "c" / "good.png").symlink_to(tmp_path / "real" / "c" / "0.png")
    (root / "c" / "loop").symlink_to(root / "c")
    (root / "c" / "self.png").symlink_to(root / "c" / "self.png")
    (root / "c" / "dead.png").symlink_to(tmp_path / "gone.png")
    (root / "c" / "folder.png").mkdir()
    os.mkfifo(root / "c" / "pipe.jpg")
    split = scan(root, "train")
    assert split.labels.bincount().tolist() == [4, 4, 1]
    assert split.skip_counts == {"folder reached twice by a link": 1, "dead link or special file": 3}


def test_file_names_of_any_bytes_are_read_and_shown_in_one_line(tmp_path):
    paint(tmp_path)
    odd = os.fsencode(tmp_path / "a") + b"/\xff new\nline.png"
    with open(odd, "wb") as file:
        file.write(b"broken")
    data = build(tmp_path, mean=[0.5], std=[0.5])
    with pytest.raises(DataError) as caught:
        greys(data.train) + greys(data.val)
    assert "/a/\\xff new\\nline.png: not an image of a known kind; mend or remove" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_are_held_compactly(tmp_path):
    names = [f"class_{index % 7}/image_{index:07}.jpg".encode() for index in range(10_000)]
    paths = Paths.join(tmp_path, names)
    assert len(paths) == 10_000
    assert paths[1234] == tmp_path / names[1234].decode()
    part = paths.take(torch.tensor([5, 9999]))
    assert [part[0], part[1]] == [paths[5], paths[9999]]
    assert [part.relative(0), part.relative(1)] == [names[5], names[9999]]


# ---- statistics and fingerprint ----


def test_statistics_come_from_train_are_said_and_kept(tmp_path, monkeypatch):
    paint(tmp_path / "train", ("a", "b"))
    paint(tmp_path / "val", ("a", "b"), count=2)
    said = []
    first = build(tmp_path, said)
    assert first.mean == pytest.approx([60 / 255] * 3)
    assert first.std == pytest.approx([20 / 255] * 3)
    assert said == ["computing mean and std on 8 training images"]
    again = build(tmp_path, said, seed=7)
    assert (again.mean, again.std, len(said)) == (first.mean, first.std, 1)
    assert any("computed on train earlier" in note for note in again.notes)
    build(tmp_path, said, image_size=10)
    assert len(said) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "train" / "a" / "0.png"))  # no folder can be made there
    assert build(tmp_path, said).mean == first.mean


def test_statistics_of_one_view_or_one_part_are_never_those_of_another(tmp_path):
    root = tmp_path / "images"
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for index in range(6):
            Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(root / name / f"{index}.png")
    said = []
    others = ({}, {"crop": 1.0}, {"interpolation": Interpolation.bicubic}, {"image_size": 9}, {"folds": 3}, {"val": 4})
    found = [build(root, said, **other) for other in others]
    assert len({tuple(data.mean + data.std) for data in found}) == len(said) == len(others)
    assert [build(root, said, **other).std for other in others] == [data.std for data in found]
    build(root, said, folds=3, fold=1)
    assert len(said) == len(others) + 1
    build(root, said, eval_size=12)
    assert len(said) == len(others) + 1
    assert build(root, said, crop_mode=CropMode.border).mean == found[0].mean  # no border is part of a mean
    assert len(said) == len(others) + 1
    build(root, said, crop_mode=CropMode.squash)
    assert len(said) == len(others) + 2


def test_a_damaged_cache_is_computed_anew(tmp_path):
    paint(tmp_path / "images")
    first = build(tmp_path / "images")
    (file,) = os.scandir(os.path.join(os.environ["XDG_CACHE_HOME"], "cnntrain", "statistics"))
    for text in ("", "{}", '{"mean": [1], "std": [1]}', '{"mean": [0, 0, 0], "std": [0, 1, 1]}'):
        with open(file.path, "w") as handle:
            handle.write(text)
        assert build(tmp_path / "images").mean == first.mean


def test_the_fingerprint_changes_with_a_file(tmp_path):
    mark = build(paint(tmp_path)).fingerprint
    assert build(tmp_path, seed=3).fingerprint == mark
    Image.new("L", (4, 4)).save(tmp_path / "a" / "new.png")
    assert build(tmp_path).fingerprint != mark


def test_grey_is_a_choice_of_the_settings(tmp_path):
    data = build(paint(tmp_path), channels=1)
    assert data.channels == len(data.mean) == 1
    assert next(data.val.batches())[0].shape[1:] == (1, 8, 8)
