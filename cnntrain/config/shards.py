"""Which files `data.root` of data=webdataset names: patterns, folders and addresses. Nothing here imports torch."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cnntrain.config.paths import absence, expand_path
from cnntrain.errors import ConfigError, DataError, DataErrors, UnsafeError
from cnntrain.text import counted, printable

_BETWEEN = re.compile(r"(?<!\[)::")  # parts one pattern from the next, as in the webdataset library; not http://[::1]
MOST_SHARDS = 100_000
MOST_TOLD = 5  # shards that are named of those that are missing
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_SCHEME = re.compile(r"([a-zA-Z][\w+.-]*):(?=//)|(pipe):")
_GIVE = "give the folder of the shards, or DIR/{000..099}.tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_url(place: str) -> bool:
    """Whether a shard, or a pattern of several, lies elsewhere."""
    return bool(_SCHEME.match(place))


def absolute(root: str, cwd: str) -> str:
    """Patterns as they are to be saved: of files, from the root of all folders."""
    parts = _BETWEEN.split(root)
    return "::".join(
        part if is_url(part) else os.path.abspath(os.path.join(cwd, os.path.expanduser(part))) for part in parts
    )


def find_shards(root: str) -> list[str]:
    """The paths and addresses of all shards, each once, in the order of the patterns.

    Args:
        root: patterns with `{000..099}` or `{a,b}` in them; of files also with `*`, or a folder of tar files.

    Raises:
        DataErrors: shards that are not there, told together.
        DataError: no shard is named, or too many.
        ConfigError: an address of another kind than http and https.
        UnsafeError: a command of a shell.
    """
    places: dict[str, None] = {}
    missing = []
    for part in _BETWEEN.split(root):
        for name in _expand(part, root):
            if is_url(name):
                _need_http(name)
                places[name] = None
            elif found := _on_disk(expand_path(name)):
                places |= dict.fromkeys(found)
            else:
                missing.append(name)
    if missing:
        raise DataErrors([f"data.root: {_absence(name)}" for name in missing[:MOST_TOLD]] + _more(missing, places))
    if strangers := [name for name in places if name.lower().endswith(_COMPRESSED)]:
        what = f"{printable(strangers[0])} is compressed, and images in it cannot be reached one by one"
        raise DataError(f"data.root: {what}; uncompress the shards (JPEG is compressed already)")
    return list(places)


def _more(missing: list[str], places: dict[str, None]) -> list[str]:
    rest = len(missing) - MOST_TOLD
    if rest <= 0:
        return []
    there = (
        f"beside {counted(len(places), 'shard')} that {'is' if len(places) == 1 else 'are'}"
        if places
        else "which is all of them"
    )
    return [f"data.root: and {rest:,} more not there, {there}; mend the pattern"]


def _absence(name: str) -> str:
    """Why a name leads to no shard, and what to do."""
    path = expand_path(name)
    if glob.has_magic(name) and not os.path.exists(path):
        return f"{printable(name)} is the name of no file; mend the pattern"
    if os.path.isdir(path):
        return f"{printable(path)} holds no .tar file; {_GIVE}"
    if not path.suffix:  # as a folder is called
        return f"{printable(path)} {absence(path)}; {_GIVE}"
    return f"{printable(path)} {absence(path)}; fetch the shard, or leave it out of the pattern"


def _on_disk(path: Path) -> list[str]:
    """The shards that a name without braces stands for."""
    if os.path.isfile(path):
        return [str(path)]
    if os.path.isdir(path):  # the folder of them, or that of the folders of the splits
        return sorted(map(str, [*path.glob("*.tar"), *path.glob("*/*.tar")]))
    return sorted(filter(os.path.isfile, glob.glob(str(path)))) if glob.has_magic(str(path)) else []


def _expand(pattern: str, root: str) -> Iterator[str]:
    """The names of a pattern, its braces replaced from the left; DataError where they are too many."""
    names, count = [pattern], 0
    while names:
        name = names.pop()
        start, end = _braces(name)
        if end < 0:
            count += 1
            if count > MOST_SHARDS:
                raise DataError(f"data.root: {printable(root)} names more than {MOST_SHARDS:,} shards; give fewer")
            yield name
            continue
        choices = _choices(name[start + 1 : end], root)
        names += [name[:start] + choice + name[end + 1 :] for choice in reversed(choices)]


def _braces(name: str) -> tuple[int, int]:
    """The places of the first braces that hold choices; an end of -1 where there are none."""
    opened: list[int] = []
    found: list[tuple[int, int]] = []
    for place, letter in enumerate(name):
        if letter == "{":
            opened.append(place)
        elif letter == "}" and opened:
            found.append((opened.pop(), place))
    inside = (pair for pair in sorted(found) if re.search(r",|\.\.", name[pair[0] : pair[1]]))
    return next(inside, (-1, -1))


def _choices(text: str, root: str) -> list[str]:
    """What stands between braces: numbers from one to another, as wide as they are written, or names."""
    if numbers := _RANGE.fullmatch(text):
        first, last = int(numbers[1]), int(numbers[2])
        if abs(last - first) >= MOST_SHARDS:
            raise DataError(f"data.root: {printable(root)} names more than {MOST_SHARDS:,} shards; give fewer")
        is_padded = any(len(number) > 1 and number.lstrip("-").startswith("0") for number in numbers.groups())
        width = max(map(len, numbers.groups())) if is_padded else 0
        step = 1 if last >= first else -1
        return [f"{number:0{width}d}" for number in range(first, last + step, step)]
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _need_http(name: str) -> None:
    scheme = name.partition(":")[0].lower()
    if scheme == "pipe":
        raise UnsafeError(
            f"data.root: pipe: would run a command of a shell (given {printable(name)}); give the address itself, "
            "https://…, or fetch the shards and give their files"
        )
    if scheme not in ("http", "https"):
        advice = "leave file:// out" if scheme == "file" else "fetch the shards, and give their files"
        raise ConfigError(f"data.root: shards are read from files, http and https (given {printable(name)}); {advice}")
    if not urlsplit(name).hostname:
        raise ConfigError(f"data.root: {printable(name)} names no host; write https://HOST/PATH")
