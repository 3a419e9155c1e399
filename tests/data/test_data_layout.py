"""Which folder is which split, which files are images, and what is said of the others."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from cnntrain import cli
from cnntrain.data import decode
from cnntrain.data.decode import BadImage, read_image
from cnntrain.data.folder import LOOKED_INTO, Images, scan
from cnntrain.data.layout import find_splits, split_of
from cnntrain.errors import DataError

CHECK = ["check", "data=imagefolder", "data.image_size=16", "model=softmax", "data.mean=[0.5]", "data.std=[0.5]"]


def paint(folder, names=("cat", "dog"), count: int = 4, suffix: str = ".png"):
    """A class folder per name, of grey images."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            grey = np.full((12, 12 + index, 3), 40 * (number + 1), np.uint8)
            Image.fromarray(grey).save(folder / name / f"{index}.png")
            (folder / name / f"{index}.png").rename(folder / name / f"{index}{suffix}")
    return folder


def check(root, *words) -> int:
    return cli.main([*CHECK, f"data.root={root}", *words])


# ---- splits ----


def test_the_usual_names_of_splits_are_known_whatever_their_case():
    for name in ("train", "Training", "TRAIN", "training_set", "Train Data", "train-images"):
        assert split_of(name) == "train", name
    for name in ("val", "Valid", "VALIDATION", "dev", "validation_set"):
        assert split_of(name) == "val", name
    for name in ("test", "Testing", "Test_Set", "testset"):
        assert split_of(name) == "test", name
    for name in ("trains", "tester", "device", "evaluation", "cat"):
        assert split_of(name) == "", name


@pytest.mark.parametrize(("train", "test"), [("Training", "Testing"), ("train", "Test"), ("training_set", "test_set")])
def test_splits_of_other_names_are_splits_and_said(tmp_path, capsys, train, test):
    paint(tmp_path / train)
    paint(tmp_path / test, count=2)
    assert check(tmp_path) == 0
    out = capsys.readouterr().out
    assert "2 classes" in out
    assert f"splits: {test}/ is test, {train}/ is train" in out
    assert "warning" not in out


def test_folders_beside_the_splits_are_named(tmp_path, capsys):
    for split in ("train", "test", "extra", "more"):
        paint(tmp_path / split)
    assert check(tmp_path) == 0
    assert "warning: data.root: extra/, more/ are not used, beside the folders of the splits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (["a/cat", "a/dog", "b/cat", "b/dog"], "a/, b/ all hold the same folders (cat, dog), no images: these look"),
        (
            ["cat/train", "cat/test", "dog/train", "dog/test"],
            "splits come above classes: move the images to test/CLASS",
        ),
        (["seg_train/x/cat", "seg_test/y/cat", "seg_pred/z"], "seg_test/, seg_train/ look like splits; call them"),
        (["train/cat", "train/dog", "Training/cat"], "holds both Training/ and train/; keep one of them"),
        (["train/cat", "train/dog", "Test/cat", "testing/cat"], "holds both Test/ and testing/; keep one of them"),
        (
            ["cat", "dog", "val/dog"],
            "val/ holds folders of the names beside (dog) and no images, as splits do; put the",
        ),
        (
            ["cat", "dog", "test/cat", "val/dog"],
            "test/, val/ hold folders of the names beside (cat, dog) and no images",
        ),
        (["cat", "dog", "held/cat", "held/dog"], "or say data.classes=[cat,dog,held] if all of them are classes"),
        (["car", "plane", "train"], "has train/ without class folders beside car/, plane/; if all of them are classes"),
    ],
)
def test_what_may_be_splits_or_classes_is_refused(tmp_path, capsys, folders, told):
    paint(tmp_path / "photos", folders)
    assert check(tmp_path / "photos") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cnntrain: error: data.root: ")
    assert told in line


@pytest.mark.parametrize(
    "folders",
    [
        ["car", "plane", "train"],
        ["a/cat", "a/dog", "b/cat", "b/dog"],
        ["cat", "dog", "val/dog"],
        ["ds/train/cat", "x"],
        ["test", "train"],
    ],
)
def test_named_classes_are_classes_whatever_they_look_like(tmp_path, capsys, folders):
    paint(tmp_path, folders)
    names = sorted({name.partition("/")[0] for name in folders})
    assert check(tmp_path, f"data.classes=[{','.join(names)}]") == 0
    assert f"{len(names)} classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "folders",
    [
        ["good", "test"],
        ["cat/images", "dog/images"],
        ["cat/a", "cat/b", "dog/a"],
        ["test_tube", "train_station", "car"],
        ["cat", "dog", "val/dog", "val/fox"],
        ["cat", "dog", "fox/dog"],
        ["cat", "cat/train/old", "dog"],
    ],
)
def test_folders_that_may_well_be_classes_are_classes(tmp_path, folders):
    assert find_splits(paint(tmp_path, folders)).folders == {"train": tmp_path}


@pytest.mark.parametrize("beside", [[], ["x/y"], ["more/Training/cat"], ["p/train/a", "q/train/a", "r/train/a"]])
def test_data_sets_are_no_classes_and_pointed_at(tmp_path, capsys, beside):
    paint(tmp_path, ["ds/train/cat", "ds/train/dog", *beside])
    assert check(tmp_path) == 3
    (line,) = capsys.readouterr().err.splitlines()
    sets = ["ds", *(name.partition("/")[0] for name in beside if name != "x/y")]
    assert f"did you mean {' or '.join(f'data.root={tmp_path}/{name}' for name in sets[:3])}?" in line
    assert ("Or say data.classes=[ds," in line) is bool(beside)


def test_an_archive_in_a_folder_of_its_own_is_pointed_at(tmp_path, capsys):
    paint(tmp_path / "photos", ["archive/cat", "archive/dog"])
    assert check(tmp_path / "photos") == 3
    told = f"'archive' is the only class folder; did you mean data.root={tmp_path}/photos/archive?"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (
            ["train/cat", "train/dog", "test"],
            "test/ holds images and no class folders; put the images of each class into",
        ),
        (
            ["train/cat", "train/dog", "val", "test"],
            "or move test/ and val/ away: unlabelled pictures are for `cnntrain",
        ),
        (["train", "test"], "test/ and train/ hold images and no class folders; put the images of each class into"),
        (["train", "test/cat", "test/dog"], "train/ holds images and no class folders; put the images of each class"),
    ],
)
def test_a_split_of_loose_images_is_told_what_helps(tmp_path, capsys, folders, told):
    paint(tmp_path, folders)
    assert check(tmp_path) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cnntrain: error: data.root: {tmp_path}: ")
    assert told in line
    assert "data.classes" not in line
    assert ("predict" in line) is (folders[0] == "train/cat")


@pytest.mark.parametrize(("folders", "root"), [(["train", "test"], "."), (["train"], "train"), (["images"], ".")])
def test_piles_beside_a_table_are_sent_to_the_table(tmp_path, capsys, folders, root):
    contest = tmp_path / "contest"
    paint(contest, folders)
    for name in ("sample_submission", "test", "train"):
        (contest / f"{name}.csv").write_text("file,label\n")
    assert check(contest / root) == 3
    (line,) = capsys.readouterr().err.splitlines()
    what = "them" if folders == ["images"] else "their classes"
    assert f"a table has {what}, say data=table data.root={contest}/train.csv" in line
    assert "data.classes" not in line
    assert cli.main(["check", "data=table", f"data.root={contest}"]) == 3
    names = " or ".join(f"data.root={contest}/{name}.csv" for name in ("train", "test", "sample_submission"))
    assert capsys.readouterr().err.endswith(f"contest is a folder, not a table; did you mean {names}?\n")


def test_a_root_that_is_one_class_is_sent_to_the_folder_above(tmp_path, monkeypatch, capsys):
    paint(tmp_path / "photos/train")
    paint(tmp_path / "sorted")
    monkeypatch.chdir(tmp_path / "photos/train/dog")
    for root, name in {".": "photos", "../cat": "photos", tmp_path / "sorted/cat": "sorted"}.items():
        above = tmp_path / name
        assert check(root) == 3
        assert capsys.readouterr().err.endswith(f"if it is a class itself, give the folder above: data.root={above}\n")


# ---- images ----


def test_images_are_known_by_their_content_where_the_suffix_tells_nothing(tmp_path):
    paint(tmp_path, ["a"], suffix=".jfif")
    paint(tmp_path, ["b"], suffix="")
    paint(tmp_path, ["c"], suffix=".0001")
    paint(tmp_path, ["d"], suffix=".picture")
    (tmp_path / "d/notes.picture").write_text("no image")
    (tmp_path / "d/weights.safetensors").write_text("no image")
    split = scan(tmp_path, "train")
    assert split.labels.bincount().tolist() == [4, 4, 4, 4]
    assert split.skip_counts == {".picture file that is no image": 1, ".safetensors file that is no image": 1}
    assert split.loss_counts["d"] == 2


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_an_image(tmp_path):
    Image.new("RGB", (20, 10), (200, 0, 0)).save(tmp_path / "x.avif")
    pixels = read_image(tmp_path / "x.avif", 3)
    assert pixels.shape == (10, 20, 3)
    assert abs(int(pixels[..., 0].float().mean()) - 200) < 4


def test_not_every_file_of_a_known_kind_is_opened(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for number in range(LOOKED_INTO + 50):
        (tmp_path / "a" / f"{number}.json").touch()
    Image.new("L", (4, 4)).save(tmp_path / "a" / "x.png")
    opened = []
    monkeypatch.setattr("cnntrain.data.folder.looks_like_image", lambda path: bool(opened.append(path)))
    images = Images()
    assert [Path(path).name for path, _ in images.below(str(tmp_path / "a"))] == ["x.png"]
    assert (len(opened), images.drop_count) == (LOOKED_INTO, LOOKED_INTO + 50)


def test_who_loses_many_files_is_warned_with_suffixes_and_class(tmp_path, capsys):
    paint(tmp_path, ["cat", "dog"], count=12)
    for number in range(10):
        (tmp_path / "cat" / f"{number}.png").replace(tmp_path / "cat" / f"{number}.heic")
        (tmp_path / "cat" / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert check(tmp_path) == 0
    out = " ".join(capsys.readouterr().out.split())
    told = "10 x .heic file, to be converted to JPEG first; class 'cat' loses most, 10 of 12 files"
    assert f"warning: ignored below data.root: {told}" in out
    for path in (tmp_path / "cat").glob("*.heic"):
        path.unlink()
    paint(tmp_path, ["cat", "dog"], count=12)
    (tmp_path / "dog" / "notes.txt").touch()
    assert check(tmp_path) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "ignored below data.root: 1 x .txt file that is no image; class 'dog' loses most, 1 of 13 files" in out
    assert "warning" not in out


def test_images_beside_the_class_folders_are_told_apart(tmp_path, capsys):
    paint(tmp_path)
    shutil.copy(tmp_path / "cat/0.png", tmp_path / "lost.png")
    assert check(tmp_path) == 0
    assert "warning: ignored below data.root: 1 x image outside the class folders" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "lost+found"])
def test_what_systems_leave_behind_is_no_class(tmp_path, name):
    paint(tmp_path, ["cat", "dog", name, f"dog/{name}"])
    split = scan(tmp_path, "train")
    assert split.classes == ["cat", "dog"]
    assert split.labels.bincount().tolist() == [4, 4]


# ---- files that must not be read ----


def test_a_huge_file_is_refused_by_name_before_it_is_read(tmp_path, capsys):
    paint(tmp_path)
    for number in range(4):
        os.truncate(tmp_path / f"cat/{number}.png", 30 * 10**9)
    assert check(tmp_path) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert ".png: 30.0 GB are more than the limit of 1.1 GB for an image; mend or remove the file" in line


def test_a_pipe_in_the_place_of_a_file_is_no_image_and_does_not_hang(tmp_path):
    paint(tmp_path)
    split = scan(tmp_path, "train")
    split.paths[0].unlink()
    os.mkfifo(split.paths[0])
    said = []

    def read() -> None:
        try:
            read_image(split.paths[0], 3)
        except BadImage as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert said == ["cannot be read (a folder, pipe or device, not a file)"]
    with pytest.raises(BadImage, match="not a file"):
        read_image(tmp_path, 3)
    assert not decode.looks_like_image(split.paths[0])


class _Locked:
    """An entry of a folder that can be listed and not be entered."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self.path, self.entry = entry.name, entry.path, entry

    def is_dir(self) -> bool:
        return self.entry.is_dir()

    def is_file(self) -> bool:
        return self.entry.is_file()

    def stat(self) -> os.stat_result:
        raise PermissionError(13, "Permission denied", self.path)


def test_a_class_folder_that_cannot_be_entered_is_named(tmp_path, monkeypatch, capsys):
    paint(tmp_path)
    real = os.scandir

    class Listing:
        def __init__(self, folder) -> None:
            self.folder, self.found = str(folder), real(folder)

        def __enter__(self):
            lock = self.folder.endswith("dog")
            return iter([_Locked(entry) if lock else entry for entry in self.found])

        def __exit__(self, *error) -> None:
            self.found.close()

    monkeypatch.setattr("cnntrain.data.layout.os.scandir", Listing)
    assert check(tmp_path) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"cnntrain: error: {tmp_path}/dog: cannot be read (Permission denied); mend its permissions"


def test_a_root_below_a_folder_that_cannot_be_entered_is_a_data_error(tmp_path, monkeypatch):
    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cnntrain.config.paths.os.stat", denied)
    with pytest.raises(DataError, match="cannot be reached, as a folder above it may not be entered; give the folder"):
        find_splits(tmp_path)
