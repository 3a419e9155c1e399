"""The recipes of a data file: those of the data set that it derives from, or is like, where it brings none itself."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import GroupDefault, InputDefault

from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.data import DATASETS
from cnntrain.config.schema.optimizer import OPTIMIZERS

_entries: list[tuple[str, str]] = []  # groups and options that the line before this one made


@functools.cache
def recipes_alike() -> Mapping[str, str]:
    """The options `for_NAME` and `recipe/NAME` of our data sets that are like another one, and its options."""
    names = {entry.name: entry.like for entry in DATASETS.values() if entry.like}
    files = {base: [place for place in _patterns(OPTIMIZERS) if _is_file(*place, base)] for base in names.values()}
    return {
        f"{group}/{pattern.format(name)}": pattern.format(base)
        for name, base in names.items()
        for group, pattern in files[base]
        if not _is_file(group, pattern, name)
    }


def register_recipe(path: str) -> None:
    """Give Hydra one of `recipes_alike`, of which there must be no file of the user's."""
    group, _, name = path.rpartition("/")
    _store(group, name, recipes_alike()[path], is_global=not name.startswith("for_") and name in DATASETS)


def _patterns(optimizers: Iterable[str]) -> list[tuple[str, str]]:
    """The groups that a data set may bring an option of, and the name of that."""
    parts = [(group, "for_{}") for group in ("model", "augment", "schedule")]
    return [*parts, ("recipe", "{}"), *(("recipe", f"{optimizer}_{{}}") for optimizer in optimizers)]


def _is_file(group: str, pattern: str, name: str) -> bool:
    return (conf_dir() / group / f"{pattern.format(name)}.yaml").is_file()


def _store(group: str, name: str, base: str, *, is_global: bool) -> None:
    package = "_global_" if is_global else None  # as the file of the base has it
    ConfigStore.instance().store(name, {"defaults": [base]}, group, package)


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
    alike = {entry.name: entry.like for entry in DATASETS.values() if entry.like}
    for name in bases:
        line = _line(name, alike | bases)
        for group, pattern in _patterns(options("optimizer")):
            base = next((one for one in line if pattern.format(one) in names[group]), name)
            if base != name:
                _store(group, pattern.format(name), pattern.format(base), is_global=pattern == "{}")
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
