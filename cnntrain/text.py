"""What people read: one line of any text, short numbers, lists of names, nearest spellings.

The one place that shortens.
"""

import difflib
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

WIDTH = 80  # columns of a table
WIDEST_NAME = 40  # columns, of a class in a table


def percent(share: float | None) -> str:
    """A fraction of 1 in six characters: `85.24%`."""
    if share is None:
        return "-"
    return "100%" if share == 1 else f"{100 * share:.2f}%"


def number(value: float | None) -> str:
    """A loss in six characters: `0.4321`, `12.346`, `1234.5`."""
    if value is None:
        return "-"
    if abs(value) < 9.99995:
        return f"{value:.4f}"
    return f"{value:.5g}" if abs(value) < 99999.5 else f"{value:.0e}"


def rate(value: float | None) -> str:
    """Images per second: `12,345`, `0.52`."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def clock(seconds: float | None) -> str:
    """`0:01:23`, with as many hours as it takes."""
    if seconds is None or not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def counted(count: int, noun: str) -> str:
    """A number of things: `1 step`, `1,230 steps`, `2 classes`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith(("s", "x", "tch")) else "s")


def gibibytes(count: int) -> str:
    """Bytes of memory: `79.1 GiB`, `512 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def short_path(path: str | Path) -> str:
    """A path as the user would type it: relative where it lies below the current folder."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd())) or os.curdir
    except ValueError:
        return str(path)


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equal columns: the first one flush left, the others right."""
    from rich.cells import cell_len, set_cell_size  # costs more than all that is here

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                set_cell_size(row[0], widths[0]),
                *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]


def shorten(text: str, width: int) -> str:
    """Text of at most `width` columns; what is too long loses its middle, as a path says most at its ends."""
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    head, tail = text[:width], text[-width:]
    while cell_len(head) > (width - 1) // 3:
        head = head[:-1]
    while cell_len(head) + 1 + cell_len(tail) > width:
        tail = tail[1:]
    return f"{head}…{tail}"


def shorten_apart(texts: Sequence[str], width: int) -> list[str]:
    """Texts of at most `width` columns; those that are too long lose first what they begin and end with alike."""
    from rich.cells import cell_len

    long = list(dict.fromkeys(text for text in texts if cell_len(text) > width))
    if len(long) < 2:
        return [shorten(text, width) for text in texts]
    head = common_start(long)
    tail = common_start([text[len(head) :][::-1] for text in long])[::-1]
    middles = {text: text[len(head) : len(text) - len(tail)] for text in long}
    spare = width - max(map(cell_len, middles.values()))
    if spare < 2:
        short = {text: shorten(f"{head and '…'}{middle}{tail and '…'}", width) for text, middle in middles.items()}
        return [short.get(text, text) for text in texts]
    tail = tail if cell_len(tail) < spare else "…"
    spare -= cell_len(tail)
    if cell_len(head) > spare:
        while cell_len(head) >= spare:
            head = head[1:]
        head = f"…{head}"
    return [f"{head}{middles[text]}{tail}" if text in middles else text for text in texts]


def common_start(texts: Sequence[str]) -> str:
    """The letters that all texts begin with."""
    first, last = min(texts), max(texts)
    places = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(places, len(first))]


def cut(text: str, width: int) -> str:
    """Text of at most `width` characters; what is too long loses its end."""
    return text if len(text) <= width else text[: width - 1] + "…"


def few(words: Iterable[str], most: int = 4) -> str:
    """A list for a message: `a, b, c, d, and 12 more`."""
    every = list(words)
    more = f", and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def wrap(text: str, width: int = WIDTH, indent: int = 0) -> list[str]:
    """Text in lines of at most `width` columns, those after the first set in; a longer word has a line of its own."""
    from rich.cells import cell_len

    lines = [""]
    for word in re.findall(r"\s*\S+", text):
        if lines[-1].strip() and cell_len(lines[-1] + word) > width:
            lines.append(" " * indent + word.lstrip())
        else:
            lines[-1] += word
    return lines


def wrap_facts(facts: dict[str, str], width: int = 80) -> list[tuple[str, str]]:
    """Named facts, those too long for one line in several, so that they fit the screen, frame and all."""
    room = width - max(map(len, facts)) - 6
    rows = []
    for name, fact in facts.items():
        first, *others = wrap(fact, room)
        rows += [(name, first), *(("", line) for line in others)]
    return rows


def printable(text: Path | str | bytes) -> str:
    """A path, or any other text that is not ours, for people: one line that moves no cursor, whatever it holds.

    The same whatever the locale: what Python could not decode, and keeps as surrogates, is read as UTF-8.
    """
    letters = (text if isinstance(text, bytes) else utf8(str(text))).decode("utf-8", "backslashreplace")
    if letters.isprintable():
        return letters
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in letters)


def utf8(text: str) -> bytes:
    """The surrogates by which Python keeps bytes become these again; others, which no file name has, a sign."""
    return re.sub(r"[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text).encode("utf-8", "surrogateescape")


def one_line(error: BaseException) -> str:
    """The kind and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def nearest(word: str, right: Iterable[str], cutoff: float = 0.65) -> str | None:
    """The most similar right spelling, or one that the word goes on from (evaluate: eval); None if none is close."""
    known = list(right)
    close = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return next(iter(close or [name for name in known if len(name) > 3 and word.startswith(name)]), None)


def is_number(text: str) -> bool:
    """Whether Python reads a text as a number; inf and nan are some."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def hint(suggestion: str | None, otherwise: str = "") -> str:
    """The last part of a fault: `; did you mean X?`, or what to do instead."""
    if suggestion:
        return f"; did you mean {suggestion}?"
    return f"; {otherwise}" if otherwise else ""
