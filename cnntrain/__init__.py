"""cnntrain: a command-line trainer for convolutional image classifiers.

From Python, `load` makes a trained network an object that takes images (docs/python.md). __init__.pyi has the types.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# What lies in the rooms above is fetched at first use: the command line imports this package, and no torch.
_HOMES = {
    "load": "cnntrain.evaluation.classifier",
    "Classifier": "cnntrain.evaluation.classifier",
    "Prediction": "cnntrain.evaluation.prediction",
}
__all__ = ["Classifier", "Prediction", "load"]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
