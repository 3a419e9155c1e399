"""Where the files of a data set come from: a folder, a table, shards, a hub; and what decides their splits."""

from collections.abc import Callable, Collection

from cnntrain.config.paths import expand_path, is_archive
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.archive import unpacked
from cnntrain.data.hub import find_in_hub
from cnntrain.data.layout import find_splits
from cnntrain.data.pack import Found, find_images, open_pack
from cnntrain.data.shards import find_in_shards
from cnntrain.data.split_file import apply_split_file
from cnntrain.data.table_images import find_in_table


def find_source(settings: DataSettings, known: Collection[str] | None, say: Callable[[str], object] = print) -> Found:
    """Find the images of all splits.

    Args:
        known: the classes of a trained network; None: any may be there.
        say: takes lines of progress.

    Raises:
        DataError: see `find_images`, `find_in_table`, `find_in_shards` and `apply_split_file`.
    """
    if settings.is_table:
        found = find_in_table(settings, known)
    elif settings.is_shards:
        found = find_in_shards(settings, known, say)
    elif settings.is_hub:
        found = find_in_hub(settings, known, say)
    else:
        found = find_images(expand_path(settings.root), settings.classes, settings.classes or known, say)
    return apply_split_file(found, settings.split_file) if settings.split_file else found


def splits_of(settings: DataSettings) -> set[str]:
    """The names of the splits; of a folder, its images are not listed for that."""
    if settings.split_file or settings.is_table or settings.is_shards or settings.is_hub:
        return set(find_source(settings, None).scans)
    root = expand_path(settings.root)
    root = unpacked(root, print) if is_archive(root) else root
    layout = pack.layout if (pack := open_pack(root)) else find_splits(root, settings.classes)
    return set(layout.folders)
