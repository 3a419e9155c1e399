"""Patterns that the user writes for the names of parameters and modules.

A pattern is a name with the wildcards of fnmatch (`features.*.bias`), or several of them parted by `|`. The name of a
module stands for everything below it: `layer1` matches `layer1.0.conv1.weight`.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from cnntrain.errors import ConfigError
from cnntrain.text import hint, nearest


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Those of the dotted names that a pattern matches, in their order."""
    alternatives = _alternatives(pattern)
    return [name for name in names if any(_matches(one, name) for one in alternatives)]


def require(key: str, patterns: Sequence[str], names: Sequence[str], what: str) -> set[str]:
    """The names that any of the patterns matches.

    Args:
        key: where the patterns were given, such as `finetune.freeze`.
        what: one of the names is, such as `parameter`.

    Raises:
        ConfigError: a pattern, or one of the alternatives in it, matches nothing.
    """
    every: set[str] = set()
    for pattern in patterns:
        for one in _alternatives(pattern):
            matched = [name for name in names if _matches(one, name)]
            if not matched:
                within = f" of {pattern!r}" if one != pattern else ""
                raise ConfigError(
                    f"{key}: {one!r}{within} matches no {what}"
                    + hint(_nearest_name(one, names), _outermost_names(names))
                )
            every.update(matched)
    return every


def is_below(name: str, modules: Sequence[str]) -> bool:
    """Whether a dotted name is that of one of some modules, or of something in one; "" is the whole network."""
    return any(module in ("", name) or name.startswith(f"{module}.") for module in modules)


def _alternatives(pattern: str) -> list[str]:
    return [one.strip() for one in pattern.split("|")]


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _nearest_name(pattern: str, names: Iterable[str]) -> str | None:
    """The name, or the module around some of them, that is spelled most alike."""
    parts = [name.split(".") for name in names]
    modules = (".".join(each[:depth]) for each in parts for depth in range(1, len(each) + 1))
    return nearest(pattern, dict.fromkeys(modules))


def _outermost_names(names: Sequence[str], most: int = 8) -> str:
    """The outermost names, as what to choose from."""
    outer = list(dict.fromkeys(name.partition(".")[0] for name in names))
    choices = ", ".join(outer[:most]) + (", ..." if len(outer) > most else "")
    return f"there are {choices}" if outer else "there are none"
