"""How a folder of images is laid out: what in it is clutter, and which of its folders is which split."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnntrain.config.advice import advise_table, shell_word
from cnntrain.config.paths import need_image_folder
from cnntrain.errors import DataError
from cnntrain.text import printable

# Of image files; what has none of these is looked into.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".webp", ".avif"),
    *(".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo"),
)
# What systems, cameras and network storage leave behind, beside everything that begins with a dot.
CLUTTER = (
    *("__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "__pycache__"),
)
_WORDS = {
    word: split
    for split, words in {
        "train": ("train", "training"),
        "val": ("val", "valid", "validation", "dev"),
        "test": ("test", "testing"),
    }.items()
    for word in words
}
_BY_TABLE = "if a table has their classes, say {}"
SORT = "put the images of each class into a folder of its name"


@dataclass
class Layout:
    """Which folders hold the images: those of `train`, `val` and `test`, and what lies beside them unused."""

    folders: dict[str, Path]
    other_names: list[str] = field(default_factory=list)


def find_splits(root: Path, classes: Collection[str] | None = None) -> Layout:
    """The folders of the splits below `root`; one folder of class folders is all `train`.

    Args:
        classes: names that are known to be classes, whatever they sound like.

    Raises:
        DataError: no such folder, one whose folders may be splits or classes, or images that lie in no class folder.
    """
    need_image_folder(root)
    names = folders_in(root)
    class_names, there = set(classes or ()), {printable(os.fsencode(name)) for name in names}
    if class_names and there and (class_names <= there or there <= class_names):
        return Layout({"train": root})
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split_of(name), []).append(name)
    others = groups.pop("", [])
    if "train" not in groups and (others or not groups):  # a class may be called test
        _refuse_images_alone(root)
        _refuse_splits_by_other_names(root, names)
        return Layout({"train": root})
    for twins in groups.values():
        if len(twins) > 1:
            raise DataError(f"data.root: {printable(root)} holds both {join(twins[:2], ' and ')}; keep one of them")
    folders = {split: root / name for split, (name,) in groups.items()}
    if others and not any(_inside(folders["train"])):
        raise DataError(
            f"data.root: {printable(root)} has {join(groups['train'])} without class folders beside {join(others)}; "
            f"if all of them are classes, say {_say_classes(names)}, else give {join(groups['train'])} class folders"
        )
    _refuse_flat_splits(root, folders)
    return Layout(folders, others)


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without clutter."""
    return [entry.name for entry in entries(folder) if not is_clutter(entry.name) and is_dir(entry)]


def split_of(name: str) -> str:
    """`train`, `val` or `test` for a folder of such a name, whatever its case (`Training`, `valid`, `Test Set`)."""
    word = re.sub(r"[\W_]+", "", name.casefold())
    return _WORDS.get(re.sub("(set|data|images)$", "", word), "")


def _refuse_images_alone(root: Path) -> None:
    """Raises DataError for a folder of images without any class folder."""
    if _is_flat(root):
        above = Path(os.path.abspath(root)).parent
        above = above.parent if split_of(above.name) == "train" else above
        if table := advise_table(root):
            advice = f"{_BY_TABLE.format(table)}, else {SORT}"
            raise DataError(f"data.root: {printable(root)} holds images and no class folders; {advice}")
        raise DataError(
            f"data.root: {printable(root)} holds images and no class folders; {SORT}, or if it is a class itself, give "
            f"the folder above: {shell_word('data.root', above)}"
        )


def _refuse_flat_splits(root: Path, folders: Mapping[str, Path]) -> None:
    """Raises DataError for splits whose images lie in no class folders."""
    names_by_split = {split: folder.name for split, folder in folders.items() if _is_flat(folder)}
    if not names_by_split:
        return
    names, advice = join(list(names_by_split.values()), " and "), SORT
    if "train" in names_by_split and (table := advise_table(root)):
        advice = f"{_BY_TABLE.format(table)}, else {SORT}"
    elif "train" in folders and "train" not in names_by_split:
        advice += f", or move {names} away: unlabelled pictures are for `cnntrain predict RUN images=DIR`"
    raise DataError(
        f"data.root: {printable(root)}: {names} {_hold(names_by_split)} images and no class folders; {advice}"
    )


def _refuse_splits_by_other_names(root: Path, names: Sequence[str]) -> None:
    """Raises DataError for folders that would be taken for classes, and look like splits or hold data sets."""
    inner = {name: _folders_alone(root / name) for name in names}
    _refuse_data_sets(root, inner)
    folder_sets = {tuple(folders) for folders in inner.values()}
    if len(names) > 1 and len(folder_sets) == 1 and len(splits := min(folder_sets)) > 1:
        what = f"data.root: {printable(root)}: {join(names)} all hold the same folders ({', '.join(splits)}), no images"
        if all(map(split_of, splits)):
            raise DataError(f"{what}; splits come above classes: move the images to {splits[0]}/CLASS/ and so on")
        raise DataError(
            f"{what}: these look like splits; call them train/, val/ and test/, "
            f"or say {_say_classes(names)} if they are classes"
        )
    repeats = [name for name, folders in inner.items() if set(folders) <= set(names) - {name}]
    if repeats := [name for name in repeats if len(inner[name]) > (not split_of(name))]:
        classes = sorted({folder for name in repeats for folder in inner[name]})
        raise DataError(
            f"data.root: {printable(root)}: {join(repeats)} {_hold(repeats)} folders of the names beside "
            f"({', '.join(map(printable, classes[:4]))}{', …' if len(classes) > 4 else ''}) and no images, as splits "
            f"do; put the classes into train/, or say {_say_classes(names)} if all of them are classes"
        )
    stems: dict[tuple[str, ...], dict[str, str]] = {}  # what is left of a name without its word of a split
    for name in names:
        parts = re.findall(r"[^\W\d_]+|\d+", name.casefold())
        for place, part in enumerate(parts):
            if part in _WORDS:
                stems.setdefault((*parts[:place], "", *parts[place + 1 :]), {}).setdefault(_WORDS[part], name)
    for split_names in stems.values():
        if "train" in split_names and len(split_names) > 1:
            raise DataError(
                f"data.root: {printable(root)}: {join(list(split_names.values()))} look like splits; call them train/, "
                f"val/ and test/, with class folders inside, or say {_say_classes(names)} if they are classes"
            )


def _refuse_data_sets(root: Path, inner: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError where what would be taken for classes are data sets themselves.

    Args:
        inner: of each folder, those in it where there is nothing but them.
    """
    sets = [
        name
        for name, folders in inner.items()
        if any(split_of(folder) == "train" and any(_inside(root / name / folder)) for folder in folders)
    ]
    if sets:
        suggestion = " or ".join(shell_word("data.root", root / name) for name in sets[:3])
        classes = f" Or say {_say_classes(sorted(inner))} if all of them are classes" if len(inner) > 1 else ""
        raise DataError(
            f"data.root: {printable(root)}: {join(sets)} {_hold(sets)} train/ with class folders, as data sets do; "
            f"did you mean {suggestion}?{classes}"
        )


def _folders_alone(folder: Path) -> list[str]:
    """The folders in a folder, sorted; none where images lie beside them."""
    groups = []
    for name in _inside(folder, images=True):
        if name is None:
            return []
        groups.append(name)
    return sorted(groups)


def _is_flat(folder: Path) -> bool:
    """Whether a folder holds images and no folders."""
    is_image = False
    for name in _inside(folder, images=True):
        if name is not None:
            return False
        is_image = True
    return is_image


def _inside(folder: Path, *, images: bool = False) -> Iterator[str | None]:
    """The names of the folders in a folder, as they come; with `images`, None for each image file."""
    try:
        with os.scandir(folder) as groups:
            for entry in groups:
                if is_clutter(entry.name):
                    continue
                if is_dir(entry):
                    yield entry.name
                elif images and entry.name.lower().endswith(SUFFIXES):
                    yield None
    except OSError as error:
        raise folder_error(folder, error) from None


def join(names: Sequence[str], between: str = ", ") -> str:
    """`a/, b/, c/ and 4 more`."""
    text = between.join(f"{printable(name)}/" for name in names[:4])
    return text + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")


def _hold(names: Collection[str]) -> str:
    return "holds" if len(names) == 1 else "hold"


def _say_classes(names: Sequence[str]) -> str:
    return f"data.classes=[{','.join(map(printable, names[:4]))}{',…' if len(names) > 4 else ''}]"


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name; DataError where it cannot be read."""
    try:
        with os.scandir(folder) as groups:
            return sorted(groups, key=lambda entry: entry.name)
    except OSError as error:
        raise folder_error(folder, error) from None


def folder_error(folder: str | Path, error: OSError) -> DataError:
    """The fault of a folder that cannot be listed or entered."""
    return DataError(f"{printable(folder)}: cannot be read ({error.strerror or error}); mend its permissions")


def is_clutter(name: str) -> bool:
    """Whether an entry is of a system and no image or class, whatever it holds."""
    return name.startswith(".") or name.casefold() in CLUTTER


def is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one.

    Raises:
        DataError: it may not be looked at.
    """
    try:
        return entry.is_dir()
    except PermissionError as error:
        raise folder_error(entry.path, error) from None
    except OSError:  # a link to itself
        return False
