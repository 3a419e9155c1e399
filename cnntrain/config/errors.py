"""All faults of one command line, in one error."""

import re
from collections.abc import Iterable

from cnntrain.errors import ConfigError
from cnntrain.text import printable

LONG_VALUE = re.compile(r"\(given (.{100}).{100,}\)")  # a value that would fill the screen
LONG_WORD = re.compile(r"(\S{200})\S{100,}")  # the same, wherever it stands


class ConfigErrors(ConfigError):
    """All faults of one command line."""

    def __init__(self, faults: Iterable[str]) -> None:
        lines = (LONG_WORD.sub(r"\1...", LONG_VALUE.sub(r"(given \1 ...)", printable(line))) for line in faults)
        self.faults = list(dict.fromkeys(lines))  # a sweep meets the same fault in each job
        super().__init__("\n".join(self.faults))

    def lines(self) -> list[str]:
        """A fault each."""
        return self.faults
