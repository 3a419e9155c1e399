"""Whoever waits for torch is told at once, and nobody who does not."""

import io
import os
import pty
import sys
from pathlib import Path

import pytest

from cnntrain import cli
from cnntrain.cli import loading

SHOWN, ERASED = loading.WORD, loading.ERASE


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had loaded torch yet."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_shows_the_word_at_once_and_loses_it_with_a_fault() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "cnntrain", "trainer.epoch=3"])
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # its end
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert shown.decode().startswith(f"{SHOWN}{ERASED}cnntrain: error: trainer.epoch: no such key")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.usefixtures("fresh")
def test_the_first_output_takes_the_word_away_and_gives_the_streams_back(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    terminal = Terminal()
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, terminal)
    with loading.word():
        loading.tell()  # which knows that it is told already
        assert terminal.getvalue() == SHOWN
        for line in ("a", "b"):
            print(line, file=getattr(sys, name))
        assert getattr(sys, name) is terminal
        assert terminal.getvalue() == f"{SHOWN}{ERASED}a\nb\n"
    assert terminal.getvalue() == f"{SHOWN}{ERASED}a\nb\n"


@pytest.mark.usefixtures("fresh")
def test_a_word_that_no_output_follows_goes_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt), loading.word():
        raise KeyboardInterrupt
    assert terminal.getvalue() == SHOWN + ERASED


@pytest.mark.parametrize("term", ["dumb", None])
@pytest.mark.usefixtures("fresh")
def test_a_terminal_that_can_take_nothing_away_gets_a_line(monkeypatch: pytest.MonkeyPatch, term: str | None) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("TERM")
    if term:
        monkeypatch.setenv("TERM", term)
    with loading.word():
        assert terminal.getvalue() == ""
        loading.tell()
    assert terminal.getvalue() == "cnntrain: loading torch\n"


@pytest.mark.usefixtures("fresh")
def test_a_pipe_gets_a_line_on_stderr_once_the_words_are_known_to_be_sound(
    here: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cnntrain.cli.dispatch._load", lambda command: lambda *given: print(command))
    Path("run").mkdir()
    for line in (["check"], ["summary"], ["preview"], ["eval", "run"], ["predict", "run", "images=."]):
        assert cli.main(line) == 0
        assert capsys.readouterr() == (f"{line[0]}\n", "cnntrain: loading torch\n")
        assert cli.main([*line, "trainer.epoch=1" if len(line) == 1 else "out=/no/such/place/a.csv"]) > 0
        assert "loading" not in capsys.readouterr().err
    assert cli.main(["pack", "data=digits", "out=packed"]) == 2
    assert capsys.readouterr().err.startswith("cnntrain: error: data: pack takes a folder of photos")


def test_nothing_is_said_where_torch_is_there_or_not_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with loading.word():
        loading.tell()
    monkeypatch.delitem(sys.modules, "torch")
    assert cli.main(["models", "resnet18"]) == cli.main(["--help"]) == cli.main(["eval", "--help"]) == 0
    assert terminal.getvalue() == ""
    monkeypatch.setenv("TERM", "xterm")
    for variable, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    with loading.word():  # of several processes the first one speaks
        loading.tell()
    assert terminal.getvalue() == ""
