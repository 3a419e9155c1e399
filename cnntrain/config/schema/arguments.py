"""Fields of the networks' arguments (`model.args`), each with the rule that its values must keep."""

from collections.abc import Callable
from dataclasses import field
from typing import Any

# Each with its class in torch.nn.
ACTIVATIONS = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "gelu": "GELU",
    "selu": "SELU",
    "mish": "Mish",
    "silu": "SiLU",
    "swish": "SiLU",
}
# All of torch.nn that need no argument and keep any shape.
TORCH_ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "Mish"),
    *("PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh"),
    "Tanhshrink",
)


def argument(default: Any, fits: Callable[[Any], bool], rule: str) -> Any:
    """A field whose values must pass `fits`; `rule` says so in words."""
    metadata = {"fits": fits, "rule": rule}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def one_of(default: str, *names: str) -> Any:
    return argument(default, lambda value: value in names, "one of " + ", ".join(names))


def activation(default: str | None, *words: str) -> Any:
    """The name of an activation, or of `words`; or null, where that is the default."""
    names = (*ACTIVATIONS, *words)
    choices = (*names, *TORCH_ACTIVATIONS, *([None] if default is None else []))
    rule = f"one of {', '.join(names)}, or an activation class of torch.nn such as Hardswish"
    return argument(default, lambda value: value in choices, rule + (", or null" if default is None else ""))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(is_count(item) for item in value)


def is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1


def hidden(default: list[int]) -> Any:
    return argument(default, are_counts, "a list of whole numbers >= 1, one for each hidden layer ([] for none)")


def dropout(default: float) -> Any:
    return argument(default, is_share, "a number >= 0 and < 1")
