"""What work tells while it goes on; `report.run_report.Report` shows and stores it."""

from typing import Any, Protocol


class Teller(Protocol):
    """Takes lines."""

    def say(self, line: str) -> None: ...
    def warn(self, line: str) -> None: ...


class Silence:
    """Tells nobody."""

    def say(self, line: str) -> None:
        """Drop it."""

    def warn(self, line: str) -> None:
        """Drop it."""


class Reporter(Teller, Protocol):
    """Takes lines, progress, rows of scores and pictures."""

    def start_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None: ...
    def advance(self, images: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def validating(self, batches: int, phase: str = ...) -> None: ...
    def end_phase(self) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...
