"""`cnntrain predict`: mistakes, bad images and strangers."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from predicted import LURID, read, run

from cnntrain import cli
from cnntrain.commands import predict
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.unlabelled import data_without_images
from cnntrain.errors import ConfigError, DataError
from cnntrain.storage import checkpoint


def test_a_bad_image_is_left_out_and_listed_or_ends_the_call_with_its_name(among_runs, capsys):
    Path("new/red/0.png").write_bytes(b"")
    assert run("predict", "run", "images=new", "data.on_bad_image=error") == 3
    assert "new/red/0.png: the file is empty" in capsys.readouterr().err
    results = predict.run(read("run", "images=new", "out=new.csv"))
    assert results["images"] == 11
    *rows, bad = csv.reader(Path("new.csv").read_text().splitlines())
    assert {row[-1] for row in rows} == {"error", ""}
    assert (len(rows), bad[0], bad[-1], set(bad[1:-1])) == (12, "new/red/0.png", "the file is empty", {""})
    assert results["skipped"] == [{"file": "new/red/0.png", "reason": "the file is empty"}]
    assert "left out, 1 of 12 images cannot be decoded:\n  new/red/0.png" in capsys.readouterr().out
    assert run("predict", "run", "images=new/red/0.png") == 3
    assert "images: none of 1 can be decoded" in capsys.readouterr().err


def test_foreign_code_is_not_followed_out_of_a_run(among_runs, capsys):
    state = checkpoint.load(Path("digits/checkpoints/best"))
    state["about"]["config"]["model"]["name"] = "theirs.nets:build"
    Path("theirs").mkdir()
    checkpoint.save(Path("theirs"), state)
    assert run("predict", "theirs", "images=new") == 8
    assert "repeat model.name=theirs.nets:build" in capsys.readouterr().err


def test_what_only_the_images_of_the_run_could_tell_is_refused():
    settings = DataSettings(name="imagefolder", root="gone", image_size=32, channels=3, mean=[0.5], std=[0.2, 0.3, 0.4])
    data = data_without_images(settings, ["a", "b"], "")
    assert (data.mean, data.std, data.eval_size) == ([0.5] * 3, [0.2, 0.3, 0.4], 32)
    for wrong in ({"mean": None}, {"image_size": None}, {"channels": 1}):
        with pytest.raises(ConfigError, match=r"^data\.\w+: "):
            data_without_images(replace(settings, **wrong), ["a", "b"], "")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "images: missing; give a file, a folder, or a pattern"),
        (["images="], 2, "images: missing"),
        (["new/red/0.png"], 2, "new/red/0.png: not KEY=VALUE; did you mean images=new/red/0.png?"),
        (["images=none.jpg"], 3, "images: none.jpg is not there; give a file"),
        (["images=[new,none.jpg]"], 3, "images: none.jpg is not there"),
        (["images=new/*.jpg"], 3, "images: new/*.jpg matches nothing"),
        (
            ["images=run/checkpoints"],
            3,
            "images: run/checkpoints: no images there (2 x .json file that is no image, 2 x .pt",
        ),
        (["images=new", "tta=mirror"], 2, "tta: must be among hflip, vflip, shift, crops (given mirror)"),
        (["images=new", "top=0"], 2, "top: must be a whole number >= 1 (given 0)"),
        (["images=new", "top=" + "9" * 5000], 2, "top: must be a whole number >= 1 (given 9999"),
        (["images=new", "out=a.txt"], 2, "out: must end in .csv, .json, .parquet or .png (given a.txt)"),
        (["images=new", "out=.csv"], 2, "out: must have a name before its end (given .csv); write out=FILE.csv"),
        (["images=new", "out=no/a.csv"], 6, "out: no is no folder"),
        (["images=new", "data.image_sise=3"], 2, "did you mean data.image_size?"),
        (["images=new", "model=resnet18"], 2, "model: cannot be chosen again"),
        (["images=new", "--gpu"], 2, "--gpu: no flag of predict"),
    ],
)
def test_each_mistake_is_one_line_with_what_to_do(among_runs, capsys, words, code, told):
    assert run("predict", "run", *words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_no_image_is_written_over(among_runs, capsys):
    photo = next(Path("new").glob("red/*.png"))
    Path("link.png").symlink_to(photo)
    for out in (photo, "link.png"):
        before = photo.read_bytes()
        assert run("predict", "run", "images=new", f"out={out}") == 2
        assert f"out: {photo} is one of the images; write out=FILE.csv\n" in capsys.readouterr().err
        assert photo.read_bytes() == before


def test_all_faults_are_told_at_once(among_runs):
    with pytest.raises(ConfigError) as found:
        read("run", "images=none.jpg", "top=x", "tta=", "out=")
    keys = [line.partition(":")[0] for line in str(found.value).splitlines()]
    assert keys == ["top", "tta", "out", "images"]
    with pytest.raises(DataError):
        read("run", "images=none.jpg")


def test_files_may_have_any_name_and_count_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].jpg", "b,c.jpg", "d e.jpg"):
        Path(name).touch()
    args = read("run", "images=a[1].jpg", "trainer.device=cpu", "top=3")
    assert args.words == ("trainer.device=cpu",)
    assert (args.images, args.top) == ((Path("a[1].jpg"),), 3)
    assert read("run", "images=b,c.jpg").images == (Path("b,c.jpg"),)
    assert read("run", "images=['d e.jpg',*.jpg]").images == (Path("d e.jpg"), Path("a[1].jpg"), Path("b,c.jpg"))


def test_a_forged_checkpoint_writes_nothing_but_letters(among_runs, capsys):
    state = checkpoint.load(checkpoint.find(Path("run")))
    state["about"] |= {"classes": LURID}
    state["about"]["config"]["data"]["root"] = "\x1b[31m/nowhere"
    Path("forged").mkdir()
    checkpoint.save(Path("forged"), state, best=True)
    code = {}
    for words in (["predict", "forged", "images=new"], ["eval", "forged"], ["explain", "forged"]):
        code[words[0]] = cli.main(words)
        told = capsys.readouterr()
        assert all(line.isprintable() for line in (told.out + told.err).split("\n"))
    assert code == {"predict": 0, "eval": 3, "explain": 3}
