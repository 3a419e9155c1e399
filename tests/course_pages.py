"""Run the pages of docs/course and write what they show into them, and their pictures into docs/img/course.

`make course` runs all of them, `make course PAGES="3 6"` some. Comparisons that are finished in outputs/course are not
run again.
"""

import shutil
import sys
from pathlib import Path

from cnntrain.course.pages import Page, all_pages, pages_of
from cnntrain.course.run import filled, flat_name, run_page
from cnntrain.runtime.child import relay
from cnntrain.storage.atomic import write_atomic

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "img" / "course"
INDEX = ROOT / "docs" / "course" / "README.md"
FIRST, LAST = "<!-- shown -->\n", "<!-- end -->"


def write_page(page: Page) -> None:
    """Run a page, and write it anew with its pictures."""
    folder = ROOT / "outputs" / "course" / page.folder_name
    folder.mkdir(parents=True, exist_ok=True)
    with relay() as child:
        shown = run_page(page, folder, child, lambda text: print(text, end="", flush=True))
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob(f"{page.folder_name}-*.png"):
        old.unlink()
    for left in shown:
        for file in left.pictures:
            shutil.copyfile(folder / file, PICTURES / picture_name(page, file))
    text = filled(page, folder, shown, lambda file: f"../img/course/{picture_name(page, file)}")
    write_atomic(page.file, text)


def picture_name(page: Page, file: Path) -> str:
    return f"{page.folder_name}-{flat_name(file)}"


def index() -> str:
    """The text of the index, with a row for each page and what came of its claims."""
    text = INDEX.read_text(encoding="utf-8")
    start, _, rest = text.partition(FIRST)
    return f"{start}{FIRST}\n{table()}\n{LAST}{rest.partition(LAST)[2]}"


def table() -> str:
    rows = ["| page | data | time | claims |", "| --- | --- | --- | --- |"]
    for page in all_pages():
        claims = "<br>".join(
            line.removeprefix("- ") for block in page.blocks for line in block.shown.splitlines() if line[:4] == "- **"
        )
        rows.append(f"| {page.number}. [{page.title}]({page.file.name}) | {page.needs} | {page.cost} | {claims} |")
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    for page in pages_of(tuple(sys.argv[1:]) or ("all",)):
        write_page(page)
    write_atomic(INDEX, index())
