"""The arguments of a command, read from the words of its line by the rules of their dataclass (schema/commands.py)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from cnntrain.config.argument_rules import Rule
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import Key, keys_of, options_of, unknown_key, wrong_value
from cnntrain.config.paths import expand_path, strip_quotes
from cnntrain.config.schema.command_args import CommandArgs, NewRunArgs, RunArgs
from cnntrain.config.schema.commands import COMMANDS, ON_RUNS, FilterArgs, TrainArgs
from cnntrain.config.schema.filter import KERNELS
from cnntrain.config.schema.limits import broken_limits
from cnntrain.config.schema.run_commands import PredictArgs
from cnntrain.config.schema.titles import TABLES
from cnntrain.errors import CnntrainError, ConfigError
from cnntrain.text import hint, nearest, printable

Args = TypeVar("Args", bound=CommandArgs)


def read_arguments(kind: type[Args], words: Sequence[str], line: Sequence[str] = ()) -> Args:
    """The arguments of a command; words that are none of its own are in their `words`.

    Args:
        words: those after the command.
        line: the whole line as typed.

    Raises:
        ConfigErrors: with all values that break a rule, one line each.
        DataError, FileSystemError: the only fault is an image that is not there, or an `out` that cannot be written.
    """
    place, words = _read_place(kind, words)
    arguments = arguments_of(kind)
    pairs = [word for word in words if "=" in word and word.partition("=")[0] in arguments]
    other_words = tuple(word for word in words if word not in pairs)
    values, faults = _read_values(arguments, _pairs(pairs))
    if kind is FilterArgs:
        values, kernel_faults = _read_kernel(values, other_words)
        faults, other_words = [*_no_subject(pairs), *faults, *kernel_faults], ()
    else:
        strays = _strays(kind, arguments, other_words)
        needed = {name for name, line in strays if name}
        faults = [fault for fault in faults if str(fault).partition(": missing")[0] not in needed]
        faults += [ConfigError(line) for _, line in strays]
    _raise_all(faults)
    args = kind(line=tuple(line or (command_of(kind), *words)), words=other_words, **place, **values)
    _raise_all([ConfigError(line) for line in args.faults()])
    return args


def command_of(kind: type[CommandArgs]) -> str:
    """The command that has these arguments."""
    return next(command for command, args in [*COMMANDS.items(), *ON_RUNS.items()] if args is kind)


@dataclass(frozen=True)
class Argument:
    """What a dataclass says of one argument that is written KEY=VALUE."""

    key: Key
    rule: Rule | None
    is_needed: bool
    default: Any
    metadata: Mapping[str, Any]

    @property
    def help(self) -> str:
        """Its line of help; empty where it is not shown."""
        return str(self.metadata["help"])

    @property
    def choices(self) -> Mapping[str, str]:
        """The names that its value may hold, each with a line of help or none."""
        if self.rule:
            return self.rule.choices
        names = ["true", "false"] if bool in options_of(self.key.hint) else self.key.choices()
        return dict.fromkeys(names, "")

    def read(self, name: str, text: str) -> Any:
        """The value that a text means; raises a fault of ours where it means none."""
        if self.rule:
            return self.rule.read(name, text)
        try:
            value = _convert(text, self.key)
        except ValueError:
            raise ConfigError(self._wrong_value(name, text or "nothing")) from None
        if limit := next(broken_limits(self.metadata, value), None):
            is_share = self.key.limits.get("<=") == 1 and 1 < limit[0] <= 100
            advice = f"; {limit[0]:g} % is {limit[0] / 100:g}" if is_share else ""
            raise ConfigError(self._wrong_value(name, limit[0]) + advice)
        return value

    def _wrong_value(self, name: str, value: object) -> str:
        """The fault of a value; nobody need type null, as an argument can be left out."""
        return wrong_value(name, value, self.key).replace(", or null", "", 1)


def arguments_of(kind: type) -> Mapping[str, Argument]:
    """The arguments of a command or a kernel that are written KEY=VALUE, by key."""
    hints = get_type_hints(kind)
    return {
        item.name: Argument(
            Key(hints[item.name], item.metadata.get("limits", {})),
            item.metadata.get("rule"),
            item.default is MISSING,
            item.default,
            item.metadata,
        )
        for item in fields(kind)
        if "help" in item.metadata
    }


def _read_place(kind: type[CommandArgs], words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The run that stands in the first place after some commands, and the words after it."""
    if not issubclass(kind, RunArgs):
        return {}, list(words)
    command = command_of(kind)
    if not words or (re.match(r"-|[a-z_.]+=", words[0]) and not expand_path(words[0]).exists()):
        place = next(item.metadata["place"] for item in fields(kind) if "place" in item.metadata)
        raise ConfigError(f"{command}: which run? write cnntrain {command} {place}, and other words after that")
    if flags := [word for word in words[1:] if word.startswith("-")]:
        raise ConfigError(f"{' '.join(flags)}: no flag of {command}; see cnntrain {command} --help")
    return {"run": expand_path(words[0])}, list(words[1:])


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Keys and their texts; of a key that is there twice the last one counts."""
    return {key: strip_quotes(text) for key, _, text in (word.partition("=") for word in words)}


def _read_values(
    arguments: Mapping[str, Argument], texts: Mapping[str, str]
) -> tuple[dict[str, Any], list[CnntrainError]]:
    """The values of the arguments that are given, and the faults: of these and of needed ones that are not."""
    values: dict[str, Any] = {}
    faults: list[CnntrainError] = []
    for name, argument in arguments.items():
        try:
            if name in texts:
                values[name] = argument.read(name, texts[name])
            elif argument.is_needed and argument.rule:
                raise ConfigError(argument.rule.missing_fault(name))
        except CnntrainError as fault:
            faults.append(fault)
    return values, faults


def _strays(kind: type[CommandArgs], arguments: Mapping[str, Argument], words: Sequence[str]) -> list[tuple[str, str]]:
    """The words that are neither arguments nor keys of a config: the argument that is meant, or nothing; the fault."""
    if not issubclass(kind, (NewRunArgs, RunArgs)) or kind is TrainArgs:  # a config is all that they take
        return []
    from cnntrain.config.overrides import GROUPS  # costs Hydra

    has_own_groups = any(word.startswith(("--config-dir", "-cd")) for word in words)
    keys = keys_of({})
    names = {key.rpartition(".")[2] for key in keys}
    found = []
    for word in words:
        key, sign, text = word.lstrip("+").partition("=")
        if not sign and kind is PredictArgs and expand_path(word).exists():
            found.append(("images", f"{printable(word)}: not KEY=VALUE; did you mean images={printable(word)}?"))
        if not sign or not key.isidentifier() or key in (*keys, *GROUPS, "hydra") or has_own_groups:
            continue
        meant = None if key in names else nearest(key, arguments)
        if meant:
            found.append((meant, f"{key}: no such argument; did you mean {meant}={printable(text)}?"))
        else:
            help_line = f"`cnntrain {command_of(kind)} --help` shows its words"
            found.append(("", unknown_key(key, printable(text), keys, {}, help_line)))
    return found


def _raise_all(faults: Sequence[CnntrainError]) -> None:
    """Raise what is the matter: values that break a rule come first, and what is absent is told with them."""
    if any(isinstance(fault, ConfigError) for fault in faults):
        faults = sorted(faults, key=lambda fault: not isinstance(fault, ConfigError))
        raise ConfigErrors(line for fault in faults for line in fault.lines())
    if faults:
        raise faults[0]


def _convert(text: str, key: Key) -> Any:
    """ValueError where a text means no value of the type."""
    kinds = options_of(key.hint)
    if type(None) in kinds and text == "null":
        return None
    if bool in kinds:
        return ("false", "true").index(text.lower()) == 1
    if choices := key.choices():
        return kinds[0][choices[choices.index(text)]]
    return kinds[0](text)


# --- filter ----------------------------------------------------------------------------------------------------------


def _no_subject(words: Sequence[str]) -> list[CnntrainError]:
    """The fault where there is nothing to filter."""
    if {"image", "signal"} & _pairs(words).keys():
        return []
    return [ConfigError("image: missing; write image=FILE, or signal=FILE.csv for a signal in one dimension")]


def _read_kernel(values: Mapping[str, Any], words: Sequence[str]) -> tuple[dict[str, Any], list[CnntrainError]]:
    """The values with the kernel itself, whose own arguments are among the other words; and the faults of these."""
    kernel_value = values.get("kernel")
    kind = kernel_value if isinstance(kernel_value, type) else None
    own_arguments = arguments_of(kind) if kind else {}
    faults: list[CnntrainError] = []
    texts: dict[str, str] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if word.startswith("-"):
            faults.append(ConfigError(f"{word}: no flag of filter; see cnntrain filter --help"))
        elif not sign:
            is_table = word.startswith("[") or Path(word).suffix.lower() in TABLES
            argument = "kernel" if word in KERNELS else "signal" if is_table else "image"
            faults.append(ConfigError(f"{word}: not KEY=VALUE" + hint(f"{argument}={word}")))
        elif key in own_arguments:
            texts[key] = strip_quotes(text)
        else:
            faults += _stray_key(key, strip_quotes(text), kernel_value, own_arguments)
    arguments, value_faults = _read_values(own_arguments, texts)
    kernel = kind(**arguments) if kind and not value_faults else kernel_value
    return {**values, "kernel": kernel}, [*value_faults, *faults]


def _stray_key(key: str, text: str, kernel: Any, arguments: Mapping[str, Argument]) -> list[CnntrainError]:
    owners = [name for name, kind in KERNELS.items() if key in arguments_of(kind)]
    if owners and kernel is None:
        return []  # the kernel is a fault already
    if owners:
        have = f"{' and '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
        return [ConfigError(f"{key}: this kernel has no {key} (given {text}); {have}: kernel={owners[0]}")]
    keys = [*arguments_of(FilterArgs), *arguments]
    return [ConfigError(f"{key}: no such key (given {text})" + hint(nearest(key, keys), f"keys: {', '.join(keys)}"))]
