"""A large folder is listed once; the list is trusted while no folder has changed, and never where it is not whole."""

import os
import signal
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain import cli
from cnntrain.data import folder as image_folder
from cnntrain.data import listing
from cnntrain.data.folder import Images, fingerprint
from cnntrain.data.pack import find_images
from cnntrain.data.paths import Paths
from cnntrain.errors import DataError

QUICK = ["model=softmax", "data.image_size=8", "data.batch_size=4", "trainer.threads=1", "trainer.tensorboard=false"]
QUICK += ["augment=none", "data.workers=0", "data.loader=stream", "trainer.max_steps=1"]


def paint(root: Path, names=("cat", "dog"), count: int = 6) -> Path:
    """Class folders of images that were last changed an hour ago."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(np.full((9, 9 + index, 3), 90 * number, np.uint8)).save(root / name / f"{index}.png")
    settle(root)
    return root


def settle(root: Path) -> None:
    past = time.time() - 3600
    for folder, _, _ in os.walk(root):
        os.utime(folder, (past, past))


@pytest.fixture
def short(here, monkeypatch):
    """A list of one image is kept."""
    monkeypatch.setattr(listing, "LEAST", 1)
    return here


@pytest.fixture
def listed(monkeypatch):
    """The folders that are listed, as they are."""
    folders: list[str] = []
    scandir = os.scandir

    def count(folder="."):
        folders.append(str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", count)
    return folders


def lists(here: Path) -> list[Path]:
    return sorted((here / "cache" / "cnntrain" / "lists").glob("*"))


def find(root: Path, names=None):
    return find_images(root, names, names)


@pytest.mark.parametrize("split", ["", "train"])
def test_a_folder_that_has_not_changed_gives_the_same_images_without_being_listed(short, listed, split):
    root = short / "photos"
    paint(root / split)
    (root / split / "cat" / "notes.txt").write_text("no image")
    (root / split / ".hidden").touch()
    settle(root)
    first = find(root)
    listed.clear()
    again = find(root)
    assert not [name for name in listed if Path(name).name in ("cat", "dog")]
    part, other = first.scans["train"], again.scans["train"]
    assert fingerprint(first.scans) == fingerprint(again.scans)
    assert [part.paths[i] for i in range(12)] == [other.paths[i] for i in range(12)]
    assert part.labels.tolist() == other.labels.tolist()
    assert other.labels.dtype == torch.int64
    assert part.classes == other.classes
    assert part.sizes.tolist() == other.sizes.tolist()
    assert part.skip_counts == other.skip_counts
    assert part.loss_counts == other.loss_counts
    assert not first.notes
    assert str(lists(short)[0]) in again.notes[0]


def test_resume_and_eval_of_a_run_do_not_list_its_folder_again(short, listed, capsys):
    root = paint(short / "photos")
    assert cli.main(["train", "data=imagefolder", f"data.root={root}", *QUICK, "out=run"]) == 0
    assert str(root / "cat") in listed
    listed.clear()
    assert cli.main(["resume", "run", "trainer.max_steps=2"]) == 0
    assert cli.main(["eval", "run"]) == 0
    assert not [name for name in listed if name.startswith(str(root))]
    assert "train: listed earlier, kept in" in capsys.readouterr().out


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_listing_where_it_stands(short, monkeypatch, capsys, signum, code):
    root = paint(short / "photos")
    size = Images._size

    def press(self, entry, folder):
        assert not pressed, "the next file is not looked at"
        pressed.append(entry.name)
        os.kill(os.getpid(), signum)
        return size(self, entry, folder)

    pressed: list[str] = []
    monkeypatch.setattr(Images, "_size", press)
    assert cli.main(["train", "data=imagefolder", f"data.root={root}", *QUICK, "out=run"]) == code
    assert "stopped before the first step; go on with cnntrain resume run" in capsys.readouterr().err
    assert not lists(short)
    monkeypatch.setattr(Images, "_size", size)
    assert cli.main(["resume", "run"]) == 0


def test_a_small_folder_leaves_nothing_in_the_cache(here):
    find(paint(here / "photos"))
    assert not lists(here)


@pytest.mark.parametrize("change", ["more", "gone", "renamed", "a class more", "an inner folder"])
def test_a_folder_that_has_changed_is_listed_anew(short, change):
    root = paint(short / "photos")
    (root / "dog" / "inner").mkdir()
    (root / "dog" / "0.png").rename(root / "dog" / "inner" / "0.png")
    settle(root)
    before = fingerprint(find(root).scans)
    if change == "more":
        (root / "cat" / "new.png").write_bytes((root / "cat" / "0.png").read_bytes())
    elif change == "gone":
        (root / "cat" / "0.png").unlink()
    elif change == "renamed":
        (root / "cat" / "0.png").rename(root / "cat" / "zero.png")
    elif change == "a class more":
        paint(root, ["emu"])
    else:
        (root / "dog" / "inner" / "1.png").write_bytes((root / "cat" / "0.png").read_bytes())
    found = find(root)
    assert not found.notes
    assert fingerprint(found.scans) != before


def test_another_choice_of_classes_has_a_list_of_its_own(short):
    root = paint(short / "photos", ["cat", "dog", "emu"])
    assert find(root).scans["train"].classes == ["cat", "dog", "emu"]
    for _ in range(2):
        part = find(root, ["emu", "cat"]).scans["train"]
        assert (part.classes, part.left_out) == (["cat", "emu"], ["dog"])
    assert len(lists(short)) == 2


def test_known_classes_do_not_pass_a_layout_on_that_is_refused_without_them(short):
    root = paint(short / "photos", ["my_train", "my_test"])
    for _ in range(2):
        assert len(find_images(root, None, ["my_test", "my_train"]).scans["train"].labels) == 12
    with pytest.raises(DataError, match="look like splits"):
        find(root)


def test_a_folder_that_has_just_changed_is_not_trusted_yet(short):
    root = paint(short / "photos")
    os.utime(root / "cat")  # within a step of the clock of a file system, another change would not show
    find(root)
    assert not lists(short)


@pytest.mark.parametrize("fault", ["cut", "bit", "empty", "foreign", "longer", "link", "folder"])
def test_a_damaged_list_is_made_anew(short, fault):
    root = paint(short / "photos")
    before = fingerprint(find(root).scans)
    (file,) = lists(short)
    content = file.read_bytes()
    if fault == "cut":
        file.write_bytes(content[:-5])
    elif fault == "bit":
        file.write_bytes(content[:-60] + bytes([content[-60] ^ 1]) + content[-59:])
    elif fault == "longer":
        file.write_bytes(content + b"x")
    elif fault in ("empty", "foreign"):
        file.write_bytes(b"" if fault == "empty" else listing.MAGIC + b'{"times": 7}\n')
    else:
        file.rename(short / "elsewhere")
        file.mkdir() if fault == "folder" else file.symlink_to(short / "elsewhere")
    found = find(root)
    assert not found.notes
    assert fingerprint(found.scans) == before
    if fault not in ("link", "folder"):
        assert file.read_bytes() == content


def test_every_cut_and_many_flipped_bits_of_a_list_are_found(short):
    root = paint(short / "photos")
    find(root)
    (file,) = lists(short)
    content = file.read_bytes()
    draw = np.random.default_rng(0)
    for place in draw.integers(0, len(content), 200).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(draw.integers(8))
        for damaged in (content[:place], bytes(flipped)):
            file.write_bytes(damaged)
            assert listing.load(root, None, is_root=True) is None, place
    file.write_bytes(content)
    assert listing.load(root, None, is_root=True)


def test_a_cache_that_cannot_be_written_is_no_fault(short, monkeypatch):
    (short / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(short / "file"))
    assert len(find(paint(short / "photos")).scans["train"].labels) == 12


def test_a_list_of_another_user_is_not_read(short, monkeypatch):
    root = paint(short / "photos")
    find(root)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert listing.load(root, None, is_root=True) is None


def test_a_long_listing_tells_how_far_it_is(short, monkeypatch):
    monkeypatch.setattr(image_folder, "SECONDS", 0)
    lines: list[str] = []
    image_folder.scan(paint(short / "photos"), "train", say=lines.append)
    assert lines[0] == "train: 1 image listed"
    assert lines[-1] == "train: 12 images listed"


def test_digests_are_those_of_int64_numbers_however_paths_are_held():
    import hashlib

    names = [b"a/1.png", b"a/22.png", b"b/333.png"]
    paths, ends = Paths.join(Path("x"), names), np.cumsum([7, 8, 9], dtype=np.int64)
    assert paths.digest() == hashlib.sha256(ends.tobytes() + b"".join(names)).digest()
    begins = np.array([15, 0], np.int64)
    assert paths.take(torch.tensor([2, 0])).selection_digest() == hashlib.sha256(begins.tobytes()).digest()
    assert paths.relative(1) == b"a/22.png"
    assert len(Paths.join(Path("x"), [])) == 0


def test_a_listed_file_costs_no_object(short):
    root = short / "photos"
    paint(root)
    count, source = 5000, root / "cat" / "0.png"
    for index in range(count):
        os.link(source, root / "cat" / f"picture_{index:06}.png")
    tracemalloc.start()
    try:
        part = image_folder.scan(root, "train")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(part.labels) == count + 12
    assert kept < 60 * count  # 23 bytes of the name, and 16 of numbers beside those of tensors


@pytest.mark.slow
def test_a_folder_of_200_000_files_is_found_again_in_half_a_second(here):
    root = here / "photos"
    for number in range(200):
        paint(root, [f"class_{number:03}"], 1)
        for index in range(1, 1000):
            os.link(root / f"class_{number:03}" / "0.png", root / f"class_{number:03}" / f"{index:05}.png")
    settle(root)
    first = find(root)
    start = time.process_time()
    again = find(root)
    assert time.process_time() - start < 0.5
    assert again.notes
    assert fingerprint(first.scans) == fingerprint(again.scans)
