"""Which folder a run gets, and which run or file a line means."""

import re
from pathlib import Path
from typing import Any

import pytest
from command_calls import Calls

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_yaml


def test_a_run_that_is_not_there_has_one_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("resume", "eval", "predict", "explain"):
        assert cli.main([command, "nowhere", *(["images=."] if command == "predict" else [])]) == 4


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


def test_a_run_folder_may_begin_with_a_dash_or_hold_an_equals_sign(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-run", "lr=1"):
        Path(name).mkdir()
        assert cli.main(["eval", name]) == 0
    assert len(calls) == 2


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
