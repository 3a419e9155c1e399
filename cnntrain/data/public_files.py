"""Public data sets of image files, which torchvision fetches: the class and the split of each file."""

import csv
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from cnntrain.data import public
from cnntrain.data.build_files import load_splits
from cnntrain.data.common import Data, Request, choose_classes
from cnntrain.data.folder import FolderSplit, align, scan
from cnntrain.data.layout import folders_in, split_of
from cnntrain.data.loaders import Loader
from cnntrain.data.paths import Paths
from cnntrain.data.public import Place
from cnntrain.errors import CnntrainError, DataError
from cnntrain.text import cut, one_line, printable

Splits = dict[str, FolderSplit]
Rows = list[tuple[str, str]]  # of each image its class, and its path below the folder of the data set
SPLITS = ("train", "val", "test")
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def files(request: Request) -> tuple[Data, Mapping[str, Loader]]:
    """The data without its training images, and the loaders of all splits that were asked for. See build_data.

    Raises:
        ConfigError: a package that it needs is not installed.
        DataError: absent, damaged, or not to be had over the network.
        FileSystemError: a download that cannot be written.
    """
    place = public.find(request)
    parts = request.world.once_here("scan", lambda: _list(place))
    classes = request.classes or choose_classes(parts["train"].classes, request)
    if request.settings.classes is not None:
        parts = {split: part.select_classes(request.settings.classes) for split, part in parts.items()}
    allow = request.classes is not None
    splits = {split: align(part, classes, split, allow_missing=allow) for split, part in parts.items()}
    return load_splits(splits, classes, request)


def _list(place: Place) -> Splits:
    """The files of all splits, as the data set itself parts them."""
    try:
        parts = _READERS[place.name](place)
        splits = {
            split: part if isinstance(part, FolderSplit) else _split(place, part) for split, part in parts.items()
        }
    except CnntrainError:
        raise
    except ModuleNotFoundError as error:
        raise public.lack_of(error, place) from None
    except Exception as error:  # of lists that are damaged or missing, anything from KeyError to what SciPy raises
        reason = cut(printable(one_line(error)), 160)
        raise DataError(f"{printable(place.folder)}: {place.name} is damaged ({reason}); {place.renew}") from None
    if "train" not in splits:
        raise DataError(f"{printable(place.folder)}: {place.name} has no images to train on; {place.renew}")
    return splits


def _split(place: Place, rows: Rows) -> FolderSplit:
    """The images of a split, sorted by class and path.

    Raises:
        DataError: a file is missing.
        ValueError: there are none.
    """
    if not rows:
        raise ValueError("a list of images is empty")
    classes = sorted({name for name, _ in rows})
    numbers = {name: number for number, name in enumerate(classes)}
    sizes, missing = [], []
    rows = sorted(rows)
    for _, path in rows:
        try:
            sizes.append(os.stat(place.folder / path).st_size)
        except OSError:
            missing.append(path)
    if missing:
        first = printable(place.folder / missing[0])
        others = f" and {len(missing) - 1:,} other files" if missing[1:] else ""
        raise DataError(f"{first}{others} of {place.name} cannot be found; {place.renew}")
    paths = Paths.join(place.folder, [os.fsencode(path) for _, path in rows])
    labels = torch.tensor([numbers[name] for name, _ in rows])
    return FolderSplit(classes, paths, labels, torch.tensor(sizes))


# --- the readers: of train, val and test those that are there --------------------------------------------------------


def _folders(place: Place) -> Splits:
    """A folder for each split, of class folders."""
    names = {split_of(name): name for name in folders_in(place.folder)}
    return {split: scan(place.folder / names[split], split) for split in SPLITS if split in names}


def _whole(place: Place) -> Splits:
    """Class folders without splits."""
    return {"train": scan(place.folder, "train")}


def _imagenette(place: Place) -> Splits:
    parts = _folders(place)
    return {split: replace(part, classes=[IMAGENETTE[name] for name in part.classes]) for split, part in parts.items()}


def _caltech101(place: Place) -> Splits:
    """Without the folder of pictures that are of no class."""
    names = set(folders_in(place.folder)) - {"BACKGROUND_Google"}
    return {"train": replace(scan(place.folder, "train", names), left_out=[])}


def _gtsrb(place: Place) -> dict[str, FolderSplit | Rows]:
    """Class folders to train on, a table for the test images."""
    with (place.folder / "GT-final_test.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter=";", skipinitialspace=True))
    home = "GTSRB/Final_Test/Images"
    test = [(f"{int(row['ClassId']):05}", f"{home}/{row['Filename']}") for row in rows]
    return {"train": scan(place.folder / "GTSRB" / "Training", "train"), "test": test}


def _flowers102(place: Place) -> dict[str, Rows]:
    """The classes and the parts are arrays of MATLAB's, and the names stand in torchvision alone."""
    from scipy.io import loadmat

    names = place.kind.classes
    labels = loadmat(place.folder / "imagelabels.mat", squeeze_me=True)["labels"]
    numbers = loadmat(place.folder / "setid.mat", squeeze_me=True)
    parts = {"train": "trnid", "val": "valid", "test": "tstid"}
    return {
        split: [(names[labels[number - 1] - 1], f"jpg/image_{number:05}.jpg") for number in numbers[key].tolist()]
        for split, key in parts.items()
    }


def _pets(place: Place) -> dict[str, Rows]:
    def rows(file: str) -> Rows:
        images = [line.split()[0] for line in _lines(place.folder / "annotations" / file)]
        return [(image.rpartition("_")[0].replace("_", " ").title(), f"images/{image}.jpg") for image in images]

    return {"train": rows("trainval.txt"), "test": rows("test.txt")}


def _dtd(place: Place) -> dict[str, Rows]:
    number = place.args["partition"]
    lists = {split: _lines(place.folder / "labels" / f"{split}{number}.txt") for split in SPLITS}
    return {split: [(line.partition("/")[0], f"images/{line}") for line in lines] for split, lines in lists.items()}


def _food101(place: Place) -> dict[str, Rows]:
    def rows(split: str) -> Rows:
        images: dict[str, list[str]] = json.loads((place.folder / "meta" / f"{split}.json").read_text(encoding="utf-8"))
        return [(name, f"images/{image}.jpg") for name, part in images.items() for image in part]

    return {split: rows(split) for split in ("train", "test")}


def _fgvc_aircraft(place: Place) -> dict[str, Rows]:
    def rows(split: str) -> Rows:
        lines = _lines(place.folder / "data" / f"images_{place.args['annotation_level']}_{split}.txt")
        pairs = [line.split(maxsplit=1) for line in lines]
        return [(name, f"data/images/{image}.jpg") for image, name in pairs]

    return {split: rows(split) for split in SPLITS}


def _sun397(place: Place) -> dict[str, Rows]:
    """Scenes in folders by their first letter, some parted further: `c/cathedral/indoor`."""
    files = [file.relative_to(place.folder) for file in place.folder.rglob("sun_*.jpg")]
    return {"train": [("/".join(file.parts[1:-1]), str(file)) for file in files]}


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


_READERS: dict[str, Callable[[Place], Mapping[str, FolderSplit | Rows]]] = {
    "imagenette": _imagenette,
    "flowers102": _flowers102,
    "pets": _pets,
    "dtd": _dtd,
    "food101": _food101,
    "eurosat": _whole,
    "gtsrb": _gtsrb,
    "fgvc_aircraft": _fgvc_aircraft,
    "caltech101": _caltech101,
    "caltech256": _whole,
    "country211": _folders,
    "sun397": _sun397,
    "rendered_sst2": _folders,
}
