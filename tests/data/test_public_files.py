"""Public data sets by name whose images are files."""

import json
from pathlib import Path

import pytest
import torch
from public_sets import FILES, Names

from cnntrain import cli
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DATASETS, DataSettings
from cnntrain.data.build import build_data
from cnntrain.errors import ConfigError, DataError

CPU = torch.device("cpu")


def home(name: str, root: Path) -> Path:
    entry = DATASETS[name]
    return root / entry.home.format(**entry.arguments({}))


def lay_out(name, root, patch) -> Names:
    home(name, root).mkdir(parents=True)
    return FILES[name](home(name, root), patch)


def build(name, root, **settings):
    known = {"name": name, "root": str(root), "val": 2, "mean": [0.5], "std": [0.5], "workers": 0, "image_size": 8}
    return build_data(DataSettings(**known | settings), AugmentSettings(), seed=0, device=CPU, say=list)


def names_of(loader, classes) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for index, label in enumerate(loader.labels.tolist()):
        files.setdefault(classes[label], []).append(Path(loader.name(index)).name)
    return {name: sorted(part) for name, part in files.items()}


@pytest.mark.parametrize("name", FILES)
def test_files_have_the_class_and_the_split_that_the_data_set_gives_them(tmp_path, monkeypatch, name):
    expected = lay_out(name, tmp_path, monkeypatch)
    data = build(name, tmp_path)
    assert sorted(data.classes) == sorted(expected["train"])
    loaders = {"train": data.train, "val": data.val, "test": data.test}
    found = {split: names_of(loader, data.classes) for split, loader in loaders.items() if loader}
    if "val" not in expected:
        taken = found.pop("val")
        assert sum(map(len, taken.values())) == 2
        for one, files in taken.items():
            found["train"][one] = sorted(found["train"][one] + files)
    assert found == {split: {one: sorted(files) for one, files in part.items()} for split, part in expected.items()}
    (images, _, *_), *_ = data.train.batches()  # they can be read
    assert images.shape[1:] == (3, 8, 8)


@pytest.mark.parametrize("name", ["food101", "gtsrb", "flowers102"])
def test_a_missing_or_damaged_list_and_missing_files_are_one_line(tmp_path, monkeypatch, name):
    expected = lay_out(name, tmp_path, monkeypatch)
    folder = home(name, tmp_path)
    first = next(iter(expected["test"].values()))[0]
    (file,) = folder.rglob(first)
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(DataError, match=rf"^{file} of {name} cannot be found; delete {folder} and run again with data"):
        build(name, tmp_path)
    file.write_bytes(content)
    lists = {"food101": "meta/test.json", "gtsrb": "GT-final_test.csv", "flowers102": "setid.mat"}
    for damage in (b"damaged", None):
        if damage:
            (folder / lists[name]).write_bytes(damage)
        else:
            (folder / lists[name]).unlink()
        with pytest.raises(DataError, match=rf"^{folder}: {name} is damaged \(.*\); delete {folder} and") as caught:
            build(name, tmp_path)
        assert "\n" not in str(caught.value)


def test_a_variant_has_its_own_folder_or_lists(tmp_path, monkeypatch):
    lay_out("imagenette", tmp_path, monkeypatch)
    (tmp_path / "imagenette2-160").rename(tmp_path / "imagenette2-320")
    assert build("imagenette", tmp_path, args={"size": "320px"}).val.images == 8
    lay_out("fgvc_aircraft", tmp_path, monkeypatch)
    lists = home("fgvc_aircraft", tmp_path) / "data"
    for file in lists.glob("images_variant_*.txt"):
        text = "".join(f"{line.split()[0]} {line[-1]}\n" for line in file.read_text().splitlines())
        file.with_name(file.name.replace("variant", "family")).write_text(text)
    assert build("fgvc_aircraft", tmp_path, args={"annotation_level": "family"}).classes == ["0", "7"]


def test_chosen_classes_are_learnt_alone(tmp_path, monkeypatch):
    lay_out("dtd", tmp_path, monkeypatch)
    assert build("dtd", tmp_path, classes=["woven", "banded"]).classes == ["woven", "banded"]
    with pytest.raises(ConfigError, match=r"^data\.classes: "):
        build("dtd", tmp_path, classes=["woven", "knitted"])


def test_the_files_are_fetched_by_torchvision_as_its_variant_says(tmp_path, monkeypatch):
    import torchvision.datasets

    for name, known in {
        "imagenette": [{"size": "160px"}],
        "dtd": [{"partition": 1}],
        "gtsrb": [{"split": "train"}, {"split": "test"}],
        "eurosat": [{}],
    }.items():
        calls = []

        def fetch(self, root, download, calls=calls, name=name, **more):
            assert (root, download) == (str(tmp_path), True)
            if not calls:
                lay_out(name, tmp_path, monkeypatch)
            calls.append(more)

        monkeypatch.setattr(getattr(torchvision.datasets, DATASETS[name].kind), "__init__", fetch)
        assert build(name, tmp_path, download=True).train.images > 0
        assert calls == known


def test_a_run_goes_on_and_is_scored_and_names_what_it_saw(here, monkeypatch, capsys):
    lay_out("rendered_sst2", here / "data", monkeypatch)
    words = [
        "data=rendered_sst2",
        "model=softmax",
        "data.image_size=8",
        "trainer.epochs=1",
        "trainer.tensorboard=false",
    ]
    assert cli.main([*words, "out=run"]) == 0
    assert "\nsoftmax on rendered_sst2\n" in capsys.readouterr().out
    assert cli.main(["resume", "run", "trainer.epochs=2"]) == 0
    assert cli.main(["eval", "run", "out=scores.json"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    assert {split: scores[split]["images"] for split in ("val", "test")} == {"val": 8, "test": 8}
    assert cli.main(["check", *words, "steps=1"]) == 0
    assert "  images   train 8, val 8, test 8\n" in capsys.readouterr().out
    assert cli.main(["pack", *words[:1], "out=packed"]) == 2
    assert "data: pack takes a folder of photos (given rendered_sst2)" in capsys.readouterr().err
