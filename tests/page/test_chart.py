"""Charts of the page: round ticks, curves within their axes, and matrices of any size."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnntrain.page import answers, chart
from cnntrain.page.chart import HEIGHT, MOST_POINTS, MOST_TICKS, WIDTH, Chart, Line, thin, ticks
from cnntrain.page.markup import Html, code_words, tag, text

NUMBERS = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


def drawn(*points: tuple[float, float], **more: object) -> str:
    picture = Chart("Loss", [Line("training", "train", points)], **more).draw()  # type: ignore[arg-type]
    assert picture is not None
    return str(picture)


@given(low=NUMBERS, high=NUMBERS)
def test_ticks_are_few_and_reach_around_the_values(low, high):
    low, high = min(low, high), max(low, high)
    found = ticks(low, high, MOST_TICKS)
    assert 2 <= len(found) <= MOST_TICKS + 1
    assert found == sorted(set(found))
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack


def test_ticks_are_round_numbers():
    assert ticks(0, 0.94, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1, 30, 5, whole=True) == [0, 10, 20, 30]
    assert all(tick == round(tick) for tick in ticks(1, 3, 5, whole=True))


@pytest.mark.parametrize("points", [[(1, 0.5)], [(1, 0.5), (2, 0.5)], [(0, 0.0), (0, 0.0)], [(1, -3.0), (2, 1e-9)]])
def test_a_chart_of_few_or_equal_values_is_drawn(points):
    assert "nan" not in drawn(*points)
    assert ("<circle" in drawn(*points)) == (len(points) == 1)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_letters_stay_within_the_picture(points):
    picture = drawn(*sorted(points))
    for x, y in re.findall(r'<text x="([\d.e+-]+)" y="([\d.e+-]+)"', picture):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


def test_an_outlier_does_not_flatten_the_rest():
    picture = drawn(*((number, 1.0) for number in range(1, 20)), (20, 5000.0), from_zero=True)
    ticks_shown = [float(tick.replace(",", "")) for tick in re.findall(r'class="tick end">([\d.,]+)<', picture)]
    assert max(ticks_shown[:5]) <= 5  # then come those of the epochs


def test_long_curves_are_thinned_between_their_ends():
    points = [(float(number), math.sin(number / 500)) for number in range(100_000)]
    found = thin(points)
    assert len(found) <= MOST_POINTS + 1
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert max(abs(y - math.sin(x / 500)) for x, y in found) < 0.1


def test_nothing_to_draw_draws_nothing():
    assert Chart("Loss", [Line("training", "train", [])]).draw() is None
    assert chart.grid([Chart("Loss", [])]) == '<div class="charts"></div>'


# --- matrices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 20, 21, 1000])
def test_a_confusion_matrix_of_any_size_is_shown(count):
    matrix = np.eye(count, dtype=np.int64) * 40
    matrix[0, 1] = 10
    names = [f"a class of a rather long name, number {number}" for number in range(count)]
    pairs = [{"true": names[0], "predicted": names[1], "images": 10}]
    found = str(answers.confusion(matrix, names, "test", pairs))
    assert len(found) < 300_000
    assert f"{40 * count + 10:,} test images" in found
    assert "<td" in found
    assert ("<img" in found) == (count > answers.MOST_CELLS)
    if count <= answers.MOST_CELLS:
        assert [int(words) for words in re.findall(r">(\d+)</td>", found)][: count + 1].count(40) == count
        assert 'class="wrong4"' in found  # sqrt(10 / 50) of eight shades


def test_of_many_classes_the_hardest_come_first_and_all_are_folded():
    classes = {
        f"class {number}": {"precision": 1.0, "recall": 1.0, "f1": number / 100, "images": 9} for number in range(100)
    }
    found = str(answers.by_class(classes, [], "test"))
    assert found.index("class 0<") < found.index("class 19<") < found.index("<details>") < found.index("class 99<")


# --- markup -----------------------------------------------------------------------------------------------------------


@given(st.text())
def test_whatever_a_text_holds_it_stays_a_text(words):
    for markup in (text(words), tag("p", words, title=words), code_words(words)):
        inner = re.sub(r"</?(p|code)( title=\"[^\"<>]*\")?>", "", markup)
        assert not re.search("[<>\"']", inner)
        assert inner.isprintable()


def test_only_our_own_markup_is_markup():
    assert tag("p", Html("<b>1</b>"), "<b>2</b>", None) == "<p><b>1</b>&lt;b&gt;2&lt;/b&gt;</p>"
    assert tag("img", alt='"x', loading=None, hidden=True) == '<img alt="&quot;x" hidden>'
