"""The command line: which command a line means, what it answers, and what it leaves behind."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cnntrain
from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.cli.arguments import arguments_of, read_arguments
from cnntrain.compare import plan
from cnntrain.config.compose import compose_settings
from cnntrain.config.messages import COMMAND_WORDS
from cnntrain.config.paths import conf_dir
from cnntrain.config.plain import to_yaml
from cnntrain.config.schema.commands import COMMANDS, PredictArgs
from cnntrain.errors import CheckpointError, DataError, Interrupted, NonFiniteError

Calls = list[tuple[str, tuple[Any, ...]]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """An empty current folder, and the commands replaced by notes of how they were called."""
    noted: Calls = []

    def load(command: str) -> Callable[..., Any]:
        def run(*given: Any) -> dict[str, Any]:
            noted.append((command, given))
            return {"val": {"top1": 0.5}}

        return run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dispatch, "_load", load)
    return noted


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Hydra's --info writes to the stdout of its moment, and its logging to a file, for the rest of the process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)  # which also clears what loggers remember of it


def failing(monkeypatch: pytest.MonkeyPatch, *errors: BaseException | None) -> None:
    """Let the commands fail, one after the other, with these errors."""
    left = list(errors)

    def run(*given: Any) -> None:
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    monkeypatch.setattr(dispatch, "_load", lambda command: run)


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


def test_a_run_that_is_not_there_has_one_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("resume", "eval", "predict", "explain"):
        assert cli.main([command, "nowhere", *(["images=."] if command == "predict" else [])]) == 4


def test_what_only_hydra_refuses_is_one_line_and_leaves_no_folder(
    calls: Calls, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["hydra.verbose=[[1]]"]) == cli.main(["-m", "seed=0,1", "hydra.sweep.subdir=${nowhere}"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("cnntrain: error: ") for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("eval nowhere calibrat=true", "calibrat: no such argument; did you mean calibrate=true?"),
        ("export nowhere preprocesing=true", "preprocesing: no such argument; did you mean preprocessing=true?"),
        ("find_lr step=50", "step: no such argument; did you mean steps=50?"),
        ("predict nowhere image=photos", "image: no such argument; did you mean images=photos?"),
        ("eval nowhere foo=3", "foo: no such key (given 3); `cnntrain eval --help` shows its words"),
        ("eval nowhere image_size=9", "image_size: no such key (given 9); did you mean data.image_size?"),
    ],
)
def test_an_argument_that_is_misspelt_is_told_by_those_of_its_command(
    calls: Calls, capsys: pytest.CaptureFixture[str], line: str, fault: str
) -> None:
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err.splitlines() == [f"cnntrain: error: {fault}"]
    assert calls == []


@pytest.mark.parametrize("command", ["eval", "predict", "explain", "export"])
def test_a_run_that_is_nowhere_is_refused_before_the_command_is_loaded(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = [f"images={tmp_path}"] if command == "predict" else []
    assert cli.main([command, "nowhere", *words]) == 4
    assert capsys.readouterr().err.startswith("cnntrain: error: nowhere: no such file or folder; ")
    assert calls == []


def test_two_runs_in_the_same_second_get_two_folders(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def keep(args: Any, chosen: Any) -> None:
        (args.out / "config.yaml").write_text("")
        calls.append(("train", (args.out,)))

    monkeypatch.setattr(dispatch, "_load", lambda command: keep)
    monkeypatch.setattr("cnntrain.config.compose.output_folder", lambda tree, kind: Path("outputs/same"))
    assert cli.main([]) == cli.main([]) == 0
    assert [str(given[0]) for _, given in calls] == ["outputs/same", "outputs/same-2"]


def test_hydra_run_dir_is_taken_exactly_and_never_twice(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([f"hydra.run.dir={tmp_path}/here"]) == 0
    assert calls[0][1][0].out == Path("here")
    (tmp_path / "here").mkdir(exist_ok=True)
    (tmp_path / "here" / "config.yaml").write_text("seed: 0\n")
    assert cli.main([f"hydra.run.dir={tmp_path}/here"]) == 9
    assert len(calls) == 1
    assert "holds a run already" in capsys.readouterr().err


def test_out_is_the_run_folder_exactly(calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["out=~/a b=c", "seed=3"]) == 0
    assert cli.main(["out=1_0"]) == cli.main(["hydra.run.dir=~/there"]) == 0
    assert [given[0].out for _, given in calls] == [Path("a b=c"), Path("1_0"), Path("there")]
    assert calls[0][1][1].overrides == ("seed=3",)
    (tmp_path / "1_0").mkdir()
    (tmp_path / "1_0" / "config.yaml").write_text("")
    assert cli.main(["out=1_0"]) == 9


def test_out_is_the_folder_of_all_jobs_of_a_sweep(calls: Calls) -> None:
    assert cli.main(["-m", "seed=0,1", "out=many"]) == 0
    assert [given[0].out for _, given in calls] == [Path("many/0_digits_lenet5"), Path("many/1_digits_lenet5")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("out=x hydra.run.dir=y", "out: is hydra.run.dir in another word (given x); give one of the two"),
        ("-m seed=0,1 out=x hydra.sweep.dir=y", "out: is hydra.sweep.dir in another word (given x)"),
        ("hydra.mode=${data.root}", "hydra.mode: While dereferencing interpolation"),
        ("out=", "out: must be the name of a folder (given nothing)"),
        ("hydra.run.dir=", "hydra.run.dir: must be the name of a folder (given nothing)"),
        ("check out=x", "out: check keeps no folder (given x); leave it out"),
        ("resume run out=x", "out: a run that goes on stays in its folder (given x); leave it out"),
        ("run=x", "run: no such key (given x); the folder of a new run is chosen with out=DIR"),
        ("name=x", "name: no such key (given x); the folder of a new run is chosen with out=DIR, the network with "),
        ("find-lr", "unknown command 'find-lr'; did you mean 'find_lr'?"),
        ("fit", "unknown command 'fit'; commands: train, "),
        ("evaluate", "unknown command 'evaluate'; did you mean 'eval'?"),
        ("trainer.epochs 5", "unknown command 'trainer.epochs'; did you mean trainer.epochs=VALUE?"),
        ("trainer.epochs:5", "unknown command 'trainer.epochs:5'; did you mean trainer.epochs=5?"),
        ("train resnet18", "resnet18: neither KEY=VALUE nor a flag; did you mean model=resnet18?"),
        ("model=timm", "model.name: missing; give a network of the library, such as model.name=mobilenet_v3_small"),
        ("model=", "model: no option given; `cnntrain models` lists them"),
        (
            "model=vit_b_16",
            "model: no option vit_b_16; `cnntrain models` lists them; others are chosen by model=timm or ",
        ),
        ("trainer.epochs=5,", "trainer.epochs: a comma has nothing beside it (given 5,); write trainer.epochs=5"),
        ("help", "unknown command 'help'; did you mean cnntrain --help?"),
        ("resnet18", "unknown command 'resnet18'; did you mean model=resnet18?"),
        ("cifar10", "unknown command 'cifar10'; did you mean data=cifar10?"),
        (
            "tta=hflip",
            "tta: goes with a command (given hflip); write cnntrain eval RUN_DIR or predict RUN_DIR tta=hflip",
        ),
        (
            "images=photos",
            "images: goes with a command (given photos); write cnntrain predict RUN_DIR, explain RUN_DIR ",
        ),
        ("model@x=resnet18", "model@x: no part of the config is chosen by that (given resnet18); write model=resnet18"),
        ("check hydra.run.dir=${oc.env:NOPE}", "hydra.run.dir: "),
        ("--config-file=my.yaml", "--config-file: no such flag; put options of your own in a folder: --config-dir DIR"),
        ("--config", "--config: no such flag; put options of your own in a folder: --config-dir DIR"),
        ("--epochs=5", "--epochs: no such flag; write trainer.epochs=VALUE"),
        ("--batch-size 5", "--batch-size: no such flag; write data.batch_size=VALUE"),
        ("--config-name=mine", "--config-name: no mine.yaml in "),
    ],
)
def test_words_of_other_tools_are_answered_by_ours(
    calls: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, fault: str
) -> None:
    assert cli.main(line.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"cnntrain: error: {fault}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_command_is_answered_by_what_it_holds(
    calls: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    assert cli.main(["photos"]) == 2
    assert "did you mean data=imagefolder data.root=photos?" in capsys.readouterr().err
    (tmp_path / "photos" / "checkpoints").mkdir()
    (tmp_path / "photos" / "config.yaml").touch()
    assert cli.main(["photos"]) == 2
    assert "did you mean cnntrain resume photos or cnntrain eval photos or" in capsys.readouterr().err
    assert cli.main(["photos", "eval"]) == 2
    assert "did you mean cnntrain eval photos?" in capsys.readouterr().err


def test_of_a_key_that_is_there_twice_it_is_told_which_one_counts(
    calls: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["seed=1", "out=a", "seed=2", "out=b", "trainer.epochs=3", "trainer.epochs=3"]) == 0
    assert calls[0][1][1].settings.seed == 2
    assert calls[0][1][0].out == Path("b")
    assert capsys.readouterr().err.splitlines() == [
        "cnntrain: seed: is there twice; 2 counts, not 1",
        "cnntrain: out: is there twice; b counts, not a",
    ]


def test_the_words_that_go_with_a_command_are_arguments_of_it() -> None:
    for word, commands in COMMAND_WORDS.items():
        for command in COMMANDS:
            names = re.search(rf"\b{command}\b", commands) is not None
            assert names == (word in arguments_of(COMMANDS[command])), (word, command)


def test_quotes_around_a_path_are_no_part_of_it(calls: Calls, tmp_path: Path) -> None:
    assert cli.main(["out='my dir'"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == []  # the command is replaced: an empty folder goes
    assert calls[0][1][0].out == Path("my dir")
    (tmp_path / "a, b.png").touch()
    assert read_arguments(PredictArgs, ["run", "images='a, b.png'"]).images == (Path("a, b.png"),)


def test_the_home_folder_is_known_in_the_place_of_a_run(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["eval", "~/run"]) == 0
    assert calls[0][1][0].run.resolve() == tmp_path / "run"


def test_a_run_does_not_go_into_the_folder_of_a_sweep(
    calls: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "many" / "0_digits_lenet5").mkdir(parents=True)
    (tmp_path / "many" / "multirun.yaml").touch()
    assert cli.main(["out=many"]) == 9
    assert "many: holds the jobs of a sweep; choose another with out=DIR" in capsys.readouterr().err
    assert cli.main(["-m", "seed=2,3", "out=many"]) == 0
    assert len(calls) == 2


@pytest.mark.parametrize(
    "line", ["out=/dev/null/x", "-m seed=0,1 out=/dev/null/x", "-m seed=0,1 hydra.sweep.dir=/proc/x"]
)
def test_a_folder_that_cannot_be_made_answers_6(calls: Calls, capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert cli.main(line.split()) == 6
    assert re.fullmatch(r"cnntrain: error: \S+: the folder cannot be made .* with out=DIR\n", capsys.readouterr().err)
    assert calls == []


def test_relative_paths_start_where_the_user_is(calls: Calls, tmp_path: Path) -> None:
    assert cli.main(["hydra.job.chdir=true", "data=mnist", "data.root=images"]) == 0
    assert calls[0][1][1].settings.data.root == str(tmp_path / "images")


def test_check_leaves_nothing_on_disk(calls: Calls, tmp_path: Path) -> None:
    assert cli.main(["check"]) == 0
    assert cli.main(["check", "-m", "seed=0,1"]) == 0
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


def test_faults_answer_2_and_leave_no_folder(calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trainer.epochs=0", "data.batch_sze=64"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "cnntrain: error: data.batch_sze: no such key (given 64); did you mean data.batch_size?",
        "cnntrain: error: trainer.epochs: must be a whole number >= 1 (given 0)",
    ]
    assert calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("evall x", "unknown command 'evall'; did you mean 'eval'?"),
        (
            "xyzzy",
            f"unknown command 'xyzzy'; commands: {', '.join(COMMANDS)}",
        ),
        ("seed=1 train", "train: neither KEY=VALUE nor a flag"),
        ("--multirum", "--multirum: no such flag; did you mean --multirun?"),
        ("--config-path /tmp", "--config-path: not offered"),
        ("--experimental-rerun x.pickle", "--experimental-rerun: not offered"),
        ("--cfg jobs", "flags: argument --cfg/-c: invalid choice"),
        ("resume", "resume: which run? write cnntrain resume RUN_DIR, "),
        ("eval -m", "eval: which run? write cnntrain eval RUN_DIR_OR_CHECKPOINT, "),
        ("predict images=photos run", "predict: which run?"),
        ("resume run -m", "-m: no flag of resume"),
        ("model=resnet81 --cfg job", "model: no option resnet81"),
    ],
)
def test_faulty_lines_answer_2_with_one_line(
    calls: Calls, capsys: pytest.CaptureFixture[str], line: str, fault: str
) -> None:
    assert cli.main(line.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"cnntrain: error: {fault}")
    assert calls == []


def test_a_run_folder_may_begin_with_a_dash_or_hold_an_equals_sign(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-run", "lr=1"):
        Path(name).mkdir()
        assert cli.main(["eval", name]) == 0
    assert len(calls) == 2


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


def test_a_failing_job_of_a_sweep_is_told_and_the_others_go_on(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, None, NonFiniteError("loss: nan"), DataError("a.png: damaged"), None)
    assert cli.main(["-m", "seed=0,1,2,3"]) == 5
    assert capfd.readouterr().err.splitlines() == [
        "cnntrain: error: loss: nan",
        "cnntrain: error: a.png: damaged",
        "cnntrain: 2 of 4 jobs failed",
        "cnntrain: job 1: exit code 5: seed=1: loss: nan",
        "cnntrain: job 2: exit code 3: seed=2: a.png: damaged",
    ]


def test_an_interrupt_ends_the_whole_sweep(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, Interrupted(2, "stopped and saved"), DataError("must not be reached"))
    assert cli.main(["-m", "seed=0,1"]) == 130
    assert capsys.readouterr().err.splitlines() == [
        "cnntrain: stopped and saved",
        "cnntrain: jobs begun: 1; resume those that were stopped, and start the others by a line of their own",
    ]


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("x.png: damaged"), 3, "cnntrain: error: x.png: damaged"),
        (Interrupted(15, "stopped and saved"), 143, "cnntrain: stopped and saved"),
        (KeyboardInterrupt(), 130, "cnntrain: interrupted at once; nothing more was saved"),
        (
            PermissionError(13, "Permission denied", "/root/x"),
            6,
            "cnntrain: error: /root/x: Permission denied; mend its permissions",
        ),
        (FileNotFoundError(2, "Not there", b"/root/\xc3\xa4"), 6, "cnntrain: error: /root/ä: Not there"),
        (ConnectionRefusedError(111, "Connection refused"), 6, "cnntrain: error: Connection refused"),
        (TimeoutError(), 6, "cnntrain: error: TimeoutError"),
        (CheckpointError("a class \x1b[31m\x85\u2028"), 4, r"cnntrain: error: a class \x1b[31m\x85\u2028"),
        (MemoryError(), 7, "cnntrain: error: out of memory: this process holds "),
        (OutOfMemoryError("CUDA out of memory"), 7, "cnntrain: error: out of memory: "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 7, "cnntrain: error: out of memory: "),
        (RuntimeError("CUDA error: out of memory\nCompile with"), 7, "cnntrain: error: trainer.device: the GPU has no"),
        (
            RuntimeError(
                "adaptive_max_pool2d_backward_cuda does not have a deterministic implementation, but you\nset"
            ),
            2,
            "cnntrain: error: trainer.deterministic: torch has no repeatable algorithm for adaptive_max_pool2d_back",
        ),
        (
            type("CppCompileError", (RuntimeError,), {"__module__": "torch._inductor.exc"})("C++ compile error\ng++"),
            2,
            "cnntrain: error: trainer.compile: torch cannot compile this network here (CppCompileError: C++ compile e",
        ),
    ],
)
def test_failures_have_their_code_and_one_line(
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # asks Hydra for tracebacks, which faults of users never need
    failing(monkeypatch, error)
    assert cli.main([]) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_a_bug_saves_its_traceback_in_the_run_folder(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, ZeroDivisionError("our mistake"))
    assert cli.main([]) == 1
    line = capfd.readouterr().err
    saved = Path(re.findall(r"\S+traceback\.txt", line)[0])
    assert line.count("\n") == 1
    assert "ZeroDivisionError: our mistake" in line
    assert "Traceback" in saved.read_text()
    assert saved.parent.parent == Path("outputs/digits/lenet5")


def test_a_bug_outside_a_run_saves_its_traceback_elsewhere(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(monkeypatch, ZeroDivisionError())
    assert cli.main(["eval", "."]) == 1
    saved = Path(re.findall(r"\S+\.txt", capsys.readouterr().err)[0])
    assert saved.parent == tmp_path
    assert "ZeroDivisionError" in saved.read_text()


def test_a_bug_is_told_where_nothing_can_be_saved(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    failing(monkeypatch, ZeroDivisionError("our mistake"))
    assert cli.main(["eval", "."]) == 1
    told = capsys.readouterr().err
    assert "in run" in told
    assert told.endswith("(ZeroDivisionError: our mistake); please report it with the lines above\n")


@pytest.mark.parametrize("line", ["check", "check -m seed=0,1"])
def test_of_a_bug_in_check_the_traceback_alone_is_kept(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(monkeypatch, ZeroDivisionError())
    assert cli.main(line.split()) == 1
    assert list(tmp_path.iterdir()) == [Path(re.findall(r"\S+\.txt", capfd.readouterr().err)[0])]


@pytest.mark.parametrize("line", ["", "check", "resume run", "eval run"])
def test_an_image_folder_that_is_not_there_is_found_before_anything_is_made(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "run").mkdir()
    settings = compose_settings(["data=imagefolder", "data.root=/photos"])
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(settings))
    words = [*line.split(), "data.root=nowhere"]
    assert cli.main(words if "run" in words else [*words, "data=imagefolder"]) == 3
    assert f"data.root: {Path('nowhere')}" in capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_eval_finds_that_out_cannot_be_written_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for word, code in (
        ("out=", 2),
        (f"out={tmp_path}/a.txt", 2),
        (f"out={tmp_path}/folder.csv", 6),
        (f"out={tmp_path}/no/a.json", 6),
        ("out=~no-such-user/a.json", 6),
        (f"out={tmp_path}", 4),  # a folder takes all files; the run is what is missing
    ):
        assert cli.main(["eval", "nowhere", word]) == code


@pytest.mark.parametrize("command", ["resume", "eval"])
def test_overrides_of_a_saved_run_are_checked_before_the_command_is_loaded(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(compose_settings([])))
    assert cli.main([command, "run", "model=cnn", "trainer.epoch=3"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("cnntrain: error: model: cannot be chosen again")
    assert lines[1].endswith("did you mean trainer.epochs?")
    assert calls == []
    assert cli.main([command, "run", "data.batch_size=3"]) == 0
    args, chosen = calls[0][1]
    assert (args.run, chosen.settings.data.batch_size) == (Path("run"), 3)


def test_help_fits_80_columns_and_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "$$" not in text
    for file in conf_dir().glob("*/*.yaml"):
        if file.parent.name not in ("hydra", "recipe", "model") and not file.stem.startswith("for_"):
            assert re.search(rf"\b{file.stem}\b", text), file
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(calls: Calls, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cnntrain {command}")
    assert max(map(len, text.splitlines())) <= 80
    assert calls == []


def test_letters_that_the_output_does_not_have_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.main(["--version"]) == 0
    print("Schlüssel 猫", flush=True)
    assert raw.getvalue().decode().splitlines()[-1] == r"Schl\xfcssel \u732b"


def test_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cnntrain {cnntrain.__version__}\n"


def test_models_lists_each_option_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for file in (conf_dir() / "model").glob("[!f]*.yaml"):  # not for_<data>, a choice rather than a network
        assert re.search(rf"^{file.stem} +\S+", out, re.MULTILINE)
    assert cli.main(["models", "RESNET"]) == 0
    assert "lenet5" not in capsys.readouterr().out
    assert cli.main(["models", "rsenet18"]) == 2
    assert "did you mean resnet18?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("cnntrain ", ["train", "resume", "model=", "data="], []),
        ("cnntrain ev", ["eval"], ["train"]),
        ("cnntrain model=resn", ["model=resnet18", "model=resnet50"], ["train"]),
        ("cnntrain train optimizer=ada", ["optimizer=adam", "optimizer=adamw"], ["train"]),
        ("cnntrain check trainer.ep", ["trainer.epochs="], []),
        ("cnntrain summary model=resn", ["model=resnet18"], ["train"]),
        ("cnntrain compare model=resn", ["model=resnet18"], ["train"]),
        ("cnntrain resume ", [], ["model="]),
        ("cnntrain eval run ", ["tta=", "out="], ["model="]),
        ("cnntrain predict run tta=hflip,s", ["tta=hflip,shift"], ["tta=hflip,crops"]),
        ("cnntrain filter kernel=so", ["kernel=sobel_x"], ["kernel=box"]),
        ("cnntrain summary fo", ["formulas="], []),
        ("cnntrain hydra.c", [], ["hydra/cnntrain"]),
        ("cnntrain --mul", [], []),
    ],
)
def test_completion_knows_commands_groups_and_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, some: list[str], none: list[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    cli.main(["-sc", "query=bash"])
    offered, complaints = capsys.readouterr()
    words = offered.split()
    assert set(some) <= set(words)
    assert not set(none) & set(words)
    assert complaints == ""


def test_completion_script_completes_our_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-sc", "install=bash"]) == 0
    script = capsys.readouterr().out.rstrip()
    assert script.startswith("export _HYDRA_OLD_COMP=")
    assert script.endswith("hydra_bash_completion cnntrain")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["models"],
        ["trainer.epoch=5", "optimizer.lr=fast"],
        ["find_lr", "low=1", "high=0.1"],
        ["eval", "nowhere"],
        ["report", "nowhere"],
    ],
)
def test_help_and_faults_come_without_torch(tmp_path: Path, words: list[str]) -> None:
    code = f"import sys; from cnntrain.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(cnntrain.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
