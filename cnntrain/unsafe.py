"""Code that a config names, and that Hydra would run by itself."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cnntrain.errors import UnsafeError
from cnntrain.paths import shown

# How Hydra and Python's logging name code: a class, a function.
CODE_KEYS = ("_target_", "()", "class")
HYDRAS_OWN = (
    *("hydra._internal.core_plugins.", "hydra.experimental.callbacks.", "hydra_plugins."),
    *("logging.StreamHandler", "logging.FileHandler", "logging.Formatter", "colorlog.", "rich.logging."),
)


def refuse_code(tree: DictConfig) -> None:
    """Hydra would run any function that its own part of a config names, before we have looked at it.

    Raises:
        UnsafeError: so would this one.
    """

    def named(node: Any, key: str) -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            if name in CODE_KEYS and not str(value).startswith(HYDRAS_OWN):
                yield f"{key}.{name}: {value} would run code, which no config of ours needs; leave it out"
            yield from named(value, f"{key}.{name}")

    if found := list(named(OmegaConf.to_container(tree.hydra), "hydra")):
        raise UnsafeError("\n".join(map(shown, found)))
