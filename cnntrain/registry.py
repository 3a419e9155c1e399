"""What a `name` in the config stands for: an entry of a registry, or a user's function, `package.module:function`.

Nothing here imports torch: an entry names its builder, which is imported when it is called.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from cnntrain.errors import ConfigError
from cnntrain.text import hint, nearest, one_line

NO_NAME = ":"  # stands for a function of the user's that has yet to be named
MOST_LISTED = 12  # functions of a module that lacks the one that was named


# --- names -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One thing that a config can name; the entries of a section add its facts.

    Attributes:
        name: in the config.
        settings: the class of its numbers.
        builder: `package.module:function`, which is called with those settings.
    """

    name: str
    settings: type[Any]
    builder: str

    def build(self, *positional: Any, **keywords: Any) -> Any:
        """Call the builder."""
        module, _, function = self.builder.partition(":")
        return getattr(importlib.import_module(module), function)(*positional, **keywords)


E = TypeVar("E", bound=Entry)


class Registry(Mapping[str, E]):
    """The entries of one section of the config by name, and the one that every function of the user's shares.

    Args:
        section: of the config: `optimizer`.
        entries: in the order in which they are listed.
        user: what a name of the form `package.module:function` stands for; its builder calls that function.
        takes_bare_names: a name may be typed alone, as in loss.name=bce; else it comes with the numbers of its file in
            conf/, which chooses it.
    """

    def __init__(self, section: str, entries: Iterable[E], user: E, *, takes_bare_names: bool = False) -> None:
        self.section, self.user, self.takes_bare_names = section, user, takes_bare_names
        self._entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> E:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> E | None:
        """The entry that a name stands for; None where it stands for nothing."""
        return self.user if is_dotted(name) else self._entries.get(name)

    def entry(self, name: str) -> E:
        """The entry that a name stands for.

        Raises:
            ConfigError: it stands for nothing.
        """
        entry = self.find(name)
        if entry is None:
            raise ConfigError(self.unknown_fault(name))
        return entry

    def unknown_fault(self, name: object) -> str:
        """The fault of a name that stands for nothing, with the nearest one."""
        first = next(iter(self))
        advice = f"let its file begin with defaults: [{first}] or another one, and leave the name out"
        if self.takes_bare_names:
            advice = f"leave it out for {first}, or name your function"
        module, _, function = str(name).rpartition(".")
        if module:
            advice = f"a function of yours is named {module}:{function}"
        rule = f"one of {', '.join(self)}, or package.module:function"
        return f"{self.section}.name: must be {rule} (given {name}){hint(nearest(str(name), self), advice)}"


def is_dotted(name: str) -> bool:
    """Whether a name is that of a function of the user's."""
    return ":" in name


# --- functions of the user's -----------------------------------------------------------------------------------------

_packages: set[str] = set()  # whose functions have been named, but for installed ones, whose faults are not the user's


def import_function(section: str, name: str) -> Callable[..., Any]:
    """What `package.module:function` names; the current folder is searched first, as `python -m` does.

    Afterwards the folder is searched last: a `random.py` beside the user's function is not what torch imports by it.

    Args:
        section: of the config, whose `name` it is: `model`.

    Raises:
        ConfigError: no such module or function.
    """
    module_name, _, attribute = name.partition(":")
    module = sys.modules.get(module_name) or _import(section, name, module_name)
    if "site-packages" not in (getattr(module, "__file__", None) or ""):
        _packages.add(module_name.partition(".")[0])
    function: Callable[..., Any] | None = getattr(module, attribute, None)
    if function is None:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        where = getattr(module, "__file__", None) or module_name
        line = ", ".join(functions[:MOST_LISTED]) + (" ..." if len(functions) > MOST_LISTED else "")
        advice = hint(nearest(attribute, functions), f"it has {line or 'no function at all'}")
        raise ConfigError(f"{section}.name: {where} has no {attribute!r}{advice}")
    if not callable(function):
        raise ConfigError(
            f"{section}.name: {name} is of type {type(function).__name__}; it must be a function or class"
        )
    return function


def _import(section: str, name: str, module_name: str) -> ModuleType:
    here = os.getcwd()
    if is_new := here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module can fail with anything
        raise ConfigError(
            f"{section}.name: cannot import {module_name!r} of {name} ({one_line(error)}); "
            f"it must lie in the current folder {here} or be installed"
        ) from error
    finally:
        if is_new and here in sys.path:
            sys.path.remove(here)
            sys.path.append(here)


def check_arguments(
    section: str, name: str, function: Callable[..., Any], args: Mapping[str, Any], reserved: Iterable[str] = ()
) -> list[str] | None:
    """The names of the function's parameters; None if it takes any keyword.

    Args:
        reserved: parameters that are not the user's to give.

    Raises:
        ConfigError: `args` holds one that it does not have.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some that are built in, nothing is known
        return None
    if any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
        return None
    for key, value in args.items():
        if key not in parameters:
            free = [parameter for parameter in parameters if parameter not in reserved]
            raise ConfigError(unknown_argument(name, key, value, free, f"{section}.args"))
    return list(parameters)


def line_in_user_code(error: BaseException) -> str:
    """The line of the user's own code in which an error arose, `my_nets.py:12`; empty where it arose elsewhere."""
    place, trace = "", error.__traceback__
    while trace:
        package = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if package in _packages:
            place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        elif package == "cnntrain":
            place = ""
        trace = trace.tb_next
    return place


def describe_failure(error: BaseException) -> str:
    """An error of a user's function in one line, with its place: `IndexError: oops, in my_nets.py:12`."""
    place = line_in_user_code(error)
    return one_line(error) + (f", in {place}" if place else "")


def call_user_function(section: str, name: str, args: Mapping[str, Any], *positional: Any, **options: Any) -> Any:
    """Call a user's function with `positional`, `args` and with what it accepts of `options`.

    Raises:
        ConfigError: no such function, an argument that it does not have or that cnntrain gives itself, or it failed.
    """
    function = import_function(section, name)
    if taken := next((key for key in args if key in options), None):
        raise ConfigError(
            f"{section}.args.{taken}: cnntrain gives it to {name} itself (given {args[taken]}); leave it out"
        )
    parameters = check_arguments(section, name, function, args, reserved=options)
    keywords = {key: value for key, value in options.items() if parameters is None or key in parameters} | dict(args)
    try:
        return function(*positional, **keywords)
    except (Exception, SystemExit) as error:
        arguments = ", ".join([*("..." for _ in positional), *(f"{key}={value!r}" for key, value in keywords.items())])
        raise ConfigError(
            f"{section}.name: {name}({arguments}) failed ({describe_failure(error)}); correct it or {section}.args"
        ) from error


def unknown_argument(owner: str, name: str, value: object, parameters: Iterable[str], key: str = "model.args") -> str:
    """The fault of an argument that a network (or what else `key` holds the arguments of) does not take."""
    names = list(parameters)
    suggestion = nearest(name, names)
    otherwise = f"{owner} takes {', '.join(names) or 'none'}"
    return f"{key}.{name}: no such argument of {owner} (given {value})" + hint(
        suggestion and f"{key}.{suggestion}", otherwise
    )
