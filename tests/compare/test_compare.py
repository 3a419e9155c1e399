"""`cnntrain compare`: what it plans, what it runs again and what not, and its exit codes."""

import csv
import functools
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.cli.arguments import read_arguments
from cnntrain.commands import compare as command
from cnntrain.compare import outcomes
from cnntrain.compare import plan as comparison
from cnntrain.compare.plan import Combination, combinations
from cnntrain.compare.progress import Line
from cnntrain.compare.record import RECORD, tables_folder
from cnntrain.config import overrides
from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema.commands import CompareArgs
from cnntrain.errors import CheckpointError, ConfigError, Interrupted
from cnntrain.report.csv_log import COLUMNS
from cnntrain.runtime.child import cnntrain_command

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")
QUIET = ["model=lenet5", "trainer.tensorboard=false"]  # TensorBoard's files cost seconds
Run = Callable[[Sequence[str], Callable[[], None]], int]
LISTS = [*QUIET, "optimizer=sgd,adamw", "seed=0,1"]
HOME = Path("outputs/compare/digits_lenet5")


class Trainer:
    """Stands in for the processes: writes what a run leaves behind.

    Attributes:
        runs: what was planned.
        commands: what was to be started, without the interpreter.
        ends: exit codes of the next runs; a run that is not named ends well.
        signum, said: as of a Relay.
    """

    def __init__(self, runs: Sequence[Combination], *ends: int) -> None:
        self.runs = runs
        self.commands: list[list[str]] = []
        self.ends = list(ends)
        self.signum: int | None = None
        self.said: list[str] = []

    def run(self, command: Sequence[str], watch: Callable[[], None] = lambda: None) -> int:
        words = list(command[len(cnntrain_command()) :])
        assert list(command) == cnntrain_command(*words)
        self.commands.append(words)
        code = self.ends.pop(0) if self.ends else 0
        self.signum = code - 128 if code > 128 else None
        if words[0] == "train":
            folder = Path(overrides.parse(words[-1:])[0][0].value())
            ending = re.search(r"_([0-9a-f]{8})(-\d+)?$", folder.name)
            assert ending
            digest = ending[1]
            leave(folder, next(run.plain for run in self.runs if run.digest == digest), code)
        else:
            folder = Path(words[1])
            leave(folder, yaml.safe_load((folder / "config.yaml").read_text()), code)
        return code

    @property
    def folders(self) -> list[str]:
        found = (word for command in self.commands for word in command if word.startswith(("hydra.run.dir", "outputs")))
        return [Path(word.strip("'").removeprefix("hydra.run.dir='")).name for word in found]


def leave(folder: Path, plain: dict[str, Any], code: int) -> None:
    """The files of a run; its scores depend on the optimizer and the seed alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if code in (2, 3, 9):
        return
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    if code > 128:
        return
    top1 = (0.9 if plain["optimizer"]["name"] == "adamw" else 0.8) + 0.01 * plain["seed"]
    results = {
        "status": "failed" if code else "done",
        "error": "step 3: the loss is nan",
        "val": {"top1": top1, "top5": 1.0, "loss": 0.1},
        "test": {"top1": top1 - 0.1, "top5": 1.0, "loss": 0.1},
        "best_epoch": 2 + plain["seed"],
        "images": {"train": 1293, "val": 144, "test": 360},
        "train_seconds": 30.0,
        "seconds": 35.0,
        "peak_memory_bytes": 5 * 10**8,
        "parameters": 61706,
        "trainable_parameters": 850,
    }
    (folder / "results.json").write_text(json.dumps(results))
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for epoch in (1, 2):
            scores = {"val_loss": 0.1, "val_top1": top1 - 0.1 / epoch}
            row = {"kind": "epoch", "epoch": epoch, "step": epoch * 7, "seconds": 15.0, "best": 1}
            writer.writerow(row | scores)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNTRAIN_DATA", "/data")  # the digits need none, but in each test it is the same


@functools.cache
def planned(*words: str) -> list[Combination]:
    return combinations(words)


def compare(runs: Sequence[Combination], words: Sequence[str], starter: Any, out: Path | None = None) -> int:
    args = CompareArgs(line=("compare", *words), out=out)
    return command.run(args, runs, starter=lambda: nullcontext[Any](starter))


def run(words: Sequence[str], *ends: int) -> tuple[int, Trainer]:
    """The exit code of a comparison with stand-ins, and these."""
    trainer = Trainer(planned(*words), *ends)
    return compare(trainer.runs, words, trainer), trainer


# --- the plan --------------------------------------------------------------------------------------------------------


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


# --- runs ------------------------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    code, first = run(LISTS)
    assert (code, len(first.commands)) == (0, 4)
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [
        f"compare: 4 runs in {HOME}",
        "run 1 of 4  optimizer=sgd seed=0  test top-1 70.00%  0:00:00",
        "run 2 of 4  optimizer=adamw seed=0  test top-1 80.00%  0:00:00",
    ]
    assert out[5] == ""
    shown = out[out.index("") :]
    code, again = run(LISTS)
    assert (code, again.commands) == (0, [])
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("4 of them finished already")
    assert out[1:] == shown


def test_a_picture_that_cannot_be_drawn_costs_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnntrain.compare.table.curves_of", lambda *_: 1 / 0)
    assert run(LISTS)[0] == 0
    told = capsys.readouterr().out
    assert "warning: not all of the pictures: ZeroDivisionError: division by zero\nwrote " in told


def test_only_new_values_run_and_another_config_gets_other_folders() -> None:
    _, first = run(LISTS)
    _, more = run([*QUIET, "optimizer=sgd,adamw", "seed=0,1,3"])
    assert ["seed=3" in command for command in more.commands] == [True, True]
    _, longer = run([*LISTS, "trainer.epochs=5"])
    assert len(longer.commands) == 4
    folders = [*first.folders, *more.folders, *longer.folders]
    assert len(set(folders)) == 10
    assert {path.parent.name for path in HOME.glob("*/config.yaml")} == set(folders)
    assert run([*QUIET, "optimizer=adamw", "seed=0,1,3"])[1].commands == []  # other lists, the same runs


def test_a_run_that_was_resumed_with_other_values_is_another_one() -> None:
    _, first = run(LISTS)
    changed = HOME / first.folders[0] / "config.yaml"
    settings = restore_config(yaml.safe_load(changed.read_text()), ["trainer.epochs=99"]).settings
    changed.write_text(to_yaml(settings))
    _, again = run(LISTS)
    assert again.folders == [f"{first.folders[0]}-2"]
    assert run(LISTS)[1].commands == []


def test_runs_that_were_stopped_go_on_and_those_without_a_config_start() -> None:
    with pytest.raises(Interrupted):
        run(LISTS, 0, 130)
    leave(HOME / planned(*LISTS)[2].name, {}, 3)
    _, again = run(LISTS)
    assert [command[0] for command in again.commands] == ["resume", "train", "train"]
    assert again.commands[0] == ["resume", str(HOME / planned(*LISTS)[1].name)]


def test_code_of_ones_own_is_named_again_when_its_run_goes_on() -> None:
    words = [*QUIET, "model.name=my_pkg:net", "augment=own", "augment.own.name=my_aug:noise", "seed=0,1"]
    runs = combinations(words)
    trainer = Trainer(runs, 143)
    with pytest.raises(Interrupted):
        compare(runs, words, trainer, out=Path("outputs/mine"))
    compare(runs, words, trainer, out=Path("outputs/mine"))
    assert trainer.commands[1][2:] == ["model.name=my_pkg:net", "augment.own.name=my_aug:noise"]


@pytest.mark.parametrize("code", [1, 4, 5, 7, 137])
def test_a_run_that_fails_is_told_and_the_others_go_on(capsys: pytest.CaptureFixture[str], code: int) -> None:
    trainer = Trainer(planned(*LISTS), code, 0, 6)
    found = compare(trainer.runs, LISTS, NoSignal(trainer))
    assert (found, len(trainer.commands)) == (code, 4)
    out = capsys.readouterr().out
    assert re.search(rf"^failed: optimizer=sgd seed=0 \(exit code {code}.*\)$", out, re.MULTILINE)
    assert re.search(r"^run 1 of 4  optimizer=sgd seed=0  failed: .*$", out, re.MULTILINE)
    assert re.search(r"^sgd +0/2 +- +- +- +- +- +-$", out, re.MULTILINE)
    assert re.search(r"^adamw +2 +80.50 ± 0.71 .* \*$", out, re.MULTILINE)


class NoSignal:
    """A trainer whose exit codes above 128 come from no signal that we were sent."""

    signum = None

    def __init__(self, trainer: Trainer) -> None:
        self.run: Run = trainer.run
        self.said: list[str] = []


def ended_by(code: int) -> "Run":
    """A process that leaves nothing but its exit code."""

    def run(command: Sequence[str], watch: Callable[[], None] = lambda: None) -> int:
        return code

    return run


@pytest.mark.parametrize("code", [2, 3, 9])
def test_faults_of_config_data_and_folder_stop_everything(capsys: pytest.CaptureFixture[str], code: int) -> None:
    found, trainer = run(LISTS, 0, code)
    assert (found, len(trainer.commands)) == (code, 2)
    out = capsys.readouterr().out
    assert f"run 2 of 4 cannot be made (exit code {code}); none is started after it" in out
    assert re.search(r"^sgd +1/2 ", out, re.MULTILINE)


def test_without_any_finished_run_nothing_is_left(tmp_path: Path) -> None:
    assert run(LISTS, 5, 5, 5, 5)[0] == 5
    assert {path.name for path in HOME.iterdir()} == {combination.name for combination in planned(*LISTS)}
    trainer = NoSignal(Trainer(planned(*LISTS)))
    trainer.run = ended_by(3)  # whose folder is gone
    assert compare(planned(*LISTS), LISTS, trainer, out=Path("new")) == 3
    assert not (tmp_path / "new").exists()


def test_a_run_that_cannot_go_on_has_failed_whatever_its_earlier_end_was(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted):
        run(LISTS, 0, 143)
    folder = HOME / planned(*LISTS)[1].name
    (folder / "results.json").write_text('{"status": "interrupted", "error": "stopped and saved"}')
    assert "failed" not in capsys.readouterr().out
    trainer = NoSignal(Trainer(planned(*LISTS)))
    trainer.run = ended_by(4)  # its checkpoints are damaged
    compare(planned(*LISTS), LISTS, trainer)
    assert "failed: optimizer=adamw seed=0 (exit code 4)" in capsys.readouterr().out.splitlines()


def test_what_is_missing_is_told_before_the_first_run_and_finished_runs_need_nothing(tmp_path: Path) -> None:
    (tmp_path / "here.pt").write_text("")
    words = [*QUIET, "model.weights=here.pt,gone.pt"]
    with pytest.raises(CheckpointError, match=r"^model.weights: gone.pt is not there; give a"):
        run(words)
    assert [path.name for path in tmp_path.iterdir()] == ["here.pt"]
    (tmp_path / "gone.pt").write_text("")
    assert run(words)[0] == 0
    (tmp_path / "gone.pt").unlink()
    assert run(words)[1].commands == []


def test_an_interrupt_shows_what_is_finished_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*LISTS, "model.args={}", "trainer.device='cpu'"]
    with pytest.raises(Interrupted) as stopped:
        run(words, 0, 0, 0, 143)
    assert stopped.value.exit_code == 143
    assert str(stopped.value).endswith(f"go on with {shlex.join(['cnntrain', 'compare', *words])}")
    assert "3 of 4 runs" in str(stopped.value)
    out = capsys.readouterr().out
    assert re.search(r"^sgd +2 ", out, re.MULTILINE)
    assert re.search(r"^adamw +1/2 ", out, re.MULTILINE)


def test_why_a_run_cannot_be_made_is_what_its_process_said(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(planned(*LISTS), 0, 3)
    trainer.said = ["a warning", "cnntrain: error: data.root: photos is not there", "cnntrain: error: seed: no"]
    assert compare(trainer.runs, LISTS, trainer) == 3
    out = capsys.readouterr().out
    assert "failed: optimizer=adamw seed=0 (exit code 3: data.root: photos is not there; seed: no)\n" in out


def test_the_best_command_comes_last_and_trains_the_best_row_again(capsys: pytest.CaptureFixture[str]) -> None:
    run([*LISTS, "trainer.epochs=3"])
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["cnntrain", "train", *QUIET, "optimizer=adamw", "trainer.epochs=3"]
    assert "seed=7" in comparison.row_words((runs := combinations(["seed=7", "optimizer.lr=0.1,0.2"]))[0], runs)


def test_other_words_than_the_lists_are_in_the_name_of_a_run() -> None:
    words = ["optimizer.lr=0.1,0.2", "trainer.epochs=5", "++data.val=0.2", "model=lenet5", "data.root=photos"]
    names = [one.name for one in combinations([*words, "data=imagefolder"])]
    assert [name.rpartition("_")[0] for name in names] == [f"lr-{lr}_seed-0_epochs-5_val-0.2" for lr in ("0.1", "0.2")]


def test_a_run_is_one_line_which_lives_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("TERM", "xterm")
    trainer = Trainer(planned(*LISTS))
    finish = trainer.run

    def watched(command: Sequence[str], watch: Callable[[], None]) -> int:
        code = finish(command)
        watch()
        return code

    monkeypatch.setattr(trainer, "run", watched)
    assert compare(trainer.runs, LISTS, trainer) == 0
    out = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert re.search(r"run 1 of 4  optimizer=sgd seed=0  epoch 2/\d+  val top-1 75.00%  0:00:00", out)
    assert "run 1 of 4  optimizer=sgd seed=0  test top-1 70.00%  0:00:00\n" in out


def test_the_line_of_a_run_has_80_columns_however_long_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("TERM", "xterm")
    with Line("run 10 of 12", "classes=[" + "猫" * 60 + "] seed=0") as line:
        line.show("epoch 100/100  val top-1 66.67%  0:00:23")
        line.end("test top-1 66.67%  0:00:23")
    out = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    lines = [part for part in re.split(r"[\r\n]", out) if part]
    assert max(map(cell_len, lines)) <= 80
    assert any(part.endswith("] seed=0  epoch 100/100  val top-1 66.67%  0:00:23") for part in lines)
    assert lines[-1].endswith("] seed=0  test top-1 66.67%  0:00:23")


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


# --- the real thing --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_real_runs_are_made_once(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["compare", *LISTS[:3], "data.limit=100", "trainer.epochs=1", "trainer.device=cpu", "trainer.threads=1"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    assert cli.main(words) == 0
    first = capfd.readouterr().out
    assert (
        len(re.findall(r"^run [12] of 2  optimizer=\w+ seed=0  test top-1 \S+%  0:00:\d\d$", first, re.MULTILINE)) == 2
    )
    assert "epoch 1/1" not in first
    assert re.search(r"^adamw +1 ", first, re.MULTILINE)
    results = {path: path.read_text() for path in HOME.glob("*/results.json")}
    assert len(results) == 2
    assert cli.main(words) == 0
    second = capfd.readouterr().out
    assert "2 of them finished already" in second
    assert second.splitlines()[1:] == first.splitlines()[-len(second.splitlines()) + 1 :]
    assert {path: path.read_text() for path in HOME.glob("*/results.json")} == results


@pytest.mark.parametrize("value", [True, "0.9", math.inf, math.nan, 10**400, None, [1]])
def test_a_damaged_score_is_none(value: object) -> None:
    results = {"val": {"top1": value}, "test": [1], "parameters": 7}
    assert outcomes.measures(results) == {"parameters": 7}


@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", '{"command": 1}', ""])
def test_a_damaged_record_of_an_earlier_comparison_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    assert tables_folder(tmp_path, ["cnntrain", "compare", "seed=0,1"]) == tmp_path
