"""Words that mean nothing, belong to another tool or command, or are there twice are answered in one line."""

import re
from pathlib import Path

import pytest
from command_calls import Calls

from cnntrain import cli
from cnntrain.cli.arguments import arguments_of, read_arguments
from cnntrain.config.messages import COMMAND_WORDS
from cnntrain.config.schema.commands import COMMANDS
from cnntrain.config.schema.run_commands import PredictArgs


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


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("out=x hydra.run.dir=y", "out: is hydra.run.dir in another word (given x); give one of the two"),
        ("-m seed=0,1 out=x hydra.sweep.dir=y", "out: is hydra.sweep.dir in another word (given x)"),
        ("hydra.mode=${data.root}", "hydra.mode: While dereferencing interpolation"),
        ("out=", "out: must be the name of a folder (given nothing)"),
        ("hydra.run.dir=", "hydra.run.dir: must be the name of a folder (given nothing)"),
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
