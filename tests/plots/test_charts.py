"""Charts: what is drawn, for any names, and the files that they become."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from cnntrain.plots.charts import Chart, escape_unknown
from cnntrain.plots.comparison import Curve, Point, draw_comparison
from cnntrain.plots.confusion import draw_confusion
from cnntrain.plots.curves import Curves, Panel
from cnntrain.plots.drawing import BACKGROUND, RIGHT, WRONG

SVG = "{http://www.w3.org/2000/svg}"
ODD = [
    "$x_1^2$",
    r"\alpha \$",
    "<script>x</script>",
    "&amp; -->",
    "_hidden",
    "Käse кот",
    "猫",
    "🦜",
    "a\nb",
    "\udcff",
    "",
]


def draw_row(*top1: float, name: str = "x=1", repeats: int = 1) -> Curve:
    return Curve(
        name, "note", [[Point(number + 1, 1.5 * number, value) for number, value in enumerate(top1)]] * repeats
    )


def read_texts(chart: Chart, inside: str = "figure_1") -> list[str]:
    tree = ElementTree.fromstring(chart.content("svg").decode())
    return [
        element.text or "" for group in tree.iter() if group.get("id") == inside for element in group.iter(SVG + "text")
    ]


def read_numbers(chart: Chart, axis: int) -> list[float]:
    """The numbers at the ticks of an axis, in the order of the file."""
    words = read_texts(chart, f"matplotlib.axis_{axis}")
    return [float(word.replace(",", "")) for word in words if re.fullmatch(r"[\d,.e-]+", word)]


# --- letters ---------------------------------------------------------------------------------------------------------


def test_any_name_is_shown_as_itself_and_none_is_a_formula_or_a_script() -> None:
    charts = [
        draw_confusion(np.eye(len(ODD), dtype=np.int64), ODD),
        draw_comparison([draw_row(0.5, name=name) for name in ODD], ODD[0]),
        Curves(ODD[0], ODD, [Panel(name, [0, 1], [[1, 2]]) for name in ODD], 2, [0, 2]).draw(),
    ]
    for chart in charts:
        assert {escape_unknown(name) for name in ODD if name} <= set(read_texts(chart))
        assert b"<script" not in chart.content("svg")
        assert chart.pixels().std() > 5


def test_letters_that_no_font_has_are_told_apart_all_the_same() -> None:
    assert [escape_unknown(name) for name in ODD[:6]] == ODD[:6]
    assert escape_unknown("a\nb") == r"a\nb"
    assert escape_unknown("\U0010fffd") == r"\U0010fffd"
    assert escape_unknown("猫") != escape_unknown("犬")


def test_a_long_name_takes_lines_of_the_legend_and_a_long_title_loses_its_middle() -> None:
    chart = draw_comparison([draw_row(0.5, name="augment=" + 9 * "[flip_crop,randaugment]")], 200 * "title")
    assert chart.pixels().shape[1] < 1200
    assert any(text.startswith("augment=[flip_crop") for text in read_texts(chart))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_chart_is_the_same_file_whatever_the_users_style(kind: str, head: bytes) -> None:
    def draw() -> bytes:
        return draw_comparison([draw_row(0.5, 0.7)], "title").content(kind)

    first = draw()
    assert first.startswith(head)
    with matplotlib.rc_context({"text.usetex": True, "svg.fonttype": "path", "savefig.dpi": 300, "axes.grid": False}):
        assert draw() == first
        assert matplotlib.rcParams["text.usetex"]


def test_matplotlib_is_imported_where_a_chart_is_drawn_and_says_nothing_without_a_folder_of_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    program = """
import sys
from cnntrain.compare import table
from cnntrain.plots import comparison, confusion, curves, grid
from cnntrain.report import run_report
assert "matplotlib" not in sys.modules
curves.Curves("title", [], [curves.Panel("rate", [0], [[1.0]])], 1, [0, 1]).draw().content("png")
assert "matplotlib.pyplot" not in sys.modules
"""
    shell = os.environ | {"MPLCONFIGDIR": str(tmp_path / "file")}
    done = subprocess.run([sys.executable, "-c", program], env=shell, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- a comparison ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top1", [(0.1, 0.9), (0.951, 0.953), (0.5, 0.5), (0.97, 1.0), (0.0, 1.0), (1.0,), (0.5,)])
def test_the_scale_of_accuracy_encloses_it_with_few_round_numbers_and_ends_at_100(top1: tuple[float, ...]) -> None:
    numbers = read_numbers(draw_comparison([draw_row(*top1)], "title"), 2)
    assert numbers[0] <= 100 * min(top1)
    assert 100 * max(top1) <= numbers[-1] <= 100
    assert 2 <= len(numbers) <= 8


def test_forty_rows_differ_in_color_or_dashes_and_their_names_have_room() -> None:
    chart = draw_comparison([draw_row(0.1, row / 40, name=f"x={row}", repeats=3) for row in range(40)], "title")
    thick = re.findall(
        rb"fill: none; (?:stroke-dasharray: ([\d., ]+); [^\"]*)?stroke: (#\w+); stroke-width: 3", chart.content("svg")
    )
    assert len(set(thick)) == 40
    assert {f"x={row}" for row in range(40)} <= set(read_texts(chart))
    height, width, _ = chart.pixels().shape
    assert (height < 1000, width < 1400) == (True, True)


def test_a_value_that_is_missing_leaves_a_gap() -> None:
    def moves(*top1: float) -> int:
        return draw_comparison([draw_row(*top1)], "title").content("svg").count(b"M ")

    assert moves(0.1, 0.2, float("nan"), 0.4, 0.5) > moves(0.1, 0.2, 0.3, 0.4, 0.5)


# --- a confusion matrix ----------------------------------------------------------------------------------------------


def test_cells_are_sharp_and_their_colors_follow_the_share_of_each_true_class() -> None:
    matrix = np.zeros((100, 100), dtype=np.int64)
    matrix[np.arange(50), np.arange(50)] = 7
    matrix[99, 0] = 3
    pixels = draw_confusion(matrix, [""] * 100).pixels().reshape(-1, 3)
    blue, red = (int((pixels == color).all(axis=1).sum()) for color in (RIGHT, WRONG))
    assert 49 * 100 <= blue <= 50 * 100  # the frame lies upon the first cell
    assert 80 <= red <= 100
    shares = draw_confusion(np.array([[90, 10, 0], [0, 5, 0], [0, 0, 0]]), ["cat", "dog", "bird"]).pixels()
    assert (shares.reshape(-1, 3) == RIGHT).all(axis=1).sum() > 1000  # all of a class right, however few its images


def test_mistakes_stand_right_of_the_diagonal_in_the_row_of_their_true_class() -> None:
    pixels = draw_confusion(np.array([[0, 100], [0, 0]]), ["", ""]).pixels().astype(int)
    red = np.argwhere((pixels == WRONG).all(axis=2))
    frame = np.argwhere(
        (pixels != BACKGROUND).any(axis=2) & (np.arange(pixels.shape[0]) > red[:, 0].min() - 2)[:, None]
    )
    assert red[:, 0].mean() < frame[:, 0].mean()
    assert red[:, 1].mean() > frame[:, 1].mean()


def test_counts_are_written_where_they_fit() -> None:
    for classes, count, written in ((3, 7, True), (3, 10**9, False), (100, 7, False)):
        matrix = count * np.eye(classes, dtype=np.int64)
        assert (str(count) in read_texts(draw_confusion(matrix, ["name"] * classes))) == written


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 37, 100, 1000])
def test_a_confusion_matrix_of_any_number_of_classes_has_a_readable_size(classes: int) -> None:
    chart = draw_confusion(np.full((classes, classes), 3), [f"class {index}" for index in range(classes)])
    height, width, _ = chart.pixels().shape
    assert max(height, width) <= 1250
    names = [text for text in read_texts(chart) if text.startswith("class ")]
    assert 2 <= len(names) <= 200
    assert {"predicted class", "true class"} <= set(read_texts(chart))


def test_no_images_are_a_confusion_matrix_too() -> None:
    assert "0 images" in read_texts(draw_confusion(np.zeros((2, 2), dtype=np.int64), ["a", "b"]))


# --- a schedule ------------------------------------------------------------------------------------------------------


def test_panels_share_an_axis_of_steps_and_one_of_epochs() -> None:
    panels = [Panel("rate", [0, 50, 99], [[0.0, 0.2, 0.1]]), Panel("size", [0, 40], [[16, 32]], stairs=True)]
    chart = Curves("title", ["a note"], panels, 100, [0, 40, 100]).draw()
    words = read_texts(chart)
    assert words.count("step") == words.count("epoch") == 1
    assert {"title", "a note", "rate", "size", "from 0 to 0.1, highest 0.2", "from 16 to 32, highest 32"} <= set(words)
    assert read_numbers(chart, 2) == [0, 0.05, 0.1, 0.15, 0.2]


@pytest.mark.parametrize("values", [[0.0], [3e-7], [12345.0]])
def test_a_run_of_one_step_has_a_schedule_of_any_size(values: list[float]) -> None:
    numbers = read_numbers(Curves("title", [], 2 * [Panel("rate", [0], [values])], 1, [0, 1]).draw(), 2)
    assert numbers[0] == 0
    assert numbers[-1] >= values[0]
    assert 2 <= len(numbers) <= 6
