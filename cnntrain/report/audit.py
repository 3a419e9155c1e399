"""The audit of a fine-tuning as a tree of 80 columns, and as a table for TensorBoard."""

from collections.abc import Sequence

from rich.cells import cell_len

from cnntrain.finetune.audit import GroupRow
from cnntrain.text import shorten

MOST_WITH_LAYERS = 16  # groups; of more, the layers are counted and not named
MOST_NAMES = 4  # layers of a group that are all named
LEAST_NAME = 12  # columns
BRANCH, LAST_BRANCH, GAP = "├─ ", "└─ ", "  "
HEAD = ("layer group", "parameters", "trainable", "lr", "decay", "batch norm")
NORMS = {"batch statistics": "batch stats"}  # where room is short


def tree(rows: Sequence[GroupRow], width: int) -> list[tuple[str, str]]:
    """Lines and the style of each: a branch for each layer group, low to high, its layers below it, and the sum.

    Args:
        width: columns of the terminal; names are shortened to keep lines within it.
    """
    with_names = len(rows) <= MOST_WITH_LAYERS
    table, widths = _table(rows, counted=not with_names)
    if _room(widths, width) < LEAST_NAME:
        table, widths = _table(rows, counted=False)
    longest = max(cell_len(cells[0]) for cells in table)
    room = min(longest, max(LEAST_NAME, _room(widths, width)))

    lines = [(_line(table[0], [room, *widths]), "bold")]
    for row, (name, *cells) in zip(rows, table[1:], strict=True):
        branch, name = name[: len(BRANCH)], name[len(BRANCH) :]
        line = _line((branch + shorten(name, room - len(BRANCH)), *cells), [room, *widths])
        lines.append((line, "dim" if row.opens is None else ""))
        if with_names and row.layers:
            trunk = "     " if branch == LAST_BRANCH else "│    "
            lines.append((trunk + _layers(row, width - len(trunk)), "dim"))
    return [*lines, (total(rows), "")]


def markdown(rows: Sequence[GroupRow]) -> str:
    """A table of the same, and the sum, for TensorBoard's page of texts."""
    head = ("layer group", "layers", "parameters", "trainable", "learning rate", "weight decay", "batch norm")
    lines = [f"| {' | '.join(head)} |", "|:--|:--|--:|--:|--:|--:|:--|"]
    for row in rows:
        name, count, trainable, lr, decay, _ = _cells(row)
        layers = f"`{_layers(row, 200)}`" if row.layers else ""
        cells = (f"`{name}`", layers, count, trainable, lr, decay, row.norm)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")  # a group may be named by a pattern
    return "\n".join([*lines, "", total(rows)])


def total(rows: Sequence[GroupRow]) -> str:
    """`trainable 2,562 of 3,373,600 parameters (0.076%)`."""
    some, every = sum(row.learnable for row in rows), sum(row.parameters for row in rows)
    share = 100 * some / every
    digits = f"{share:.0f}" if some == every else f"{share:.1f}" if share >= 1 else f"{share:.2g}"
    return f"trainable {some:,} of {every:,} parameters ({digits}%)"


def _cells(row: GroupRow) -> tuple[str, ...]:
    pace = [("-" if value is None else f"{value:.3g}") for value in (row.lr, row.weight_decay)]
    return (row.name, f"{row.parameters:,}", row.trainable, *pace, NORMS.get(row.norm, row.norm))


def _table(rows: Sequence[GroupRow], counted: bool) -> tuple[list[tuple[str, ...]], list[int]]:
    """The cells of all lines, the head's first, and the widths of all columns but the first; `counted`: with layers."""
    table: list[tuple[str, ...]] = [(HEAD[0], *["layers"] * counted, *HEAD[1:])]
    for row in rows:
        name, *others = _cells(row)
        branch = LAST_BRANCH if row is rows[-1] else BRANCH
        table.append((branch + name, *[f"{len(row.layers)}"] * counted, *others))
    return table, [max(map(len, column)) for column in list(zip(*table, strict=True))[1:]]


def _room(widths: Sequence[int], width: int) -> int:
    """Columns left for names."""
    return width - sum(widths) - len(GAP) * len(widths)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0] + " " * (widths[0] - cell_len(cells[0]))
    return GAP.join([first, *(f"{cell:>{size}}" for cell, size in zip(cells[1:], widths[1:], strict=True))])


def _layers(row: GroupRow, width: int) -> str:
    """`conv1, bn1`, of many the ends and how many: `0.conv1 … 1.bn2 (10 layers)`; without the name of the group."""
    inner = f"{row.name}."
    names = row.layers
    if all(name.startswith(inner) for name in names):
        names = tuple(name.removeprefix(inner) for name in names)
    if len(names) <= MOST_NAMES and len(", ".join(names)) <= width:
        return ", ".join(names)
    if len(names) == 1:
        return shorten(names[0], width)
    count = f" ({len(names)} layers)"
    room = width - len(count) - 3
    first = shorten(names[0], max(room // 2, room - len(names[-1])))
    return f"{first} … {shorten(names[-1], room - cell_len(first))}{count}"
