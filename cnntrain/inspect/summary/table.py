"""A network's layers as a table of 80 columns: grouped by block, and a block that repeats is shown once."""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from rich.text import Text
from torch import nn

from cnntrain.inspect.summary.formulas import size_formulas
from cnntrain.inspect.summary.rows import LayerRow
from cnntrain.models.catalogue import short
from cnntrain.text import cut

LARGEST_BLOCKS = (40, 80, 160)  # rows; the first that makes a table of LONGEST_FULL lines
LONGEST_WHOLE = 100  # rows; a longer table leaves out layers that only pass on
LONGEST_FULL = 200  # rows; a still longer one has a line for a block that is like the one above but for its sizes
LEAST_NAME = 18  # columns
HEAD = ("layer", "F", "S", "P", "output", "parameters", "mul-adds", "field", "jump", "bytes")
SUM = "as"  # a column more, where there is room for it
LEGEND = (
    "F kernel, S stride, P padding, D dilation, G groups as height x width",
    "field: pixels of the image that one output sees; jump: pixels between neighbours",
    "bytes: memory of the output; out=FILE.csv: all exactly; formulas=true: the sums",
)


_Line: TypeAlias = tuple[tuple[str, ...] | str, str, LayerRow | None]  # cells or a title, style, the row if it is one


@dataclass(frozen=True)
class _Block:
    """Rows that stand together, and the module that holds them; path "" is the network itself."""

    path: str
    kind: str
    rows: tuple[LayerRow, ...]

    def pattern(self, *, sizes: bool = True) -> tuple[object, ...]:
        """What is the same in blocks that repeat; without `sizes`, in those that only get wider or smaller."""
        return (self.kind, *(_pattern(row, self.path, sizes) for row in self.rows))


def table(model: nn.Module, rows: Sequence[LayerRow], width: int, *, formulas: bool) -> list[Text]:
    """The lines of the table; only names are cut to keep them within `width`.

    Args:
        model: the network that the rows were made of.
        rows: of `inspect.summary.rows.inspect`.
        width: columns of the terminal.
        formulas: below each row the sums behind its numbers.
    """
    drafts = []
    for largest in LARGEST_BLOCKS:
        drafts.append(_lines(_blocks(model, rows, largest), full=formulas))
        if formulas or len(drafts[-1]) <= LONGEST_FULL:
            break
    lines = min(drafts, key=len)
    widths = _widths([cells for cells, _, _ in lines if isinstance(cells, tuple)], width)
    text: list[Text] = []
    for cells, style, row in lines:
        text.append(Text(cut(cells, width) if isinstance(cells, str) else _align(cells, widths), style))
        if formulas and row:
            text += [Text(line, "dim") for line in _sums(row, width)]
    return text


def _lines(blocks: Sequence[_Block], *, full: bool) -> list[_Line]:
    """The table with repeated blocks folded; unless `full`, long ones leave out what says least."""
    repeats = [list(same) for _, same in groupby(blocks, key=_Block.pattern)]
    rows = [row for some in repeats for row in some[0].rows]
    hides = not full and len(rows) > LONGEST_WHOLE
    folds = not full and sum(not _passes_on(row) for row in rows) > LONGEST_FULL
    lines: list[_Line] = [((*HEAD, SUM), "bold", None)]
    above: tuple[object, ...] = ()
    for first, *others in repeats:
        alike = first.pattern(sizes=False)
        if folds and first.path and alike == above:
            lines.append((_total(f"{first.path}: alike", [first]), "cyan", None))
        else:
            lines += _rows_of(first, hides)
        if others:
            lines.append((_total(_span(others), others), "cyan", None))
        above = alike
    hidden = Counter(row.kind for block in blocks for row in block.rows if hides and _passes_on(row))
    if hidden:
        words = ", ".join(f"{count} {kind}" for kind, count in hidden.most_common())
        lines.append((f"left out above: {words}", "dim", None))
    return lines


# --- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(model: nn.Module, rows: Sequence[LayerRow], largest: int) -> list[_Block]:
    """Consecutive rows of one block: the outermost module with a class of its own and `largest` rows at most."""
    modules = dict(model.named_modules())
    sizes = Counter(path for row in rows for path in _above(row.path))

    def home(row: LayerRow) -> str:
        plain = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        own = (path for path in _above(row.path) if type(modules[path]) not in plain)
        return next((path for path in own if sizes[path] <= largest), "")

    return [_Block(path, type(modules[path]).__name__, tuple(some)) for path, some in groupby(rows, key=home)]


def _above(path: str) -> list[str]:
    """The modules that hold a layer, the outermost first, without the network itself."""
    names = path.split(".")
    return [".".join(names[:count]) for count in range(1, len(names))]


def _pattern(row: LayerRow, base: str, sizes: bool) -> tuple[object, ...]:
    window = row.look.window if row.look else None
    counts = (row.input, row.output, row.look, row.parameters, row.macs, row.memory) if sizes else ()
    return (_within(row, base), row.kind, window, *counts)


def _passes_on(row: LayerRow) -> bool:
    """A layer without window and parameters whose output has the shape of its input: activations, dropout."""
    return row.kind[0].isupper() and not (row.parameters or row.macs or row.look) and row.input == row.output


def _rows_of(block: _Block, hides: bool) -> list[_Line]:
    """A title and the rows, set in; those of the network itself as they are. What does nothing at all is not told."""
    lines: list[_Line] = [(f"{block.path} {block.kind}", "cyan", None)] if block.path else []
    for row in block.rows:
        if row.kind != "Identity" and not (hides and _passes_on(row)):
            lines.append((_cells(row, block.path), "dim" if _passes_on(row) else "", row))
    return lines


def _span(blocks: Sequence[_Block]) -> str:
    return f"to {blocks[-1].path}: {len(blocks)} more" if len(blocks) > 1 else f"{blocks[0].path}: the same"


# --- cells -----------------------------------------------------------------------------------------------------------


def _cells(row: LayerRow, base: str) -> tuple[str, ...]:
    window = row.look.window if row.look else None
    name, kind = _within(row, base), row.kind.removesuffix("2d")
    last = name.rpartition(".")[2].rstrip("0123456789").lower()
    if last not in (kind.lower(), row.kind.lower()):  # `conv1` needs no class
        name = f"{name} {kind}".strip()
    sides = ("", "", _borders(row) if row.look else "")
    if window and row.look and row.look.is_window:
        sides = (_pair(window.kernel), _pair(window.stride), sides[2])
        name += f" D{_pair(window.dilation)}" if window.dilation != (1, 1) else ""
        name += f" G{row.look.groups}" if row.look.groups > 1 else ""
    indent = "  " if base else ""
    return (
        indent + name, *sides, _shape(row), _exact(row.parameters), _short(row.macs),
        _field(row), _jump(row), _short(row.memory), row.parameter_sum,
    )  # fmt: skip


def _total(name: str, blocks: Sequence[_Block]) -> tuple[str, ...]:
    """The cells of a line that stands for whole blocks."""
    rows = [row for block in blocks for row in block.rows]
    parameters, macs, memory = (sum(getattr(row, key) for row in rows) for key in ("parameters", "macs", "memory"))
    last = rows[-1]
    sides = ("", "", "", _shape(last))
    return (name, *sides, _exact(parameters), _short(macs), _field(last), _jump(last), _short(memory), "")


def _within(row: LayerRow, base: str) -> str:
    return row.path.removeprefix(base).removeprefix(".")


def _pair(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}" if pair[0] != pair[1] else str(pair[0])


def _borders(row: LayerRow) -> str:
    """The padding; `0:1` where it is not the same on both sides."""
    assert row.look is not None
    sides = [str(one) if one == two else f"{one}:{two}" for one, two in row.look.window.borders]
    return sides[0] if sides[0] == sides[1] else "x".join(sides)


def _shape(row: LayerRow) -> str:
    if row.output is None:
        return "not run" if row.is_idle else ""
    return "x".join(map(str, row.output))


def _field(row: LayerRow) -> str:
    if row.field is None:
        return "?" if row.lost else ""
    if all(math.isinf(size) for size in row.field):
        return "image"
    return _both(*("all" if math.isinf(size) else str(math.ceil(size)) for size in row.field))


def _jump(row: LayerRow) -> str:
    return _both(*("" if step is None else f"{float(step):.4g}" for step in row.jump))


def _both(rows: str, columns: str) -> str:
    return rows if rows == columns else f"{rows}x{columns}"


def _short(count: int) -> str:
    return short(count) if count else ""


def _exact(count: int) -> str:
    return f"{count:,}" if count else ""


# --- lines -----------------------------------------------------------------------------------------------------------


def _widths(cells: Sequence[tuple[str, ...]], width: int) -> list[int]:
    """Of each column; the one of sums falls away, and that of names shrinks, where there is no room for it."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if sum(widths) + len(widths) > width:
        widths.pop()
        widths[0] = min(widths[0], max(LEAST_NAME, width - sum(widths[1:]) - len(widths) + 1))
    return widths


def _align(cells: tuple[str, ...], widths: list[int]) -> str:
    name = cells[0] if len(cells[0]) <= widths[0] else _short_name(cells[0], widths[0])
    others = [f"{cell:>{size}}" for cell, size in zip(cells[1:10], widths[1:10], strict=True)]
    return " ".join([f"{name:<{widths[0]}}", *others, *(cells[10:] if len(widths) > 10 else [])]).rstrip()


def _short_name(name: str, width: int) -> str:
    """The path matters more than the class, and its end more than its beginning."""
    if ": " in name:  # whole blocks; the end says how many
        start = "to …" if name.startswith("to ") else "…"
        return start + name[len(start) - width :]
    indent = len(name) - len(name.lstrip())
    path = name.split()[0]
    return cut(name, width) if indent + len(path) <= width else f"…{path[1 - width :]}"


def _sums(row: LayerRow, width: int) -> list[str]:
    """The sums that make a row's numbers, each on a line of its own."""
    sums = size_formulas(row.look) if row.look else []
    if row.parameter_sum:
        sums.append(f"{row.parameter_sum} = {row.parameters:,} parameters")
    if row.mac_sum:
        sums.append(f"{row.mac_sum} = {row.macs:,} multiply-adds")
    indent = " " * 6
    return [
        line
        for text in sums
        for line in textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    ]
