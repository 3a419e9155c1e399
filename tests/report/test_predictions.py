"""The lines and the table of `predict`."""

import csv
import json
from dataclasses import replace

from predicted import LURID
from rich.cells import cell_len

from cnntrain.evaluation.prediction import Prediction
from cnntrain.report.predictions import Answers, summary, table
from cnntrain.text import shorten, shorten_apart


def test_the_table_tells_a_probability_once_and_all_that_rounds_to_one_as_100():
    found = [
        Prediction("a.jpg", (("ant", 0.957), ("bee", 0.043)), threshold=0.99),
        Prediction("b.jpg", (("ant", 0.999999), ("bee", 0.000001)), threshold=0.99),
    ]
    assert [line.split() for line in table(found)[1:]] == [
        ["a.jpg", "-", "ant", "95.70%,", "bee", "4.30%"],
        ["b.jpg", "ant", "100%"],
    ]


def test_a_table_fits_80_columns_whatever_the_names():
    long = "a class with a name that is far too long for a table"
    names = ["c.jpg", "photos/" + "deep/" * 30 + "猫猫猫.jpg", "new\nline.jpg", "\udcff.jpg"]
    for classes in ((("cat", 0.5), ("dog", 0.3), ("cow", 0.00004)), ((long, 0.9), (long, 0.1)), (("猫" * 30, 1.0),)):
        lines = table([Prediction(name, classes) for name in names])
        assert len(lines) == 5
        assert max(map(cell_len, lines)) <= 80
    assert table([Prediction("c.jpg", (("cat", 0.5), ("dog", 0.3), ("cow", 0.00004)))]) == [
        "file   class   prob.  runners-up",
        "c.jpg  cat    50.00%  dog 30.00%",
    ]


def test_long_names_are_told_apart():
    folder = "photos/2024-07-01 a holiday in Greece/camera front"
    names = [f"IMG_20240701_the_old_harbour_{number:04}_edited.jpg" for number in range(9, 12)]
    found = [Prediction(f"{folder}/{name}", (("a class with a name too long for it 1", 0.5),)) for name in names]
    where, _, *lines = table(found)
    assert where == f"in {folder}/"
    assert [line.split()[0] for line in lines] == [
        f"…1_the_old_harbour_{number:04}_edited.jpg" for number in (9, 10, 11)
    ]
    assert table([replace(one, file=one.file[-8:]) for one in found])[0].startswith("file")
    assert shorten_apart(["a_long_beginning_1.jpg", "a_long_beginning_2.jpg"], 10) == ["…ing_1.jpg", "…ing_2.jpg"]
    assert shorten_apart(["front_1_a_very_long_end", "front_2_a_very_long_end"], 8) == ["front_1…", "front_2…"]
    assert shorten_apart(["same name", "same name"], 5) == [shorten("same name", 5)] * 2
    assert shorten_apart(["short", "a long name on its own"], 9) == ["short", shorten("a long name on its own", 9)]
    assert shorten_apart([], 5) == []
    for width in range(4, 60):
        apart = shorten_apart(names, width)
        assert max(map(cell_len, apart)) <= width
        assert len(set(apart)) == 3


def test_what_is_too_long_loses_its_middle():
    assert shorten("photos/cat.jpg", 14) == "photos/cat.jpg"
    assert shorten("photos/cat.jpg", 12) == "pho…/cat.jpg"
    assert cell_len(shorten("猫" * 20, 13)) <= 13


def test_a_summary_counts_the_most_frequent_classes():
    assert summary([("cat", 1, 0.5), ("cow", 0, 0.0), ("dog", 3, 0.75)], 5) == [
        "class  images   share  mean prob.",
        "dog         3  60.00%      75.00%",
        "cat         1  20.00%      50.00%",
    ]
    lines = summary([(str(number), number, 0.5) for number in range(30)], 435)
    assert len(lines) == 22
    assert lines[-1] == "and 9 classes more"


def file(found: list[Prediction], top: int) -> Answers:
    """What is written of some predictions, and of a bad file."""
    skipped = [{"file": "=bad.png", "reason": "the file is empty"}]
    return Answers(found, top, {"skipped": skipped}, has_threshold=False)


def test_names_of_strangers_are_harmless_on_the_terminal_and_in_a_spreadsheet():
    found = [Prediction("-2.png", tuple((name, 0.5) for name in LURID[first:] + LURID[:first])) for first in range(3)]
    lines = [*table(found), *summary([(name, 3, 0.5) for name in LURID], 9)]
    assert max(map(cell_len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    head, first, second, _, last = csv.reader(str(file(found, 3).content("csv")).splitlines())
    assert head[:3] == ["file", "class", "probability"]
    assert first[:4] == ["'-2.png", "'" + LURID[0], "0.500000", LURID[1]]
    assert second[1] == LURID[1]
    assert (last[0], last[-1]) == ("'=bad.png", "the file is empty")
    rows = json.loads(file(found, 3).content("json"))["predictions"]
    assert [(row["file"], row["class"]) for row in rows] == [("-2.png", name) for name in LURID]


def labelled(file: str, *given: tuple[str, float], others: tuple[tuple[str, float], ...] = ()) -> Prediction:
    return Prediction(file, (*given, *others), given=given)


def test_sets_of_labels_stand_beside_the_file_with_what_is_not_given():
    found = [
        labelled("a.jpg", ("cat", 0.981), ("dog", 0.714), others=(("cow", 0.304), ("owl", 0.004))),
        labelled("b.jpg", others=(("owl", 0.2),)),
        labelled("c.jpg", *((f"an animal of kind {number}", 0.9) for number in range(4))),
    ]
    assert table(found) == [
        "file   labels                       others",
        "a.jpg  cat 98%, dog 71%             cow 30%",
        "b.jpg  -                            owl 20%",
        "c.jpg  an animal of kind 0 90%, +3",
    ]


def test_a_table_of_sets_fits_80_columns_whatever_the_names():
    names = ["a class with a name that is far too long for a table", "猫" * 30, "\x1b[31m", *"abcdefgh"]
    found = [labelled("photos/" + "deep/" * 20 + f"{n}.jpg", *((name, 0.5) for name in names[n:])) for n in range(12)]
    lines = table([*found, labelled("x.jpg", others=tuple((name, 0.5) for name in names))])
    assert len(lines) == 14
    assert max(map(cell_len, lines)) <= 80


def test_labels_of_a_row_are_parted_by_a_sign_that_is_in_no_name():
    for names, cell in ((["a", "b"], "a|b"), (["a|b", "c"], "a|b;c"), (["a|b;c", "d"], "a|b;c,d")):
        found = [labelled("x.jpg", *((name, 0.5) for name in names))]
        text = str(Answers(found, 1, {"skipped": []}, has_threshold=False, names=names).content("csv"))
        assert list(csv.reader(text.splitlines()))[1][1] == cell
