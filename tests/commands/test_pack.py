"""`cnntrain pack`: one file that trains in place of the folder, or one line that says why there is none."""

import io
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import scenes

from cnntrain import cli
from cnntrain.commands import pack as pack_command
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, LoaderKind
from cnntrain.config.schema.pieces import ResizedCropSettings
from cnntrain.data import pack_writer
from cnntrain.data.build import build_data, build_eval_data
from cnntrain.data.decode import read_image
from cnntrain.data.pack import FILE, open_pack
from cnntrain.data.paths import Paths
from cnntrain.errors import DataError
from cnntrain.storage import atomic


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def photograph(folder, count: int = 4) -> None:
    """Class folders of colour pictures 60 x 83, a grey one among them; one picture is of 12 x 20 pixels."""
    for number, name in enumerate(("cat", "dog")):
        (folder / name / "inner").mkdir(parents=True)
        for index, pixels in enumerate(scenes(3, 60, 83)[:count].roll(number, 0)):
            image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            image.save(folder / name / f"{index}.jpg", quality=95)
        image.convert("L").save(folder / name / "grey.jpg")
        image.resize((20, 12)).save(folder / name / "inner" / "small.png")


@pytest.fixture
def photos(tmp_path):
    for split in ("Training", "val", "test"):
        photograph(tmp_path / "photos" / split)
    return tmp_path / "photos"


def pack(root, out, *words: str) -> int:
    return cli.main(["pack", "data=imagefolder", f"data.root={root}", f"out={out}", "data.workers=0", *words])


def build(root, augment: AugmentSettings | None = None, **arguments):
    settings: dict[str, Any] = {
        "name": "imagefolder",
        "root": str(root),
        "image_size": 16,
        "workers": 0,
        "batch_size": 4,
    }
    chosen = DataSettings(**settings | arguments)
    return build_data(chosen, augment or AugmentSettings(), seed=0, device=torch.device("cpu"), say=print)


def batches(loader):
    return [(batch.images, batch.labels, batch.indices) for batch in loader.batches(1)]


def error_line(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cnntrain: error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("loader", [LoaderKind.stream, LoaderKind.memory])
def test_pictures_that_are_small_already_train_from_a_pack_as_from_the_folder_to_the_bit(photos, tmp_path, loader):
    assert pack(photos, tmp_path / "packed", "size=60") == 0
    crop = AugmentSettings(resized_crop=ResizedCropSettings())
    before, after = (build(root, crop, loader=loader) for root in (photos, tmp_path / "packed"))
    assert after.classes == before.classes
    assert after.fingerprint != before.fingerprint  # a pack's holds checksums too, which a folder has none of
    assert (after.mean, after.std) == (before.mean, before.std)
    for split in ("train", "val", "test"):
        one, other = getattr(before, split), getattr(after, split)
        assert [one.name(index) for index in range(len(one.labels))] == [
            other.name(index) for index in range(len(other.labels))
        ]
        for ours, theirs in zip(batches(one), batches(other), strict=True):
            assert all(torch.equal(mine, yours) for mine, yours in zip(ours, theirs, strict=True))


def test_splits_labels_and_order_are_those_of_the_folder_whatever_the_size(tmp_path):
    photograph(tmp_path / "photos")
    assert pack(tmp_path / "photos", tmp_path / "packed", "size=20") == 0
    before, after = (build(tmp_path / name, val=0.25) for name in ("photos", "packed"))
    assert after.fingerprint != before.fingerprint
    assert len(after.val.labels) > 0
    for split in ("train", "val"):
        one, other = getattr(before, split), getattr(after, split)
        assert torch.equal(one.labels, other.labels)
        assert [one.name(index) for index in range(len(one.labels))] == [
            other.name(index) for index in range(len(other.labels))
        ]
        for ours, theirs in zip(batches(one), batches(other), strict=True):
            assert torch.equal(ours[2], theirs[2])
            assert (ours[0].float() - theirs[0].float()).abs().mean() < 12
    assert "packed from" in " ".join(after.notes)
    assert "short side 20 pixels, JPEG quality 90" in " ".join(after.notes)


def test_a_picture_keeps_its_shape_its_kind_and_its_right_way_up(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rows, columns = np.mgrid[0:120, 0:90]
    upright = Image.fromarray(np.stack([2 * rows, 2 * columns, rows + columns], axis=2).astype(np.uint8).clip(0, 255))
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photos" / name / "turned.jpg", exif=exif)
        upright.convert("L").save(tmp_path / "photos" / name / "grey.png")
        Image.new("RGB", (3, 70_000), "red").save(tmp_path / "photos" / name / "strip.png")
    assert pack(tmp_path / "photos", tmp_path / "packed", "size=30", "quality=95") == 0
    found = open_pack(tmp_path / "packed")
    assert found
    paths = found.parts["train"].paths
    contents = {paths[index].name: paths.read(index) for index in range(3)}
    grey, turned = Image.open(io.BytesIO(contents["grey.png"])), Image.open(io.BytesIO(contents["turned.jpg"]))
    assert (grey.format, grey.mode, grey.size) == ("JPEG", "L", (30, 40))
    assert (turned.format, turned.mode, turned.size) == ("JPEG", "RGB", (30, 40))
    expected = np.asarray(upright.resize((30, 40), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(np.asarray(turned).astype(int) - expected).mean() < 4
    assert contents["strip.png"] == (tmp_path / "photos" / "a" / "strip.png").read_bytes()  # no JPEG is so long


def test_threads_write_the_same_bytes(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, "CHUNK", 1)
    for workers in (0, 3):
        assert pack(photos, tmp_path / f"packed{workers}", f"data.workers={workers}", "size=32") == 0
    assert (tmp_path / "packed0" / FILE).read_bytes() == (tmp_path / "packed3" / FILE).read_bytes()


def test_a_pack_can_be_packed_again_and_scored(photos, tmp_path, capsys):
    assert pack(photos, tmp_path / "packed", "size=40") == 0
    assert pack(tmp_path / "packed", tmp_path / "smaller", "size=20", "data.classes=[dog,cat]") == 0
    found = open_pack(tmp_path / "smaller")
    assert found
    assert [part.classes for part in found.parts.values()] == [["cat", "dog"]] * 3
    assert found.parts["val"].paths[0] == photos / "val" / "cat" / "0.jpg"
    settings = DataSettings(name="imagefolder", root=str(tmp_path / "packed"), image_size=8, mean=[0.5], std=[0.5])
    data = build_eval_data(settings, seed=0, device=torch.device("cpu"), classes=["cat", "dog"], say=print)
    assert data.test
    assert data.test.labels.bincount().tolist() == [6, 6]


def test_chosen_classes_are_found_in_a_pack_in_their_order(photos, tmp_path):
    assert pack(photos, tmp_path / "packed", "size=40") == 0
    before, after = (build(root, classes=["dog", "cat"]) for root in (photos, tmp_path / "packed"))
    assert after.classes == before.classes == ["dog", "cat"]
    assert torch.equal(before.train.labels, after.train.labels)


def test_a_whole_training_runs_on_a_pack_and_its_errors_have_the_old_names(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pack("photos", "packed", "size=24") == 0
    words = ["model=lenet5", "data=imagefolder", "data.root=packed", "data.image_size=16", "trainer.epochs=1"]
    assert cli.main(["train", *words, "out=run", "data.workers=0", "trainer.device=cpu"]) == 0
    assert cli.main(["eval", "run", "out=scores"]) == 0
    assert "test,test/cat/" in (tmp_path / "scores" / "errors.csv").read_text()


def test_a_comparison_knows_whether_a_pack_has_images_to_judge_by(tmp_path, capsys):
    photograph(tmp_path / "photos")
    assert pack(tmp_path / "photos", tmp_path / "packed", "size=40") == 0
    words = ["model=lenet5", "data=imagefolder", f"data.root={tmp_path / 'packed'}", "seed=0,1", "data.val=0"]
    assert cli.main(["compare", *words]) == 2
    assert "data.val: must be above 0 to compare by" in error_line(capsys)


def test_pictures_that_are_packed_smaller_than_they_are_seen_are_told_with_the_size_to_pack(photos, tmp_path, capsys):
    assert pack(photos, tmp_path / "packed", "size=24") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"next cnntrain train data=imagefolder data.root={tmp_path / 'packed'} data.image_size=21" in out
    assert build(tmp_path / "packed", image_size=21).warnings == []
    told = ["data.root: images packed at 24 pixels are enlarged to 37; pack the photos with size=37"]
    assert build(tmp_path / "packed", image_size=32).warnings == told
    assert build(photos, image_size=32).warnings == []
    crop = AugmentSettings(resized_crop=ResizedCropSettings())
    assert build(tmp_path / "packed", crop, image_size=21, eval_size=32).warnings == told  # in validation alone


def test_a_pack_of_a_pack_tells_its_source_and_the_size_that_its_pictures_have(photos, tmp_path, capsys):
    assert pack(photos, tmp_path / "packed", "size=24") == 0
    capsys.readouterr()
    assert pack(tmp_path / "packed", tmp_path / "again", "size=60") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(f"pack: {tmp_path / 'packed'}")
    assert f"source packed from {photos}, short side 24 pixels" in out
    assert "become what they are, as size=60 is no smaller than they were packed" in out
    assert f"data.root={tmp_path / 'again'} data.image_size=21" in out
    found = open_pack(tmp_path / "again")
    assert found
    assert found.size == 24


# ---- faults ----


def test_a_damaged_picture_ends_the_packing_or_is_left_out_and_listed(photos, tmp_path, capsys):
    bad = photos / "val" / "dog" / "0.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    assert pack(photos, tmp_path / "packed") == 3
    assert f"{bad}: " in error_line(capsys)
    assert not (tmp_path / "packed").exists()
    assert pack(photos, tmp_path / "packed", "data.on_bad_image=skip") == 0
    assert f"{bad}: " in capsys.readouterr().out.replace("\n", "")
    found = open_pack(tmp_path / "packed")
    assert found
    assert [len(part.labels) for part in found.parts.values()] == [12, 12, 11]


def test_a_damaged_picture_in_a_pack_has_one_advice(photos, tmp_path, capsys):
    assert pack(photos, tmp_path / "packed", "size=40") == 0
    with open(tmp_path / "packed" / FILE, "r+b") as file:
        file.seek(100)
        file.write(b"spot")
    assert pack(tmp_path / "packed", tmp_path / "again") == 3
    line, _, more = error_line(capsys).partition("; `cnntrain check data=imagefolder data.root=")
    assert more.endswith(" steps=0 out=look` lists all such images")
    assert line.endswith(
        f"damaged in {tmp_path / 'packed' / FILE}, by its checksum; pack the photos anew, or set data.on_bad_image=skip"
    )
    with pytest.raises(DataError) as caught:
        build(tmp_path / "packed")
    assert str(caught.value) == line.removeprefix("cnntrain: error: ")


def test_another_pack_of_the_same_names_and_sizes_has_its_own_mean_and_std(tmp_path):
    for level in (50, 200):
        for name in ("cat", "dog"):
            (tmp_path / str(level) / name).mkdir(parents=True)
            for index in range(8):
                Image.new("RGB", (40, 40), (level,) * 3).save(tmp_path / str(level) / name / f"{index}.bmp")
    means = []
    for level in (50, 200):
        (tmp_path / str(level)).rename(tmp_path / "photos")
        assert pack(tmp_path / "photos", tmp_path / f"packed{level}", "size=40") == 0
        (tmp_path / "photos").rename(tmp_path / str(level))
        data = build(tmp_path / f"packed{level}")
        means.append(data.mean[0])
    assert means == pytest.approx([50 / 255, 200 / 255])
    assert "computed on train earlier" in " ".join(build(tmp_path / "packed200").notes)


def test_a_pack_without_training_images_is_told_by_what_it_holds(photos, tmp_path, capsys):
    shutil.rmtree(photos / "Training")
    assert pack(photos, tmp_path / "packed", "size=40") == 0
    words = ["data=imagefolder", f"data.root={tmp_path / 'packed'}", "data.image_size=16", f"out={tmp_path / 'run'}"]
    assert cli.main(["train", "model=lenet5", *words]) == 3
    assert f"data.root: {tmp_path / 'packed'} holds a pack of test and val without train; pack" in error_line(capsys)


def test_a_class_without_a_good_picture_is_told(photos, tmp_path, capsys):
    for file in (photos / "val" / "dog").rglob("*.*"):
        file.write_bytes(b"broken")
    assert pack(photos, tmp_path / "packed", "data.on_bad_image=skip") == 3
    assert "none of the images of class 'dog' in the val split can be decoded" in error_line(capsys)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["out=packed"], 2, "data: pack takes a folder of photos (given digits)"),
        (["data=imagefolder", "data.root=photos"], 2, "out: missing; write out=DIR"),
        (["data=imagefolder", "data.root=photos", "out=photos/packed"], 2, "out: must not lie in data.root"),
        (["data=imagefolder", "data.root=photos", "out=packed", "optimizer.lr=1"], 2, "optimizer.lr: pack does not"),
        (["data=imagefolder", "data.root=photos", "out=packed", "data.image_size=8"], 2, "data.image_size: pack does"),
        (["data=imagefolder", "data.root=photos", "out=packed", "size=8"], 2, "size: must be a whole number >= 16"),
        (["data=imagefolder", "data.root=gone", "out=packed"], 3, "data.root: "),
        (["data=imagefolder", "data.root=photos", "out=packed", "data.classes=[cow,pig]"], 3, "data.classes: "),
        (["data=imagefolder", "data.root=photos", "out=full"], 2, "out: full is not empty"),
    ],
)
def test_what_cannot_be_packed_is_one_line_and_leaves_nothing(photos, tmp_path, monkeypatch, capsys, words, code, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    assert cli.main(["pack", *words]) == code
    assert f"cnntrain: error: {line}" in error_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} <= {"photos", "full", "outputs"}
    assert not (photos / "packed").exists()


def test_a_pack_is_never_written_over(photos, tmp_path, capsys):
    assert pack(photos, tmp_path / "packed") == 0
    content = (tmp_path / "packed" / FILE).read_bytes()
    assert pack(photos, tmp_path / "packed") == 2
    assert "holds a pack already" in error_line(capsys)
    assert (tmp_path / "packed" / FILE).read_bytes() == content


def test_what_a_killed_process_has_left_is_written_over_and_what_a_living_one_writes_is_not(photos, tmp_path, capsys):
    out = tmp_path / "packed"
    out.mkdir()
    with suppress(KeyboardInterrupt), atomic.StreamedFile(out / FILE, alone=True):
        assert pack(photos, out) == 9
        assert f"{out / FILE}: another process writes it; wait for it" in error_line(capsys)
        raise KeyboardInterrupt
    assert not list(out.iterdir())
    (out / f".tmp-{FILE}").write_bytes(b"half")
    assert pack(photos, out) == 0
    assert [path.name for path in out.iterdir()] == [FILE]
    assert open_pack(out)


def test_what_lies_in_the_way_of_the_hidden_file_is_one_line_with_advice(photos, tmp_path, capsys):
    hidden = tmp_path / "packed" / f".tmp-{FILE}"
    hidden.mkdir(parents=True)
    assert pack(photos, hidden.parent) == 6
    assert f"{hidden}: cannot be written (Is a directory); a folder is in the way: move it" in error_line(capsys)
    hidden.rmdir()
    (tmp_path / "letter.txt").write_text("mine")
    hidden.symlink_to(tmp_path / "letter.txt")
    assert pack(photos, hidden.parent) == 6
    assert (tmp_path / "letter.txt").read_text() == "mine"
    assert hidden.is_symlink()


def test_a_pack_that_another_process_has_finished_meanwhile_is_not_written_over(photos, tmp_path, monkeypatch, capsys):
    find = pack_command._find
    monkeypatch.setattr(pack_command, "_find", lambda *given: pack_meanwhile() and find(*given))

    def pack_meanwhile() -> bool:
        monkeypatch.setattr(pack_command, "_find", find)
        return pack(photos, tmp_path / "packed", "size=20") == 0

    assert pack(photos, tmp_path / "packed", "size=40") == 9
    assert "holds a pack already" in error_line(capsys)
    found = open_pack(tmp_path / "packed")
    assert found
    assert found.size == 20


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupt_or_a_full_disk_leaves_nothing(photos, tmp_path, monkeypatch, capsys, error):
    def fail(self: Any, content: Any) -> None:
        with self._told():
            raise error

    write = atomic.StreamedFile.write
    monkeypatch.setattr(
        atomic.StreamedFile, "write", lambda self, content: (write if len(content) < 10 else fail)(self, content)
    )
    assert pack(photos, tmp_path / "packed") == (130 if isinstance(error, KeyboardInterrupt) else 6)
    assert not (tmp_path / "packed").exists()


@pytest.mark.slow
def test_a_signal_ends_a_packing_without_a_trace(tmp_path):
    rough = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(60):
            Image.fromarray(rough).save(tmp_path / "photos" / name / f"{index}.jpg")
    line = ["pack", "data=imagefolder", f"data.root={tmp_path / 'photos'}", f"out={tmp_path / 'packed'}"]
    process = subprocess.Popen([sys.executable, "-m", "cnntrain", *line, "data.workers=1"], stderr=subprocess.PIPE)
    while not list(tmp_path.glob(f"packed/.tmp-{FILE}")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not (tmp_path / "packed").exists()


def test_packed_names_are_not_opened(photos, tmp_path, monkeypatch):
    assert pack(photos, tmp_path / "packed", "size=40") == 0
    expected = read_image(photos / "val" / "cat" / "0.jpg", 3).shape
    monkeypatch.setattr(Paths, "read", lambda *_: pytest.fail("a file was opened"))
    assert build(tmp_path / "packed").val.pick(torch.arange(4)).shape == (4, 3, 16, 16)
    assert expected == (60, 83, 3)
