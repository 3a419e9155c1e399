"""`cnntrain report`: the page holds what the run is worth, asks for nothing, runs nothing, and can be read by all."""

import base64
import hashlib
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pages import EVIL, SECTIONS, Reader, read, report, sections

from cnntrain import cli
from cnntrain.evaluation.intervals import wilson
from cnntrain.page import sections as page_sections
from cnntrain.page.chart import TOP
from cnntrain.page.document import STYLE
from cnntrain.page.history import History, Row
from cnntrain.page.run import read_run
from cnntrain.storage import checkpoint


def test_a_run_ends_with_its_page_where_it_is_asked_for(run_with_page):
    page = read(run_with_page)
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


def test_the_temperature_of_the_checkpoint_is_named_where_it_counts(copied_run):
    checkpoint.annotate(copied_run / "checkpoints" / "best", temperature=1.75)
    report("run")
    words = "at temperature 1.75, fitted to the validation images"
    assert f"Loss and calibration error are those {words}" in read().text
    assert f"Of the test images, {words}." in read().text


def test_a_narrow_page_breaks_a_path_between_its_parts_and_not_within_a_date(here, copied_run):
    folder = "outputs/digits/2026-11-27_18-58-57"
    Path("outputs/digits").mkdir(parents=True)
    copied_run.rename(folder)
    report(folder)
    content = (Path(folder) / "report.html").read_text(encoding="utf-8")
    path = 'outputs/<wbr>digits/<wbr><span class="part">2026-11-27_18-58-57</span>'
    assert f"cnntrain eval {path}</pre>" in content
    assert f"<code>cnntrain predict {path} images=PHOTOS" in content
    assert f"cnntrain eval {folder} all scores" in read(folder).text


def test_the_charts_of_the_curves_have_one_axis(copied_run):
    curves = (copied_run / "report.html").read_text(encoding="utf-8").split('<section id="curves">')[1]
    axes = [re.findall(r'<text x="([\d.]+)" y="195" [^>]*>([^<]*)<', chart) for chart in curves.split("<figure>")[1:5]]
    assert len(axes) == 4
    assert axes == [axes[0]] * 4


def test_waiting_stays_within_its_axis(copied_run):
    """The first images of a run may take long; the longest wait is drawn too."""
    rows = [Row(1, step, data_wait=0.9 if step == 1 else 0.01) for step in range(1, 40)]
    picture = str(page_sections.curves(replace(read_run(copied_run), history=History((), tuple(rows)))))
    line = re.findall(r'd="M([^"]*)" class="line one"', picture)[-1]
    assert min(float(point.split()[1]) for point in line.split("L")) >= TOP


def test_the_scores_are_those_of_eval_with_their_intervals(copied_run):
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


def test_the_command_writes_the_same_page_elsewhere_too(copied_run, capsys):
    before = read()
    report("run", "out=page.html")
    printed = capsys.readouterr().out
    assert "wrote page.html" in printed
    again = Reader(Path("page.html").read_text(encoding="utf-8"))
    assert again.named("section") == before.named("section")
    assert not Path("other").exists()


def test_what_stands_out_is_said_in_the_terminal_too(copied_run, capsys):
    with open(copied_run / "train.log", "a", encoding="utf-8") as log:
        log.write(2 * "warning: data: 2 of 9 val images are in train too; cnntrain check lists them\n")
    report("run")
    printed = " ".join(capsys.readouterr().out.split())
    found = re.findall(r"<li><h3>(.*?)</h3><p>(.*?)</p>", (copied_run / "report.html").read_text(encoding="utf-8"))
    for title, figure in found[:5]:
        assert f"{title}: {figure}" in printed
    assert [figure for title, figure in found if title == "Warned"] == ["data: 2 of 9 val images are in train too."]


def test_curves_show_training_against_validation_and_mark_the_best_epoch(run_with_page):
    page = read(run_with_page)
    charts = [attributes["aria-label"] for attributes in page.named("svg") if attributes.get("role") == "img"]
    (loss,) = [label for label in charts if label and label.startswith("Loss")]
    assert "training" in loss
    assert "validation" in loss
    best = json.loads((run_with_page / "results.json").read_text())["best_epoch"]
    assert f"best epoch {best}" in loss


@pytest.mark.parametrize("name", ["run_with_page", "strange"])
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


def test_strange_words_in_the_files_of_a_run_are_text(copied_run):
    (copied_run / "command.txt").write_text("cnntrain </pre><script>alert(1)</script>\x1b[31m\n")
    environment = json.loads((copied_run / "environment.json").read_text())
    environment |= {
        "device": "<img src=x onerror=alert(1)>",
        "platform": EVIL,
        "git": {"commit": EVIL},
        "started": EVIL,
    }
    (copied_run / "environment.json").write_text(json.dumps(environment))
    results = json.loads((copied_run / "results.json").read_text())
    (copied_run / "results.json").write_text(
        json.dumps(results | {"status": "failed", "error": EVIL, "best_epoch": "</h1>"})
    )
    report("run")
    content = (copied_run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in content
    assert "<img src=x" not in content
    assert "\x1b" not in content
    assert "alert(1)" in read().text


def test_the_page_is_built_for_those_who_do_not_see_it(run_with_page):
    page = read(run_with_page)
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


def test_the_style_sheet_has_every_class_of_the_page(run_with_page, strange):
    style = STYLE.read_text(encoding="utf-8")
    known = set(re.findall(r"\.([a-z]+\d?)\b", style)) | {"words"}
    for folder in (run_with_page, strange):
        used = {name for _, attributes in read(folder).elements for name in (attributes.get("class") or "").split()}
        assert used <= known, used - known
