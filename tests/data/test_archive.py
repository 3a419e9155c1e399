"""Archives of images: unpacked once, whole or not at all, and nothing in one leads out of its folder."""

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain import cli
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings
from cnntrain.config.schema.titles import ARCHIVES
from cnntrain.data import archive, archive_entries
from cnntrain.data.build import build_data
from cnntrain.data.common import TrainData
from cnntrain.errors import CnntrainError, DataError, FileSystemError, UnsafeError
from cnntrain.text import printable

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests lose no power, and do not wait for what other programs write."""
    monkeypatch.setattr(os, "sync", lambda: None)


def picture(grey: int, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 30, (12, 14, 3))
    content = io.BytesIO()
    Image.fromarray((noise + grey).astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def photos(top: str = "", classes: tuple[str, ...] = ("cat", "dog"), count: int = 6) -> Files:
    """Two classes of pictures, by the paths in an archive."""
    return {
        f"{top}{name}/{number}.png": picture(100 * place, number)
        for place, name in enumerate(classes)
        for number in range(count)
    }


def pack(path: Path, files: Files) -> Path:
    """An archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as content:
            for name, data in files.items():
                content.writestr(name, data, zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def unpack(path: Path) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return archive.unpacked(path, lines.append), lines


def build(root: Path, lines: list[str] | None = None) -> TrainData:
    settings = DataSettings(name="imagefolder", root=str(root), image_size=8, workers=0)
    said = [] if lines is None else lines
    return build_data(settings, AugmentSettings(), seed=0, device=torch.device("cpu"), say=said.append)


def found(folder: Path) -> Files:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def left(here: Path) -> list[str]:
    """What is in the cache, but for locks; and beside it, but for archives."""
    kept = [file.name for file in (here / "cache").rglob("*") if not file.name.endswith(".lock")]
    return [name for name in kept if name not in ("cnntrain", "archives")] + [
        file.name for file in here.iterdir() if file.name != "cache" and not file.name.endswith(ARCHIVES)
    ]


@pytest.mark.parametrize("end", ARCHIVES)
@pytest.mark.parametrize("top", ["", "./", "photos/", "a/b/"])
def test_an_archive_is_the_folder_that_it_holds(here: Path, end: str, top: str) -> None:
    folder, lines = unpack(pack(here / f"photos{end}", photos(top)))
    assert found(folder) == photos()
    assert lines[-1].startswith(f"photos{end}: unpacked 12 files, 0 MB, into {here}/cache/cnntrain/archives/photos-")
    assert unpack(here / f"photos{end}") == (folder, [])


def test_the_data_are_those_of_the_folder(here: Path) -> None:
    splits = photos("data/train/") | photos("data/test/", count=2)
    for name, content in splits.items():
        (here / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "folder" / name).write_bytes(content)
    ours, theirs = build(pack(here / "x.zip", splits)), build(here / "folder" / "data")
    assert (ours.fingerprint, ours.marks, ours.mean) == (theirs.fingerprint, theirs.marks, theirs.mean)
    assert ours.test
    assert len(ours.test.labels) == 4


def test_a_folder_of_a_split_is_not_looked_through(here: Path) -> None:
    assert unpack(pack(here / "a.zip", photos("train/")))[0].name != "train"
    assert unpack(pack(here / "b.zip", photos("", ("cat",))))[0].name != "cat"


def test_another_archive_of_that_name_is_unpacked_anew(here: Path) -> None:
    first = unpack(pack(here / "x.zip", photos()))[0]
    second = unpack(pack(here / "x.zip", photos(count=3)))[0]
    assert len(found(first)) == 12
    assert len(found(second)) == 6


def test_what_systems_add_to_archives_is_left_out(here: Path) -> None:
    files = photos("pets/") | {"__MACOSX/pets/._0.png": b"x", "pets/.DS_Store": b"x", "pets/readme.txt": b"hello"}
    assert found(unpack(pack(here / "x.tgz", files))[0]) == photos() | {"readme.txt": b"hello"}


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = ("кошка", "いぬ", "naïve \x1b[31m")


@pytest.mark.parametrize("end", ARCHIVES)
def test_names_of_any_script_come_out_as_they_were(here: Path, end: str) -> None:
    assert found(unpack(pack(here / f"фото{end}", photos("", NAMES)))[0]) == photos("", NAMES)
    assert set(build(here / f"фото{end}").classes) == set(map(printable, NAMES))


def test_utf_8_without_a_word_of_it_and_backslashes_are_understood(here: Path) -> None:
    path = pack(here / "x.zip", {"katz\\0.png": b"1", "kaetzchen1/0.png": b"2"})
    path.write_bytes(path.read_bytes().replace(b"kaetzchen1", "кошка".encode()))
    assert found(unpack(path)[0]) == {"katz/0.png": b"1", "кошка/0.png": b"2"}


@pytest.mark.parametrize("end", ARCHIVES)
@pytest.mark.parametrize(
    "name", ["../evil.png", "/evil.png", "cat/../../evil.png", "cat/..", "C:/evil.png", "C:evil.png", "./"]
)
def test_a_name_that_leads_out_is_refused(here: Path, end: str, name: str) -> None:
    if name == "./" and end == ".zip":
        pytest.skip("a folder")
    with pytest.raises(UnsafeError, match="leads out of it; nothing of it is used") as fault:
        unpack(pack(here / f"x{end}", photos() | {name: b"x"}))
    assert str(fault.value).startswith(f"{here}/x{end}: ")
    assert left(here) == []
    assert not list(here.parent.glob("evil*"))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_in_a_tar_file_are_refused(here: Path, kind: bytes) -> None:
    pack(here / "x.tar", photos())
    with tarfile.open(here / "x.tar", "a") as tar:
        info = tarfile.TarInfo("cat/link.png")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(CnntrainError) as fault:
        unpack(here / "x.tar")
    assert isinstance(fault.value, UnsafeError) or kind == tarfile.GNUTYPE_SPARSE
    assert left(here) == []


def test_a_link_in_a_zip_file_is_refused(here: Path) -> None:
    with zipfile.ZipFile(here / "x.zip", "w") as content:
        for name, data in photos().items():
            content.writestr(name, data)
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeError, match=r"'cat/link\.png' is a link or device"):
        unpack(here / "x.zip")
    assert left(here) == []


def test_a_name_moves_no_cursor(here: Path) -> None:
    with pytest.raises(UnsafeError) as fault:
        unpack(pack(here / "x.tar", {"../\x1b[2Jevil\n.png": b"x"}))
    assert str(fault.value).isprintable()


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ARCHIVES)
@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"MOST_FILES": 11}, "holds more than 11 files; unpack it"),
        ({"MOST_BYTES": 5000}, "holds more than 0 GB; unpack it"),
        ({"SMALL": 100_000, "MOST_GROWTH": 50}, "grows to more than 50 times its size, as no images do; unpack it"),
    ],
    ids=["files", "bytes", "growth"],
)
def test_what_would_fill_the_disk_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, end: str, limits: dict[str, int], text: str
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(archive_entries, name, value)
    if end == ".tar" and "SMALL" in limits:
        pytest.skip("it does not grow")
    pack(here / f"x{end}", photos() | {"cat/bomb.png": bytes(3_000_000)})
    with pytest.raises(DataError, match=text):
        unpack(here / f"x{end}")
    assert left(here) == []


def test_a_full_disk_is_told_before_it_is_full(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    for end in ARCHIVES:
        with pytest.raises(FileSystemError, match=r"it needs \d\.\d MB, 0\.0 MB are free"):
            unpack(pack(here / f"x{end}", photos() | {"cat/large.png": os.urandom(2_000_000)}))
    assert left(here) == []


def test_a_cache_that_cannot_be_written_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(pack(here / "x.zip", photos())))
    with pytest.raises(FileSystemError, match="choose another place with XDG_CACHE_HOME=DIR"):
        unpack(here / "x.zip")


def test_a_forged_name_fills_no_memory(here: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (here / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match="is damaged"):
        unpack(here / "x.tar")


# --- damage ----------------------------------------------------------------------------------------------------------


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    """One bit of the middle, where pixels lie."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    ("end", "damage"),
    [
        *((end, damage) for end in ARCHIVES for damage in (_cut, lambda data: b"", lambda data: b"no archive" * 99)),
        *((end, _flip) for end in (".zip", ".tgz")),
        (".tar", lambda data: data[: 1024 * 3]),  # between two files
        (".tgz", lambda data: gzip.compress(gzip.decompress(data)[:3072])),
        (".tgz", lambda data: data[:-4]),
    ],
)
def test_damage_is_told_and_nothing_of_it_is_used(here: Path, end: str, damage: Callable[[bytes], bytes]) -> None:
    path = pack(here / f"x{end}", photos())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as fault:
        unpack(path)
    assert str(fault.value).startswith(f"{path} is damaged (")
    assert str(fault.value).endswith("; fetch or make it anew")
    assert left(here) == []


def test_an_encrypted_zip_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(pack(here / "x.zip", photos()).read_bytes())
    for sign, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := data.find(sign, at + 1)) >= 0:
            struct.pack_into("<H", data, at + place, 1)
    (here / "x.zip").write_bytes(data)
    assert cli.main(["data=imagefolder", "data.root=x.zip"]) == 3
    told = capsys.readouterr().err
    assert told == f"cnntrain: error: {here}/x.zip is encrypted; unpack it, and give the folder\n"
    assert not (here / "outputs").exists() or not list((here / "outputs").rglob("config.yaml"))


def test_the_same_name_twice_is_told(here: Path) -> None:
    path = pack(here / "x.zip", {"cat/0.png": b"1", "cat/1.png": b"2"})
    path.write_bytes(path.read_bytes().replace(b"1.png", b"0.png"))
    with pytest.raises(DataError, match=r"holds 'cat/0\.png' twice"):
        unpack(here / "x.zip")


@pytest.mark.parametrize("name", ["cat/0.png/1.png", f"cat/{'x' * 300}.png"])
def test_names_that_no_folder_can_hold_are_told_of_the_archive(here: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"x.zip holds .*; make it anew"):
        unpack(pack(here / "x.zip", photos() | {name: b"1"}))
    assert left(here) == []


def test_nothing_is_unpacked_through_a_link(here: Path) -> None:
    folder, _ = unpack(pack(here / "x.zip", photos()))
    shutil.rmtree(folder)
    (here / "other").mkdir()
    (here / "other" / "file").write_text("of somebody")
    folder.with_name(f".{folder.name}.part").symlink_to(here / "other")
    assert unpack(here / "x.zip")[0] == folder
    assert not folder.is_symlink()
    assert found(here / "other") == {"file": b"of somebody"}


def test_an_archive_that_may_not_be_read_is_not_called_damaged(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = pack(here / "x.zip", photos())
    monkeypatch.setattr(archive, "entries", refuse)
    with pytest.raises(DataError, match=r"x\.zip cannot be read \(Permission denied\); mend that"):
        unpack(path)


def test_an_archive_without_files_is_told(here: Path) -> None:
    with pytest.raises(DataError, match="holds no files"):
        unpack(pack(here / "x.zip", {}))


# --- two at once, and one that was killed ----------------------------------------------------------------------------


def test_a_folder_that_was_left_half_done_is_never_used(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(here / "x.zip", photos())
    write, count = archive._write, 0

    def die(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        write(*args)

    monkeypatch.setattr(archive, "_write", die)
    monkeypatch.setattr(archive, "_remove", lambda folder: None)  # as a killed process does
    with pytest.raises(KeyboardInterrupt):
        unpack(path)
    monkeypatch.undo()
    os.environ["XDG_CACHE_HOME"] = str(here / "cache")
    (aside,) = (here / "cache" / "cnntrain" / "archives").glob(".*.part")
    assert len(found(aside)) == 4
    folder, _ = unpack(path)
    assert found(folder) == photos()
    assert not aside.exists()


def test_of_two_at_once_one_unpacks_and_the_other_waits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two threads: a lock belongs to an open file, of which each has its own, as two processes do."""
    path, begun, go = pack(here / "x.zip", photos()), threading.Event(), threading.Event()
    extract, count = archive._extract_all, 0

    def wait(*args: Any) -> tuple[int, int]:
        nonlocal count
        count += 1
        begun.set()
        assert go.wait(20)
        return extract(*args)

    monkeypatch.setattr(archive, "_extract_all", wait)
    results: list[Path] = []

    def say(line: str) -> None:
        if line == "x.zip: another process unpacks it; waiting for it":
            go.set()

    threads = [threading.Thread(target=lambda: results.append(archive.unpacked(path, say))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert count == 1
    assert results[0] == results[1]
    assert found(results[0]) == photos()


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_keeps_the_archive_and_is_scored_and_resumed_from_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(here / "pets.zip", photos("pets/train/", count=20) | photos("pets/test/", count=2))
    line = ["data=imagefolder", "data.root=pets.zip", "model=lenet5", "data.image_size=32", "data.batch_size=8"]
    assert cli.main([*line, "trainer.max_steps=2", "trainer.tensorboard=false", "trainer.threads=1"]) == 0
    assert "\nlenet5 on pets\n" in capsys.readouterr().out
    (run,) = (here / "outputs" / "pets" / "lenet5").iterdir()
    assert f"root: {here}/pets.zip\n" in (run / "config.yaml").read_text()
    shutil.rmtree(here / "cache")
    assert cli.main(["resume", str(run), "trainer.max_steps=3"]) == 0
    assert "the images" not in capsys.readouterr().err
    assert cli.main(["eval", str(run)]) == 0
    (here / "cat.png").write_bytes(picture(0))
    assert cli.main(["predict", str(run), "images=cat.png"]) == 0
    assert cli.main(["pack", "data=imagefolder", "data.root=pets.zip", "out=packed", "size=16"]) == 0


def test_a_file_that_is_no_archive_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(here / "photos.zip", photos()).rename(here / "photos.rar")
    assert cli.main(["data=imagefolder", "data.root=photos.rar"]) == 3
    assert "photos.rar is a file, not a folder; give " in (told := capsys.readouterr().err)
    assert "or an archive of it (.zip, .tar, .tar.gz, .tgz)" in told
    pack(here / "photos.zip", photos())
    assert cli.main(["data=photos.zip"]) == 2
    assert "did you mean data=imagefolder data.root=photos.zip?" in capsys.readouterr().err
