"""Where Hydra finds our files and the types of our settings."""

import copy
import functools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_repository import ConfigRepository, ObjectType
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathElement
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnntrain.config import overrides
from cnntrain.config.inherit import recipes_alike, register_recipe
from cnntrain.config.messages import VARIANTS
from cnntrain.config.paths import conf_dir, need_config_dir, own_options
from cnntrain.config.schema.data import DATASETS
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.titles import title_of

HOME = "hydra/cnntrain"  # of the types of our settings: below hydra/, which Hydra leaves out of help and completion
TYPES: dict[str, type] = {f"{HOME}/settings": Settings} | {
    f"{HOME}/{section}/{entry.name}": entry.settings
    for section, entries in VARIANTS.items()
    for entry in (*entries.values(), entries.user)
}
_contents: dict[tuple[str, str], Any] = {}  # of files of ours and of Hydra's, by place and name


def _title(group: str, option: str, *, _parent_: DictConfig) -> str:
    """What heads the runs of an option: a file of the user's by its name, one of ours by what it chooses."""
    if option not in own_options(group) and not option.startswith("for_"):
        return option
    with suppress(OmegaConfBaseException):  # of what is missing, and told as that
        if group == "model":
            return title_of(_parent_.name)
        entry, cwd = DATASETS.find(_parent_.name), str(HydraConfig.get().runtime.cwd)
        root = _parent_.root if entry and entry.is_users else ""
        return title_of(_parent_.name, os.path.join(cwd, root), is_users=bool(root))
    return option


OmegaConf.register_new_resolver("cnntrain.title", _title, replace=True)


@functools.cache
def register_type(path: str) -> None:
    """Give Hydra a type of our settings, by its place in TYPES; it takes 1 ms to read one, and a run needs three."""
    group, _, name = path.rpartition("/")
    ConfigStore.instance().store(group=group, name=name, node=TYPES[path])


class OnceRead(ConfigRepository):
    """Hydra's repository, which would read all files again for each composition, with one look at those of ours.

    The types of our settings, and recipes of data sets that are like others, are there when they are asked for.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnceRead":
        """Hydra copies it for each composition, to give the copy other folders; the types of our settings stay."""
        return copy.copy(self)

    def _find_object_source(self, config_path: str, object_type: ObjectType | None) -> ConfigSource | None:
        if config_path in TYPES:
            register_type(config_path)
        source = super()._find_object_source(config_path, object_type)
        if source is None and config_path in recipes_alike():
            register_recipe(config_path)
            return super()._find_object_source(config_path, object_type)
        return source

    def load_config(self, config_path: str) -> Any:
        """The content of a file; None where there is no such file."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.path not in (str(conf_dir()), "hydra.conf"):
            return super().load_config(config_path)
        place = (source.path, config_path)
        if place not in _contents:
            _contents[place] = super().load_config(config_path)
        return _contents[place]


def make_loader(config_dir: str | None = None) -> tuple[ConfigLoader, list[Path]]:
    """Hydra's loader over our conf/ and a folder of the user's, and these folders."""
    if config_dir is not None:
        need_config_dir(config_dir, overrides.GROUPS)
    folders = [conf_dir()]
    with initialize_config_dir(str(folders[0]), job_name="cnntrain", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    if config_dir is not None:
        folders.append(Path(config_dir).resolve())
        place = SearchPathElement("command-line", f"file://{folders[1]}")
        loader.config_search_path.get_path().insert(-1, place)  # the last one is that of our types
    loader.repository = OnceRead(config_search_path=loader.config_search_path)
    return loader, folders
