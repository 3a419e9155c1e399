"""Recipes: what composes from conf/, who wins over whom, and the way to plain containers and back."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from train_yaml import FILE, train_yaml

from cnntrain.config import overrides
from cnntrain.config.changes import Change, find_changes
from cnntrain.config.compose import compose_settings
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import keys_of
from cnntrain.config.paths import conf_dir
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema.optimizer import OPTIMIZERS
from cnntrain.config.schema.schedule import SCHEDULES
from cnntrain.config.schema.settings import Settings

CONF = conf_dir()
DATA = ("digits", "mnist", "cifar10", "cifar100", "imagefolder")


def compose(line: str = "", config_dir: Path | None = None) -> Settings:
    words = line.split()
    if {"data=imagefolder", "data=table"} & set(words):
        words.append("data.root=/photos")
    if config_dir:
        return compose_settings(words, str(config_dir))
    return compose_settings(words)


def written(path: str) -> dict[str, Any]:
    """What a file of conf/ itself says."""
    content = yaml.safe_load((CONF / path).read_text())
    return {key: value for key, value in content.items() if key != "defaults"}


def numbers(part: Any) -> dict[str, Any]:
    return to_plain(part)


def pieces(settings: Settings) -> set[str]:
    return set(settings.augment.pieces)


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


@pytest.mark.parametrize("data", DATA)
def test_each_data_set_brings_its_recipe(data: str) -> None:
    settings = compose(f"data={data}")
    recipe = written(f"recipe/{data}.yaml")
    assert settings.data.name == data
    assert settings.trainer.epochs == recipe["trainer"]["epochs"]
    assert settings.data.batch_size == recipe["data"]["batch_size"]
    assert settings.loss.label_smoothing == recipe["loss"]["label_smoothing"]
    assert numbers(settings.optimizer).items() >= written(f"recipe/sgd_{data}.yaml").items()
    assert pieces(settings)


def test_bare_command_line_trains_lenet5_on_digits() -> None:
    settings = compose()
    assert (settings.model.name, settings.data.name) == ("lenet5", "digits")


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("timm", "torch")])
def test_a_rate_belongs_to_its_optimizer(name: str) -> None:
    """Without a tuned recipe of its own an optimizer has its own file's numbers, and with one nothing of another's."""
    assert numbers(compose(f"optimizer={name} ~recipe@optimizer").optimizer) == written(f"optimizer/{name}.yaml")
    for data in ("mnist", "imagefolder"):
        tuned = CONF / "recipe" / f"{name}_{data}.yaml"
        expected = written(f"optimizer/{name}.yaml") | (written(f"recipe/{tuned.name}") if tuned.exists() else {})
        settings = compose(f"optimizer={name} data={data}")
        assert type(settings.optimizer) is OPTIMIZERS[name].settings
        assert numbers(settings.optimizer) == expected


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_inherits_nothing_from_the_recipes_one(name: str) -> None:
    for data in ("digits", "imagefolder"):  # their recipes choose different schedules
        schedule = compose(f"schedule={name} data={data}").schedule
        assert type(schedule) is SCHEDULES[name].settings
        assert numbers(schedule) == written(f"schedule/{name}.yaml")


@pytest.mark.parametrize("line", ["", "optimizer=adamw"])
def test_a_data_set_takes_the_recipes_of_the_one_that_it_is_like(tmp_path: Path, line: str) -> None:
    """All but what it has a file for; and so does a file of the user's that begins with it."""
    ours, other = compose(f"data=kmnist {line}"), compose(f"data=mnist {line}")
    for section in ("model", "augment", "optimizer", "schedule", "loss", "trainer"):
        assert getattr(ours, section) == getattr(other, section)
    assert ours.data == replace(other.data, name="kmnist", title="kmnist")
    ours, other = compose(f"data=svhn {line}"), compose(f"data=cifar10 {line}")
    assert (pieces(ours), pieces(other)) == ({"pad_crop"}, {"pad_crop", "hflip"})
    assert replace(ours, data=other.data, augment=other.augment) == other
    write(tmp_path, "data/signs.yaml", "defaults: [kmnist]\n")
    mine = compose(f"data=signs {line}", tmp_path)
    assert replace(mine, data=other.data) == replace(compose(f"data=kmnist {line}"), data=other.data)


def test_augment_on_the_command_line_replaces_the_recipes_list() -> None:
    assert pieces(compose("data=cifar10")) == {"pad_crop", "hflip"}
    assert pieces(compose("data=cifar10 augment=none")) == set()
    assert pieces(compose("data=cifar10 augment=[vflip,pad_crop]")) == {"vflip", "pad_crop"}
    assert pieces(compose("augment=flip_crop")) == {"pad_crop", "hflip"}
    for order in ("flip_crop,alternating_flip", "alternating_flip,flip_crop"):
        assert compose(f"augment=[{order}]").augment.hflip.alternate
    assert compose("data=cifar10 augment=[pad_crop]").augment.pad_crop == compose("augment=pad_crop").augment.pad_crop


def test_command_line_wins_over_recipe_debug_and_experiment(tmp_path: Path) -> None:
    write(
        tmp_path, "experiment/mine.yaml", "# @package _global_\ntrainer: {epochs: 7}\noptimizer: {lr: 0.3}\nseed: 5\n"
    )
    settings = compose("data=cifar10 experiment=mine", tmp_path)
    assert (settings.trainer.epochs, settings.optimizer.lr, settings.seed) == (7, 0.3, 5)
    settings = compose("data=cifar10 debug=smoke experiment=mine trainer.epochs=2 optimizer.lr=0.4", tmp_path)
    assert (settings.trainer.epochs, settings.optimizer.lr) == (2, 0.4)
    assert settings.trainer.max_steps == written("debug/smoke.yaml")["trainer"]["max_steps"]


def test_debug_wins_over_the_recipe() -> None:
    settings = compose("data=cifar10 debug=overfit")
    debug = written("debug/overfit.yaml")
    assert settings.trainer.epochs == debug["trainer"]["epochs"]
    assert settings.optimizer.weight_decay == 0
    assert settings.schedule.name == "constant"
    assert pieces(settings) == set()
    assert pieces(compose("debug=overfit augment=hflip")) == {"hflip"}


def test_an_experiment_may_choose_groups(tmp_path: Path) -> None:
    chosen = "defaults:\n  - override /data: mnist\n  - override /optimizer: adamw\n  - override /schedule: cosine\n"
    write(
        tmp_path, "experiment/mine.yaml", "# @package _global_\n" + chosen + "  - override /augment: [hflip, vflip]\n"
    )
    settings = compose("experiment=mine", tmp_path)
    assert settings.trainer.epochs == written("recipe/mnist.yaml")["trainer"]["epochs"]
    assert settings.optimizer.lr == written("recipe/adamw_mnist.yaml")["lr"]
    assert numbers(settings.schedule) == written("schedule/cosine.yaml")
    assert pieces(settings) == {"hflip", "vflip"}


HERE = "defaults: [/data/imagefolder@_here_, _self_]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HERE, ""),
        *(("defaults: [imagefolder]\n", line) for line in ("", "optimizer=adamw", "finetune=C", "~augment")),
        (HERE, "augment=mixup schedule=step"),
    ],
)
def test_a_data_file_inherits_the_recipes_of_what_it_derives_from(tmp_path: Path, text: str, line: str) -> None:
    write(tmp_path, "data/flowers.yaml", text + "root: /photos\n")
    assert compose(f"data=flowers {line}", tmp_path) == compose(f"data=imagefolder data.title=flowers {line}")


def test_a_data_file_says_by_its_name_too_what_it_derives_from(tmp_path: Path) -> None:
    write(tmp_path, "data/flowers.yaml", "name: imagefolder\nroot: /photos\n")
    assert compose("data=flowers", tmp_path) == compose("data=imagefolder data.title=flowers")


def test_a_data_file_may_derive_from_another_of_the_users(tmp_path: Path) -> None:
    write(tmp_path, "data/flowers.yaml", "defaults: [imagefolder]\nroot: /photos\n")
    write(tmp_path, "data/roses.yaml", "defaults: [flowers]\nroot: /photos/roses\n")
    write(tmp_path, "model/for_flowers.yaml", "defaults: [mlp]\n")
    roses = compose("data=roses", tmp_path)
    assert (roses.data.root, roses.model.name) == ("/photos/roses", "mlp")
    assert roses.schedule == compose("data=imagefolder").schedule


def test_what_a_data_file_and_its_own_recipes_say_wins_over_what_is_inherited(tmp_path: Path) -> None:
    write(tmp_path, "data/flowers.yaml", "defaults: [imagefolder]\nroot: /flowers\nbatch_size: 9\n")
    for line in ("", "finetune=B"):
        assert compose(f"data=flowers {line}", tmp_path).data.batch_size == 9
    assert compose("data=flowers data.batch_size=8", tmp_path).data.batch_size == 8
    write(tmp_path, "recipe/flowers.yaml", "# @package _global_\ntrainer: {epochs: 3}\n")
    write(tmp_path, "augment/for_flowers.yaml", "defaults: [vflip]\n")
    write(tmp_path, "schedule/for_flowers.yaml", "defaults: [step]\n")
    write(tmp_path, "recipe/sgd_flowers.yaml", "lr: 0.5\n")
    settings = compose("data=flowers", tmp_path)
    assert (settings.model.name, settings.trainer.epochs, settings.optimizer.lr) == ("resnet18", 3, 0.5)
    assert pieces(settings) == {"vflip"}
    assert type(settings.schedule) is SCHEDULES["step"].settings


def test_a_folder_of_options_inherits_nothing_from_the_one_before(tmp_path: Path) -> None:
    write(tmp_path / "a", "data/flowers.yaml", "defaults: [imagefolder]\nroot: /flowers\n")
    write(tmp_path / "b", "data/flowers.yaml", "name: roses\nroot: /flowers\n")
    compose("data=flowers", tmp_path / "a")
    with pytest.raises(ConfigErrors, match=r"data=flowers brings none; .* or let its file begin with defaults: \["):
        compose("data=flowers", tmp_path / "b")
    settings = compose(f"data=flowers hydra.searchpath=[{tmp_path}/a]")
    assert settings.trainer.epochs == compose("data=imagefolder").trainer.epochs


def test_trainer_files_hold_hardware_only() -> None:
    for file in (CONF / "trainer").glob("*.yaml"):
        assert not {"epochs", "max_steps", "accumulate", "ema"} & set(yaml.safe_load(file.read_text()) or ())


def option(file: Path) -> str:
    """The words that choose a file of conf/, with those that it needs beside it."""
    group, name = file.parent.name, file.stem
    needed = {
        "model/torchvision": "model.name=resnet101",
        "model/timm": "model.name=resnet50d",
        "model/own": "model.name=a.b:f",
        "data/own": "data.name=a.b:f data.root=/data",
        "data/arrays": "data.root=/data/x.npz",
        "data/webdataset": "data.root=/data/{000..099}.tar",
        "data/hf": "data.root=owner/name",
        "augment/own": "augment.own.name=a.b:f",
        "optimizer/own": "optimizer.name=a.b:f optimizer.lr=0.1",
        "optimizer/timm": "optimizer.name=lamb optimizer.lr=0.1",
        "optimizer/torch": "optimizer.name=NAdam optimizer.lr=0.1",
        "schedule/own": "schedule.name=a.b:f",
    }
    words = [f"{group}={name}", needed.get(f"{group}/{name}", "")]
    if group == "recipe":
        optimizer, _, data = name.rpartition("_")
        words = [f"recipe@optimizer={name}", f"optimizer={optimizer}"] if optimizer else [f"recipe={name}"]
        words += ["data=imagefolder"] if data == "imagefolder" else []
    if group == "experiment" and "/data: imagefolder" in file.read_text(encoding="utf-8"):
        words.append("data.root=/photos")
    return " ".join(words)


def test_every_preset_begins_with_its_command_and_the_score_that_it_reached_or_that_none_was_measured() -> None:
    for file in (conf_dir() / "experiment").glob("*.yaml"):
        head = file.read_text(encoding="utf-8").partition("\ndefaults:")[0]
        assert head.startswith(f"# @package _global_\n# cnntrain experiment={file.stem}"), file
        assert re.search(r"not run to its end here|[Tt]est top-1 \d\d", head), file


ALONE = ("recipe", "experiment")  # groups whose options choose those of other groups


@pytest.mark.parametrize("part", [0, 1, *(pytest.param(part, marks=pytest.mark.slow) for part in (2, 3))])
def test_every_option_of_every_group_composes(part: int) -> None:
    """Those of several groups together, as composing takes its time; the networks that are left over last.

    The file of each network is read by tests/models/test_catalogue.py too.
    """
    together = [sorted(CONF.glob(f"{group}/*.yaml")) for group in overrides.GROUPS if group not in ALONE]
    lines = [list(map(option, filter(None, files))) for files in itertools.zip_longest(*together)]
    lines += [[option(file), ""] for group in ALONE for file in sorted(CONF.glob(f"{group}/*.yaml"))]
    several = [words for words in lines if len(words) > 1]
    for words in several[part::3] if part < 3 else [words for words in lines if words not in several]:
        compose(" ".join(words))


def test_train_yaml_is_what_the_settings_classes_say() -> None:
    """Else run `make conf`."""
    assert FILE.read_text(encoding="utf-8") == train_yaml()


def test_every_key_stands_in_a_yaml_file() -> None:
    """A reader of conf/ must find each key there, not only in the settings classes."""
    text = "\n".join(file.read_text() for file in CONF.rglob("*.yaml"))
    for variants in [{"optimizer": name} for name in OPTIMIZERS] + [{"schedule": name} for name in SCHEDULES]:
        for key in keys_of(variants):
            assert f"{key.rpartition('.')[2]}:" in text, key


def test_relative_roots_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose().data.root == str(tmp_path / "data")
    assert compose("data.root=images").data.root == str(tmp_path / "images")
    monkeypatch.setenv("CNNTRAIN_DATA", "elsewhere")
    assert compose().data.root == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "data=cifar10 model=resnet18",
        "optimizer=rmsprop schedule=multistep",
        "data=imagefolder model.args.dropout=0.2 model=mlp",
    ],
)
def test_saved_settings_come_back_the_same(line: str) -> None:
    settings = compose(line)
    plain = yaml.safe_load(to_yaml(settings))
    assert plain == to_plain(settings)
    assert restore_config(plain).settings == settings
    assert find_changes(settings, restore_config(plain).settings) == {}


def test_the_overrides_of_a_saved_run_are_its_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old = compose()
    words = ["trainer.epochs=50", "data.root=other", "trainer.compile=true", "augment.pad_crop=null", "trainer.ema=0.9"]
    new = restore_config(to_plain(old), words).settings
    changes = find_changes(old, new)
    assert changes == {
        "trainer.epochs": Change(old.trainer.epochs, 50),
        "data.root": Change(old.data.root, str(tmp_path / "other")),
        "trainer.compile": Change(False, True),
        "trainer.ema": Change(None, 0.9),
        "augment.pad_crop.padding": Change(4, None),
        "augment.pad_crop.mode": Change("zeros", None),
    }
    assert str(changes["trainer.compile"]) == "false -> true"
    assert str(changes["trainer.ema"]) == "null -> 0.9"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["model=resnet18"], "model: cannot be chosen again"),
        (
            ["augment=none"],
            "augment: cannot be chosen again for a run that exists; switch pieces off with augment.PIECE=null,",
        ),
        (["hydra.run.dir=x"], "hydra.run.dir: cannot be chosen again"),
        (["trainer.epoch=3"], "did you mean trainer.epochs?"),
        (["trainer.epochs=0"], "trainer.epochs: must be a whole number >= 1 (given 0)"),
        (["trainer.epochs=3,4"], "trainer.epochs: takes one value"),
        (["optimizer.name=adamw"], "optimizer.name: "),
        (["-m"], "-m: "),
    ],
)
def test_faulty_overrides_of_a_saved_run_are_told(words: list[str], fault: str) -> None:
    plain = to_plain(compose())
    with pytest.raises(ConfigErrors) as caught:
        restore_config(plain, words)
    assert len(caught.value.faults) == 1
    assert fault in caught.value.faults[0]


def test_a_piece_of_augmentation_is_switched_on_in_a_saved_run_as_its_fault_says() -> None:
    plain = to_plain(compose())
    with pytest.raises(ConfigErrors) as caught:
        restore_config(plain, ["augment.hflip.p=0.3"])
    assert caught.value.faults == [
        "augment.hflip.p: hflip is off (given 0.3); switch it on with 'augment.hflip={p: 0.3}'"
    ]
    settings = restore_config(plain, ["augment.hflip={p: 0.3}"]).settings
    assert settings.augment.hflip is not None
    assert settings.augment.hflip.p == 0.3


@pytest.mark.parametrize(
    ("section", "value", "fault"),
    [
        ("trainer", {"epochz": 3}, "run/config.yaml: trainer.epochz: no such key"),
        ("trainer", {"epochs": "many"}, "run/config.yaml: trainer.epochs: must be a whole number"),
        ("optimizer", {"name": "adamm"}, "run/config.yaml: optimizer.name: must be one of"),
        ("data", {"root": "${oc.env:HOME}"}, "run/config.yaml: holds an interpolation"),
        ("trainers", {}, "run/config.yaml: trainers: no such key"),
    ],
)
def test_a_damaged_saved_config_is_told(section: str, value: dict[str, Any], fault: str) -> None:
    plain = to_plain(compose())
    plain[section] = plain.get(section, {}) | value
    with pytest.raises(ConfigErrors, match=r".") as caught:
        restore_config(plain, source="run/config.yaml")
    assert fault in str(caught.value)


def test_data_of_your_own_has_the_recipe_of_photos_by_four_words() -> None:
    own = ["data=own", "data.name=mine:photos", "model=lenet5"]
    alone = compose_settings(own)
    assert (list(alone.augment.pieces), alone.schedule.name, alone.trainer.epochs) == ([], "constant", 10)
    groups = ["recipe=imagefolder", "augment=for_imagefolder", "schedule=for_imagefolder"]
    chosen = compose_settings([*own, *groups, "recipe@optimizer=sgd_imagefolder"])
    photos = compose_settings(["data=imagefolder", "data.root=photos", "model=lenet5"])
    for part in ("augment", "schedule", "optimizer", "loss", "trainer"):
        assert getattr(chosen, part) == getattr(photos, part)
    assert chosen.data.batch_size == photos.data.batch_size
