"""`cnntrain course [NUMBER ... | all] [out=DIR]`: the pages of docs/course, listed or run."""

import shlex
from pathlib import Path

from cnntrain.config.schema.commands import CourseArgs
from cnntrain.course.pages import Page, all_pages, pages_of
from cnntrain.course.run import TEXT, BlockError, filled, run_page
from cnntrain.errors import Interrupted
from cnntrain.runtime.child import relay
from cnntrain.storage import run_folder
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import printable

HOME = Path("outputs/course")


def run(args: CourseArgs) -> None:
    """List the pages, or run some: each in a folder of its own, with its text, tables and pictures in page.md.

    Raises:
        ConfigError: there is no such page.
        BlockError: a command of a page failed; the other pages have run.
        Interrupted: a signal ended the command in hand, which has saved.
        FileSystemError: a folder cannot be written.
        RunFolderError: another process runs in it, or it is no folder of a page.
    """
    pages = pages_of(args.words)
    if not pages:
        _list()
        return
    is_one = len(pages) == 1 and args.words != ("all",)
    ended: list[tuple[Page, BlockError]] = []
    for page in pages:
        folder = args.out if args.out and is_one else (args.out or HOME) / page.folder_name
        try:
            _run(page, folder)
        except Interrupted as stop:
            raise Interrupted(stop.signum, f"{stop}; go on with {args.command_line}") from None
        except BlockError as fault:  # data that one page lacks is no matter to the others
            if len(pages) == 1:
                raise
            _say(f"{fault}\n")
            ended.append((page, fault))
    if ended:
        numbers = ", ".join(str(page.number) for page, _ in ended)
        raise BlockError(f"course: {len(ended)} of {len(pages)} pages came to no end: {numbers}", ended[0][1].exit_code)


def _list() -> None:
    pages = all_pages()
    widths = [max(len(text) for text in column) for column in zip(*map(_cells, pages), strict=True)]
    for page in pages:
        print("  ".join(f"{text:<{width}}" for text, width in zip(_cells(page), widths, strict=True)).rstrip())
        print(f"    {', '.join(page.command_names())}")
    print(f"\nnext  cnntrain course {pages[0].number}")


def _cells(page: Page) -> list[str]:
    return [f"{page.number:2}", page.title, page.needs, page.cost]


def _run(page: Page, folder: Path) -> None:
    run_folder.make(folder, word="out=DIR")
    _say(
        f"{page.number}. {page.title}: {page.needs}, {page.cost}\nin {printable(folder)}, where the paths below begin\n"
    )
    with relay() as child:
        shown = run_page(page, folder.resolve(), child, _say)
    write_atomic(folder / TEXT, filled(page, folder, shown, Path.as_posix))
    for line in [verdict for left in shown for verdict in left.verdicts]:
        _say(f"{line.removeprefix('- ').replace('**', '')}\n")
    _say(f"wrote {printable(shlex.quote(str(folder / TEXT)))}\n")


def _say(text: str) -> None:
    """Text at once: our commands have escaped what is not theirs."""
    print(text, end="", flush=True)
