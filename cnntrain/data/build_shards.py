"""Images in shards to the three splits."""

from collections.abc import Mapping

from cnntrain.data.build_files import load_splits
from cnntrain.data.common import Data, Request, choose_classes
from cnntrain.data.folder import align
from cnntrain.data.loaders import Loader
from cnntrain.data.sources import find_source
from cnntrain.errors import DataError
from cnntrain.text import printable


def image_shards(request: Request) -> tuple[Data, Mapping[str, Loader]]:
    """The data without its training images, and the loaders of all splits that were asked for. See build_data."""
    settings = request.settings
    found = request.world.once_here("scan", lambda: find_source(settings, request.classes, request.say))
    scans = found.scans
    if "train" not in scans and "train" in request.splits:
        what = f"{found.table} puts no image into train" if found.table else "all are of val or test, by their names"
        raise DataError(f"data.root: {printable(settings.root)}: {what}; give shards to train on")
    first_scan = next(iter(scans.values()))
    classes = request.classes or choose_classes([*first_scan.classes, *first_scan.left_out], request)
    splits = {name: align(part, classes, name, allow_missing=True) for name, part in scans.items()}
    return load_splits(splits, classes, request, found)
