"""A column of fold numbers in a table, in the place of one of splits: the folds of data.folds."""

import re
from collections.abc import Sequence
from pathlib import Path

from cnntrain.config.schema.data import DataSettings
from cnntrain.errors import ConfigError, DataError
from cnntrain.text import printable

NONE = -1  # the fold of an image where there are no folds


def read_folds(path: Path, column: str, cells: Sequence[str], settings: DataSettings) -> dict[str, int]:
    """The fold that each word of a column stands for; empty where the words are not all numbers.

    Raises:
        ConfigError: data.folds is another number of folds.
        DataError: it is not given; or the folds are not counted from 0.
    """
    words = {cell for cell in cells if cell.strip()}
    if not words or not all(re.fullmatch(r"\d{1,6}(\.0)?", word.strip()) for word in words):
        return {}
    numbers = {word: int(word.strip().removesuffix(".0")) for word in words}
    there, place = sorted(set(numbers.values())), f"{printable(path)}: the column {printable(column)!r}"
    first, last, count = there[0], there[-1], len(there)
    if there != list(range(count)) or count < 2:
        what = f"holds {count} different numbers, from {first} to {last}"
        advice = "count folds from 0 without a gap, write train, val or test, or leave it out with data.columns.split="
        raise DataError(f"{place} {what}; {advice}")
    if settings.folds is None:
        advice = f"set data.folds={count} data.fold=0 to validate on fold 0, or leave it out with data.columns.split="
        raise DataError(f"{place} holds the folds 0 to {last}; {advice}")
    if settings.folds != count:
        what = f"the column {printable(column)!r} of {printable(path.name)} holds {count} folds"
        raise ConfigError(f"data.folds: {what} (given {settings.folds}); set data.folds={count}")
    return numbers
