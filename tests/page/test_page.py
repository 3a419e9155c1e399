"""`cnntrain report`: the page holds what the run is worth, asks for nothing, runs nothing, and is there with less."""

import base64
import hashlib
import itertools
import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnntrain import cli
from cnntrain.evaluation.intervals import wilson
from cnntrain.page import sections as page_sections
from cnntrain.page.build import Page
from cnntrain.page.chart import TOP, Chart, Line
from cnntrain.page.document import STYLE
from cnntrain.page.history import History, Row
from cnntrain.page.run import read_run
from cnntrain.storage import checkpoint

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on some of the digits, which ended with its page."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["trainer.epochs=2", "data.limit=200", "trainer.tensorboard=false", "trainer.log_every=2"]
    assert cli.main([*words, "trainer.report=true", f"out={folder}"]) == 0
    return folder


@pytest.fixture
def run(here: Path, trained: Path) -> Path:
    """A copy of it in the current folder."""
    shutil.copytree(trained, here / "run")
    return here / "run"


def photos(root: Path, *names: str) -> None:
    """A folder of 24 small photos for each class."""
    random = np.random.default_rng(0)
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(24):
            pixels = random.integers(0, 120, (40, 48, 3), dtype=np.uint8) + np.uint8(130 * (place % 2))
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on classes whose names are markup, in a folder of such a name."""
    home = tmp_path_factory.mktemp("strange")
    photos(home / "<b>images", EVIL, QUOTED)
    words = ["data=imagefolder", f"data.root='{home}/<b>images'", "model=lenet5", "data.image_size=32"]
    words += ["trainer.epochs=1", "trainer.tensorboard=false", "trainer.report=true"]
    assert cli.main([*words, f"out={home}/run"]) == 0
    return home / "run"


# --- what it holds ----------------------------------------------------------------------------------------------------


def test_a_run_ends_with_its_page_where_it_is_asked_for(trained):
    page = read(trained)
    assert tuple(attributes["id"] for attributes in page.named("section")) == SECTIONS
    assert [attributes["href"] for attributes in page.named("a")][1:] == [f"#{name}" for name in SECTIONS]
    assert "lenet5 on digits" in page.text


def test_a_run_says_that_it_writes_its_page_and_ends_with_what_to_type_next(here, capsys):
    words = ["data.limit=100", "trainer.tensorboard=false", "trainer.report=true", "out=run"]
    for command in (["trainer.epochs=1", *words], ["resume", "run", "trainer.epochs=2"]):
        assert cli.main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        said = lines.index("writing report.html: the images are scored once more")
        assert lines[said - 1].split()[0] == "folder"
        wrote, following = lines.index("wrote run/report.html"), lines.index("next  cnntrain eval run")
        assert said < wrote < following
        assert all(line.startswith("      ") for line in lines[following + 1 :])
        assert max(map(len, lines[said:wrote])) <= 80
        assert any(line.startswith("Too short: ") for line in lines[said:wrote])


def test_the_temperature_of_the_checkpoint_is_named_where_it_counts(run):
    checkpoint.annotate(run / "checkpoints" / "best", temperature=1.75)
    report("run")
    words = "at temperature 1.75, fitted to the validation images"
    assert f"Loss and calibration error are those {words}" in read().text
    assert f"Of the test images, {words}." in read().text


def test_a_narrow_page_breaks_a_path_between_its_parts_and_not_within_a_date(here, run):
    folder = "outputs/digits/2026-11-27_18-58-57"
    Path("outputs/digits").mkdir(parents=True)
    run.rename(folder)
    report(folder)
    content = (Path(folder) / "report.html").read_text(encoding="utf-8")
    path = 'outputs/<wbr>digits/<wbr><span class="part">2026-11-27_18-58-57</span>'
    assert f"cnntrain eval {path}</pre>" in content
    assert f"<code>cnntrain predict {path} images=PHOTOS" in content
    assert f"cnntrain eval {folder} all scores" in read(folder).text


def test_the_charts_of_the_curves_have_one_axis(run):
    curves = (run / "report.html").read_text(encoding="utf-8").split('<section id="curves">')[1]
    axes = [re.findall(r'<text x="([\d.]+)" y="195" [^>]*>([^<]*)<', chart) for chart in curves.split("<figure>")[1:5]]
    assert len(axes) == 4
    assert axes == [axes[0]] * 4


def test_waiting_stays_within_its_axis(run):
    """The first images of a run may take long; the longest wait is drawn too."""
    rows = [Row(1, step, data_wait=0.9 if step == 1 else 0.01) for step in range(1, 40)]
    picture = str(page_sections.curves(replace(read_run(run), history=History((), tuple(rows)))))
    line = re.findall(r'd="M([^"]*)" class="line one"', picture)[-1]
    assert min(float(point.split()[1]) for point in line.split("L")) >= TOP


def test_the_scores_are_those_of_eval_with_their_intervals(run):
    assert cli.main(["eval", "run", "out=scores.json"]) == 0
    test = json.loads(Path("scores.json").read_text())["test"]
    page = read()
    assert f"{100 * test['top1']:.2f}%" in page.text
    low, high = (f"{100 * limit:.2f}" for limit in wilson(test["top1"], 360))
    assert f"({low} to {high})" in page.text
    matrix = [int(word) for word in re.findall(r"taken for class \d: (\d+)", str(page.elements))]
    assert len(matrix) == 100
    assert sum(matrix) == 360
    assert sum(matrix[::11]) == round(360 * test["top1"])


def test_the_command_writes_the_same_page_elsewhere_too(run, capsys):
    before = read()
    report("run", "out=page.html")
    printed = capsys.readouterr().out
    assert "wrote page.html" in printed
    again = Reader(Path("page.html").read_text(encoding="utf-8"))
    assert again.named("section") == before.named("section")
    assert not Path("other").exists()


def test_what_stands_out_is_said_in_the_terminal_too(run, capsys):
    report("run")
    printed = " ".join(capsys.readouterr().out.split())
    found = re.findall(r"<li><h3>(.*?)</h3><p>(.*?)</p>", (run / "report.html").read_text(encoding="utf-8"))
    for title, figure in found[:5]:
        assert f"{title}: {figure}" in printed
    assert found or "nothing stands out" in printed


def test_curves_show_training_against_validation_and_mark_the_best_epoch(trained):
    page = read(trained)
    charts = [attributes["aria-label"] for attributes in page.named("svg") if attributes.get("role") == "img"]
    (loss,) = [label for label in charts if label and label.startswith("Loss")]
    assert "training" in loss
    assert "validation" in loss
    best = json.loads((trained / "results.json").read_text())["best_epoch"]
    assert f"best epoch {best}" in loss


# --- what it asks for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trained", "strange"])
def test_the_page_needs_no_network_and_runs_no_code(name, request):
    folder = request.getfixturevalue(name)
    content = (folder / "report.html").read_text(encoding="utf-8")
    page = Reader(content)
    used = {tag for tag, _ in page.elements}
    assert not used & {"script", "link", "iframe", "object", "embed", "form", "base", "video", "audio", "foreignobject"}
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (tag, attributes)
        if tag == "img":
            assert attributes["src"].startswith("data:image/")
            assert attributes["alt"]
        if "href" in attributes:
            assert attributes["href"].startswith("#")
    (style,) = re.findall("<style>(.*?)</style>", content, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'")


def test_a_strangers_names_are_text(strange):
    page = read(strange)
    assert EVIL in page.text
    assert "\"' onload=x" in page.text
    assert "<b>images" in page.text
    assert "b" in {tag for tag, _ in page.elements}  # of ours
    assert sections(strange) == [name for name in SECTIONS if name != "certainty"]  # of five images


def test_strange_words_in_the_files_of_a_run_are_text(run):
    (run / "command.txt").write_text("cnntrain </pre><script>alert(1)</script>\x1b[31m\n")
    environment = json.loads((run / "environment.json").read_text())
    environment |= {
        "device": "<img src=x onerror=alert(1)>",
        "platform": EVIL,
        "git": {"commit": EVIL},
        "started": EVIL,
    }
    (run / "environment.json").write_text(json.dumps(environment))
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"status": "failed", "error": EVIL, "best_epoch": "</h1>"}))
    report("run")
    content = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in content
    assert "<img src=x" not in content
    assert "\x1b" not in content
    assert "alert(1)" in read().text


# --- who reads it -----------------------------------------------------------------------------------------------------


def test_the_page_is_built_for_those_who_do_not_see_it(trained):
    page = read(trained)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes.get("scope") for attributes in page.named("th"))
    assert all(attributes.get("aria-label") for attributes in page.named("svg") if attributes.get("role") == "img")
    assert page.named("html")[0]["lang"] == "en"
    for pre in page.named("pre"):
        assert pre["tabindex"] == "0"  # what scrolls can be scrolled by keys


# --- with less --------------------------------------------------------------------------------------------------------


def sections(folder: Path | str = "run") -> list[str | None]:
    return [attributes["id"] for attributes in read(folder).named("section")]


def test_without_a_checkpoint_the_page_holds_what_the_folder_knows(run):
    shutil.rmtree(run / "checkpoints")
    report("run")
    assert sections() == ["missing", *(name for name in SECTIONS if name not in (*OF_NETWORK, "next"))]
    assert "has saved no checkpoint" in read().text
    (run / "results.json").unlink()  # as of a run that was killed before its first save
    report("run")
    assert "cnntrain resume run go on where the run stopped" in read().text
    assert "cnntrain predict" not in read().text


def test_a_damaged_checkpoint_is_named(run, capsys):
    for state in run.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"broken")
    report("run")
    assert "missing" in sections()
    assert "not on the page" in capsys.readouterr().out


def test_a_run_that_was_stopped_has_a_page(run):
    (run / "results.json").write_text(json.dumps({"status": "interrupted", "error": "stopped", "seconds": 1.0}))
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:3]))  # in its first epoch
    report("run")
    text = read().text
    assert "that was interrupted" in text
    assert "cnntrain resume run go on" in text


@pytest.mark.parametrize("lines", [0, 1])
def test_without_rows_there_are_no_curves(run, lines):
    whole = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(whole[:lines]))
    (run / "results.json").unlink()
    report("run")
    assert "curves" not in sections()
    assert "confusion" in sections()


def test_images_that_are_gone_cost_the_parts_that_show_them(here, strange, capsys):
    shutil.copytree(strange, "run")
    report("run", "data.root=/gone")
    left = [name for name in OF_NETWORK if name != "filters"]
    assert sections() == ["missing", *(name for name in SECTIONS if name not in left)]
    assert "/gone" in read().text
    assert "not on the page" in capsys.readouterr().out


def test_a_network_without_convolutions_is_shown_without_heat(here):
    words = ["model=mlp", "trainer.epochs=1", "data.limit=100", "trainer.tensorboard=false", "out=run"]
    assert cli.main([*words, "data.val=0"]) == 0
    report("run")
    page = read()
    assert "filters" in sections()
    assert "evidence for" not in page.text
    assert "taken for" in page.text
    assert "best epoch" not in page.text


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["run", "out=page.pdf"], 2, "out: must end in .html (given page.pdf); write out=FILE.html"),
        (["run", "optimizer.lr=1"], 2, "optimizer.lr: report trains nothing"),
        (["gone"], 4, "gone: no run there (config.yaml is missing)"),
        (["run", "out=gone/page.html"], 6, "gone"),
    ],
)
def test_a_mistake_is_told_in_a_line(run, capsys, words, code, told):
    (run / "report.html").unlink()
    report(*words, code=code)
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not [path for path in Path().rglob("*") if path.suffix in (".html", ".pdf")]


def test_a_fault_of_the_page_does_not_spoil_the_training(here, monkeypatch, capsys):
    def fail(self: Page) -> Iterator[str]:
        raise ValueError("no ink")

    monkeypatch.setattr(Page, "build", fail)
    words = ["trainer.epochs=1", "data.limit=60", "trainer.tensorboard=false", "trainer.report=true", "out=run"]
    assert cli.main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    told = "no report.html: ValueError: no ink; the run is whole, try again with cnntrain report run next "
    assert told in printed
    assert json.loads(Path("run/results.json").read_text())["status"] == "done"
    assert not Path("run/report.html").exists()


def test_a_file_that_cannot_be_read_costs_the_answers_alone(here, strange, capsys):
    shutil.copytree(strange.parent / "<b>images", "photos")
    shutil.copytree(strange, "run")
    for path in Path("photos").rglob("*.jpg"):
        path.write_bytes(b"broken")
    report("run", "data.root=photos")
    assert sections() == ["missing", *(name for name in SECTIONS if name not in OF_NETWORK or name == "filters")]
    assert "Scores by class and errors" in capsys.readouterr().out


def test_a_function_of_a_strangers_is_called_only_where_it_is_repeated(here, monkeypatch):
    Path("my_page_parts.py").write_text("def same(images, generator):\n    return images\n")
    monkeypatch.syspath_prepend(here)
    own = "augment.own.name=my_page_parts:same"
    words = ["augment=own", own, "trainer.epochs=1", "data.limit=60", "trainer.tensorboard=false"]
    assert cli.main([*words, "trainer.report=true", "out=run"]) == 0
    assert "augmentation" in sections()
    report("run")
    assert "augmentation" not in sections()
    assert f"repeat {own}" in read().text
    report("run", own)
    assert "augmentation" in sections()


# --- how it looks -----------------------------------------------------------------------------------------------------


def luminance(color: str) -> float:
    """Relative luminance as the Web Content Accessibility Guidelines define it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1, 2])
def test_letters_and_curves_stand_out_in_light_in_dark_and_in_print(scheme):
    roots = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(roots) == 3
    colors = {
        name: code * 2 if len(code) == 3 else code for name, code in re.findall(r"--(\w+): #(\w+);", roots[scheme])
    }
    for name in ("ink", "faint", "good", "bad", "link", "train", "val", "one"):
        for ground in ("card", "paper", "soft"):
            low, high = sorted(luminance(f"#{colors[part]}") for part in (name, ground))
            least = 3 if name in ("train", "val", "one") else 4.5
            assert (high + 0.05) / (low + 0.05) >= least, (name, ground)


def test_the_style_sheet_has_every_class_of_the_page(trained, strange):
    style = STYLE.read_text(encoding="utf-8")
    known = set(re.findall(r"\.([a-z]+\d?)\b", style)) | {"words"}
    for folder in (trained, strange):
        used = {name for _, attributes in read(folder).elements for name in (attributes.get("class") or "").split()}
        assert used <= known, used - known


# --- whatever is in the folder ----------------------------------------------------------------------------------------

VALUES = (
    None,
    "text",
    EVIL,
    True,
    -1,
    10**40,
    0.5,
    math.nan,
    math.inf,
    [],
    {},
    [[1]],
    {"top1": "x"},
    {"top1": 2.0},
    {"val": -1},
)


def test_whatever_the_files_of_a_run_hold_there_is_a_page(run):
    shutil.rmtree(run / "checkpoints")
    draw = random.Random(0)
    files = {name: json.loads((run / name).read_text()) for name in ("environment.json", "results.json")}
    head, *rows = (run / "metrics.csv").read_text().splitlines()
    for _ in range(15):
        for name, content in files.items():
            changes = {draw.choice(list(content)): draw.choice(VALUES) for _ in range(4)}
            (run / name).write_text(json.dumps(content | changes))
        cells = [row.split(",") for row in rows]
        for row in cells:
            row[draw.randrange(1, len(row))] = draw.choice(["", "nan", "inf", "-1", "1e308", "-1e308", str(2**63 - 1)])
        (run / "metrics.csv").write_text("\n".join([head, *map(",".join, draw.sample(cells, len(cells)))]) + "\n")
        report("run")
        assert "config" in sections()
        assert not re.search(r' d="[^"]*(nan|inf)', (run / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", {"val": -1}),
        ("val", {"top1": 10**400, "loss": -math.inf}),
        ("best_epoch", 10**400),
        ("train_seconds", 10**400),
    ],
)
def test_a_number_beyond_reason_is_none(run, name, value):
    shutil.rmtree(run / "checkpoints")
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {name: value}))
    report("run")
    assert "config" in sections()


def test_a_chart_has_an_axis_whatever_a_damaged_file_holds():
    for points in ([(2.0**62, -5.0)], [(0.0, -1e29), (1e18, -1e29)], [(0.0, 0.0)]):
        drawn = Chart("Loss", [Line("one", "one", points)], from_zero=True).draw()
        assert drawn
        assert "nan" not in drawn
