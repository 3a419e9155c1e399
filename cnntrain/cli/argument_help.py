"""The usage and the arguments of a command in words, as its dataclass has them (schema/commands.py)."""

import enum
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from cnntrain.cli.arguments import Argument, arguments_of
from cnntrain.config.schema.commands import COMMANDS, FilterArgs
from cnntrain.config.schema.filter import KERNELS

WIDTH = 80


def usage(command: str) -> list[str]:
    """The lines of `usage: cnntrain COMMAND ...`, wrapped."""
    kind = COMMANDS[command]
    places = [item.metadata["place"] for item in fields(kind) if "place" in item.metadata]
    arguments = arguments_of(kind).items()
    words = [f"{name}={_example(argument)}" for name, argument in arguments if argument.is_needed]
    options = [
        f"[{name}={_example(argument)}]" for name, argument in arguments if argument.help and not argument.is_needed
    ]
    overrides = "[KEY=VALUE ...]" if kind is FilterArgs else kind.usage
    if kind is FilterArgs:
        words, options = ["image=FILE|signal=FILE.csv", *words], options[-1:]  # the rest are many, and listed below
    start = f"usage: cnntrain {command} "
    parts = [part.replace(" ", "\0") for part in [*places, *words, *_groups(overrides), *options]]
    lines = textwrap.wrap(" ".join(parts), WIDTH - len(start), break_on_hyphens=False, break_long_words=False)
    return [(start if not number else " " * len(start)) + line.replace("\0", " ") for number, line in enumerate(lines)]


def _groups(usage: str) -> list[str]:
    """`[A ...] [B ...]`, part by part."""
    return [part if part.endswith("]") else f"{part}]" for part in usage.split("] ")] if usage else []


def _example(argument: Argument) -> str:
    value = argument.default
    if argument.rule:
        return argument.rule.example
    if isinstance(value, bool):
        return "true"
    return value.name if isinstance(value, enum.Enum) else "N" if value is None else str(value)


def list_arguments(command: str) -> Iterator[str]:
    """The arguments with their lines of help; the choices of one below it, where each has a line of its own."""
    entries: dict[str, tuple[str, Any]] = {}
    for name, argument in arguments_of(COMMANDS[command]).items():
        if argument.help:
            entries[name] = argument.help, {key: text for key, text in argument.choices.items() if text}
        if name == "kernel":
            entries |= _of_kernels()
    width = 2 + max((len(name) for name in entries), default=0) + 3
    for name, (text, choices) in entries.items():
        yield from _entry(f"  {name}", width, text)
        inner = width + max((len(choice) for choice in choices), default=0) + 2
        for choice, line in choices.items():
            yield from _entry(f"{'':{width}}{choice}", inner, line)


def _of_kernels() -> dict[str, tuple[str, dict[str, str]]]:
    """The arguments of kernels, each with those that have it."""
    owners: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for kernel, kind in KERNELS.items():
        for name, argument in arguments_of(kind).items():
            owners.setdefault(name, []).append(kernel)
            texts[name] = argument.help
    return {name: (f"{', '.join(kernels)}: {texts[name]}", {}) for name, kernels in owners.items()}


def _entry(start: str, width: int, text: str) -> list[str]:
    """`  out   where to write`, wrapped beside its name."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{start:{width}}", subsequent_indent=" " * width, break_on_hyphens=False
    )
