"""Functions of the user, named `package.module:function` by a `name` beside their `args`."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cnntrain.errors import ConfigError
from cnntrain.text import hint, nearest, one_line

SHOWN = 12  # functions of a module that lacks the one that was named


def find(section: str, name: str) -> Callable[..., Any]:
    """What `package.module:function` names; the current folder is searched first, as `python -m` does.

    Afterwards the folder is searched last: a `random.py` beside the user's function is not what torch imports by it.

    Args:
        section: of the config, whose `name` it is: `model`.

    Raises:
        ConfigError: no such module or function.
    """
    module_name, _, attribute = name.partition(":")
    here = os.getcwd()
    if new := here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module can fail with anything
        raise ConfigError(
            f"{section}.name: cannot import {module_name!r} of {name} ({one_line(error)}); "
            f"it must lie in the current folder {here} or be installed"
        ) from error
    finally:
        if new and here in sys.path:
            sys.path.remove(here)
            sys.path.append(here)
    function: Callable[..., Any] | None = getattr(module, attribute, None)
    if function is None:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        where = module.__file__ or module_name
        some = ", ".join(functions[:SHOWN]) + (" ..." if len(functions) > SHOWN else "")
        advice = hint(nearest(attribute, functions), f"it has {some or 'no function at all'}")
        raise ConfigError(f"{section}.name: {where} has no {attribute!r}{advice}")
    if not callable(function):
        raise ConfigError(
            f"{section}.name: {name} is of type {type(function).__name__}; it must be a function or class"
        )
    return function


def check_arguments(section: str, name: str, function: Callable[..., Any], args: Mapping[str, Any]) -> list[str] | None:
    """The names of the function's parameters; None if it takes any keyword.

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
            raise ConfigError(unknown_argument(name, key, value, parameters, f"{section}.args"))
    return list(parameters)


def call(section: str, name: str, offered: Mapping[str, Any], args: Mapping[str, Any]) -> Any:
    """Call a user's function with `args` and with what it accepts of `offered`; `args` wins.

    Raises:
        ConfigError: no such function, an argument that it does not have, or it failed.
    """
    function = find(section, name)
    known = check_arguments(section, name, function, args)
    accepted = {key: value for key, value in offered.items() if known is None or key in known} | dict(args)
    try:
        return function(**accepted)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in accepted.items())
        raise ConfigError(
            f"{section}.name: {name}({given}) failed ({one_line(error)}); correct it or {section}.args"
        ) from error


def unknown_argument(owner: str, name: str, given: object, known: Iterable[str], key: str = "model.args") -> str:
    """The fault of an argument that a network (or what else `key` holds the arguments of) does not take."""
    names = list(known)
    meant = nearest(name, names)
    otherwise = f"{owner} takes {', '.join(names) or 'none'}"
    return f"{key}.{name}: no such argument of {owner} (given {given})" + hint(meant and f"{key}.{meant}", otherwise)
