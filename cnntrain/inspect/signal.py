"""A signal in one dimension: read from a column of a table, and laid beside what a kernel makes of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnntrain.config.schema.filter import HIGHEST, MOST_VALUES
from cnntrain.data.table import Faults, Table, read_table
from cnntrain.errors import DataError, DataErrors
from cnntrain.models.map_sizes import Window
from cnntrain.storage.spreadsheet import as_csv
from cnntrain.text import few, hint, is_number, nearest, printable


@dataclass(frozen=True)
class Signal:
    """The values, the column that they stand in, empty where it has no name, and the other columns of numbers."""

    values: list[float]
    column: str = ""
    others: tuple[str, ...] = ()


def read_signal(path: Path, column: str | None) -> Signal:
    """The numbers of a column; by default of the first one that holds mostly numbers and has a name.

    A table whose first row holds numbers alone has no names. All columns are read, so that a gap in one is seen.

    Raises:
        DataError: there is no such column, or it holds something else than finite numbers.
    """
    faults = Faults(path)
    try:
        table = read_table(path, lambda names: _checked(path, names, column), faults, "value")
        name, others = (column, []) if column is not None else _find(table)
        values = _values(table, name, faults)
        faults.raise_all()
    except DataError as error:
        raise DataErrors([f"signal: {line}" for line in error.lines()]) from None
    if len(values) > MOST_VALUES:
        raise DataError(f"signal: {printable(path)} holds {len(values):,} values; give {MOST_VALUES:,} at most")
    return Signal(values, "" if _is_nameless(table.names) else name, tuple(others))


def place(index: int, window: Window) -> float:
    """Where the middle of the window of a value of the result lies, counted in values of the signal from 0."""
    reach = window.dilation[1] * (window.kernel[1] - 1)
    return index * window.stride[1] - window.borders[1][0] + reach / 2


def side_by_side(values: Sequence[float], result: Sequence[float], window: Window) -> str:
    """CSV of positions, values and results; a cell is empty where a position has none."""
    rows: dict[float, list[float | None]] = {float(index): [value, None] for index, value in enumerate(values)}
    for index, value in enumerate(result):
        rows.setdefault(place(index, window), [None, None])[1] = value
    lines = [[f"{position:g}" if position % 1 else int(position), *rows[position]] for position in sorted(rows)]
    return as_csv([["position", "signal", "result"], *lines])


def _checked(path: Path, names: list[str], column: str | None) -> list[str]:
    """The names; raises DataError where that of the column is not among them."""
    if column is None or (column in names and not _is_nameless(names)):
        return names
    if _is_nameless(names):
        raise DataError(f"{printable(path)}: its first row holds numbers, no names of columns; leave column= out")
    there = f"there are {few(map(printable, names))}"
    raise DataError(f"{printable(path)}: no column {printable(column)!r}{hint(nearest(column, names), there)}")


def _find(table: Table) -> tuple[str, list[str]]:
    """The first column of numbers, and the names of the others."""
    named = [name for name in table.cells if name] or list(table.cells)
    found = [name for name in named if 2 * sum(map(is_number, table.cells[name])) > len(table.rows)]
    if not found:
        names = few([repr(printable(name)) for name in named])
        raise DataError(f"{printable(table.path)}: no column of numbers among {names}; write a number in each row")
    return found[0], found[1:]


def _values(table: Table, name: str, faults: Faults) -> list[float]:
    cells = list(zip(table.rows, table.cells[name], strict=True))
    if _is_nameless(table.names):
        cells.insert(0, (1, name))
    if not any("\n" in cell for column in table.cells.values() for cell in column):  # each row is a line
        for above, row in zip(table.rows, table.rows[1:], strict=False):
            if row > above + 1:
                faults.add(
                    "a gap above them", row, "stands below an empty one; a signal has no gaps, write a number there"
                )
    values = []
    for row, cell in cells:
        value = float(cell) if is_number(cell) else math.nan
        if not abs(value) <= HIGHEST:
            what = printable(cell.strip()) or "nothing"
            faults.add(
                "no number", row, f"{printable(name)!r} holds {what}; a signal is of finite numbers, such as 0.5"
            )
        values.append(value)
    return values


def _is_nameless(names: Sequence[str]) -> bool:
    return any(names) and all(is_number(name) for name in names if name)
