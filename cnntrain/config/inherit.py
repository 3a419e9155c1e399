"""The recipes of a data file of the user's: those of the data set that it derives from, where it brings none itself."""

from collections.abc import Callable, Sequence

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import GroupDefault, InputDefault

_entries: list[tuple[str, str]] = []  # groups and options that the line before this one made


def inherit_recipes(folders: Sequence[str], options: Callable[[str], list[str]]) -> None:
    """Give each data file below the user's folders the options `for_NAME` and `recipe/NAME` of its base.

    Its base is the data set that its defaults list names, else the one of its `name`. Options that refer to those of
    the base go into Hydra's store, which its main function reads as well, and where a file of the user's comes first.

    Args:
        folders: as hydra.searchpath takes them.
        options: the options of a group.
    """
    for group, name in _entries:  # a store is for life, and another line may mean another file by the same name
        ConfigStore.instance().repo[group].pop(f"{name}.yaml", None)
    _entries.clear()
    if not folders:
        return
    bases = _bases(folders, options("data"))
    names = {group: set(options(group)) for group in ("model", "augment", "schedule", "recipe")} if bases else {}
    for name in bases:
        line = _line(name, bases)
        patterns = [(group, "for_{}") for group in ("model", "augment", "schedule")]
        patterns += [("recipe", "{}"), *(("recipe", f"{optimizer}_{{}}") for optimizer in options("optimizer"))]
        for group, pattern in patterns:
            base = next((one for one in line if pattern.format(one) in names[group]), name)
            if base != name:
                package = "_global_" if (group, pattern) == ("recipe", "{}") else None  # as the file itself has it
                node = {"defaults": [pattern.format(base)]}
                ConfigStore.instance().store(pattern.format(name), node, group, package)
                _entries.append((group, pattern.format(name)))


def _bases(folders: Sequence[str], data_sets: Sequence[str]) -> dict[str, str]:
    """Of each data file the data set that it derives from, where there is one."""
    path = ConfigSearchPathImpl()
    for folder in folders:
        path.append(provider="user", path=folder)
    files = ConfigRepository(path)
    bases = {}
    for name in files.get_group_options("data"):
        try:
            content = files.load_config(f"data/{name}")
        except Exception:  # Hydra's and YAML's own errors, which composing tells with their place
            continue
        assert content is not None
        names = [*map(_option, content.defaults_list or []), str(content.config.get("name"))]
        if base := next((one for one in names if one in data_sets and one != name), None):
            bases[name] = base
    return bases


def _option(default: InputDefault) -> str | None:
    """The data set that an entry of the defaults list of a data file names."""
    if isinstance(default, GroupDefault):
        return str(default.value) if str(default.group).strip("/") == "data" else None
    path = str(getattr(default, "path", ""))
    return path.removeprefix("/data/")


def _line(name: str, bases: dict[str, str]) -> list[str]:
    """A data file, its base, the base of that one, and so on."""
    line = [name]
    while (base := bases.get(line[-1])) and base not in line:
        line.append(base)
    return line
