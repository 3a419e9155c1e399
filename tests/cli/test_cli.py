"""The command line: which command a line means, with what settings it is called, and what shows the config."""

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from command_calls import Calls

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.compare import plan
from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_yaml


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", "train"),
        ("train", "train"),
        ("seed=3", "train"),
        ("train seed=3 model=cnn", "train"),
        ("~debug", "train"),
        ("++seed=3", "train"),
        ("--config-dir . seed=3", "train"),
        ("check data=mnist", "check"),
        ("models conv", "models"),
        ("resume a=b seed=4", "resume"),
        ("eval runs/x", "eval"),
    ],
)
def test_first_word_picks_the_command(calls: Calls, tmp_path: Path, line: str, command: str) -> None:
    (tmp_path / "a=b").mkdir()
    (tmp_path / "a=b" / "config.yaml").write_text(to_yaml(compose_settings([])))
    (tmp_path / "runs/x").mkdir(parents=True)
    assert cli.main(line.split()) == 0
    assert [name for name, _ in calls] == [command]


def test_train_gets_settings_a_new_folder_and_the_overrides(calls: Calls, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["model=cnn", "trainer.epochs=3", "hydra.verbose=false"]) == 0
    args, chosen = calls[0][1]
    assert (chosen.settings.model.name, chosen.settings.trainer.epochs) == ("cnn", 3)
    assert re.fullmatch(r"outputs/digits/cnn/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", str(args.out))
    assert chosen.overrides == ("model=cnn", "trainer.epochs=3")
    assert capfd.readouterr() == ("", "")


def test_the_command_sees_the_line_that_the_user_typed(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["/bin/cnntrain", "seed=3", "out=a b"]
    monkeypatch.setattr(sys, "argv", typed)
    assert cli.main() == 0
    args, _ = calls[0][1]
    assert args.line == ("seed=3", "out=a b")
    assert args.command_line == "cnntrain seed=3 'out=a b'"
    assert cli.main(["-m", "seed=1,2"]) == 0
    assert calls[2][1][0].command_line == "cnntrain -m seed=1,2"


def test_a_single_run_has_the_surroundings_that_its_hydra_part_asks_for(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder with its interpolations, the environment, the current folder, logging, callbacks and Hydra's files."""
    seen: dict[str, Any] = {}

    def look(args: Any, chosen: Any) -> None:
        seen.update(cwd=Path.cwd(), sign=os.environ.get("SIGN"), level=logging.getLogger().level, args=args)

    monkeypatch.setattr(dispatch, "_load", lambda command: look)
    preset = {
        "hydra": {
            "run": {"dir": "runs/${hydra.job.override_dirname}/${data.name}_${now:%Y}"},
            "job": {"chdir": True, "env_set": {"SIGN": "set"}},
            "callbacks": {"log": {"_target_": "hydra.experimental.callbacks.LogJobReturnCallback"}},
            "output_subdir": ".hydra",
            "verbose": True,
        }
    }
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n" + json.dumps(preset)[1:-1]
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    words = ["seed=3", "hydra.job.env_set.SIGN=two", "hydra/job_logging=default"]
    assert cli.main(["--config-dir", "own", "experiment=mine", *words]) == 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert re.fullmatch(r"digits_\d{4}", folder.name)
    assert folder.parent.name == "experiment=mine,seed=3"
    assert (seen["cwd"], seen["sign"], seen["level"]) == (folder, "two", logging.DEBUG)
    assert "SIGN" not in os.environ
    assert Path.cwd() == tmp_path
    assert {path.name for path in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert (folder / ".hydra" / "overrides.yaml").read_text() == "- experiment=mine\n- seed=3\n"
    assert (folder / "cnntrain.log").exists()


@pytest.mark.parametrize(
    "line", ["--cfg job", "seed=3 --cfg job trainer.epochs=2", "data=imagefolder --cfg job", "--cfg hydra"]
)
def test_cfg_shows_the_config_and_trains_nothing(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert cli.main(line.split()) == 0
    out = capsys.readouterr().out
    assert "run:" in out if "hydra" in line else "  batch_size: " in out
    if "seed" in line:
        assert "seed: 3" in out
        assert "epochs: 2" in out
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_info_works(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--info", "defaults"]) == 0
    assert "recipe/digits" in capsys.readouterr().out
    assert calls == []


def test_options_of_ones_own_are_found(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 77\n")
    assert cli.main(["--config-dir", "own", "experiment=mine"]) == 0
    assert cli.main(["experiment=mine", "hydra.searchpath=[file://own]"]) == 0
    assert [given[1].settings.seed for _, given in calls] == [77, 77]


def test_a_data_file_of_ones_own_inherits_its_recipe_in_every_command(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "flowers.yaml").write_text("defaults: [imagefolder]\nroot: photos\n")
    (tmp_path / "photos").mkdir()
    for line in ("", "check ", "preview ", "-m "):
        assert cli.main([*line.split(), "--config-dir", "own", "data=flowers"]) == 0
    runs = plan.combinations(["data=flowers", "seed=0,1"], "own")
    found = [given[1].settings for _, given in calls] + [run.settings for run in runs]
    assert len(found) == 6
    for settings in found:
        assert (settings.model.name, settings.schedule.name, settings.trainer.epochs) == ("resnet18", "cosine", 20)
        assert settings.augment.pieces == ["resized_crop", "hflip"]
    capsys.readouterr()
    assert cli.main(["--config-dir", "own", "data=flowers", "--cfg", "job"]) == 0
    assert "name: cosine" in capsys.readouterr().out


def test_new_arguments_of_a_network_need_no_plus(calls: Calls) -> None:
    assert (
        cli.main(["model=torchvision", "model.name=resnet18", "model.args.groups=2", "model.args={width_per_group:32}"])
        == 0
    )
    assert calls[0][1][1].settings.model.args == {"groups": 2, "width_per_group": 32}


def test_arguments_of_ones_own_augmentation_need_no_plus(calls: Calls) -> None:
    words = ["augment=own", "augment.own.name=my_aug:noise", "augment.own.args.sigma=2", "augment.own.args={mean:1}"]
    assert cli.main(words) == 0
    assert calls[0][1][1].settings.augment.own.args == {"sigma": 2, "mean": 1}


def test_a_sweep_runs_each_job_in_its_folder(calls: Calls, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-m", "seed=0,1", "optimizer=sgd,adamw"]) == 0
    assert [(given[1].settings.seed, given[1].settings.optimizer.name) for _, given in calls] == [
        (0, "sgd"),
        (0, "adamw"),
        (1, "sgd"),
        (1, "adamw"),
    ]
    folders = [given[0].out for _, given in calls]
    assert len(set(folders)) == 4
    assert {folder.parent.parent for folder in folders} == {Path("outputs/sweeps")}
    assert calls[1][1][1].overrides == ("seed=0", "optimizer=adamw")
    out, err = capfd.readouterr()
    assert out.splitlines()[1] == "job 1: seed=0 optimizer=adamw"
    assert (len(out.splitlines()), err) == (4, "")


def test_a_setting_longer_than_any_file_name_is_no_folder(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = ",".join(str([filters] * 80).replace(" ", "") for filters in (16, 32))
    assert cli.main(["compare", "model=cnn", f"model.args.blocks={blocks}"]) == 0, capsys.readouterr().err
    assert [name for name, _ in calls] == ["compare"]
