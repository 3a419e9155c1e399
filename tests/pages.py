"""Pages read again, and runs that have one."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import made_once

from cnntrain import cli

SECTIONS = (
    *("findings", "next", "scores", "curves", "confusion", "classes", "errors", "certainty"),
    *("filters", "augmentation", "data", "config", "origin"),
)
OF_NETWORK = ("confusion", "classes", "errors", "certainty", "filters", "augmentation")
EVIL = "<script>alert(1)<!--"
QUOTED = "\"' onload=x ='"


class Reader(HTMLParser):
    """The elements of a page, checked for being closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.goes_on = False  # the next data belongs to the word before it
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.goes_on = tag == "wbr" or ("class", "part") in attrs
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.goes_on = tag == "span"

    def handle_data(self, data):
        if self.goes_on and self.words:
            self.words[-1] += data
        elif "style" not in self.open:
            self.words.append(data)
        self.goes_on = False

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def report(*words: str, code: int = 0) -> None:
    assert cli.main(["report", *words]) == code


def read(folder: Path | str = "run") -> Reader:
    return Reader((Path(folder) / "report.html").read_text(encoding="utf-8"))


def sections(folder: Path | str = "run") -> list[str | None]:
    return [attributes["id"] for attributes in read(folder).named("section")]


def make_run(home: Path) -> None:
    words = ["trainer.epochs=2", "data.limit=200", "trainer.tensorboard=false", "trainer.log_every=2"]
    assert cli.main([*words, "trainer.report=true", f"out={home}/run"]) == 0


@pytest.fixture(scope="session")
def run_with_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on some of the digits, which ended with its page."""
    return made_once(tmp_path_factory, "run_with_page", make_run) / "run"


def photos(root: Path, *names: str) -> None:
    """A folder of 24 small photos for each class."""
    random = np.random.default_rng(0)
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(24):
            pixels = random.integers(0, 120, (40, 48, 3), dtype=np.uint8) + np.uint8(130 * (place % 2))
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")


def make_strange(home: Path) -> None:
    photos(home / "<b>images", EVIL, QUOTED)
    words = ["data=imagefolder", f"data.root='{home}/<b>images'", "model=lenet5", "data.image_size=32"]
    words += ["trainer.epochs=1", "trainer.tensorboard=false", "trainer.report=true"]
    assert cli.main([*words, f"out={home}/run"]) == 0


@pytest.fixture(scope="session")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on classes whose names are markup, in a folder of such a name."""
    return made_once(tmp_path_factory, "strange", make_strange) / "run"


@pytest.fixture
def copied_run(here: Path, run_with_page: Path) -> Path:
    """A copy of a run with its page, in the current folder."""
    shutil.copytree(run_with_page, here / "run")
    return here / "run"
