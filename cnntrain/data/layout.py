"""How a folder of images is laid out: what in it is clutter, and which of its folders is which split."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnntrain.errors import DataError
from cnntrain.paths import need_image_folder, shown

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


@dataclass
class Layout:
    """Which folders hold the images: those of `train`, `val` and `test`, and what lies beside them unused."""

    folders: dict[str, Path]
    unused: list[str] = field(default_factory=list)


def find_splits(root: Path, classes: Collection[str] | None = None) -> Layout:
    """The folders of the splits below `root`; one folder of class folders is all `train`.

    Args:
        classes: names that are known to be classes, whatever they sound like.

    Raises:
        DataError: no such folder, or one whose folders may be splits or classes.
    """
    need_image_folder(root)
    names = folders_in(root)
    known, there = set(classes or ()), {shown(os.fsencode(name)) for name in names}
    if known and there and (known <= there or there <= known):
        return Layout({"train": root})
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(split_of(name), []).append(name)
    others = found.pop("", [])
    if "train" not in found and (others or not found):  # a class may be called test
        _refuse_splits_by_other_names(root, names)
        return Layout({"train": root})
    for same in found.values():
        if len(same) > 1:
            raise DataError(f"data.root: {shown(root)} holds both {listed(same[:2], ' and ')}; keep one of them")
    folders = {split: root / name for split, (name,) in found.items()}
    if others and not any(_inside(folders["train"])):
        raise DataError(
            f"data.root: {shown(root)} has {listed(found['train'])} without class folders beside {listed(others)}; "
            f"if all of them are classes, say {_say_classes(names)}, else give {listed(found['train'])} class folders"
        )
    return Layout(folders, others)


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without clutter."""
    return [entry.name for entry in entries(folder) if not is_clutter(entry.name) and is_dir(entry)]


def split_of(name: str) -> str:
    """`train`, `val` or `test` for a folder of such a name, whatever its case (`Training`, `valid`, `Test Set`)."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return _WORDS.get(re.sub("(set|data|images)$", "", plain), "")


def _refuse_splits_by_other_names(root: Path, names: Sequence[str]) -> None:
    """Raises DataError for folders that would be taken for classes, and look like splits."""
    if inner := _same_inside(root, names):
        what = f"data.root: {shown(root)}: {listed(names)} all hold the same folders ({', '.join(inner)}) and no images"
        if all(map(split_of, inner)):
            raise DataError(f"{what}; splits come above classes: move the images to {inner[0]}/CLASS/ and so on")
        raise DataError(
            f"{what}: these look like splits; call them train/, val/ and test/, "
            f"or say {_say_classes(names)} if they are classes"
        )
    stems: dict[tuple[str, ...], dict[str, str]] = {}  # what is left of a name without its word of a split
    for name in names:
        parts = re.findall(r"[^\W\d_]+|\d+", name.casefold())
        for place, part in enumerate(parts):
            if part in _WORDS:
                stems.setdefault((*parts[:place], "", *parts[place + 1 :]), {}).setdefault(_WORDS[part], name)
    for alike in stems.values():
        if "train" in alike and len(alike) > 1:
            raise DataError(
                f"data.root: {shown(root)}: {listed(list(alike.values()))} look like splits; call them train/, val/ "
                f"and test/, with class folders inside, or say {_say_classes(names)} if they are classes"
            )


def _same_inside(root: Path, names: Sequence[str]) -> list[str]:
    """The folders that all of several folders hold, where they are two or more and there is nothing but them."""
    first: set[str] | None = None
    for name in names:
        inner = set()
        for inside in _inside(root / name, images=True):
            if inside is None:
                return []
            inner.add(inside)
        if len(inner) < 2 or (first is not None and inner != first):
            return []
        first = inner
    return sorted(first or ()) if len(names) > 1 else []


def _inside(folder: Path, *, images: bool = False) -> Iterator[str | None]:
    """The names of the folders in a folder, as they come; with `images`, None for each image file."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if is_clutter(entry.name):
                    continue
                if is_dir(entry):
                    yield entry.name
                elif images and entry.name.lower().endswith(SUFFIXES):
                    yield None
    except OSError as error:
        raise unreadable(folder, error) from None


def listed(names: Sequence[str], between: str = ", ") -> str:
    """`a/, b/, c/ and 4 more`."""
    text = between.join(f"{shown(name)}/" for name in names[:4])
    return text + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")


def _say_classes(names: Sequence[str]) -> str:
    return f"data.classes=[{','.join(map(shown, names[:4]))}{',…' if len(names) > 4 else ''}]"


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name; DataError where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise unreadable(folder, error) from None


def unreadable(folder: str | Path, error: OSError) -> DataError:
    """The fault of a folder that cannot be listed or entered."""
    return DataError(f"{shown(folder)}: cannot be read ({error.strerror or error}); mend its permissions")


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
        raise unreadable(entry.path, error) from None
    except OSError:  # a link to itself
        return False
