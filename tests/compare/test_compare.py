"""`cnntrain compare`: what it runs, runs again and does not, what it tells, and its exit codes."""

import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from compared import HOME, LISTS, QUIET, Run, Trainer, compare, leave, planned, run
from rich.cells import cell_len

from cnntrain import cli
from cnntrain.compare import outcomes
from cnntrain.compare import plan as comparison
from cnntrain.compare.plan import combinations
from cnntrain.compare.progress import Line
from cnntrain.compare.record import RECORD, tables_folder
from cnntrain.config.plain import to_yaml
from cnntrain.config.run_config import restore_config
from cnntrain.errors import CheckpointError, Interrupted


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNTRAIN_DATA", "/data")  # the digits need none, but in each test it is the same


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
