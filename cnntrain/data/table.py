"""Tables of files as text: CSV, TSV, JSON Lines and Parquet, and what is wrong with their rows."""

import codecs
import csv
import io
import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from cnntrain.errors import DataError, DataErrors
from cnntrain.text import counted, printable, shorten

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
ITEM = "\x1f"  # stands between the values of a list in one cell
MOST_OF_A_KIND = 5  # rows that are named of each kind of fault
WIDEST = 1000  # columns of a line about one: its cells may be books
END = "\x03 end of the table"  # a last row, which a quote that is left open swallows
Choose = Callable[[list[str]], Collection[str]]  # of the names of all columns, those that are wanted


class Faults:
    """What is wrong with the rows of a table, told all together: of each kind the first ones, and how many more."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self._found: dict[str, list[tuple[int, str]]] = defaultdict(list)

    def add(self, kind: str, row: int, text: str) -> None:
        """Note a fault.

        Args:
            kind: of the rows that are left untold, such as `files that are not there`.
            text: what is wrong in this row, and what to do.
        """
        self._found[kind].append((row, text))

    def raise_all(self) -> None:
        """Raises DataErrors with all that was noted, if there is something."""
        told = [item for found in self._found.values() for item in sorted(found)[:MOST_OF_A_KIND]]
        lines = [f"{printable(self.table)}: row {row}: {shorten(text, WIDEST)}" for row, text in sorted(told)]
        for kind, found in self._found.items():
            if (more := len(found) - MOST_OF_A_KIND) > 0:
                lines.append(f"{printable(self.table)}: and {counted(more, 'more row')} with {kind}")
        if lines:
            raise DataErrors(lines)


@dataclass
class Table:
    """Some columns of a table.

    Attributes:
        names: of all its columns.
        rows: the line in which each row begins, from 1; of Parquet its number.
        cells: of the chosen columns, a text for each row; empty where there is none.
    """

    path: Path
    names: list[str]
    rows: list[int] = field(default_factory=list)
    cells: dict[str, list[str]] = field(default_factory=dict)


def read_table(path: Path, choose: Choose, faults: Faults, each: str = "image") -> Table:
    """Read the columns that are wanted; empty rows are passed over.

    Args:
        choose: may raise where the columns do not do.
        faults: is told of rows that cannot be read.
        each: what a row is of.

    Raises:
        DataError: the file cannot be read, or holds no table.
    """
    reader = {".parquet": _read_parquet, ".jsonl": _read_json}.get(path.suffix.lower(), _read_csv)
    try:
        table = reader(path, choose, faults)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror or error}); mend that") from None
    if not table.rows:
        faults.raise_all()
        raise DataError(f"{printable(path)}: holds no row; give a table with a row for each {each}")
    return table


def _read_csv(path: Path, choose: Choose, faults: Faults) -> Table:
    text = _text(path)
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    rows = _csv_rows(path, text, separator)
    header = next((cells for _, cells in rows if any(cells)), [])
    table = Table(path, [name.strip() for name in header])
    if not header:
        return table
    chosen = [(name, table.names.index(name)) for name in choose(table.names)]
    kept = []
    for row, cells in rows:
        if len(cells) == len(header):
            table.rows.append(row)
            kept.append(cells)
        elif any(cell.strip() for cell in cells):
            faults.add("other cells than the header", row, _misfit(cells, len(header), separator))
    table.cells = {name: [cells[place] for cells in kept] for name, place in chosen}
    return _without_empty_rows(table)


def _csv_rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, and the line in which it begins."""
    lines = chain(io.StringIO(text, newline=""), [END])
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    row = 1
    try:
        for cells in reader:
            if cells == [END]:
                return
            if cells and cells[-1].endswith(END):
                raise csv.Error("a quote without its other one")
            yield row, cells
            row = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{printable(path)}: row {row}: cannot be read ({error}); is a quote left open, or a byte of it zero?"
        ) from None


def _separator(text: str) -> str:
    """What parts the names of the columns."""
    first = next((line for line in text[:65_536].splitlines() if line.strip()), "")
    return max(SEPARATORS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))


def _misfit(cells: list[str], width: int, separator: str) -> str:
    line = separator.join(cells)
    for other, name in SEPARATORS.items():
        if other != separator and len(next(csv.reader([line], delimiter=other), [])) == width > 1:
            return f"is separated by {name}, and the header by {SEPARATORS[separator]}; use one of them throughout"
    advice = "give each column one, and quotes to a cell that holds the separator"
    return f"{counted(len(cells), 'cell')}, and the header has {width}; {advice}"


def _without_empty_rows(table: Table) -> Table:
    """Spreadsheets leave rows of separators behind: those without any cell in the chosen columns are none."""
    columns = list(table.cells.values())
    if not any("" in column for column in columns):
        return table
    keep = [index for index, cells in enumerate(zip(*columns, strict=True)) if any(map(str.strip, cells))]
    table.rows = [table.rows[index] for index in keep]
    table.cells = {name: [column[index] for index in keep] for name, column in table.cells.items()}
    return table


def _text(path: Path) -> str:
    """A file as text: UTF-8, or UTF-16 as its first bytes say; other bytes stay what they are in names of files."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "surrogateescape")


def _read_json(path: Path, choose: Choose, faults: Faults) -> Table:
    records: list[tuple[int, dict[str, Any]]] = []
    names: dict[str, None] = {}
    for row, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append((row, record))
            names |= dict.fromkeys(record)
        else:
            faults.add("no object of JSON", row, "is no object of JSON; write one per line, {...}")
    rows = [row for row, _ in records]
    if not rows:
        return Table(path, [])
    table = Table(path, list(names), rows)
    for name in choose(table.names):
        values = (record.get(name) for _, record in records)
        table.cells[name] = _texts(name, values, rows, faults)
    return _without_empty_rows(table)


def _read_parquet(path: Path, choose: Choose, faults: Faults) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            chosen = list(choose(names))
            columns = file.read(columns=chosen)
            values = {name: columns.column(name).to_pylist() for name in chosen}
    except (pyarrow.ArrowException, KeyError, ValueError, ArithmeticError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise DataError(f"{printable(path)}: no readable Parquet ({printable(reason)}); write it anew") from None
    table = Table(path, names, list(range(1, columns.num_rows + 1)))
    table.cells = {name: _texts(name, column, table.rows, faults) for name, column in values.items()}
    return _without_empty_rows(table)


def _texts(name: str, values: Iterable[Any], rows: list[int], faults: Faults) -> list[str]:
    """Typed values as a table of text would have them."""
    texts = []
    for row, value in zip(rows, values, strict=True):
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(item, (list, dict, tuple)) for item in items):
            advice = "give it one; files of the Hugging Face hub are read by data=hf data.root=FOLDER"
            faults.add("values within values", row, f"{printable(name)!r} holds values within values; {advice}")
            items = [""]
        texts.append(ITEM.join(item if isinstance(item, str) else _as_text(item) for item in items))
    return texts


def refuse_lists(table: Table, name: str, advice: str, faults: Faults) -> None:
    """Several values in one cell of a column are a fault."""
    for row, cell in zip(table.rows, table.cells[name], strict=True):
        if ITEM in cell:
            faults.add("several values in one cell", row, f"{printable(name)!r} holds several values; {advice}")


def refuse_other_letters(table: Table, names: Iterable[str]) -> None:
    """Raises DataError where columns hold bytes that are no UTF-8, and would be read as other letters."""
    for name in names:
        misfits = [row for row, cell in zip(table.rows, table.cells[name], strict=True) if not is_utf8(cell)]
        if misfits:
            cell = printable(table.cells[name][table.rows.index(misfits[0])].strip())
            more = f", and {counted(len(misfits) - 1, 'more row')}" if len(misfits) > 1 else ""
            raise DataError(
                f"{printable(table.path)}: row {misfits[0]}: '{shorten(cell, WIDEST)}' in {printable(name)!r} is no "
                f"UTF-8{more}; {other_letters(table.path)}"
            )


def is_utf8(text: str) -> bool:
    """Whether a text of a table holds no byte that is none of UTF-8's."""
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


def other_letters(path: Path) -> str:
    """What to do about a table of another encoding."""
    if path.suffix.lower() == ".parquet":
        return "write that column as text"
    name = shlex.quote(printable(path.name))
    return f"save the table as UTF-8, such as by `iconv -f latin1 -t utf-8 {name} > utf8{path.suffix}`"


def _as_text(value: Any) -> str:
    if value is None or value != value:  # as pandas writes a gap among numbers
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
