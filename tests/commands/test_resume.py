"""Resuming: ends that lie behind, and run folders that a disk, a person or a stranger has changed."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cnntrain import cli
from cnntrain.cli import exit
from cnntrain.errors import CnntrainError, FileSystemError
from cnntrain.storage import atomic, checkpoint, run_record

QUICK = ["model=lenet5", "data.limit=40", "data.batch_size=20", "trainer.epochs=2", "trainer.threads=1"]
QUICK += ["trainer.tensorboard=false"]
TEXTS = ["overrides.yaml", "command.txt", "environment.json", "metrics.csv", "train.log", "results.json", "run.lock"]
PARTS = [
    f"checkpoints/{name}{part}" for name in ("last", "previous", "best") for part in ("", "/state.pt", "/manifest.json")
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, to be copied."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert cli.main([*QUICK, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, below the current folder. Nothing of the test may reach `elsewhere`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    shutil.copytree(finished, "run")
    yield Path("run")
    assert [(path.name, path.read_text()) for path in (tmp_path / "elsewhere").iterdir()] == [("file", "mine")]


def resume(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, what was said, and the one line of a fault."""
    capsys.readouterr()
    code = cli.main(["resume", "run", *words])
    said, fault = capsys.readouterr()
    assert (fault.count("\n"), fault.startswith("cnntrain: error: ")) == ((0, False) if code == 0 else (1, True))
    return code, said, fault


# --- an end that lies behind ---


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("trainer.epochs=1", "trainer.epochs: the run is in epoch 2 already (given 1); give more, or leave it out"),
        ("trainer.max_steps=3", "trainer.max_steps: the run is at step 4 already (given 3); give more, or leave it"),
        ("trainer.max_time=0.001s", "trainer.max_time: the run is at "),
        ("trainer.max_steps=9", "trainer.max_steps: the run is finished, trainer.epochs=2 is reached, and nothing"),
        ("optimizer.lr=0.1", "optimizer.lr: the run is finished, trainer.epochs=2 is reached, and nothing would be"),
    ],
)
def test_a_resume_that_would_train_nothing_is_refused_and_changes_nothing(
    run: Path, capsys: pytest.CaptureFixture[str], word: str, line: str
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
    code, _, fault = resume(capsys, word)
    assert code == 2
    assert fault.startswith(f"cnntrain: error: {line}")
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_run_says_so_and_is_scored_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((run / "results.json").read_text())
    code, said, _ = resume(capsys)
    assert code == 0
    assert "nothing is left to train, trainer.epochs=2 is reached" in said
    assert "resumed at" not in said
    again = json.loads((run / "results.json").read_text())
    assert [again[key] for key in ("val", "test", "weights_sha256")] == [
        found[key] for key in ("val", "test", "weights_sha256")
    ]


def test_a_finished_run_without_checkpoints_keeps_its_results(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
    line = "run: the run is finished and its checkpoints are gone; restore run/checkpoints from a copy, or train anew"
    for word in ("trainer.epochs=3", "seed=0"):
        code, _, fault = resume(capsys, word)
        assert (code, line in fault) == (4, True)
    assert cli.main(["eval", "run"]) == 4
    assert line in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_a_path_that_is_no_run_is_told_the_runs_around_or_below_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        shutil.copytree(run, f"outputs/sweeps/now/{number}", ignore=shutil.ignore_patterns("state.pt"))
        os.utime(f"outputs/sweeps/now/{number}/config.yaml", (number, number))
    Path("project").mkdir()
    Path("project/config.yaml").touch()
    newest = "did you mean outputs/sweeps/now/3 or outputs/sweeps/now/2 or outputs/sweeps/now/1?\n"
    meant = dict.fromkeys(["outputs", "outputs/sweeps/now"], newest)
    meant |= dict.fromkeys(["run/config.yaml", "run/checkpoints/worst"], "did you mean run?\n")
    meant |= dict.fromkeys(["elsewhere", "project/config.yaml", "project/nothing"], "outputs/DATA/MODEL/DATE_TIME")
    for target, told in meant.items():
        for command, more in (("resume", ()), ("eval", ()), ("explain", ()), ("predict", ("images=elsewhere",))):
            assert cli.main([command, target, *more]) in (2, 4)
            fault = capsys.readouterr().err
            assert told in fault, fault


def test_a_run_that_was_stopped_may_end_where_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("epochs: 2\n", "epochs: 9\n"))
    (run / "results.json").unlink()
    assert resume(capsys, "trainer.epochs=2")[0] == 0
    assert "epochs: 2\n" in (run / "config.yaml").read_text()


# --- a folder that was damaged ---


def put_nothing(path: Path) -> None:
    pass


def put_garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{[\n" + bytes(range(256)) * 8)


def put_braces(path: Path) -> None:
    path.write_text("{}")


def put_types(path: Path) -> None:
    path.write_text('{"run_id": 7, "resumed": 7, "status": []}')


def put_digits(path: Path) -> None:
    path.write_text("9" * 5000)


def put_depth(path: Path) -> None:
    path.write_text("[" * 20_000)


def put_size(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(atomic.SMALL + 1)


def put_folder(path: Path) -> None:
    path.mkdir()


def put_link(path: Path) -> None:
    path.symlink_to(Path("elsewhere/file").absolute())


def put_link_to_a_folder(path: Path) -> None:
    path.symlink_to(Path("elsewhere").absolute())


def put_link_to_nothing(path: Path) -> None:
    path.symlink_to(Path("elsewhere/new").absolute())


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


HARMS = [put_nothing, put_garbage, put_braces, put_types, put_digits, put_depth, put_size, put_folder, put_link]
HARMS += [put_link_to_a_folder, put_link_to_nothing, put_pipe]
LINKS = [put_link, put_link_to_a_folder, put_link_to_nothing]


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check(run: Path, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], None]) -> None:
    """The resume goes on, or ends with 4 or 6; where the harm is taken away, as the line asks, it goes on."""
    remove(run / name)
    harm(run / name)
    code, _, fault = resume(capsys, "trainer.epochs=3")
    assert code in (0, 4, 6), fault
    if code and name != "checkpoints":
        assert name.partition("/")[0] in fault
        remove(run / name)
        assert resume(capsys, "trainer.epochs=3")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", [*TEXTS, "metrics.csv.new", "traceback.txt", "bad_images.tsv", "checkpoints", *PARTS])
def test_a_damaged_run_folder_goes_on_or_ends_with_4_or_6(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], None]
) -> None:
    check(run, capsys, name, harm)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("environment.json", put_garbage),
        ("environment.json", put_digits),
        ("metrics.csv", put_garbage),
        ("metrics.csv.new", put_link),
        ("train.log", put_link),
        ("command.txt", put_pipe),
        ("checkpoints", put_link_to_a_folder),
        ("checkpoints/last", put_garbage),
        ("checkpoints/previous", put_pipe),
        ("checkpoints/best", put_link_to_nothing),
    ],
)
def test_damage_of_a_run_folder_is_told_or_mended(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], None]
) -> None:
    check(run, capsys, name, harm)


@pytest.mark.parametrize("harm", [put_nothing, put_braces, put_types])
def test_a_run_without_its_id_takes_that_of_its_checkpoints(
    run: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None]
) -> None:
    known = run_record.run_id(run)
    remove(run / "environment.json")
    harm(run / "environment.json")
    code, said, _ = resume(capsys, "trainer.epochs=3")
    assert code == 0
    assert "warning: run/environment.json: missing or without an id of the run; written anew" in said
    assert run_record.run_id(run) == known
    assert len(run_record.read_environment(run)["resumed"]) == 1


def test_rows_of_damaged_metrics_are_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = (run / "metrics.csv").read_bytes()
    step = good.splitlines(keepends=True)[-1]
    bad = [b"\xff\n", step.replace(b",2,", b",\xff,", 1), step.replace(b",2,", b",2.5,", 1), b"epoch," + b"9" * 200_000]
    (run / "metrics.csv").write_bytes(good + b"".join(bad) + b"\n" + step[:20])
    assert resume(capsys)[0] == 0
    assert (run / "metrics.csv").read_bytes() == good


def test_a_lost_best_epoch_is_chosen_anew(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints" / "best")
    code, said, _ = resume(capsys, "trainer.epochs=3", "optimizer.lr=1e-9")
    assert code == 0
    assert "checkpoints/best/manifest.json: missing; the best epoch is chosen anew among those to come" in said
    assert json.loads((run / "results.json").read_text())["best_epoch"] == 3


@pytest.mark.parametrize(
    "text", ["[" * 5000, "epochs: 9" + "9" * 5000, "a:\n " + "".join(" " * n + "a:\n" for n in range(400))]
)
def test_a_config_that_nobody_wrote_is_one_line(run: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (run / "config.yaml").write_text(text)
    code, _, fault = resume(capsys)
    assert code == 2
    assert fault.startswith("cnntrain: error: run/config.yaml: ")


def test_numbers_beyond_all_measure_in_a_config_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("epochs: 2\n", f"epochs: {10**30}\n"))
    code, _, fault = resume(capsys)
    assert code == 2
    assert "trainer.epochs: must be" in fault


# --- links ---


@pytest.mark.parametrize("harm", [*LINKS, put_pipe, put_folder])
def test_nothing_is_written_through_a_link_or_into_a_pipe(run: Path, harm: Callable[[Path], None]) -> None:
    harm(Path("there"))
    for flags in (os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_RDWR):
        with pytest.raises(OSError, match="there"):
            os.close(atomic.open_own(Path("there"), flags))
    with pytest.raises(OSError, match="there"):
        atomic.read_own(Path("there"))


def test_a_traceback_is_not_written_through_a_link(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_link(run / "traceback.txt")

    def work() -> None:
        raise ZeroDivisionError

    assert exit.exit_code(work, lambda: run) == 1
    elsewhere = capsys.readouterr().err.rpartition("report it with ")[2].strip()
    assert "ZeroDivisionError" in Path(elsewhere).read_text()
    os.unlink(elsewhere)


def test_text_that_a_link_leads_to_is_not_copied_into_the_folder(run: Path) -> None:
    for name in ("command.txt", "overrides.yaml", "environment.json"):
        remove(run / name)
        put_link(run / name)
        with pytest.raises(FileSystemError, match=name):
            run_record.describe(run, config_yaml="", overrides=[], command="cnntrain")
        remove(run / name)


@pytest.mark.parametrize("name", ["checkpoints", "explain"])
def test_folders_that_are_links_are_refused(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    words = ["explain", "run/checkpoints/best", "what=filters"] if name == "explain" else ["resume", "run"]
    remove(run / name)
    put_link_to_a_folder(run / name)
    assert cli.main(words) == 6
    assert f"run/{name}: nothing can be written there (Too many levels of symbolic links); it is a link, and" in (
        capsys.readouterr().err
    )


def test_checkpoints_behind_links_can_be_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As git-annex and DVC keep large files."""
    for file in ("state.pt", "manifest.json"):
        shutil.move(run / "checkpoints/best" / file, file)
        (run / "checkpoints/best" / file).symlink_to(Path(file).absolute())
    assert checkpoint.fault_of(run / "checkpoints/best") is None
    with pytest.raises(CnntrainError):
        checkpoint.save(run / "checkpoints/best" / "state.pt", {})
