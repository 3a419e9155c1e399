"""Runs are headed by the data's and the network's own names, and lie in folders of these names."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnntrain import cli
from cnntrain.config.compose import compose_line, compose_settings, output_folder
from cnntrain.config.plain import to_plain
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema.titles import LONGEST, safe_name

SHORT = ["model=softmax", "data.image_size=8", "data.batch_size=4", "trainer.epochs=1", "trainer.tensorboard=false"]
SHORT += ["data.mean=[0.5]", "data.std=[0.5]"]


def draw(folder: Path) -> None:
    """Ten pictures of each of two classes."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(np.full((9, 9, 3), 20 * number, np.uint8)).save(folder / name / f"{number}.png")


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ([], "digits/lenet5"),
        (["data=cifar10"], "cifar10/cnn3"),
        (["model=cnn3"], "digits/cnn3"),
        (["model=cnn"], "digits/cnn"),
        (["experiment=mnist_99"], "mnist/cnn"),
        (["model=timm", "model.name=resnet18.a1_in1k"], "digits/resnet18.a1_in1k"),
        (["model=own", "model.name=my_nets:tiny"], "digits/tiny"),
        (["model=own", "model.name=my_pkg.nets:build", "data=own", "data.name=my_data:load"], "my_data/nets"),
        (["data=own", "data.name=torchvision.datasets:FashionMNIST", "model=lenet5"], "FashionMNIST/lenet5"),
        (["data.title=mine", "model.title=first"], "mine/first"),
        (["data=imagefolder", "data.root=photos"], "photos/resnet18"),
        (["data=imagefolder", "data.root=/data/photos/"], "photos/resnet18"),
        (["data=imagefolder", "data.root=photos/train"], "photos/resnet18"),
        (["data=imagefolder", "data.root=photos/Testing/."], "photos/resnet18"),
        (["data=imagefolder", "data.root=."], "here/resnet18"),
        (["data=imagefolder", "data.root=photos/.."], "here/resnet18"),
        (["data=imagefolder", "data.root=/"], "imagefolder/resnet18"),
        (["data=imagefolder", "data.root='/data/my photos, (new)'"], "my-photos-new/resnet18"),
        (["data=imagefolder", "data.root='/data/猫と犬'"], "猫と犬/resnet18"),
        (["data=imagefolder", "data.root='/data/हिन्दी'"], "हिन्दी/resnet18"),
        (["data=imagefolder", "data.root=/data/.-!"], "imagefolder/resnet18"),
    ],
)
def test_a_run_lies_in_folders_of_the_names_of_its_data_and_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], folder: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    composition = compose_line(words, refuse_idle=False)
    assert output_folder(composition.tree, "run").parent == Path("outputs") / folder
    data, model = folder.split("/")
    assert composition.settings.heading == f"{model} on {data}"


def test_a_file_of_the_users_heads_its_runs_by_its_own_name(tmp_path: Path) -> None:
    for name, text in {
        "data/flowers": "defaults: [imagefolder]\nroot: photos\n",
        "model/wide": "defaults: [cnn3]\n",
    }.items():
        (tmp_path / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    assert compose_settings(["data=flowers"], str(tmp_path)).heading == "resnet18 on flowers"


@given(st.text(max_size=300))
def test_a_name_made_of_any_text_is_that_of_one_folder(text: str) -> None:
    name = safe_name(text)
    assert safe_name(name) == name
    assert name.isprintable()
    assert not {*"/\\ :*?\"'<>|$`&;(){}[]!#~=,%@^"} & set(name)
    assert not name.startswith((".", "-"))
    assert len(os.fsencode(name)) <= LONGEST


def test_a_title_is_the_name_of_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["model.title=a/b", "data.title=.."]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "title" in line]
    assert told == [
        "cnntrain: error: model.title: must be the name of one folder (given a/b)",
        "cnntrain: error: data.title: must be the name of one folder (given ..)",
    ]


def test_a_run_on_photos_is_named_by_their_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(here / "my photos")
    words = ["data=imagefolder", "data.root=my photos", *SHORT]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith("softmax on my-photos\n")
    assert [path.name for path in (here / "outputs").iterdir()] == ["my-photos"]
    assert cli.main(["check", *words]) == 0
    assert "\ncheck: softmax on my-photos\n" in capsys.readouterr().out


def test_the_jobs_of_a_sweep_are_named_by_their_own_data(here: Path) -> None:
    draw(here / "old")
    draw(here / "new/train")
    assert cli.main(["-m", "data=imagefolder", "data.root=old,new", *SHORT, "out=sweep"]) == 0
    assert {"0_old_softmax", "1_new_softmax"} <= {path.name for path in (here / "sweep").iterdir()}


def test_a_run_of_an_older_version_which_has_no_titles_of_its_own_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(here / "photos")
    older = ["data.title=imagefolder", "model.title=''"]  # as a config that lacks the second is read
    assert cli.main(["data=imagefolder", "data.root=photos", *SHORT, *older, "out=run"]) == 0
    capsys.readouterr()
    assert cli.main(["resume", "run", "trainer.epochs=2"]) == 0
    assert capsys.readouterr().out.startswith("softmax on photos\n")
    plain = to_plain(compose_settings(["model=cnn3"]))
    del plain["model"]["title"]
    assert restore_config(plain).settings.heading == "cnn on digits"
