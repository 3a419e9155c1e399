"""Names of the user's and of strangers: the same under every locale, and harmless on a terminal."""

import os
from pathlib import Path

import pytest

from cnntrain.config.advice import shell_word
from cnntrain.config.compose import compose_settings
from cnntrain.config.paths import absence, expand_path, need_config_dir
from cnntrain.errors import ConfigError
from cnntrain.text import printable

UNDECODED = "Gr\udcc3\udcb6\udcc3\udc9fe"  # how Python reads "Größe" under a locale that is ASCII


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("chat noir é 猫", "chat noir é 猫"),
        (UNDECODED, "Größe"),
        (os.fsencode(UNDECODED), "Größe"),
        (Path(UNDECODED) / "ü", "Größe/ü"),
        ("\udcff", r"\xff"),
        ("\ud800", "\ufffd"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b31m \udcc2\udc9b31m", r"\x9b31m \x9b31m"),
        ("a\nb\tc\rd\u2028e", r"a\nb\tc\rd\u2028e"),
        ("abc\u202egnp", r"abc\u202egnp"),
    ],
)
def test_any_text_is_shown_in_one_line_that_moves_no_cursor(text: str | bytes | Path, line: str) -> None:
    assert printable(text) == line
    assert printable(line) == line


def test_a_path_that_was_saved_under_another_locale_leads_to_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expand_path(UNDECODED) == Path("Größe")
    assert expand_path("\ud800") == Path("\ufffd")
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    monkeypatch.setattr(os, "fsdecode", lambda data: data.decode("ascii", "surrogateescape"))
    assert str(expand_path("Größe")) == str(expand_path(UNDECODED)) == UNDECODED


def test_a_class_that_was_typed_under_another_locale_is_the_same() -> None:
    assert compose_settings(["data=imagefolder", "data.root=x", f"data.classes=['{UNDECODED}',b]"]).data.classes == [
        "Größe",
        "b",
    ]


def test_a_proposed_path_can_be_typed() -> None:
    assert shell_word("data.root", "~/ä/photos") == "data.root=~/ä/photos"
    assert shell_word("data.root", "a b/it's") == "'data.root=a b/it'\"'\"'s'"


def forbid(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """What the system says to all but root, who may run the tests."""

    def refuse(path: str | Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, call, refuse)


def test_what_cannot_be_read_is_not_called_absent_and_a_pipe_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert absence(tmp_path) == absence(__file__) == ""
    assert absence(tmp_path / "pipe") == absence("/dev/null") == "is a pipe or device, not a file"
    assert absence(tmp_path / "nothing") == absence("a\0b") == "is not there"
    forbid(monkeypatch, "stat")
    assert absence(tmp_path) == "cannot be reached, as a folder above it may not be entered"


def test_options_that_cannot_be_read_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_config_dir(str(tmp_path), ["data"])
    forbid(monkeypatch, "scandir")
    with pytest.raises(ConfigError, match=rf"^--config-dir: {tmp_path} cannot be read \(Permission denied\); mend"):
        need_config_dir(str(tmp_path), ["data"])
