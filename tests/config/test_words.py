"""What a user types is taken as it is typed, and all faults of a line come together."""

import os

import pytest
from faults import faults

from cnntrain.compare import plan
from cnntrain.config.compose import compose_settings, examine, make_composer
from cnntrain.config.composer import Composer
from cnntrain.config.overrides import quote
from cnntrain.config.plain import to_plain
from cnntrain.config.run_config import restore_config
from cnntrain.errors import ConfigError


@pytest.fixture(scope="module")
def composer() -> Composer:
    """One for many lines: it remembers what it composed."""
    return make_composer()


@pytest.mark.parametrize(
    "path",
    [
        "/a b",
        "/a b/c=d",
        "~/photos",
        "/it's",
        "/a(1)",
        "/a{b}",
        "/[x]y",
        "a=b",
        "2024_01",
        "007",
        "1e5",
        "true",
        "/ä ö",
    ],
)
def test_a_path_is_taken_as_it_is_typed(path: str) -> None:
    whole = os.path.abspath(os.path.expanduser(path))
    settings = compose_settings([f"data.root={path}", f"model.weights={path}"])
    assert (settings.data.root, settings.model.weights) == (whole, path)
    assert compose_settings([f"data.root={quote(path)}"]).data.root == whole
    saved = restore_config(to_plain(settings), [f"data.root={path}"]).settings
    assert saved.data.root == whole


def test_a_list_of_paths_is_one_of_paths_as_typed() -> None:
    runs = plan.combinations(["data=mnist", "data.root=~/a b,007,'c,d'"])
    assert [run.settings.data.root for run in runs] == [
        os.path.expanduser("~/a b"),
        os.path.abspath("007"),
        os.path.abspath("c,d"),
    ]


def test_a_word_that_cannot_be_read_is_one_fault() -> None:
    assert len(faults("model=torchvision", "model.name=~x")) == 1
    assert len(faults("data=imagefolder", "data.root=[a]")) == 1


def test_faults_of_all_kinds_are_told_together() -> None:
    found = faults(
        "modle=cnn", "model=cnn4", "data.batch_sze=3", "optimizer.lr=fast", "trainer.epochs=0", "x", "data=imagefolder"
    )
    keys = {line.partition(":")[0] for line in found}
    assert keys == {"modle", "model", "data.batch_sze", "optimizer.lr", "trainer.epochs", "x", "data.root"}


@pytest.mark.parametrize(
    "line",
    [
        "trainer={epochs:3}",
        "model.args.activation=tanh",
        "++model.args.pooling=avg",
        "augment=[for_digits,vflip] augment.vflip.p=0.1",
        "augment.pad_crop=null",
        "~augment",
        "~recipe",
        "hydra.run.dir=/tmp/x",
        "+hydra.job.env_set.A=1",
        "hydra.verbose=true",
        "seed=1 seed=2",
        "data.limit=500 data.val=0.2",
        "trainer.ema=null",
    ],
)
def test_sound_lines_have_no_faults(composer: Composer, line: str) -> None:
    assert examine(composer, line.split(), multirun=False, complete=True).faults == []


def test_names_beyond_ascii_are_told_how_to_be_written() -> None:
    (fault,) = faults("data.classes=[猫,Käfer]")
    assert fault.startswith(
        "data.classes: names beyond ASCII take quotes inside the brackets (given [猫,Käfer]); write"
    )
    assert faults("data.classes=['猫','Käfer']") == []
    (fault,) = faults("loss.class_weights={猫: 2, Käfer: 1}")
    assert fault.startswith("loss.class_weights: names in braces take ASCII letters alone (given {猫: 2, Käfer: 1});")


@pytest.mark.parametrize(
    "words", [["model=torchvision", "model.name=resnet50"], ["model=timm", "model.name=resnet18"], ["model.name=a:b"]]
)
def test_a_name_may_be_set_where_nothing_else_belongs_to_it(words: list[str]) -> None:
    assert faults(*words) == []


def test_two_words_in_one_are_told(composer: Composer) -> None:
    found = examine(composer, ["model=resnet18 data=digits"], multirun=False, complete=True).faults
    fault = "model: two words in one (given resnet18 data=digits); write data=... outside of the quotes"
    assert found == [fault]


def test_each_job_of_a_sweep_is_checked() -> None:
    assert faults("optimizer=sgd,adamw", "seed=0,1", multirun=True) == []
    found = faults("optimizer=sgd,adamw", "optimizer.momentum=0.8", "trainer.epochs=0,1", multirun=True)
    assert [line.partition(":")[0] for line in found] == ["trainer.epochs", "optimizer.momentum"]
    assert faults("model=cnn,lenet6", multirun=True)[0].startswith("model: no option lenet6")
    assert faults("seed=range(100000)", multirun=True) == []
    assert faults("optimizer.lr=interval(-1,1)", multirun=True)[0].startswith("optimizer.lr: must be")


def test_a_switch_takes_0_and_1_and_no_other_number() -> None:
    taken = compose_settings(["trainer.profile=1", "trainer.tensorboard=0"]).trainer
    assert (taken.profile, taken.tensorboard) == (True, False)
    saved = to_plain(compose_settings([]))
    with pytest.raises(ConfigError, match=r"trainer.profile: must be true or false \(given 2\)"):
        restore_config(saved, ["trainer.profile=2"])
