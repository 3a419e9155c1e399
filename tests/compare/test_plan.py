"""`cnntrain compare`: what it plans, and what it refuses to plan."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from compared import LISTS, Trainer, compare

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.cli.arguments import read_arguments
from cnntrain.compare import plan as comparison
from cnntrain.compare.plan import combinations
from cnntrain.config import overrides
from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.schema.commands import CompareArgs
from cnntrain.errors import ConfigError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNTRAIN_DATA", "/data")  # the digits need none, but in each test it is the same


def test_every_combination_is_planned_and_first_repeats_come_first() -> None:
    found = combinations(["seed=0,1", "optimizer=sgd,adamw", "optimizer.lr=0.1,0.2"])
    labels = [run.label for run in found]
    assert labels[:5] == [
        "optimizer=sgd optimizer.lr=0.1 seed=0",
        "optimizer=sgd optimizer.lr=0.2 seed=0",
        "optimizer=adamw optimizer.lr=0.1 seed=0",
        "optimizer=adamw optimizer.lr=0.2 seed=0",
        "optimizer=sgd optimizer.lr=0.1 seed=1",
    ]
    assert len(set(labels)) == 8


def test_words_compose_what_was_planned_and_names_need_no_quotes() -> None:
    words = [
        "augment=[hflip,rotation],none",
        "data.root='my photos'",
        "data=imagefolder",
        "model.args.hidden=[20,10],[3]",
    ]
    runs = combinations(overrides.for_hydra([*words, "model=mlp", "optimizer.lr=choice(1e-5)"]))
    for run in runs:
        assert compose_settings(list(run.words)) == run.settings
        assert overrides.parse([f"hydra.run.dir={run.name}"])[1] == []
    assert len({run.name for run in runs}) == len({run.digest for run in runs}) == 4
    assert runs[0].settings.data.root.endswith("/my photos")
    assert runs[0].name.startswith("augment-hflip-rotation_hidden-20-10_lr-1e-05_seed-0_")


def test_a_saved_config_is_read_as_it_was_written() -> None:
    words = ["optimizer.lr=1e-5", "data.limit=0.5", "model=mlp", "augment=[cutmix,affine]", "trainer.max_time=2h"]
    plain = to_plain(compose_settings(words))
    assert yaml.safe_load(to_yaml(compose_settings(words))) == plain


def test_folds_are_repeats_and_all_of_them_run_unless_some_are_chosen() -> None:
    assert [run.label for run in combinations(["data.folds=3"])] == [f"seed=0 data.fold={fold}" for fold in range(3)]
    assert [run.settings.data.fold for run in combinations(["data.folds=3", "data.fold=0,2"])] == [0, 2]
    runs = combinations(["data.folds=2", "optimizer.lr=0.1,0.2"])
    found = [(run.values["optimizer.lr"], run.settings.data.fold) for run in runs]
    assert found == [("0.1", 0), ("0.2", 0), ("0.1", 1), ("0.2", 1)]
    assert compose_settings(list(runs[2].words)) == runs[2].settings


def test_a_function_of_the_users_is_labelled_as_it_is_typed() -> None:
    labels = [run.label for run in combinations(["loss.name=cross_entropy,my_losses:focal"])]
    assert labels == ["loss.name=cross_entropy seed=0", "loss.name=my_losses:focal seed=0"]


def test_values_that_are_listed_twice_run_once() -> None:
    assert [run.label for run in combinations(["seed=0,1,0"])] == ["seed=0", "seed=1"]


def test_lists_of_a_preset_count(tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    preset = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 3,4\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(preset)
    runs = combinations(["experiment=mine"], str(tmp_path / "own"))
    assert [run.label for run in runs] == ["seed=3", "seed=4"]
    assert "hydra.mode=RUN" in runs[0].words


@pytest.mark.parametrize("words", [[], ["seed=0"], ["optimizer=choice(adamw)"], ["seed=1,1"]])
def test_nothing_to_compare_is_a_fault_with_an_example(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"nothing to compare; .* such as finetune=A,B,C or seed=0,1,2"):
        combinations(words)


def test_a_fault_of_any_combination_is_found_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "compare optimizer=admw,sgd optimizer.lr=0.1,-1 trainer.epoch=3 seed=0,1,2,3,4,5,6,7,8,9,-1"
    assert cli.main(line.split()) == 2
    faults = capsys.readouterr().err
    assert all(word in faults for word in ("option admw", "(given -1.0)", "trainer.epochs?", "seed: must be"))
    assert faults.count("trainer.epochs?") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "code", "fault"),
    [
        ("optimizer.lr=interval(0.1,1)", 2, "optimizer.lr: an interval has no end of values"),
        ("seed=0,1 hydra.run.dir=here", 2, "hydra.run.dir: not offered by compare (given here); choose the folder"),
        ("seed=0,1 hydra.verbose=true", 2, "hydra.verbose: not offered by compare (given true); leave it out"),
        ("seed=0,1 -m", 2, "-m: no flag of compare"),
        ("seed=0,1 out=", 2, "out: must be the name of a folder"),
        ("seed=0,1 out=file", 2, "out: file is a file"),
        ("seed=0,1 out=run", 2, "out: run holds a run of its own"),
        ("seed=0,1 data=imagefolder data.root=nowhere", 3, "data.root: "),
    ],
)
def test_faulty_lines_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, code: int, fault: str
) -> None:
    (tmp_path / "run").mkdir()
    for name in ("file", "run/config.yaml"):
        (tmp_path / name).write_text("")
    assert cli.main(["compare", *line.split()]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"cnntrain: error: {fault}")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["seed=0,1"], "digits_lenet5"),
        (["model=resnet18,lenet5"], "digits_model"),
        (["data=digits,mnist", "model=lenet5"], "data_lenet5"),
        (["data=imagefolder", "data.root=pets/ants + bees", "seed=0,1", "model=resnet18"], "ants-+-bees_resnet18"),
    ],
)
def test_the_folder_is_named_after_data_and_model(words: list[str], name: str) -> None:
    words = [word.replace("pets/ants + bees", "'pets/ants + bees'") for word in words]
    assert comparison.folder_name(combinations(words)) == name


def test_flags_reach_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(dispatch, "_load", lambda command: lambda *args: given.extend(args) or 0)
    assert cli.main(["compare", "--config-dir", str(tmp_path), "out=here", *LISTS]) == 0
    args, runs = given
    flags = ["--config-dir", str(tmp_path)]
    assert (len(runs), args.out) == (4, Path("here"))
    assert args.line == ("compare", *flags, "out=here", *LISTS)
    trainer = Trainer(runs, 2)
    compare(runs, args.line[1:], trainer)
    assert trainer.commands[0][-3:-1] == flags


def test_out_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_arguments(CompareArgs, ["out=~/here", "seed=0,1"]).out == tmp_path / "here"
