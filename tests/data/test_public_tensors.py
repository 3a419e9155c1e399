"""Public data sets by name that are read into memory whole."""

import numpy as np
import pytest
import torch
from public_sets import TENSORS, Parts

from cnntrain import cli
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DATASETS, DataSettings
from cnntrain.data.build import build_data
from cnntrain.errors import ConfigError, DataError

CPU = torch.device("cpu")


def build(name, root, **settings):
    chosen = DataSettings(**{"name": name, "root": str(root), "val": 10} | settings)
    return build_data(chosen, AugmentSettings(), seed=0, device=CPU, say=list)


def lay_out(name, root, patch, variant="") -> Parts:
    folder = root / DATASETS[name].home
    folder.mkdir(parents=True)
    return TENSORS[name](folder, patch, variant)


def prints(loader) -> dict[bytes, int]:
    """The label of each image."""
    images = torch.cat([batch.images for batch in loader.batches()])
    labels = torch.cat([batch.labels for batch in loader.batches()])
    return {image.contiguous().numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize("name", TENSORS)
def test_a_data_set_is_read_whole_with_its_own_test_part(tmp_path, monkeypatch, name):
    parts = lay_out(name, tmp_path, monkeypatch)
    size = parts["train"][0].shape[2]
    data = build(name, tmp_path, image_size=size)
    known = {
        split: {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
        for split, (images, labels) in parts.items()
    }
    assert prints(data.test) == known["test"]
    assert prints(data.train) | prints(data.val) == known["train"]
    assert (data.train.images, data.val.images) == (30, 10)
    entry = DATASETS[name]
    assert (len(data.classes), data.channels) == (entry.classes, entry.channels)
    assert len(set(data.classes)) == len(data.classes)
    told = f"mean and std: the known ones of {name}" if entry.mean else "mean and std: computed on the training images"
    assert told in data.notes


@pytest.mark.parametrize(("variant", "first", "last"), [("letters", "a", "z"), ("digits", "0", "9")])
def test_a_variant_has_its_own_files_and_classes(tmp_path, monkeypatch, variant, first, last):
    parts = lay_out("emnist", tmp_path, monkeypatch, variant)
    data = build("emnist", tmp_path, args={"split": variant})
    assert (data.classes[0], data.classes[-1]) == (first, last)
    assert len(data.classes) == DATASETS["emnist"].class_count({"split": variant})
    image, label = parts["test"][0][3], parts["test"][1][3]
    assert prints(data.test)[image.tobytes()] == label


def test_a_variant_that_is_none_is_refused_before_torch(here, capsys):
    for word, line in {
        "split=letter": "data.args.split: must be one of balanced, letters, digits, mnist, byclass, bymerge",
        "part=1": "data.args.part: must be left out: of emnist data.args takes split alone (given 1)",
    }.items():
        assert cli.main(["data=emnist", f"data.args.{word}"]) == 2
        assert f"error: {line}" in capsys.readouterr().err
    assert cli.main(["data=kmnist", "data.args.split=letters"]) == 2
    assert "data.args.split: is for a function of yours, and data.name is kmnist" in capsys.readouterr().err


FILES = {
    "kmnist": "t10k-images-idx3-ubyte",
    "qmnist": "qmnist-test-labels-idx2-int",
    "emnist": "emnist-balanced-train-images-idx3-ubyte",
    "usps": "usps.t.bz2",
    "svhn": "test_32x32.mat",
    "stl10": "unlabeled_X.bin",
}


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_damaged_file_is_named(tmp_path, monkeypatch, name):
    lay_out(name, tmp_path, monkeypatch)
    folder = tmp_path / DATASETS[name].home
    file = folder / FILES[name]
    file.write_bytes(file.read_bytes()[:-5] or b"x")
    with pytest.raises(DataError, match=rf"^{file}: .*; delete {folder} and run again with data.download=true$"):
        build(name, tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=rf"^{file}: a file of {name} is missing; set data.download=true"):
        build(name, tmp_path)


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.downloads and not entry.is_hub])
def test_a_data_set_that_is_absent_says_how_to_get_it_and_where_it_goes(tmp_path, name):
    with pytest.raises(DataError, match=rf"^data\.root: {name} is not in {tmp_path} \(no \S+/ there\); set data\.down"):
        build(name, tmp_path)


@pytest.mark.parametrize(("name", "fetched"), [("qmnist", 2), ("svhn", 2), ("usps", 2), ("kmnist", 1), ("stl10", 1)])
def test_each_part_that_is_fetched_by_itself_is_fetched(tmp_path, monkeypatch, name, fetched):
    import torchvision.datasets

    calls = []
    kind = getattr(torchvision.datasets, DATASETS[name].kind)
    make = kind.__init__

    def fetch(self, root, *args, download=False, **part):
        if download and not calls:
            lay_out(name, tmp_path, monkeypatch)
        calls.extend([part] if download else [])
        make(self, root, *args, **part)

    monkeypatch.setattr(kind, "__init__", fetch)
    assert build(name, tmp_path, download=True).test.images == 20
    assert len(calls) == fetched == len({str(part) for part in calls})


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    lay_out("svhn", tmp_path, monkeypatch)
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(ConfigError, match=r"^data\.name: svhn needs scipy to read its files, not installed here; pip"):
        build("svhn", tmp_path)


def test_a_run_on_a_named_data_set_takes_the_recipe_of_the_one_it_is_like(here, monkeypatch, capsys):
    lay_out("kmnist", here / "data", monkeypatch)
    assert cli.main(["data=kmnist", "trainer.max_steps=2", "trainer.tensorboard=false"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("lenet5 on kmnist\n")
    assert "pad_crop padding=2" in told
    assert np.any(list((here / "outputs" / "kmnist" / "lenet5").iterdir()))
