"""The names that timm.optim and torch.optim have for their optimizers. Nothing here imports either."""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnntrain.errors import ConfigError
from cnntrain.text import hint, nearest

# What is left out of each library, by how the names begin, and why.
LEFT_OUT = {
    "torch": {
        "lbfgs": "it computes the loss several times in a step (a closure)",
        "sparseadam": "it is for sparse gradients alone",
    },
    "timm": {
        "adahessian": "it differentiates twice in a step",
        "bnb": "it needs the package bitsandbytes and CUDA",
        "fused": "it needs the package apex and CUDA",
    },
}
# The file that lists them, and how a name stands there.
SOURCES = {
    "torch": ("optim/__init__.py", r"^from torch\.optim\.\w+ import (?!Optimizer\b)([A-Z]\w+)"),
    "timm": ("optim/_optim_factory.py", r"OptimInfo\(\s*name='(\w+)'"),
}


def spelt(library: str, typed: str, names: Iterable[str]) -> str:
    """A name as the library spells it.

    Args:
        library: timm | torch.
        names: those that it has.

    Raises:
        ConfigError: it has none of this name, or one that is left out.
    """
    left_out, places = LEFT_OUT[library], {name.lower(): name for name in names}
    lower = typed.lower()
    if lower in places and (reason := next((why for start, why in left_out.items() if lower.startswith(start)), None)):
        raise ConfigError(
            f"optimizer.name: cnntrain leaves this one of {library} out, as {reason} (given {typed}); choose another"
        )
    if lower in places:
        return places[lower]
    raise ConfigError(unknown_name(library, typed, places.values()))


def unknown_name(library: str, typed: str, names: Iterable[str]) -> str:
    """The fault of a name that is none of those of the library, with the nearest one."""
    places = {name.lower(): name for name in names if not name.lower().startswith(tuple(LEFT_OUT[library]))}
    suggestion = nearest(typed.lower(), places)
    return f"optimizer.name: {library} has no optimizer of this name (given {typed})" + hint(
        suggestion and places[suggestion], f"it has {', '.join(places.values())}"
    )


def faults(tree: DictConfig) -> list[str]:
    """The fault of a name that the library has nowhere, by the file that lists them: to import it takes seconds.

    A name that stands there in whatever way is left to who builds the optimizer.
    """
    try:
        library, name = (OmegaConf.select(tree, f"optimizer.{key}") for key in ("library", "name"))
    except OmegaConfBaseException:  # of an interpolation, which check.py tells
        return []
    if library not in SOURCES or not isinstance(name, str):
        return []
    file, pattern = SOURCES[library]
    package = importlib.util.find_spec(library)
    try:
        text = (Path(package.origin).parent / file).read_text(encoding="utf-8") if package and package.origin else ""
    except OSError:  # of another version
        return []
    names, words = re.findall(pattern, text, re.MULTILINE), re.findall(r"\w+", text.lower())
    if not names or name.lower() in words or name.lower().startswith(tuple(LEFT_OUT[library])):
        return []
    return [unknown_name(library, name, names)]
