"""Write conf/train.yaml: every key of the settings classes with its default and its comment, as they stand there.

`make conf` runs it; a test says where the file is out of date. The defaults list above the keys and the part of Hydra
below them are kept as they are.
"""

import ast
import enum
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from cnntrain.config.messages import options_of
from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.schedule import ConstantSettings
from cnntrain.config.schema.settings import Settings

FILE = conf_dir() / "train.yaml"
NOTE = "# Defaults and comments are those of cnntrain/config/schema: change them there, and run `make conf`.\n"
WIDTH = 120
GROUPS = ("optimizer", "finetune.mode")  # whose options say all of it
TITLE = "${{cnntrain.title:{0},${{hydra:runtime.choices.{0}}}}}"
TYPED = {f"{group}.title": TITLE.format(group) for group in ("model", "data")}  # what only a composed config knows


def train_yaml() -> str:
    """The file as it is to be."""
    text = FILE.read_text(encoding="utf-8")
    start = text.index(NOTE) if NOTE in text else text.index("\nseed:") + 1
    settings = Settings(schedule=ConstantSettings())
    return text[:start] + NOTE + "\n".join(_lines(settings)) + "\n" + text[text.index("\nhydra:") :]


def _lines(settings: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a settings object, each with its comment."""
    comments, hints = _comments(type(settings)), get_type_hints(type(settings))
    indent = "  " * prefix.count(".")
    for item in fields(settings):
        key, value = prefix + item.name, TYPED.get(prefix + item.name, getattr(settings, item.name))
        if value == "???" or key in GROUPS:
            continue
        if is_dataclass(value) and not prefix:
            yield ""
        text = f"{indent}{item.name}:" + ("" if is_dataclass(value) else f" {_yaml(value)}")
        kinds = [kind for kind in options_of(hints[item.name]) if isinstance(kind, enum.EnumMeta)]
        names = [" | ".join(name for kind in kinds for name in kind.__members__)]
        comment = "; ".join(filter(None, [*names, comments.get(item.name, "")]))
        if comment and len(f"{text} # {comment}") > WIDTH:
            start = f"{indent}# "
            yield from textwrap.wrap(comment, WIDTH, initial_indent=start, subsequent_indent=start)
            yield text
        else:
            yield f"{text} # {comment}" if comment else text
        if is_dataclass(value):
            yield from _lines(value, f"{key}.")


def _yaml(value: Any) -> str:
    plain = value.name if isinstance(value, enum.Enum) else value
    return OmegaConf.to_yaml(OmegaConf.create({"key": plain})).partition(": ")[2].rstrip("\n")


def _comments(kind: type) -> dict[str, str]:
    """The comment beside or above each field of a class and of those that it derives from."""
    known = _comments(kind.__base__) if kind.__base__ and is_dataclass(kind.__base__) else {}
    source = inspect.getsource(kind)
    written = {
        token.start[0]: (token.string.lstrip("# "), not token.line[: token.start[1]].strip())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for node in body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above, line = [], node.lineno - 1
        while line in written and written[line][1]:
            above.insert(0, written[line][0])
            line -= 1
        assert node.end_lineno is not None
        beside = [written[line][0] for line in range(node.lineno, node.end_lineno + 1) if line in written]
        if above or beside:
            known[node.target.id] = " ".join([*above, *beside])
    return known


if __name__ == "__main__":
    FILE.write_text(train_yaml(), encoding="utf-8")
