"""What is wrong with a configuration, in one line per fault: key, rule, value given, nearest right spelling."""

import enum
import functools
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from cnntrain.config.advice import advise_data
from cnntrain.config.schema import limits
from cnntrain.config.schema.data import DATASETS
from cnntrain.config.schema.loss import LOSSES
from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.config.schema.optimizer import OPTIMIZERS
from cnntrain.config.schema.schedule import SCHEDULES
from cnntrain.config.schema.settings import Settings
from cnntrain.registry import Registry, is_dotted, unknown_argument
from cnntrain.text import hint, nearest

VARIANTS: dict[str, Registry[Any]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}  # sections whose keys depend on their name
REGISTRIES: dict[str, Registry[Any]] = {**VARIANTS, "data": DATASETS, "loss": LOSSES}
MISSING_ADVICE = {
    "data.root": "give the folder of the images, data.root=DIR; it holds train/, or one folder per class; "
    "for data=arrays give the file, data.root=FILE.npz, for data=table the table, for data=webdataset the shards, "
    "and for data=hf OWNER/NAME",
    "augment.own.name": "name your function, such as augment.own.name=my_aug:noise",
    "data.name": "name your function, such as data.name=my_data:load",
    "optimizer.name": "give a name of the library, such as lamb of timm, or your function, my_optim:Lion",
    "schedule.name": "name your function, such as schedule.name=my_rates:wave",
    "model.name": "give a network of the library, such as model.name=mobilenet_v3_small, or a function, my_nets:tiny",
}
# What other tools call it.
FOLDER_WORDS = ("out", "run", "name", "dir", "output", "outdir", "output_dir", "run_dir", "save_dir", "log_dir")
MORE_NETS = "`cnntrain models` lists them; others are chosen by model=timm or model=torchvision, and model.name=NAME"
ALL_KEYS = "`cnntrain --cfg job` shows all keys"
# Words of commands that are no keys.
COMMAND_WORDS = {
    "tta": "eval RUN_DIR or predict RUN_DIR",
    "images": "predict RUN_DIR, explain RUN_DIR or preview or check",
    "top": "predict RUN_DIR",
    "formulas": "summary",
    **dict.fromkeys(("what", "layers", "filters"), "explain RUN_DIR"),
}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Any: "any value"}
_LISTS = {int: "[3,6]", float: "[0.5,1.0]"}


@dataclass
class Key:
    """What a settings class says about one of its fields."""

    hint: Any
    limits: dict[str, float]
    names: Sequence[str] = ()  # that it takes in place of a number
    own_rule: str = ""  # where types and limits do not tell it well

    def rule(self) -> str:
        """What the value must be, in words: `a whole number >= 1, or null`."""
        if self.own_rule:
            return self.own_rule
        options = [option for option in options_of(self.hint) if option is not type(None)]
        options = [option for option in options if option is not str or not self.names]
        if set(options) == {int, float}:
            options = [float]
        words = " or ".join(_words(option) for option in options)
        if self.limits:
            words += " " + limits.rule(self.limits)
        for name in self.names:
            words += f", or {name}"
        return words + (", or null" if type(None) in options_of(self.hint) else "")

    def takes(self, value: Any) -> bool:
        """Whether a plain value is of this type; OmegaConf does not look into what an interpolation or a list gives."""
        return _takes(self.hint, value)

    def classes(self) -> list[type]:
        """The settings class of a section, or of a piece that may be null; empty for a value."""
        return [option for option in options_of(self.hint) if isinstance(option, type) and is_dataclass(option)]

    @property
    def is_switch(self) -> bool:
        """Whether it is true or false, and never a number."""
        return bool in options_of(self.hint) and not {int, float, Any}.intersection(options_of(self.hint))

    def choices(self) -> list[str]:
        """The names that it takes, such as those of an enum."""
        return [*self.names, *(item.name for kind in options_of(self.hint) if _is_enum(kind) for item in kind)]


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union; the hint itself where it is none."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _takes(hint: Any, value: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_takes(option, value) for option in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_takes(get_args(hint)[0], item) for item in value)
    kind = get_origin(hint) or hint
    if isinstance(value, bool) or kind is bool:
        return kind in (bool, Any) and (kind is Any or isinstance(value, bool))
    return kind is Any or isinstance(value, (int, float) if kind is float else kind)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def _words(hint: Any) -> str:
    if _is_enum(hint):
        return "one of " + ", ".join(item.name for item in hint)
    if get_origin(hint) is list:
        item = get_args(hint)[0]
        return f"a list, such as {_LISTS.get(item, '[a,b]')}, each item {_words(item)}"
    if get_origin(hint) is dict:
        return "keys and values, such as {a:1,b:2}"
    return _WORDS.get(hint, "keys and values, such as {key:value}")


def keys_of(variants: Mapping[str, str]) -> Mapping[str, Key]:
    """Every key that a settings tree knows, by its dotted name.

    Args:
        variants: the chosen name of each section in VARIANTS; sections without one show their common keys.
    """
    return _keys_below(Settings, "", tuple(variants.items()))


@functools.cache  # asked for each value of a saved run, which took half of the time of reading one
def _keys_below(kind: type, prefix: str, variants: tuple[tuple[str, str], ...]) -> Mapping[str, Key]:
    keys: dict[str, Key] = {}
    hints = get_type_hints(kind)
    for item in fields(kind):
        name, hint = prefix + item.name, hints[item.name]
        facts = item.metadata
        keys[name] = Key(hint, facts.get("limits", {}), facts.get("words", ()), facts.get("rule", ""))
        for option in keys[name].classes():
            entry = VARIANTS[name].find(dict(variants).get(name, "")) if name in VARIANTS else None
            keys |= _keys_below(entry.settings if entry else option, name + ".", variants)
    return types.MappingProxyType(keys)


def unknown_key(key: str, value: str, keys: Iterable[str], variants: dict[str, str], otherwise: str = ALL_KEYS) -> str:
    """The fault of a key that does not exist, with the key that was probably meant, or `otherwise`."""
    if key in FOLDER_WORDS:
        network = ", the network with model=NAME" if key == "name" else ""
        return f"{key}: no such key (given {value}); the folder of a new run is chosen with out=DIR{network}"
    if key.startswith("recipe."):
        return f"{key}: no such key (given {value}); let the file of the recipe begin with '# @package _global_'"
    if key in COMMAND_WORDS:
        return f"{key}: goes with a command (given {value}); write cnntrain {COMMAND_WORDS[key]} {key}={value}"
    section, _, name = key.partition(".")
    entries = VARIANTS[section].values() if section in VARIANTS else ()
    owners = [entry.name for entry in entries if name in {item.name for item in fields(entry.settings)}]
    if owners:
        variant = variants.get(section, "this one")
        *most, last = owners
        have = f"{', '.join(most)} and {last} have it" if most else f"{last} has it"
        return f"{key}: {variant} has no {name} (given {value}); {have}: {section}={owners[0]}"
    return f"{key}: no such key (given {value})" + hint(_right_key(key, list(keys)), otherwise)


def _right_key(key: str, keys: list[str]) -> str | None:
    """In this order: the beginning of one, a slip in one part, the right name in the wrong section, a similar one."""
    parent, _, name = key.rpartition(".")
    siblings = [candidate for candidate in keys if candidate.rpartition(".")[0] == parent]
    longer = [candidate for candidate in siblings if candidate.startswith(key)]
    if len(longer) == 1 and len(name) > 1:
        return longer[0]
    slip = nearest(key, siblings) if parent else None
    if slip and nearest(name, [slip.rpartition(".")[2]]):
        return slip
    namesakes = [candidate for candidate in keys if candidate.rpartition(".")[2] == name]
    if namesakes:
        return nearest(key, namesakes) or namesakes[0]
    return nearest(key, [candidate for candidate in keys if not key.startswith(candidate)], cutoff=0.8)


def unknown_arguments(model: ModelSettings) -> list[str]:
    """The faults of arguments that our own network does not take; of other networks, nothing is known here."""
    if model.name not in NETWORKS:
        return []
    names = [item.name for item in fields(NETWORKS[model.name].settings)]
    return [unknown_argument(model.name, name, value, names) for name, value in model.args.items() if name not in names]


def unknown_option(group: str, name: object, options: list[str]) -> str:
    """The fault of `group=name` where the group has no such option."""
    if group == "data" and (folder := advise_data(str(name))):
        return f"data: no option {name}; {folder}"
    if group == "data" and is_dotted(str(name)):
        return f"data: no option {name}; a function of yours is data=own data.name={name}"
    printable = [option for option in options if not option.startswith("for_")]
    if not printable:
        return f"{group}: no option {name}, there are none; add yours with --config-dir DIR, as DIR/{group}/{name}.yaml"
    suggestion = nearest(str(name), printable)
    return (
        f"{group}: no option {'given' if name == '' else name}; "
        + (f"did you mean {group}={suggestion}? " if suggestion else "")
        + (MORE_NETS if group == "model" else f"options: {', '.join(printable)}")
        + (f"; of timm or torch: optimizer=timm optimizer.name={name}" if group == "optimizer" and name else "")
    )


def wrong_value(key: str, value: object, kind: Key | None) -> str:
    """The fault of a value that its key cannot take."""
    if kind is None:
        return f"{key}: this value does not fit (given {value})"
    return f"{key}: must be {kind.rule()} (given {value})" + hint(nearest(str(value), kind.choices()))


def broken_rules(settings: Any) -> list[str]:
    """Limits and rules that well-typed settings break, one line each."""
    keys = keys_of({"optimizer": settings.optimizer.variant, "schedule": settings.schedule.name})
    faults: list[str] = []
    out_of_range = limits.out_of_range(settings)
    for key, value, rule in out_of_range:
        line = f"{key}: must be {rule} (given {value})"
        faults.append(line if rule.startswith(limits.AT_MOST) else wrong_value(key, value, keys.get(key)))
    faults += unknown_arguments(settings.model)
    keys_out_of_range = {key for key, _, _ in out_of_range}
    faults += [
        f"{key}: must be {rule} (given {limits.typed_value(value)})"
        for key, value, rule in _own_rules(settings)
        if key not in keys_out_of_range
    ]
    return faults


def _own_rules(settings: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """What each settings class finds wrong with itself, with the full key."""
    faults = [(prefix + key, value, rule) for key, value, rule in getattr(settings, "faults", list)()]
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            faults += _own_rules(value, prefix + item.name + ".")
    return faults
