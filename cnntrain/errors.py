"""What can go wrong, one class per exit code. The codes are a public contract (docs/run-folder.md).

A message is one line, `<key or path>: <what is wrong>; <what to do>`; the command line prints it without a traceback.
"""


class CnntrainError(Exception):
    """An expected fault: shown to the user as one line, ended with `exit_code`."""

    exit_code = 1

    def lines(self) -> list[str]:
        """Of the message: what else would break a line came out of a value."""
        return [str(self)]


class ConfigError(CnntrainError):
    """A value, key or combination that the configuration does not allow."""

    exit_code = 2


class DataError(CnntrainError):
    """Images or labels that are missing, damaged or inconsistent."""

    exit_code = 3


class ImageError(DataError):
    """An image of the data that cannot be decoded and may not be skipped; others may be as bad."""


class DataErrors(DataError):
    """Several of them, told together."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults

    def lines(self) -> list[str]:
        """A fault each."""
        return self.faults


class CheckpointError(CnntrainError):
    """A checkpoint that is missing, damaged or does not fit."""

    exit_code = 4


class NonFiniteError(CnntrainError):
    """The loss or the weights became NaN or infinite."""

    exit_code = 5


class FrozenError(CnntrainError):
    """A weight or statistic that must not learn has moved."""

    exit_code = 5


class FileSystemError(CnntrainError):
    """A folder that cannot be written, or a full disk."""

    exit_code = 6


class ResourceError(CnntrainError):
    """Out of memory, or a lost worker."""

    exit_code = 7


class UnsafeError(CnntrainError):
    """A file or name that would run a stranger's code."""

    exit_code = 8


class RunFolderError(CnntrainError):
    """The run folder belongs to another run."""

    exit_code = 9


class Interrupted(CnntrainError):
    """A signal asked for the end; the state has been saved."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum
