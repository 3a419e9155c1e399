"""Layer groups: a network's parameters from the lowest layers, near the image, up to the head."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from torch import nn

from cnntrain.config.schema.finetune import FinetuneSettings, Unit
from cnntrain.errors import ConfigError
from cnntrain.finetune.encoder import Part, encoder_blocks, encoder_stages, module_and_above, owners
from cnntrain.models.head import auxiliary_paths, head_paths
from cnntrain.models.name_patterns import is_below, matching, require

HEAD = "head"


@dataclass(frozen=True)
class LayerGroup:
    """Layers that learn together. Each parameter and each leaf of a network is in exactly one group.

    Attributes:
        name: what it holds, in short: `layer3`, `features.4-6`, `conv1 bn1`.
        parameters: names, in the order of the network.
        leaves: paths of modules without children, in that order.
    """

    name: str
    parameters: tuple[str, ...]
    leaves: tuple[str, ...]


def layer_groups(model: nn.Module, settings: FinetuneSettings) -> list[LayerGroup]:
    """The groups from low to high; the last one is the head, with all auxiliary classifiers.

    By rule, a group of the encoder is what timm's table of the network names, or a run of modules in their order:
    blocks, and with `unit=stage` all between two halvings of the map. What has no parameters (pools, dropouts) belongs
    to the layer before it; a parameter that several modules share, to the lowest; a parameter of a module that holds
    several groups, to the first of them.

    Raises:
        ConfigError: more groups asked for than there are; a pattern that matches nothing, or nothing that those before
            it have left; parameters of the encoder that no pattern matches; or no head.
    """
    head = [*head_paths(model, settings.head), *auxiliary_paths(model)]
    encoder_owners = {path: names for path, names in owners(model).items() if not is_below(path, head)}
    if isinstance(settings.groups, list):
        homes = _by_patterns([name for names in encoder_owners.values() for name in names], settings.groups)
        names = list(settings.groups)
    else:
        blocks = encoder_blocks(model, head)
        parts = blocks if settings.unit is Unit.block else encoder_stages(model, head)
        if settings.groups is not None:
            parts = _merge(parts, settings, len(blocks))
        homes = {name: index for index, part in enumerate(parts) for path in part for name in encoder_owners[path]}
        names = _names(model, parts)
    names = [f"{name} (encoder)" if name == HEAD else name for name in names]
    return _assemble(model, homes, [*names, HEAD], head)


def _by_patterns(names: Sequence[str], patterns: Sequence[str]) -> dict[str, int]:
    """The index of the first pattern that matches each parameter."""
    require("finetune.groups", patterns, names, "parameter below the head")
    homes: dict[str, int] = {}
    for index, pattern in enumerate(patterns):
        matches = [name for name in matching(pattern, names) if name not in homes]
        if not matches:
            raise ConfigError(
                f"finetune.groups: all that {pattern!r} matches is in groups below; give the narrower pattern first"
            )
        homes |= dict.fromkeys(matches, index)
    if strays := [name for name in names if name not in homes]:
        text = ", ".join(strays[:3]) + (f" and {len(strays) - 3} more" if len(strays) > 3 else "")
        raise ConfigError(
            f"finetune.groups: no pattern matches {text}; name them too, or end the list with '*' for all the rest"
        )
    places = [[place for place, name in enumerate(names) if homes[name] == index] for index in range(len(patterns))]
    _refuse_reversed(places, patterns)
    return homes


def _refuse_reversed(places: Sequence[Sequence[int]], patterns: Sequence[str]) -> None:
    """Raise ConfigError where a group lies wholly above the next one: rates and openings would run backwards."""
    for (lower, upper), (low, high) in zip(pairwise(patterns), pairwise(places), strict=True):
        if upper != "*" and min(low) > max(high):
            raise ConfigError(
                f"finetune.groups: {lower!r} lies above {upper!r} in the network, and groups go from the images up to "
                "the head; put it behind"
            )


def _merge(parts: list[Part], settings: FinetuneSettings, block_count: int) -> list[Part]:
    """Neighbours joined, so that with the head there are as many groups as the settings want."""
    below = settings.groups - 1
    if not 1 <= below <= len(parts):
        advice = f"; finetune.unit=block allows {block_count + 1}" if block_count > len(parts) else ""
        raise ConfigError(
            f"finetune.groups: must be from 2 to {len(parts) + 1}, for {len(parts)} {settings.unit.name}s and the head "
            f"(given {settings.groups}){advice}"
        )
    edges = [round(index * len(parts) / below) for index in range(below + 1)]
    return [[path for part in parts[start:end] for path in part] for start, end in pairwise(edges)]


def _assemble(
    model: nn.Module, homes: Mapping[str, int], names: Sequence[str], head: Sequence[str]
) -> list[LayerGroup]:
    """Groups out of the indices of the encoder's parameters; all else follows the layer before it."""
    parameters: list[list[str]] = [[] for _ in names]
    leaves: list[list[str]] = [[] for _ in names]
    names_of, head_index, before = owners(model), len(names) - 1, 0
    side = auxiliary_paths(model)
    for path, module in model.named_modules():
        home = before
        if is_below(path, head):
            home = head_index
        elif path in names_of:
            home = homes[names_of[path][0]]
        if not is_below(path, side):  # what follows an auxiliary classifier is not its own
            before = home
        for name in names_of.get(path, []):
            parameters[homes.get(name, head_index)].append(name)
        if next(module.children(), None) is None:
            leaves[home].append(path)
    return [LayerGroup(*parts) for parts in zip(names, map(tuple, parameters), map(tuple, leaves), strict=True)]


# --- names -----------------------------------------------------------------------------------------------------------


def _names(model: nn.Module, parts: list[Part]) -> list[str]:
    """Of each part the modules that make it up, as few as there are, those side by side in short: `features.4-6`."""
    totals = Counter(above for path in owners(model) for above in module_and_above(path))
    names = []
    for part in parts:
        here = Counter(above for path in part for above in module_and_above(path))
        rows: dict[str, list[str]] = {}
        for path in here:
            parent, _, key = path.rpartition(".")
            if path and here[path] == totals[path] and here[parent] < totals[parent]:
                rows.setdefault(parent, []).append(key)
        names.append(" ".join(_row(parent, keys) for parent, keys in rows.items()))
    return names


def _row(parent: str, keys: list[str]) -> str:
    """Modules side by side: `features.4-6`, `inception4a-e`, `conv1 bn1`."""
    prefix = _common_prefix(keys)
    suffix = keys[-1][len(prefix) :]
    if suffix and (prefix or all(key.isdigit() for key in keys)):
        keys = [f"{keys[0]}-{suffix}"]
    elif len(keys) > 3:
        keys = [f"{keys[0]}-{keys[-1]}"]
    return (f"{parent}." if parent else "") + " ".join(keys)


def _common_prefix(keys: list[str]) -> str:
    """What all keys begin with, without a part of a number: 10 and 13 are no 0 and 3 of a 1."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(min(keys), max(keys), strict=False))
    prefix = "".join(letter for letter, _ in pairs)
    inside = any(key[len(prefix) : len(prefix) + 1].isdigit() for key in keys)
    return prefix.rstrip("0123456789") if inside else prefix
