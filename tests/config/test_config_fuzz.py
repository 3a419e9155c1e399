"""Whatever is typed behind whatever key composes, or is told in one line that names the key, and nothing else happens.

The fast form finds what is common; `make test-all` runs the long one, which goes through the whole command line.
"""

import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.config import messages, overrides
from cnntrain.config.compose import compose_line, compose_settings, output_folder
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.overrides import GROUPS
from cnntrain.config.paths import conf_dir
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.run_config import restore_config
from cnntrain.errors import ConfigError, UnsafeError

OPTIONS = {
    group: sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if not file.stem.startswith("for_"))
    for group in GROUPS
}
KEYS = sorted(
    {
        key
        for optimizer in messages.VARIANTS["optimizer"]
        for schedule in messages.VARIANTS["schedule"]
        for key in messages.keys_of({"optimizer": optimizer, "schedule": schedule})
    }
    | {*GROUPS, *(f"{key}.deeper" for key in ("model.args", "augment.own.args", "data.root", "trainer", "nowhere"))}
    | {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir", "hydra.mode", "hydra.searchpath"}
    | {"hydra.output_subdir", "hydra.callbacks", "hydra.sweeper.params", "hydra/launcher", "hydra.verbose", "hydra"}
)
ODD = (
    *(
        "",
        "null",
        "true",
        "~",
        "nan",
        "inf",
        "-inf",
        "-0.0",
        "1e400",
        "1e-400",
        "0x10",
        "1_000",
        "007",
        "1.",
        "-1",
        "0",
    ),
    *("9" * 19, "9" * 30, "-" + "9" * 30, "9" * 400, "9" * 5000, "1" * 400 + ".5", "''", '""', "'", '"', "\\", "\\'"),
    *("[]", "{}", "[[]]", "[[1]]", "[null]", "{a:1}", "{a:{b:[1]}}", "[{a:1}]", "[", "]", "{", "}", "(", "=", "a=b"),
    *("${trainer.epochs}", "${data.root}", "${model}", "${nowhere}", "${oc.env:NOWHERE_AT_ALL}", "${", "$", "${}"),
    *("[${trainer.epochs}]", "[${trainer}]", "${now:%Y}", "${hydra:job.num}", "os:system", ":", "a:", "???", "@", "-"),
    *("a\tb", "a\nb", "a\x1b[31mb", "a\x7fb", "é", "写真", "\u202e", "a b", " a", "a ", "a,b", "range(3)", "glob(*)"),
    *(
        "interval(0,1)",
        "choice(1,2)",
        "int(3)",
        "float(x)",
        "tag(a,1)",
        "[" * 60 + "]" * 60,
        "x" * 3000,
        "/",
        "..",
        ".",
    ),
)


def in_hydras_grammar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(in_hydras_grammar, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{in_hydras_grammar(part)}" for key, part in value.items()) + "}"
    return "null" if value is None else str(value)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(ODD)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "name", "1"]), inner, max_size=2)
    ),
    max_leaves=5,
)
values = st.sampled_from(ODD) | nested.map(in_hydras_grammar) | texts
words = st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), values).map(
    lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"
)
choices = st.sampled_from([f"{group}={name}" for group, names in OPTIONS.items() for name in names])
lines = st.lists(words | words | choices, min_size=1, max_size=4)


def told(work: Callable[[], object], typed: Iterable[str]) -> None:
    """What is wrong is an error of ours, each line of which is one of printable text that names a key of the line."""
    try:
        work()
    except (ConfigError, UnsafeError) as error:
        keys = [word.partition("=")[0].lstrip("+~") for word in typed]
        names = {part for key in keys for part in (key, key.partition(".")[0])}
        found = error.faults if isinstance(error, ConfigErrors) else str(error).split("\n")
        assert found
        for line in found:
            assert line.isprintable(), line
            assert len(line) < 1000, line
            assert any(name in line for name in names if name), line


def composed(typed: list[str], multirun: bool) -> None:
    composition = compose_line(typed, multirun=multirun)
    output_folder(composition.tree, "sweep" if multirun else "run")
    if not multirun:
        restore_config(to_plain(composition.settings))


def resumed(typed: list[str]) -> None:
    restore_config(PLAIN, typed)


PLAIN = to_plain(compose_settings([]))
SEARCH: dict[str, Any] = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.mark.slow
@settings(max_examples=24, **SEARCH)
@given(lines, st.booleans())
def test_any_line_composes_or_is_told(typed: list[str], multirun: bool) -> None:
    told(lambda: composed(typed, multirun), typed)
    told(lambda: resumed(typed), typed)


def value_of(word: str) -> Any:
    (override,), wrong = overrides.parse([word])
    assert wrong == []
    return override.value()


# Blanks around a value, brackets, quotes, commas and backslashes mean something to Hydra.
awkward = st.text("ab1_=.-~/():$+ é", min_size=1, max_size=10).filter(lambda text: text.strip(" ") == text)
quoted = texts | st.text("a\\'\", =${[:~", max_size=8)


@given(quoted)
def test_text_that_we_quote_comes_back(text: str) -> None:
    word = f"model.name={overrides.quote(text)}"
    assert value_of(word) == text
    assert shlex.split(overrides.for_shell(word)) == [word]


@given(awkward.filter(lambda text: text[0] != "="))
def test_a_path_is_taken_as_it_is_typed(path: str) -> None:
    assert value_of(f"data.root={path}") == path


@given(st.lists(quoted, min_size=2, max_size=4))
def test_each_word_of_a_sweep_has_one_of_the_values_that_were_typed(values: list[str]) -> None:
    (override,), _ = overrides.parse(["data.root=" + ",".join(map(overrides.quote, values))])
    assert [value_of(word) for word in overrides.words_of(override)] == values


# Interpolations and ??? never stand in a saved run. PyYAML writes U+0085 as it is, and reads it as the end of a line.
saved_texts = texts.filter(lambda text: "${" not in text and "\x85" not in text and text != "???")
saved_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | saved_texts


@settings(max_examples=10, **SEARCH)
@given(st.dictionaries(st.sampled_from("ab"), saved_scalars | st.lists(saved_scalars, max_size=3), max_size=2))
def test_the_settings_of_a_run_come_back_from_its_config(arguments: dict[str, Any]) -> None:
    plain = {**PLAIN, "augment": {**PLAIN["augment"], "own": {"name": "module:function", "args": arguments}}}
    settled = restore_config(plain).settings
    assert to_plain(settled) == plain
    assert restore_config(yaml.safe_load(to_yaml(settled))).settings == settled


@pytest.mark.slow
@settings(max_examples=800, **SEARCH)
@given(lines, st.booleans())
def test_very_many_lines_compose_or_are_told(typed: list[str], multirun: bool) -> None:
    told(lambda: composed(typed, multirun), typed)
    told(lambda: resumed(typed), typed)


@pytest.mark.slow
def test_the_whole_command_line_answers_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dispatch, "_load", lambda command: lambda *given, **named: 0)

    @settings(max_examples=300, **SEARCH)
    @given(lines, st.sampled_from(["train", "check", "compare", "summary", "preview", "eval"]), st.booleans())
    def answers(typed: list[str], command: str, multirun: bool) -> None:
        here = tmp_path / "here"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        monkeypatch.chdir(here)
        code = cli.main([command, *(["-m"] if multirun else []), *typed])
        err = capfd.readouterr().err
        assert code in (0, 2, 3, 4, 6, 8), (code, err)
        assert all(line.startswith("cnntrain: ") for line in err.splitlines()), err
        if code:
            assert list(here.iterdir()) == []

    answers()
