"""Which column of a table is what."""

import re
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cnntrain.config.overrides import for_shell, quote
from cnntrain.config.schema.data import ColumnSettings
from cnntrain.data.layout import SUFFIXES
from cnntrain.errors import ConfigError, DataError
from cnntrain.text import few, hint, nearest, printable

# Names by which a column is found, in small letters without signs between; of several in one table the first here.
USUAL = {
    "file": (
        *("file", "filename", "filepath", "path", "image", "imagefile", "imagefilename", "imagepath", "imagename"),
        *("img", "imgfile", "imgpath", "imgname", "photo", "picture", "fname", "relpath", "imageid", "imgid", "name"),
        "id",
    ),
    "label": (
        *("label", "class", "classname", "labelname", "category", "target", "species", "breed", "diagnosis", "y"),
        *("labels", "classes", "categories", "targets", "tags", "attributes", "findinglabels"),
    ),
    "split": ("split", "subset", "partition", "set", "phase", "fold", "kfold"),
    "group": (
        *("group", "groupid", "patient", "patientid", "subject", "subjectid", "camera", "cameraid", "person"),
        *("personid", "scene", "sceneid", "location", "locationid"),
    ),
    # Not `weight`, which may be that of what the image shows.
    "weight": ("sampleweight", "imageweight", "exampleweight"),
}
MOST_FLAGS = 6  # columns of labels that are named in a word to type
WHAT = {"file": "files", "label": "labels", "split": "splits"}  # what a table cannot do without


def find_columns(
    path: Path,
    names: Sequence[str],
    wanted: ColumnSettings | None,
    needed: Sequence[str] = ("file", "label"),
    flags: Callable[[Collection[str]], Sequence[str]] = lambda taken: (),
) -> dict[str, str]:
    """The columns of a table by what they are: those that the user names, else those of usual names.

    Args:
        names: of all its columns.
        wanted: names that the user gives, of labels also a list of several columns, which has no place in the answer;
            None: those of usual names alone.
        needed: what must be there.
        flags: gives the columns that hold a label's 1 or 0 beside those that it is given; asked where no labels are
            found.

    Raises:
        ConfigError: the user names one that is not there.
        DataError: one that is needed is not found, or a name stands for two of them.
    """
    columns: dict[str, str] = {}
    is_open, wanted = wanted is not None, wanted or ColumnSettings()
    for role in USUAL:
        name = getattr(wanted, role)
        for one in name if isinstance(name, list) else [name]:
            if not one or one in names:
                continue
            where = f"there are {few(map(printable, names))}"
            raise ConfigError(
                f"data.columns.{role}: no column {one!r} in {printable(path)}{hint(nearest(one, names), where)}"
            )
        if name and not isinstance(name, list):
            columns[role] = name
    for role, usual in USUAL.items():
        if getattr(wanted, role) is None:
            free = {_plain(name): name for name in reversed(names) if name not in columns.values()}
            if found := [free[word] for word in usual if word in free]:
                columns[role] = found[0]
    if len(names) == 2 and len(columns) == 1 and needed[0] in columns and getattr(wanted, needed[1]) is None:
        columns[needed[1]] = next(name for name in names if name != columns[needed[0]])
    for role in needed:
        if role not in columns and not isinstance(getattr(wanted, role), list):
            likely = flags(columns.values()) if role == "label" and is_open else ()
            raise DataError(f"{printable(path)}: {_absence(role, names, is_open, likely)}")
    for name in columns.values():
        if list(names).count(name) > 1:
            raise DataError(f"{printable(path)}: two columns are called {printable(name)!r}; rename one of them")
    return columns


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _absence(role: str, names: Sequence[str], is_open: bool, flags: Sequence[str]) -> str:
    there = few([repr(printable(name)) for name in names], 6)
    if any(name.lower().endswith(SUFFIXES) for name in names):
        return f"its first row holds an image ({there}); write the names of the columns above it, such as file,label"
    advice = f"name it with data.columns.{role}=NAME" if is_open else f"call it {role}"
    if len(flags) > 1:
        advice += f", or if each label has a column of 1 and 0, all of them: {_flag_words(flags)}"
    return f"no column of {WHAT[role]} among {there}; {advice}"


def _flag_words(names: Sequence[str]) -> str:
    """What reads the columns as labels, for the shell; of many the first ones."""
    plain = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_]\w*(?: \w+)*", re.ASCII | re.IGNORECASE)
    shown = [name if plain.fullmatch(name) else quote(printable(name)) for name in names[:MOST_FLAGS]]
    word = f"data.columns.label=[{','.join(shown)}{',…' * (len(names) > MOST_FLAGS)}]"
    return f"{for_shell(word) if chr(39) in word else shlex.quote(word)} data.multi_label=true"
