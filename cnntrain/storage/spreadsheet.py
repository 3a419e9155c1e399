"""Tables that people open in a spreadsheet, with the names of strangers in them."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from cnntrain.text import is_number

RUN = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # what a formula can begin with


def cell(value: Any) -> Any:
    """The value, where it is text that a spreadsheet would run with the apostrophe that makes it text there too."""
    if isinstance(value, str) and value.startswith(RUN) and not is_number(value):
        return f"'{value}"
    return value


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """The rows as CSV; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()
