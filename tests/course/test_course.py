"""The pages of docs/course are well-formed and their commands accepted; `cnntrain course` lists, runs and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import documents
import pytest
from scipy import stats

import cnntrain
from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.course import pages, run
from cnntrain.course.claims import table, verdict
from cnntrain.course.pages import Block, Claim, Page, all_pages
from cnntrain.errors import RunFolderError
from cnntrain.storage import run_folder

PAGES = all_pages()
INDEX = documents.ROOT / "docs" / "course" / "README.md"
FETCHED = os.environ.get("COURSE_DATA")  # the folder for what pages fetch: `COURSE_DATA=data make test-all`
SMALL = """\
# 7. A page

needs: digits; not measured yet

```python
from PIL import Image

Image.new("L", (9, 9), 200).save("grey.png")
print("made")
```

<!-- shown: none -->
<!-- end -->

```sh
cnntrain filter image=grey.png kernel=box out=soft.png
```

<!-- shown -->
old
![a soft square](../img/course/07-soft.png)
<!-- end -->
"""


def named(some: list[Page]) -> list[object]:
    return [pytest.param(page, id=page.file.stem) for page in some]


@pytest.fixture
def small(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of one page, which needs no network."""
    file = here / "docs" / "07-small.md"
    file.parent.mkdir()
    file.write_text(SMALL)
    monkeypatch.setattr(pages, "course_dir", lambda: file.parent)
    return file


# --- the pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", named(PAGES))
def test_the_regions_of_each_page_are_well_formed(page: Page) -> None:
    assert page.file.name.startswith(f"{page.folder_name}-")
    fences = len(re.findall(r"^```(?:sh|python)$", page.text, re.MULTILINE))
    assert len(page.blocks) == fences == page.text.count("<!-- shown") == page.text.count("<!-- end -->")
    assert sum(len(block.claims) for block in page.blocks) == page.text.count("<!-- claim")
    for block in page.blocks:
        assert "```sh" not in block.shown
        if page.cost == "not measured yet":
            continue
        assert len(re.findall(r"^- \*\*", block.shown, re.MULTILINE)) == len(block.claims)
        assert block.shown.strip() or block.patterns == ("none",)


@pytest.mark.parametrize("page", named(PAGES))
def test_the_commands_of_each_page_are_accepted(
    page: Page, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in re.findall(r"image=(\S+)", page.text):
        (here / name).write_bytes(documents.picture(0))
    for name in re.findall(r"signal=(\S+\.csv)", page.text):
        (here / name).touch()
    monkeypatch.setattr(dispatch, "_load", lambda command: lambda *given: 0)
    for block in page.blocks:
        if block.kind == "python":
            compile(block.code, page.file.name, "exec")
            continue
        for words in block.commands():
            words = [re.sub("^seed=0,.*", "seed=0,1", word) for word in words]  # each run of a comparison is composed
            assert cli.main(words) == 0, capsys.readouterr().err
            for out in (word.removeprefix("out=") for word in words if "=" in words[0] and word.startswith("out=")):
                (here / out / "checkpoints").mkdir(parents=True)  # a training's, as far as later commands look
                (here / out / "config.yaml").write_text(documents.default_config())


def test_the_index_and_the_list_have_every_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["course"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for page in PAGES:
        assert re.search(rf"^ *{page.number}  {re.escape(page.title)} +{re.escape(page.needs)}", out, re.MULTILINE)
        assert all(name in out for name in page.command_names())
        assert f"| {page.number}. [{page.title}]({page.file.name}) | {page.needs} | {page.cost} |" in INDEX.read_text()


def test_each_link_and_picture_of_the_pages_is_there() -> None:
    for file in [INDEX, *(page.file for page in PAGES)]:
        for link in re.findall(r"\]\(([^)\s#]+)\)", file.read_text()):
            assert (file.parent / link).is_file(), f"{file.name}: {link}"


@pytest.mark.slow
@pytest.mark.parametrize("page", named(PAGES))
def test_each_page_runs_to_its_end(page: Page, here: Path) -> None:
    """Trainings are cut short, so no verdict is that of the page."""
    if page.needs != "digits" and not FETCHED:
        pytest.skip(f"the page needs {page.needs}: COURSE_DATA=FOLDER says where that is, or may be fetched to")
    text = re.sub(r"trainer\.(epochs|max_steps)=\d+", r"trainer.\1=1", page.text)
    text = re.sub(r"seed=0,1,2[,\d]*", "seed=0,1", text)
    (here / "docs").mkdir()
    (here / "docs" / page.file.name).write_text(text)
    home = str(here / "docs")
    code = (
        "import sys; from pathlib import Path; from cnntrain.course import pages\n"
        f"pages.course_dir = lambda: Path({home!r})\n"
        f"from cnntrain.cli import main; sys.exit(main(['course', '{page.number}', 'out=ran']))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(cnntrain.__file__).parent.parent)}
    environment |= {"CNNTRAIN_DATA": str(documents.ROOT / FETCHED)} if FETCHED else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verdicts = re.findall(r"^- \*\*", (here / "ran" / "page.md").read_text(), re.MULTILINE)
    assert len(verdicts) == sum(len(block.claims) for block in page.blocks)


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_page_runs_in_its_folder_and_keeps_the_words_of_its_author(
    small: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["course", "7"]) == 0
    out = capfd.readouterr().out
    assert "made\n" in out
    assert out.endswith("wrote outputs/course/07/page.md\n")
    text = (here / "outputs/course/07/page.md").read_text()
    assert re.search(r"^needs: digits; 1 minute on \d+ cores?$", text, re.MULTILINE)
    assert "![a soft square](soft.png)" in text
    assert "grey.png)" not in text
    assert "result   9 x 9, values " in text
    assert "written" not in text
    assert "old" not in text
    assert re.sub(r"(<!-- shown.*?-->).*?<!-- end -->", r"\1", text, flags=re.DOTALL).startswith("# 7. A page")
    assert small.read_text() == SMALL


def test_of_several_commands_each_stands_before_what_it_printed(
    small: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = "cnntrain filter image=grey.png kernel=box out=soft.png"
    small.write_text(SMALL.replace(command, f"{command}\n{command} size=41 padding=20"))
    assert cli.main(["course", "7"]) == 0
    first, second = (here / "outputs/course/07/page.md").read_text().split("```text\n$ ")[1].split("\n$ ")
    assert first.startswith(f"{command}\n  0.04000 0.04000")
    assert second.startswith(f"{command} size=41 padding=20\n  0.0005949 at all 41 x 41 places\n\nkernel   box")


@pytest.mark.slow
def test_a_repeat_gives_the_same_text(small: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = here / "a", here / "b"
    assert cli.main(["course", "7", f"out={first}"]) == cli.main(["course", "7", f"out={second}"]) == 0
    assert (first / "page.md").read_text() == (second / "page.md").read_text()


def test_a_command_that_fails_ends_the_page_with_its_code(
    small: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small.write_text(SMALL.replace("kernel=box", "kernel=bix"))
    assert cli.main(["course", "all", "out=ran"]) == 2
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith("cnntrain: error: course: page 7 ended at `cnntrain filter image=grey.png kernel=bix")
    assert last.endswith("which failed with code 2")
    assert not (here / "ran" / "07" / "page.md").exists()


def test_all_pages_run_where_one_of_them_fails(small: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (small.parent / "05-broken.md").write_text(SMALL.replace("# 7.", "# 5.").replace("kernel=box", "kernel=bix"))
    assert cli.main(["course", "all"]) == 2
    (line,) = capfd.readouterr().err.splitlines()[-1:]
    assert line == "cnntrain: error: course: 1 of 2 pages came to no end: 5"
    assert (here / "outputs/course/07/page.md").is_file()


def test_a_page_that_goes_on_makes_room_for_what_is_made_anew_and_for_nothing_else(tmp_path: Path) -> None:
    for name in ("net", "runs", "kept", "sheet", "packed", "scores"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        (tmp_path / name / "compare.json").touch()
    words = (
        "model=cnn out=net",
        "compare seed=0,1 out=runs",
        "preview out=sheet",
        "pack out=packed",
        "eval net out=scores",
    )
    lines = (*words, f"train seed=1 out={tmp_path}/kept", "seed=1", "seed=1 out=new")
    code = "".join(f"cnntrain {line}\n" for line in lines)
    run.make_room(Block("sh", code, (), (), "", (0, 0)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "runs", "scores"]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/compare.json")) == [
        f"{name}/compare.json" for name in ("kept", "scores")
    ]
    assert (tmp_path / "runs" / "config.yaml").exists()


def test_a_training_that_still_runs_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    with run_folder.lock(tmp_path / "net"), pytest.raises(RunFolderError, match="net: in use by pid"):
        run.make_room(Block("sh", "cnntrain seed=1 out=net\n", (), (), "", (0, 0)), tmp_path)


def test_a_folder_of_other_files_is_refused_each_time(
    small: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "soft.png").touch()
    for _ in range(2):
        assert cli.main(["course", "7", "out=mine"]) == 9
        assert capfd.readouterr().err.endswith(
            "mine: holds files that are not of the course; choose a new folder with out=DIR\n"
        )
    assert [file.name for file in (here / "mine").iterdir()] == ["soft.png"]


@pytest.mark.parametrize("name", ["grey.png", "soft.png"])
def test_nothing_is_written_through_a_link(
    name: str, small: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "theirs").write_text("kept")
    (here / "ran").mkdir()
    (here / "ran" / "times.json").write_text("{}")
    (here / "ran" / name).symlink_to(here / "theirs")
    assert cli.main(["course", "7", "out=ran"]) == 9
    assert capfd.readouterr().err.endswith(f"{name}: is a link, and a page would write through it; remove it\n")
    assert (here / "theirs").read_text() == "kept"


@pytest.mark.slow
def test_two_do_not_run_in_one_folder(small: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["course", "7", "out=ran"]) == 0
    with run_folder.lock(here / "ran"):
        assert cli.main(["course", "7", "out=ran"]) == 9
    assert cli.main(["course", "7", "out=ran"]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_the_command_that_goes_on(
    number: signal.Signals, small: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small.write_text(SMALL.replace('print("made")', f"import signal; signal.raise_signal({number:d})"))
    before = signal.signal(number, signal.SIG_DFL)  # what starts tests may ignore it
    assert cli.main(["course", "7", "out=my ran"]) == 128 + number
    signal.signal(number, before)
    assert capfd.readouterr().err == "cnntrain: stopped in page 7; go on with cnntrain course 7 'out=my ran'\n"


@pytest.mark.slow
def test_the_users_environment_does_not_change_a_page(
    small: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import os; from rich.console import Console; print('⌊', Console().is_terminal, os.environ['CNNTRAIN_DATA'])"
    small.write_text(SMALL.replace('print("made")', code).replace("shown: none", "shown"))
    for name, value in {"FORCE_COLOR": "1", "PYTHONIOENCODING": "latin-1", "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("CNNTRAIN_DATA", "~/data")
    assert cli.main(["course", "7", "out=ran"]) == 0, capfd.readouterr().err
    assert "⌊ False /home/somebody/data\n" in (here / "ran" / "page.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_lines_are_left_out_of_commands_alone(small: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "cnntrain filter image=grey.png kernel=box out=soft.png"
    monkeypatch.setattr(run, "LEFT_OUT", re.compile(""))
    small.write_text(SMALL.replace(command, f"{command}\n{command}").replace("shown: none", "shown"))
    assert cli.main(["course", "7", "out=ran"]) == 0
    text = (here / "ran" / "page.md").read_text()
    assert text.count("```text") == text.count("```text\nmade\n```") == 1


@pytest.mark.parametrize(
    ("line", "is_left_out"),
    [("mnist is in /data", True), ("  best", True), ("epoch 1/2  3,000 images/s", True), ("  test  top-1 99%", False)],
)
def test_what_another_run_prints_otherwise_is_left_out(line: str, is_left_out: bool) -> None:
    assert bool(run.LEFT_OUT.search(line)) is is_left_out


@pytest.mark.parametrize("content", ["[1]", '{"a": "x"}', '{"a": NaN}', '{"a": 1e99}', "{", "1"])
def test_damaged_times_are_no_times(content: str, tmp_path: Path) -> None:
    (tmp_path / "times.json").write_text(content)
    assert run.read_times(tmp_path) == {}
    (tmp_path / "times.json").write_text('{"a": 1.5}')
    assert run.read_times(tmp_path) == {"a": 1.5}


@pytest.mark.parametrize("word", ["13", "0", "dropout", "-m", "3.0", "seed=3", "a\nb"])
def test_an_unknown_page_is_told_in_one_line(word: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["course", word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cnntrain: error: course: no such page (given ")
    assert list(here.iterdir()) == []


def test_the_list_comes_without_torch(here: Path) -> None:
    code = (
        "import sys; from cnntrain.cli import main\n"
        "main(['course']); main(['course', '99']); assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(cnntrain.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- claims ----------------------------------------------------------------------------------------------------------


def record(**scores: list[float]) -> dict[str, Any]:
    """A comparison of rows by their dropout, each with a score for every seed."""
    runs = [
        {"values": {"model.args.dropout": name[1:], "seed": str(seed)}, "status": "done", "test_top1": score}
        for name, row in scores.items()
        for seed, score in enumerate(row)
    ]
    rows = [{"values": {"model.args.dropout": name[1:]}} for name in scores]
    return {"judged_by": "test_top1", "rows": rows, "runs": runs}


def test_a_claim_is_judged_by_the_paired_interval() -> None:
    better, worse = [0.95, 0.90, 0.97], [0.93, 0.89, 0.945]
    found = verdict(Claim("more", ("dropout=1",), ("model.args.dropout=0",)), [record(_1=better, _0=worse)])
    differences = [one - other for one, other in zip(better, worse, strict=True)]
    low, high = stats.t.interval(0.95, 2, sum(differences) / 3, stats.sem(differences))
    points = f"+1.8 points of test top-1, {100 * low:.1f} to {100 * high:.1f}, 3 seeds"
    assert found == f"- **not shown**: more ({points}: the interval holds 0)"


def test_claims_are_shown_and_refuted() -> None:
    records = [record(_1=[0.9, 0.91, 0.95], _0=[0.8, 0.812, 0.849])]
    up, down = Claim("up", ("dropout=1",), ("dropout=0",)), Claim("down", ("dropout=0",), ("dropout=1",))
    assert verdict(up, records).startswith("- **shown**: up (+10.0 points of test top-1, 9.")
    assert verdict(down, records).startswith("- **refuted**: down (-10.0 points of test top-1, -10.")
    none = verdict(up, [record(_1=[0.9, 0.9, 0.9], _0=[0.9003, 0.8999, 0.9001])])
    assert none.startswith("- **not shown**: up (+0.0 points of test top-1, -0.1 to 0.0, 3 seeds: ")
    words = Claim("up", ("dropout=true",), ("dropout=false",))  # as a command has them, not a list of mappings
    assert verdict(words, [record(_True=[0.9, 0.91], _False=[0.8, 0.812])]).startswith("- **shown**: up (+9.9 ")
    assert "one seed has no interval" in verdict(up, [record(_1=[0.9], _0=[0.8])])
    alike = verdict(up, [record(_1=[0.9, 0.91, 0.95], _0=[0.89, 0.90, 0.94])])
    assert alike == "- **not shown**: up (+1.0 points of test top-1 with each of 3 seeds: without spread no interval)"


def test_the_table_of_a_comparison_has_no_figure_of_time(tmp_path: Path) -> None:
    spread = {"mean": 0.9123, "std": 0.0123, "low": 0.9, "high": 0.92}
    row = {"values": {"model.args.dropout": "0.1"}, "parameters": {"mean": 1234.0, "std": 0.0}, "done": 3}
    text = table(json.loads(json.dumps(record() | {"rows": [row | {"val_top1": spread, "test_top1": spread}]})))
    assert text.splitlines() == [
        "| `dropout` | parameters | runs | val top-1, % | test top-1, % | 95 % |",
        "| --- | --: | --: | --: | --: | --: |",
        "| `0.1` | 1,234 | 3 | 91.2 ± 1.2 | 91.2 ± 1.2 | 90.0 to 92.0 |",
    ]
