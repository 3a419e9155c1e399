"""The files that the names in a table stand for."""

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from cnntrain.config.paths import expand_path
from cnntrain.data.layout import SUFFIXES, folders_in, is_clutter
from cnntrain.errors import DataError
from cnntrain.text import few, printable

LOOKED_FOR = 100  # names by which the folder of the images is found
MOST_FOLDERS = 1000  # beside a table, in which they are looked for
MISSING = "is not there"


class Finder:
    """Finds image files below a folder by paths, names, or names without their suffix.

    Args:
        folder: that names are told from; a name that begins at the root of the file system stands for itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._raw = os.fsencode(folder)
        self._stems: dict[bytes, dict[bytes, list[bytes]]] = {}  # by folder, names by what is before their suffix
        self._numbers: dict[int, str] | None = None  # files that are called by a number

    def find(self, name: str) -> tuple[bytes, int] | str:
        """The path and the bytes of a file; or what is wrong with the name."""
        try:
            path = os.fsencode(name)
        except UnicodeEncodeError:
            return "is no name of a file"
        for candidate in self._candidates(path):
            if (size := self._size(candidate)) is not None:
                return candidate, size
        if len(twins := self._twins(path)) > 1:
            files = few([printable(os.path.basename(twin)) for twin in twins])
            return f"stands for several files ({files}); write the suffix too"
        if b"://" in path:
            return "is an address, and no file; fetch the images first"
        return MISSING

    def padded(self, name: str) -> str:
        """The file of a number whose leading zeros a spreadsheet has taken, such as 0007.jpg for 7; empty: none."""
        if not name.strip().isdecimal():
            return ""
        if self._numbers is None:
            self._numbers = {}
            for stem, names in self._list(self._raw).items():
                if stem.isdigit():
                    self._numbers.setdefault(int(stem), os.fsdecode(names[0]))
        return self._numbers.get(int(name), "")

    def _candidates(self, path: bytes) -> Iterator[bytes]:
        """What a name may stand for, the most likely first: a look at a file that is not there costs the most."""
        path = os.path.normpath(path) if b"./" in path or b"//" in path else path
        twins = [] if path.lower().endswith(_SUFFIXES) else self._twins(path)
        if len(twins) == 1:
            yield twins[0]
        yield path
        if b"\\" in path:  # of a table made on Windows
            yield from self._candidates(path.replace(b"\\", b"/"))
        if path != path.strip():
            yield from self._candidates(path.strip())
        if not path.isascii():  # é is one letter or two: tables and file systems differ in that
            text = os.fsdecode(path)
            for form in ("NFC", "NFD"):
                if (other := unicodedata.normalize(form, text)) != text:  # type: ignore[arg-type]
                    yield os.fsencode(other)

    def _size(self, path: bytes) -> int | None:
        try:
            status = os.stat(os.path.join(self._raw, path))
        except (OSError, ValueError):  # a name may hold a zero byte
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def _twins(self, path: bytes) -> list[bytes]:
        """The image files of that name and any suffix."""
        folder, stem = os.path.split(path)
        if folder not in self._stems:
            self._stems[folder] = self._list(os.path.join(self._raw, folder))
        return [os.path.join(folder, name) for name in self._stems[folder].get(stem, [])]

    def _list(self, folder: bytes) -> dict[bytes, list[bytes]]:
        stems: dict[bytes, list[bytes]] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.lower().endswith(_SUFFIXES) and not is_clutter(os.fsdecode(entry.name)):
                        stems.setdefault(os.path.splitext(entry.name)[0], []).append(entry.name)
        except (OSError, ValueError):
            return {}
        return {stem: sorted(names) for stem, names in stems.items()}


_SUFFIXES = tuple(suffix.encode() for suffix in SUFFIXES)


def find_folder(table: Path, names: Sequence[str], images: str | None) -> Path:
    """The folder that the names of files are told from: the table's own, or one in it.

    Args:
        names: of files.
        images: `data.images`, which decides it.

    Raises:
        DataError: several folders hold files of these names.
    """
    if images:
        return Path(os.path.abspath(expand_path(images)))
    home = Path(os.path.abspath(table)).parent
    some = [name for name in names if name.strip()][:LOOKED_FOR]

    def count(folder: Path) -> tuple[int, int]:
        """How many are there, and how many are but for leading zeros, which is told with each row."""
        finder = Finder(folder)
        found = sum(not isinstance(finder.find(name), str) for name in some)
        return found, 0 if found else sum(bool(finder.padded(name)) for name in some)

    if any(count(home)):
        return home
    counts = {name: count(home / name) for name in folders_in(home)[:MOST_FOLDERS]}
    most = max(counts.values(), default=(0, 0))
    best = [name for name in counts if counts[name] == most]
    if most[0] and len(best) > 1:
        folders = few([f"{printable(name)}/" for name in best])
        raise DataError(f"{printable(table)}: {folders} hold files of its names; choose one with data.images=DIR")
    return home / best[0] if any(most) else home
