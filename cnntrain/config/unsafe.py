"""Code that a config names, and that Hydra would run by itself."""

import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cnntrain.errors import UnsafeError
from cnntrain.text import printable

# How Hydra and Python's logging name code: a class, a function.
CODE_KEYS = ("_target_", "()", "class")
HYDRAS_OWN = (
    *("hydra._internal.core_plugins.", "hydra.experimental.callbacks.", "hydra_plugins."),
    *("logging.StreamHandler", "logging.FileHandler", "logging.Formatter", "colorlog.", "rich.logging."),
)

# Sections that Hydra makes objects of.
OBJECT_SECTIONS = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")
# What may be referred to there: Hydra's own part, which is read here as a whole, texts and times.
HARMLESS = re.compile(r"hydra[.:]|oc\.env:|now:")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def refuse_code(tree: DictConfig) -> None:
    """Hydra would run any function that its own part of a config names, before we have looked at it.

    Raises:
        UnsafeError: so would this one, or it would write outside the run folder.
    """
    sections = OmegaConf.to_container(tree.hydra)
    if faults := list(_faults(sections, "hydra", "")):
        raise UnsafeError("\n".join(map(printable, faults)))


def _faults(node: Any, key: str, section: str) -> Iterator[str]:
    """The lines for what a plain tree or list holds.

    Args:
        section: the one of Hydra's that it lies in; empty for all of them.
    """
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in parts:
        place = section or str(name)
        if why := _why_unsafe(str(name), value, place in OBJECT_SECTIONS):
            yield f"{key}.{name}: {value} {why}; leave it out"
        yield from _faults(value, f"{key}.{name}", place)


def _why_unsafe(name: str, value: Any, is_built: bool) -> str:
    text = str(value)
    if name in CODE_KEYS and not text.startswith(HYDRAS_OWN):
        return "would run code, which no config of ours needs"
    if not isinstance(value, str):
        return ""
    if is_built and not all(HARMLESS.match(reference) for reference in text.split("${")[1:]):
        return "may make what would run code"
    if "ext://" in text and text not in STREAMS:
        return "would import a module"
    if is_built and name == "filename" and not text.startswith("${hydra.runtime.output_dir}/"):
        return "would be written, and lies outside the run folder"
    if name == "output_subdir" and (os.path.isabs(text) or ".." in text.split("/")):
        return "would be written into, and lies outside the run folder"
    return ""
