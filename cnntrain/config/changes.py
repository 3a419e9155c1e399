"""What differs between two configs, as data; whoever shows it makes it text."""

from dataclasses import dataclass
from typing import Any

from cnntrain.config.plain import to_plain
from cnntrain.config.schema.settings import Settings


@dataclass(frozen=True)
class Change:
    """The two plain values of a key; None where the key is not there."""

    before: Any
    after: Any

    def __str__(self) -> str:
        """`10 -> 50`."""
        return f"{yaml_word(self.before)} -> {yaml_word(self.after)}"


def find_changes(before: Settings, after: Settings) -> dict[str, Change]:
    """The keys whose values differ, with both values."""
    values_before, values_after = leaves(to_plain(before)), leaves(to_plain(after))
    return {
        key: Change(values_before.get(key), values_after.get(key))
        for key in values_before | values_after
        if values_before.get(key) != values_after.get(key)
    }


def leaves(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optimizer": {"lr": 0.1}}` as `{"optimizer.lr": 0.1}`."""
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return flat


def yaml_word(value: Any) -> str:
    """A plain value as a user would type it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
