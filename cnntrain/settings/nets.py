"""The arguments of our own networks (`model.args`), checked without torch."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu")


def _argument(default: Any, fits: Callable[[Any], bool], rule: str) -> Any:
    """A field whose values must pass `fits`; `rule` says so in words."""
    metadata = {"fits": fits, "rule": rule}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _one_of(default: str, *names: str) -> Any:
    return _argument(default, lambda value: value in names, "one of " + ", ".join(names))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_count(item) for item in value)


def _are_blocks(value: Any) -> bool:
    return isinstance(value, list) and all(_is_count(item) or (_are_counts(item) and item) for item in value)


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _hidden(default: list[int]) -> Any:
    return _argument(default, _are_counts, "a list of whole numbers >= 1, one for each hidden layer ([] for none)")


def _dropout(default: float) -> Any:
    return _argument(default, _is_share, "a number >= 0 and < 1")


@dataclass
class MlpArgs:
    """The multi-layer perceptron."""

    hidden: list[int] = _hidden([256, 128])  # units of each hidden layer
    dropout: float = _dropout(0.0)
    activation: str = _one_of("relu", *ACTIVATIONS)


@dataclass
class Lenet5Args:
    """LeNet-5 in the modern reading; `tanh` and `avg` are closer to the paper."""

    activation: str = _one_of("relu", *ACTIVATIONS)
    pooling: str = _one_of("max", "max", "avg")


@dataclass
class CnnArgs:
    """Blocks of convolutions, each ended by a pooling by 2, then fully connected layers."""

    filters: list[Any] = _argument(
        [32, 64],
        _are_blocks,
        "a list with one entry for each block: its filters (32) or those of each convolution ([32, 32])",
    )
    kernel: int = _argument(3, _is_count, "a whole number >= 1")
    padding: str = _one_of("valid", "valid", "same")  # same keeps the size of the map
    hidden: list[int] = _hidden([])
    dropout: float = _dropout(0.5)
    norm: str = _one_of("none", "batch", "none")
    activation: str = _one_of("relu", *ACTIVATIONS)
    pooling: str = _one_of("max", "max", "avg")


OWN_NETS: dict[str, type[MlpArgs | Lenet5Args | CnnArgs]] = {
    "mlp": MlpArgs,
    "lenet5": Lenet5Args,
    "cnn": CnnArgs,
}


def argument_faults(name: str, args: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """Values that an argument of our own network `name` cannot take, as (key, value, rule); [] for other networks."""
    if name not in OWN_NETS:
        return []
    known = {item.name: item.metadata for item in fields(OWN_NETS[name])}
    given = [(key, value, known[key]) for key, value in args.items() if key in known]
    return [(key, value, about["rule"]) for key, value, about in given if not about["fits"](value)]
