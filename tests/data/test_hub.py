"""Data sets of the Hugging Face hub: from a folder of its files, from its cache, and what is refused."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.data.build import build_data
from cnntrain.data.hub_labels import numbered
from cnntrain.errors import DataError
from cnntrain.storage import checkpoint

QUICK = ["model=softmax", "data.image_size=16", "data.batch_size=8", "trainer.threads=1", "trainer.tensorboard=false"]
QUICK += ["trainer.epochs=2", "schedule=constant", "augment=none", "data.workers=0"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ["cat", "dog"]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The library, with a cache of its own."""
    pytest.importorskip("pyarrow")
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "ours"))
    return library


def png(seed: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    pixels[:10, :, seed % 2] //= 4  # by which the classes are told apart
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def records(count: int, start: int = 0) -> dict[str, list[Any]]:
    """Images by turns of the two classes, as the hub has them."""
    seeds = range(start, start + count)
    return {"image": [{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds], "label": [s % 2 for s in seeds]}


def save(library, folder: Path, features=None, **splits) -> Path:
    """A folder as `push_to_hub` lays it out, in two files for each split."""
    features = features or {"image": library.Image(), "label": library.ClassLabel(names=NAMES)}
    for split, columns in splits.items():
        part = library.Dataset.from_dict(columns, features=library.Features(features))
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for number in range(2):
            part.shard(2, number, contiguous=True).to_parquet(folder / "data" / f"{split}-{number:05}-of-00002.parquet")
    return folder


def cache(library, folder: Path, name: str) -> None:
    """A data set in the cache, as load_dataset leaves it there of one that it has fetched."""
    whole = library.load_dataset(str(folder))
    place = Path(library.config.HF_DATASETS_CACHE, name.replace("/", "___"), "default", "0.0.0", COMMIT)
    place.parent.mkdir(parents=True)
    made = Path(whole["train"].cache_files[0]["filename"]).parent
    made.rename(place)
    for file in place.glob("*.arrow"):
        file.rename(file.with_name(file.name.replace(folder.name, name.partition("/")[2], 1)))


def build(*words):
    settings = compose_settings(["data=hf", *QUICK, *words])
    return build_data(settings.data, settings.augment, seed=0, device=torch.device("cpu"), say=lambda line: None)


def fault(capsys, *words, code=3) -> str:
    assert cli.main(["data=hf", *words, *QUICK]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cnntrain: error: ")]
    return line.removeprefix("cnntrain: error: ")


# ---- what is read ----


def test_parquet_files_in_a_folder_give_the_pixels_and_labels_that_were_written(tmp_path, datasets):
    root = save(datasets, tmp_path / "pets", train=records(10), validation=records(4, 10), test=records(6, 14))
    data = build(f"data.root={root}")
    assert data.classes == NAMES
    assert [len(loader.labels) for loader in (data.train, data.val, data.test)] == [10, 4, 6]
    for loader, start in ((data.train, 0), (data.val, 10), (data.test, 14)):
        for index in range(len(loader.labels)):
            pixels = np.array(Image.open(io.BytesIO(png(start + index))))
            assert torch.equal(loader.decoder.paths.pixels(index, 3), torch.from_numpy(pixels))
            assert int(loader.labels[index]) == (start + index) % 2


def test_the_cache_is_found_by_name_without_a_network(tmp_path, datasets, monkeypatch):
    cache(datasets, save(datasets, tmp_path / "pets", train=records(10), test=records(4, 10)), "owner/pets")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    data = build("data.root=owner/pets", "data.args.revision=0123")
    assert [len(loader.labels) for loader in (data.train, data.val, data.test)] == [8, 2, 4]
    assert data.train.name(0) == "owner/pets/train/0"


def test_a_run_resumes_and_is_scored_with_the_same_bits(tmp_path, datasets, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache(datasets, save(datasets, tmp_path / "pets", train=records(24), validation=records(8, 24)), "owner/pets")
    words = ["data=hf", "data.root=owner/pets", *QUICK, "data.loader=stream"]
    assert cli.main([*words, "out=whole"]) == 0
    assert cli.main([*words, "out=parted", "trainer.epochs=1"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["resume", str(tmp_path / "parted"), "trainer.epochs=2"]) == 0
    whole, parted = (checkpoint.load(tmp_path / run / "checkpoints" / "last")["model"] for run in ("whole", "parted"))
    assert all(torch.equal(whole[key], parted[key]) for key in whole)
    assert cli.main(["eval", str(tmp_path / "parted"), "out=scores.json"]) == 0
    scores, results = (json.loads(Path(file).read_text()) for file in ("scores.json", tmp_path / "whole/results.json"))
    assert scores["val"]["top1"] == results["val"]["top1"]
    assert (tmp_path / "whole/splits.csv").read_text().splitlines()[1] == "train/0,train"


def test_the_splits_of_a_run_are_read_again(tmp_path, datasets, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(datasets, tmp_path / "pets", train=records(10))
    (tmp_path / "splits.csv").write_text(
        "name,split\n" + "".join(f"train/{row},{'val' if row > 7 else 'train'}\n" for row in range(10))
    )
    data = build("data.root=pets", "data.split_file=splits.csv")
    assert [data.val.name(row).rpartition("/")[2] for row in range(2)] == ["8", "9"]


def test_texts_are_classes_and_columns_of_other_names_are_chosen(tmp_path, datasets):
    columns = records(10)
    columns |= {"photo": columns.pop("image"), "fine": [["b", "a"][one] for one in columns["label"]]}
    features = {"photo": datasets.Image(), "fine": datasets.Value("string"), "label": datasets.Value("int64")}
    root = save(datasets, tmp_path / "pets", features, train=columns)
    assert build(f"data.root={root}").classes == ["0", "1"]
    data = build(f"data.root={root}", "data.columns.label=fine", "data.columns.file=photo")
    assert data.classes == ["a", "b"]
    assert build(f"data.root={root}", "data.columns.label=fine", "data.classes=[b,a]").classes == ["b", "a"]


def test_splits_of_other_names_are_named(tmp_path, datasets, capsys):
    root = save(datasets, tmp_path / "pets", clean=records(10), noisy=records(4, 10))
    assert "none of its splits is train, val or test (clean, noisy)" in fault(capsys, f"data.root={root}")
    data = build(f"data.root={root}", "data.args.train=clean")
    assert len(data.train.labels) + len(data.val.labels) == 10
    assert any("not used of pets: noisy" in note for note in data.notes)


def test_images_without_a_label_are_left_out(tmp_path, datasets):
    hidden = records(4, 10) | {"label": [-1] * 4}
    data = build(f"data.root={save(datasets, tmp_path / 'pets', train=records(10), test=hidden)}")
    assert data.test is None
    assert "test: 4 images without a label, not used" in data.notes


def test_what_was_saved_to_disk_is_read(tmp_path, datasets):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    whole = datasets.DatasetDict({"train": datasets.Dataset.from_dict(records(10), features=features)})
    whole.save_to_disk(tmp_path / "saved")
    data = build(f"data.root={tmp_path}/saved")
    assert len(data.train.labels) + len(data.val.labels) == 10


def test_a_pack_and_a_look_take_such_images(tmp_path, datasets, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    both = records(10)
    both["image"][9] = both["image"][1]
    save(datasets, tmp_path / "pets", train=both, test=records(4, 10))
    assert cli.main(["check", "data=hf", "data.root=pets", "steps=0"]) == 0
    assert "train/9" in capsys.readouterr().out
    assert cli.main(["pack", "data=hf", "data.root=pets", "size=16", "out=packed"]) == 0
    assert cli.main(["data=imagefolder", "data.root=packed", *QUICK, "data.val=2"]) == 0


# ---- what is refused ----


def test_a_script_is_never_run(tmp_path, datasets, capsys):
    root = save(datasets, tmp_path / "pets", train=records(4))
    (root / "pets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "made by a program of its own, which is never run" in fault(capsys, f"data.root={root}")
    assert not (tmp_path / "ran").exists()


def test_lists_of_labels_are_sets(tmp_path, datasets, capsys):
    columns = records(12)
    sets = [
        [label] * (place % 3 > 0) + [1 - label] * (place % 3 > 1) for place, label in enumerate(columns.pop("label"))
    ]
    for kind, values in ((datasets.ClassLabel(names=NAMES), sets), (datasets.Value("string"), None)):
        values = values or [[NAMES[label] for label in row] for row in sets]
        features = {"image": datasets.Image(), "labels": datasets.Sequence(kind)}
        root = save(datasets, tmp_path / type(kind).__name__, features, train=columns | {"labels": values})
        assert "'labels' holds several labels for each image; set data.multi_label=true" in fault(
            capsys, f"data.root={root}", code=2
        )
        settings = compose_settings(["data=hf", f"data.root={root}", "data.multi_label=true", "loss=bce", "data.val=0"])
        data = build_data(settings.data, settings.augment, seed=0, device=torch.device("cpu"), say=list)
        assert data.classes == NAMES
        known = [[name in row for name in (0, 1)] for row in sets]
        assert sorted(data.train.labels.tolist()) == sorted(known)
    root = save(datasets, tmp_path / "single", train=records(4))
    told = fault(capsys, f"data.root={root}", "data.multi_label=true", "loss=bce", code=2)
    assert "'label' holds one label for each image; set data.multi_label=false" in told


def test_each_mistake_gets_one_line(tmp_path, datasets, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = save(datasets, tmp_path / "pets", train=records(10), test=records(4, 10) | {"label": [1] * 4})
    told = {
        ("data.root=owner/none",): (3, "data.root: owner/none is no folder here, and not in"),
        ("data.root=none",): (3, f"data.root: {tmp_path}/none is not there; give OWNER/NAME"),
        ("data.root=pets", "data.columns.label=labl"): (2, "data.columns.label: no such column 'labl'; did you mean"),
        ("data.root=pets", "data.columns.group=x"): (2, "data.columns.group: is for a table of files"),
        ("data.root=pets", "data.args.tset=x"): (2, "data.args.tset: must be one of data.args."),
        ("data.root=pets", "data.args.test=x"): (2, "data.args.test: no split 'x'; there are train, test"),
        ("data.root=pets", "data.args.config=x"): (2, "data.args.config: pets"),
    }
    for words, (code, line) in told.items():
        assert line in fault(capsys, *words, code=code).replace(str(root), "pets")
    cache(datasets, root, "owner/pets")
    line = fault(capsys, "data.root=owner/pets", "data.args.revision=fff")
    assert f"is in the cache with the commit {COMMIT} (given fff)" in line
    assert not (tmp_path / "outputs").exists()


def test_a_class_that_is_tested_and_not_learnt_is_refused(tmp_path, datasets, capsys):
    features = {"image": datasets.Image(), "label": datasets.Value("string")}
    train, test = records(6) | {"label": ["a", "b"] * 3}, records(4, 6) | {"label": ["a", "b", "c", "c"]}
    root = save(datasets, tmp_path / "pets", features, train=train, test=test)
    assert "class 'c' is in test and not in train" in fault(capsys, f"data.root={root}")


@pytest.mark.parametrize("label", [2, -2])
def test_a_label_that_is_the_number_of_no_class_is_told(label):
    with pytest.raises(
        DataError, match=rf"columns.label: 'y' holds {label} in train, and its classes are 0 to 1; mend"
    ):
        numbered(SimpleNamespace(names=NAMES), {"train": [0, 1, -1, None, label]}, "y")


def test_a_bad_image_is_named_by_its_split_and_row(tmp_path, datasets, capsys):
    columns = records(10)
    columns["image"][3] = {"bytes": b"no image", "path": "3.png"}
    root = save(datasets, tmp_path / "pets", train=columns, test=records(2, 10))
    assert "pets/train/3: not an image of a known kind; mend the data set" in fault(capsys, f"data.root={root}")
    assert cli.main(["data=hf", f"data.root={root}", *QUICK, "data.on_bad_image=skip", f"out={tmp_path}/run"]) == 0


def test_without_the_library_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "datasets" else find(name))
    line = fault(capsys, "data.root=owner/pets", code=2)
    assert line == "data: hf needs datasets, not installed here; pip install 'cnntrain[hf]'"


def test_a_library_that_would_run_code_is_refused(monkeypatch, capsys):
    old = ModuleType("datasets")
    vars(old).update(__version__="3.6.0", __spec__=importlib.util.find_spec("json"))
    monkeypatch.setitem(sys.modules, "datasets", old)
    assert "datasets 4 or newer, which never runs a data set's own code (here is 3.6.0)" in fault(
        capsys, "data.root=owner/pets", code=2
    )
