"""A column of a table that is left alone, and looks as if it held groups: ids that several rows share."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cnntrain.config.advice import shell_word
from cnntrain.data.table import Faults, read_table
from cnntrain.errors import DataError
from cnntrain.text import counted, printable

# What images are of, or were taken in, several at a time; and what such a name may end in.
THINGS = (
    *("patient", "subject", "lesion", "case", "person", "individual", "participant", "animal", "specimen", "donor"),
    *("study", "series", "exam", "slide", "video", "clip", "sequence", "session", "site", "hospital", "user", "owner"),
)
ENDS = ("id", "uid", "no", "nr", "number", "name", "code", "key")
# Who or what labelled an image, and what its class is: ids of these part nothing.
OTHERS = (
    "annotator",
    "rater",
    "reader",
    "labeler",
    "labeller",
    "label",
    "class",
    "category",
    "target",
    "fold",
    "split",
)
LEAST_REPEATS = 0.05  # of the rows that have a value, those beyond the first of each value
LEAST_FILLED = 0.9  # of all rows, those that have one
MOST_NAMED = 3


def left_alone(path: Path, names: Sequence[str], columns: Mapping[str, str], taken: Sequence[str]) -> list[str]:
    """A line on columns that hold ids which rows share; none where there is no such column, or a column of groups.

    What the label decides, such as an id of the class or of a family of classes, is none.

    Args:
        names: of all columns.
        columns: of the table, by what they are.
        taken: columns of labels, one for each.
    """
    chosen = {*columns.values(), *taken}
    likely = [name for name in dict.fromkeys(names) if name not in chosen and is_id(name) and names.count(name) == 1]
    if not likely or "group" in columns:
        return []
    label = [columns["label"]] if "label" in columns else []
    try:
        table = read_table(path, lambda _: [*label, *likely], Faults(path))
    except DataError:  # told where the table is read in earnest
        return []
    found = {}
    for name in likely:
        cells = [cell.strip() for cell in table.cells[name]]
        filled, values = sum(map(bool, cells)), {cell for cell in cells if cell}
        repeats = (filled - len(values)) / max(filled, 1)
        if len(values) < 2 or filled < LEAST_FILLED * len(cells) or repeats < LEAST_REPEATS:
            continue
        if label and len(set(zip(table.cells[label[0]], cells, strict=True))) <= len(set(table.cells[label[0]])):
            continue
        found[name] = f"{printable(name)} ({len(values):,} values in {counted(len(cells), 'row')})"
    if not found:
        return []
    advice = f"{shell_word('data.columns.group', next(iter(found)))} keeps images of one value together"
    return [f"left alone: {', '.join([*found.values()][:MOST_NAMED])}; {advice}"]


def is_id(name: str) -> bool:
    """Whether a column is called as ids of what images are of: `lesion_id`, `LesionID`, `lesionid`, `Lesion No`."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+", name)]
    ends = 0
    while ends < len(words) and words[-1 - ends] in ENDS:
        ends += 1
    things = words[: len(words) - ends]
    thing = things[-1] if things else ""
    if thing in OTHERS:
        return False
    glued = any(thing == word + end for word in THINGS for end in ENDS)
    return thing in THINGS or glued or any(end in ("id", "uid") for end in words[len(things) :])
