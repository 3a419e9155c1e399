"""HTML by plain functions: text becomes markup in one place, which escapes it."""

import html
import re
from collections.abc import Iterable, Sequence

from cnntrain.text import printable

VOID = ("br", "img", "meta", "hr", "wbr")  # elements without an end


class Html(str):
    """Markup of our own making. Any other text is a stranger's until `tag` or `text` has escaped it."""


def text(words: object) -> Html:
    """Words as markup: nothing in them is read as an element, an attribute or a control sign."""
    return words if isinstance(words, Html) else Html(html.escape(printable(str(words)), quote=True))


def join(parts: Iterable[object]) -> Html:
    """Parts behind each other; None is nothing."""
    return Html("".join(text(part) for part in parts if part is not None))


def tag(element: str, *children: object, **attributes: object) -> Html:
    """An element, such as `tag("p", "a < b", class_="note")`; children that are no Html are escaped.

    Args:
        attributes: a trailing underscore goes, another one is a dash; True is an attribute without a value, None and
            False are none.
    """
    words = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name_of_attribute = key.rstrip("_").replace("_", "-")
        words.append(name_of_attribute if value is True else f'{name_of_attribute}="{text(value)}"')
    start = f"<{' '.join(words)}>"
    return Html(start) if element in VOID else Html(f"{start}{join(children)}</{element}>")


def code_words(words: str) -> Html:
    """A sentence whose words to type stand in backticks."""
    parts = words.split("`")
    return join(tag("code", breakable(part)) if index % 2 else part for index, part in enumerate(parts))


def breakable(words: str, behind: str = "/") -> Html:
    """Words to type, which a narrow page breaks between the parts of a path, not within the date that is one.

    Args:
        behind: the signs that end a part.
    """
    parts = re.findall(rf"[^\s{behind}]*[{behind}]|[^\s{behind}]+|\s+", words)
    return join(_part(part, tag("wbr") if part[-1] in behind else None) for part in parts)


def _part(part: str, end: Html | None) -> Html:
    return tag("span", part, class_="part") if "-" in part.strip("-") else join([part, end])


def lines(content: str) -> Html:
    """Text of several lines that keeps them."""
    return tag("pre", Html("\n".join(breakable(line) for line in content.splitlines())), tabindex="0")


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], *, words: int = 1, caption: str = "") -> Html:
    """A table that scrolls within itself; the first cell of a row is its head.

    Args:
        words: how many columns from the left hold words; the others hold figures, flush right.
    """
    sides = ["words" if column < words else "figure" for column in range(len(heads))]
    names = [tag("th", cell, scope="col", class_=side) for cell, side in zip(heads, sides, strict=True)]
    head = tag("thead", tag("tr", *names)) if any(heads) else None
    body = []
    for first, *others in rows:
        cells = [tag("td", cell, class_=side) for cell, side in zip(others, sides[1:], strict=True)]
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    title = tag("caption", caption) if caption else None
    return scroll(tag("table", title, head, tag("tbody", *body)), caption or "table")


def scroll(content: Html, name: str) -> Html:
    """Something wide, in a frame that scrolls, with the keyboard too."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)


def fold(title: object, *content: object) -> Html:
    """Something that is shown at a click."""
    return tag("details", tag("summary", title), *content)


def section(name: str, title: str, *content: object) -> Html:
    """A part of the page under a heading, with an anchor."""
    return tag("section", tag("h2", title), *content, id=name)
