"""`cnntrain filter signal=`: a signal in one dimension, against numpy and scipy."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cnntrain import cli
from cnntrain.inspect import signal as signal_module

MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}  # ours -> scipy's
SIGNAL = np.sin(np.arange(60) / 8) + np.random.default_rng(0).normal(0, 0.3, 60)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a table of three columns, of which two hold numbers."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{'ab'[row % 2]},{row / 10},{value!r}" for row, value in enumerate(SIGNAL.tolist())]
    Path("noisy.csv").write_text("\n".join(["name,time,noisy", *rows]) + "\n")
    return tmp_path


def run(line: str) -> int:
    return cli.main(["filter", *line.split()])


def read(name: str) -> dict[float, tuple[str, str]]:
    head, *rows = csv.reader(Path(name).read_text().splitlines())
    assert head == ["position", "signal", "result"]
    return {float(position): (value, result) for position, value, result in rows}


def results(name: str) -> dict[float, float]:
    return {position: float(result) for position, (_, result) in read(name).items() if result}


def test_a_short_list_is_smoothed_as_by_hand(folder: Path, capsys) -> None:
    assert run("signal=[1,2,4,2,1] kernel=[1/3,1/3,1/3]") == 0
    told = capsys.readouterr().out
    for part in (
        "  0.3333 0.3333 0.3333\n",
        "signal   5 values, 1 to 4",
        "N' = floor((N + 2P - D(F-1) - 1)/S) + 1",
        "floor((5 + 2 - 1*2 - 1)/1) + 1 = 5",
        "result   5 values, 1 to 2.667",
        "written  signal_custom.png, signal_custom.svg, signal_custom.csv",
    ):
        assert part in told
    assert list(results("signal_custom.csv").values()) == pytest.approx([1, 7 / 3, 8 / 3, 7 / 3, 1])
    with Image.open("signal_custom.png") as picture:
        assert picture.width > 700
    assert ">result<" in Path("signal_custom.svg").read_text()


@pytest.mark.parametrize("mode", MODES)
def test_every_border_stride_and_dilation_equals_scipy(folder: Path, mode: str) -> None:
    weights = np.array([0.5, -1.0, 2.0])
    for stride, dilation in ((1, 1), (3, 2)):
        wide = np.zeros(2 * dilation + 1)
        wide[::dilation] = weights
        words = f"kernel=[1/2,-1,2] padding_mode={mode} stride={stride} dilation={dilation} out=o.png"
        assert run(f"signal=noisy.csv column=noisy {words}") == 0
        expected = ndimage.correlate1d(SIGNAL, wide, mode=MODES[mode])
        found = results("o.csv")
        np.testing.assert_allclose([found[place] for place in range(0, 60, stride)], expected[::stride], atol=1e-12)
        assert len(found) == len(range(0, 60, stride))


def test_box_and_gaussian_of_a_signal_are_those_of_scipy_and_sum_to_one(folder: Path) -> None:
    source = "signal=noisy.csv column=noisy padding_mode=reflect out=o.png"
    assert run(f"{source} kernel=box size=7") == 0
    expected = ndimage.uniform_filter1d(SIGNAL, 7, mode="mirror")
    np.testing.assert_allclose(list(results("o.csv").values()), expected, atol=1e-12)
    assert run(f"{source} kernel=gaussian sigma=2") == 0
    expected = ndimage.gaussian_filter1d(SIGNAL, 2, mode="mirror", radius=6)
    np.testing.assert_allclose(list(results("o.csv").values()), expected, atol=1e-12)


def test_results_lie_at_the_middle_of_their_windows(folder: Path) -> None:
    assert run("signal=[1,2,4,8] kernel=[1,1] out=even.png") == 0
    assert results("even.csv") == {0.5: 3, 1.5: 6, 2.5: 12, 3.5: 8}
    assert read("even.csv")[0] == ("1.0", "")
    assert run("signal=[1,2,4,8] kernel=[1,1,1] padding=valid out=inner.png") == 0
    assert results("inner.csv") == {1: 7, 2: 14}
    assert run("signal=[1,2,4,8] kernel=[[1,1,1]] padding=2 out=outer.png") == 0
    assert results("outer.csv") == {-1: 1, 0: 3, 1: 7, 2: 14, 3: 12, 4: 8}


def test_the_first_column_of_numbers_is_taken_and_the_others_are_told(folder: Path, capsys) -> None:
    assert run("signal=noisy.csv kernel=identity") == 0
    told = capsys.readouterr().out
    assert "noisy.csv, column time, 60 values, 0 to 5.9" in told
    assert "other columns of numbers: noisy (column=NAME)" in told
    assert max(map(len, told.splitlines())) <= 80
    Path("index.csv").write_text(",y\n0,5\n1,6\n2,7\n")  # as pandas writes its index
    assert run("signal=index.csv kernel=identity") == 0
    assert "index.csv, column y, 3 values, 5 to 7" in capsys.readouterr().out
    Path("bare.csv").write_text("5\n6\n7\n\n")  # as numpy writes numbers
    assert run("signal=bare.csv kernel=identity") == 0
    assert "bare.csv, 3 values, 5 to 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words", "parts"),
    [
        ("", "", ["holds no row; give a table with a row for each value"]),
        ("y\na\nb\n", "", ["no column of numbers among 'y'"]),
        ("x,y\n1,2\n2,nan\n3,inf\n4,\n", "column=y", ["row 3: 'y' holds nan", "row 4: 'y' holds inf", "row 5: 'y'"]),
        ("y\n1\n\n3\n4\n", "", ["row 4: stands below an empty one"]),
        ("x,y\n1,2\n", "column=z", ["no column 'z'; there are x, y"]),
        ("1,2\n3,4\n", "column=y", ["its first row holds numbers, no names"]),
        ('y\n"1\n2\n', "", ["row 2: cannot be read"]),
    ],
)
def test_a_table_without_a_signal_is_told(folder: Path, capsys, content: str, words: str, parts: list[str]) -> None:
    Path("bad.csv").write_text(content)
    assert run(f"signal=bad.csv kernel=[1] {words}") == 3
    told = capsys.readouterr().err
    assert all(f"signal: bad.csv: {part}" in told for part in parts), told
    assert told.count("cnntrain: error: ") == len(parts)
    assert sorted(file.name for file in folder.iterdir()) == ["bad.csv", "noisy.csv"]


@pytest.mark.parametrize(
    ("line", "code", "parts"),
    [
        ("kernel=box", 2, ["image: missing; write image=FILE, or signal=FILE.csv"]),
        ("noisy.csv kernel=box", 2, ["did you mean signal=noisy.csv?"]),
        ("signal=[1,2,3] kernel=box", 2, ["kernel: 5 weights cover 5 values, and the signal has 3"]),
        ("signal=[1,2,3] kernel=[1,1] dilation=3", 2, ["2 weights with dilation 3 cover 4 values"]),
        ("signal=[1,2,3] kernel=[[1,2],[3,4]]", 2, ["kernel: must have one row for a signal (given rows)"]),
        ("signal=[1,2,3] kernel=sobel", 2, ["kernel: must have one row for a signal (given a kernel of images)"]),
        ("signal=[1,2,3] kernel=[1] gray=true column=y", 2, ["gray: is of images", "column: is of a table"]),
        ("signal=[1,2,nan] kernel=[1]", 2, ["signal: must be numbers, none infinite or NaN (given [1,2,nan])"]),
        ("signal=[] kernel=[1]", 2, ["signal: must not be empty"]),
        ("signal=no.csv kernel=[1]", 3, ["signal: no.csv is not there; give a table such as signal=noisy.csv"]),
        ("signal=. kernel=[1]", 3, ["signal: . is a folder, not a table; did you mean signal=noisy.csv?"]),
        ("signal=noisy.csv kernel=[1] out=noisy.png", 2, ["out: noisy.csv is the signal itself"]),
        ("signal=noisy.csv image=noisy.csv kernel=[1]", 2, ["signal: stands beside image; give one of the two"]),
        ("image=noisy.csv column=y kernel=[[1]]", 2, ["column: is of a signal (given y); leave it out"]),
    ],
)
def test_words_that_do_not_go_together_are_told(folder: Path, capsys, line: str, code: int, parts: list[str]) -> None:
    assert run(line) == code
    told = capsys.readouterr().err
    assert all(part in told for part in parts), told
    assert [file.name for file in folder.iterdir()] == ["noisy.csv"]


def test_a_longer_signal_than_can_be_drawn_is_refused(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(signal_module, "MOST_VALUES", 59)
    assert run("signal=noisy.csv kernel=box") == 3
    assert "signal: noisy.csv holds 60 values; give 59 at most" in capsys.readouterr().err
