"""What is missing of the user's own images, found before torch is loaded."""

import importlib.util
import os
from pathlib import Path

from cnntrain.config.advice import shell_word, tables_in
from cnntrain.config.paths import absence, expand_path, is_hub_name, need_image_folder
from cnntrain.config.schema.data import DataSettings
from cnntrain.config.schema.titles import TABLES
from cnntrain.config.shards import find_shards
from cnntrain.errors import ConfigError, DataError
from cnntrain.text import hint, printable


def need_images(data: DataSettings) -> None:
    """Refuse images of the user's own that are not there.

    Raises:
        DataError: the folder, the file or the table is not what it should be.
        ConfigError: it takes a package that is not installed, or is an address of an unknown kind.
        UnsafeError: it is a command.
    """
    if not data.is_users:
        return
    root = expand_path(data.root)
    if data.is_hub:
        need_hub_data(data.root)
    elif data.is_table:
        need_table("data.root", root)
    elif data.is_shards:
        find_shards(data.root)
    else:
        (need_image_folder if data.has_files else need_array_file)(root)
    if data.images and not os.path.isdir(folder := expand_path(data.images)):
        what = absence(folder) or "is a file, not a folder"
        raise DataError(f"data.images: {printable(folder)} {what}; give the folder that the files of the table lie in")
    if data.split_file:
        need_table("data.split_file", expand_path(data.split_file))


def need_array_file(path: Path) -> None:
    """Refuse a `data.root` of arrays that is no file.

    Raises:
        DataError: so it is.
    """
    if what := absence(path) or ("is a folder, not a file" if os.path.isdir(path) else ""):
        raise DataError(f"data.root: {printable(path)} {what}; give the .npz file of the images and labels")


def need_hub_data(root: str) -> None:
    """Refuse a `data.root` that names no data set of the Hugging Face hub and no folder of one.

    Raises:
        ConfigError: the library that reads it is not installed.
        DataError: there is no such folder.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ConfigError("data: hf needs datasets, not installed here; pip install 'cnntrain[hf]'")
    path = expand_path(root)
    if is_hub_name(root):
        return
    if what := absence(path) or ("" if os.path.isdir(path) else "is a file, not a folder"):
        raise DataError(
            f"data.root: {printable(path)} {what}; give OWNER/NAME, as the Hugging Face hub has it, or a folder of "
            "such files"
        )


def need_table(key: str, path: Path, advice: str = "give a table of files, such as labels.csv") -> None:
    """Refuse a table that is not there, or that is of a kind that cannot be read.

    Args:
        advice: what to give in its place.

    Raises:
        DataError: so it is.
        ConfigError: it takes a package that is not installed.
    """
    if what := absence(path):
        raise DataError(f"{key}: {printable(path)} {what}; {advice}")
    if os.path.isdir(path):
        tables = [shell_word(key, table) for table in tables_in(path)]
        instead = hint(" or ".join(tables[:3]) if tables else None, advice)
        raise DataError(f"{key}: {printable(path)} is a folder, not a table{instead}")
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{key}: {printable(path)} is no table of a known kind; save it as one of {', '.join(TABLES)}")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"{key}: .parquet needs pyarrow, not installed here (given {printable(path)}); pip install pyarrow"
        )
