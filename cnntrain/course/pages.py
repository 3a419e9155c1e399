"""The pages of the course as files: their blocks of commands, and the regions that the program writes.

A page is one Markdown file, `NN-name.md`: a title, a line `needs: DATA; N minutes on M cores`, and text. After each
block of `sh` or `python` stands a region, in which comments are instructions:

    <!-- claim (two beat one): ROW > ROW -->      any number of them; a ROW is KEY=VALUE ... of a row of compare
    <!-- shown: *.png -->                         the pictures to show, all where no pattern is given
    <!-- end -->
"""

import functools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from cnntrain.errors import ConfigError
from cnntrain.text import hint, printable

COMMAND = "cnntrain"  # with which each line of a block of `sh` begins
TITLE = re.compile(r"^# (\d+)\. (.+)$", re.MULTILINE)
NEEDS = re.compile(r"^needs: ([^;\n]+); (.+)$", re.MULTILINE)
CLAIM = re.compile(r"<!-- claim \((.+?)\): (.+?) > (.+?) -->\n")
BLOCK = re.compile(
    r"^```(?P<kind>sh|python)\n(?P<code>.*?)^```\n"
    r"(?P<claims>(?:\s*<!-- claim [^\n]*-->\n)*)"
    r"\s*(?P<head><!-- shown(?::(?P<pictures>[^\n]*?))? -->\n)(?P<shown>.*?)(?P<foot><!-- end -->)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Claim:
    """That the score of one row of a comparison is above that of another."""

    text: str
    better: tuple[str, ...]
    worse: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """What is run at one place of a page.

    Attributes:
        kind: `sh`, lines that begin with `cnntrain`, or `python`.
        patterns: of the names of pictures that the page shows.
        shown: what stood there when it was last run.
        place: where in the text the region begins and ends.
    """

    kind: str
    code: str
    claims: tuple[Claim, ...]
    patterns: tuple[str, ...]
    shown: str
    place: tuple[int, int]

    def commands(self) -> list[list[str]]:
        """The words of each line of a block of `sh`, after `cnntrain`."""
        lines = [shlex.split(line, comments=True) for line in self.code.replace("\\\n", " ").splitlines()]
        if stray := next((line for line in lines if line[:1] not in ([], [COMMAND])), None):
            raise AssertionError(f"a line of a page begins with {COMMAND} (given {stray[0]})")
        return [line[1:] for line in lines if line]


@dataclass(frozen=True)
class Page:
    """A page of the course.

    Attributes:
        needs: the data that it trains on.
        cost: how long it took, and on what, as it was last run.
    """

    file: Path
    number: int
    title: str
    needs: str
    cost: str
    text: str

    @property
    def folder_name(self) -> str:
        return f"{self.number:02}"

    @functools.cached_property
    def blocks(self) -> list[Block]:
        """In the order of the page."""
        return [
            Block(
                found["kind"],
                found["code"],
                tuple(Claim(text, _row(better), _row(worse)) for text, better, worse in CLAIM.findall(found["claims"])),
                tuple((found["pictures"] or "*").split()),
                found["shown"],
                found.span("shown"),
            )
            for found in BLOCK.finditer(self.text)
        ]

    def command_names(self) -> list[str]:
        """The commands of its blocks, each once."""
        lines = [words for block in self.blocks if block.kind == "sh" for words in block.commands()]
        return list(dict.fromkeys("train" if "=" in words[0] else words[0] for words in lines))


def _row(words: str) -> tuple[str, ...]:
    return tuple(shlex.split(words))


def course_dir() -> Path:
    """The folder of the pages: inside the package of a wheel, in docs/ of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "course" / "pages", package.parent / "docs" / "course"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{package / 'course' / 'pages'}: the pages are missing; install cnntrain again")


def read_page(file: Path) -> Page:
    """AssertionError where title or `needs:` are not as they have to be: pages are ours."""
    text = file.read_text(encoding="utf-8")
    title, needs = TITLE.search(text), NEEDS.search(text)
    if not (title and needs):
        raise AssertionError(f"{file}: a page begins with `# N. Title` and `needs: DATA; TIME`")
    return Page(file, int(title[1]), title[2], needs[1], needs[2], text)


def all_pages() -> list[Page]:
    """By number."""
    return sorted(map(read_page, course_dir().glob("[0-9][0-9]-*.md")), key=lambda page: page.number)


def pages_of(words: tuple[str, ...]) -> list[Page]:
    """The pages that the words of the command name: numbers, or `all`.

    Raises:
        ConfigError: a word is none of them.
    """
    pages = all_pages()
    if words == ("all",):
        return pages
    by_number = {page.number: page for page in pages}
    for word in words:
        if not word.isdecimal() or int(word) not in by_number:
            numbers = ", ".join(map(str, by_number))
            raise ConfigError(
                f"course: no such page (given {printable(word)})"
                + hint(None, f"pages: {numbers}, or all; `cnntrain course` lists them")
            )
    return [by_number[number] for number in dict.fromkeys(map(int, words))]
