"""The commands replaced by notes of how they were called, for tests of the command line."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnntrain.cli import dispatch

Calls = list[tuple[str, tuple[Any, ...]]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_as_before: None) -> Calls:
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


@pytest.fixture
def logging_as_before() -> Iterator[None]:
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
