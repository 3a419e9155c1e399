"""How a command ends: its exit code, its one line, and the traceback of a bug."""

import re
from pathlib import Path

import pytest
from command_calls import Calls, failing

from cnntrain import cli
from cnntrain.errors import CheckpointError, DataError, Interrupted, NonFiniteError


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
