"""`cnntrain models [WORD ...] [out=FILE.csv]`: the networks that model= knows, with stored figures; no torch."""

import re
import textwrap
from pathlib import Path

from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.commands import ModelsArgs
from cnntrain.errors import ConfigError
from cnntrain.models.catalogue import COLUMNS, Figures, catalogue, short
from cnntrain.storage import spreadsheet
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import hint, nearest, printable

WIDTH = 80
HEAD = ("name", "parameters", "multiply-adds", "px", "year", "source")
LEGEND = (
    "Counts: 1,000 classes, 3 channels and px x px pixels, without auxiliary classifiers; nets made for MNIST or CIFAR "
    "with the 10 classes and the channels of these. Layer by layer: cnntrain summary model=NAME"
)


def run(args: ModelsArgs) -> None:
    """Print a row for each network, by year and paper; with words, those that have each of them, described.

    Args:
        args: an other word is the beginning of a word of the name, the description, the year or the source; `out`
            gets the rows with exact counts.

    Raises:
        ConfigError: no network matches.
        FileSystemError: the file cannot be written.
    """
    words = [word.lower() for word in args.words]
    counts, lines = catalogue(), descriptions()
    begins = [re.compile(rf"(?<![a-z0-9]){re.escape(word)}") for word in words]  # `lenet` is not in `googlenet`
    texts = {name: _text(name, lines, counts) for name in lines}
    names = [name for name, text in texts.items() if all(begin.search(text) for begin in begins)]
    if not names:
        pairs = zip(words, begins, strict=True)
        strangers = [word for word, begin in pairs if not any(map(begin.search, texts.values()))]
        suggestion = nearest(strangers[0], lines) if strangers else None
        advice = "`cnntrain models` lists all" if strangers else "all words have to be found in one network"
        raise ConfigError(f"models: none matches {' '.join(words)}" + hint(suggestion, advice))
    entries = sorted((counts[name] for name in names if name in counts), key=_order)
    _show(entries, lines, with_lines=bool(words))
    for name in names:
        if name not in counts:
            print(_wrap(name, lines[name]))
    if not words:
        print(_wrap("", LEGEND))
    if args.out:
        _write(args.out, entries)


def descriptions() -> dict[str, str]:
    """The first line of each network's file in conf/model, by its name."""
    files = sorted(file for file in (conf_dir() / "model").glob("*.yaml") if not file.stem.startswith("for_"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip() for file in files}


def _text(name: str, lines: dict[str, str], counts: dict[str, Figures]) -> str:
    """Where words are looked for."""
    entry = counts.get(name)
    return f"{name} {lines[name]} {f'{entry.year} {entry.source}' if entry else ''}".lower()


def _order(entry: Figures) -> tuple[int, str, int, str]:
    """Networks of one paper stand together, the smallest first."""
    return entry.year, entry.source, entry.parameters, entry.name


def _show(entries: list[Figures], lines: dict[str, str], *, with_lines: bool) -> None:
    if not entries:
        return
    rows = [HEAD]
    for entry in entries:
        costs = short(entry.parameters, " "), short(entry.macs, " ")
        rows.append((entry.name, *costs, str(entry.image_size), str(entry.year), entry.source))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, (name, *cells, source) in enumerate(rows):
        middle = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:-1], strict=True)]
        print("  ".join([f"{name:<{widths[0]}}", *middle, source]))
        if with_lines and number:
            print(_wrap("", lines[name], indent=4))
    print()


def _wrap(name: str, text: str, indent: int = 0) -> str:
    head = f"{name}  " if name else " " * indent
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _write(path: Path, entries: list[Figures]) -> None:
    rows = [[getattr(entry, key) for key in COLUMNS] for entry in entries]
    write_atomic(path, spreadsheet.as_csv([list(COLUMNS), *rows]), word="out=FILE.csv")
    print(f"wrote {printable(path)}")
