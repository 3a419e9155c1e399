"""No cell is run by a spreadsheet, and every number stays one."""

import csv
from typing import Any

import pytest

from cnntrain.storage.spreadsheet import as_csv, cell


@pytest.mark.parametrize(
    "text",
    ["=cmd()", "+cmd()", "-cmd()", "@SUM(A1)", "\t=cmd()", "\r=cmd()", "\n=cmd()", "\uff1dcmd()", "--1", "-1.5 m", "+"],
)
def test_text_that_begins_as_a_formula_gets_an_apostrophe(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1.5", "+1e-05", "-inf", "-nan", -1.5, None, "", "cat", "a=b", "'=b", " =b"])
def test_numbers_and_plain_text_stay_as_they_are(value: object) -> None:
    assert cell(value) is value


def test_a_table_is_read_back_as_it_was_written() -> None:
    rows: list[list[Any]] = [["file", "class"], ["a,b\n.png", 'the "cat"'], ["=x", -1.5], [None, "é猫"]]
    assert list(csv.reader(as_csv(rows).splitlines(keepends=True))) == [
        ["file", "class"],
        ["a,b\n.png", 'the "cat"'],
        ["'=x", "-1.5"],
        ["", "é猫"],
    ]
