"""The catalogue: what each network of conf/model/ costs, counted once and stored, so that it is told without torch.

Our own networks have their figures in their entries (NETWORKS); those of the other files stand in catalogue.csv. Counts
are for the classes, channels and image size of the data that a network was made for, mostly ImageNet.
"""

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cnntrain.config.schema.networks import NETWORKS

FILE = Path(__file__).with_suffix(".csv")
COLUMNS = ("name", "parameters", "macs", "image_size", "year", "source")  # that are shown


@dataclass(frozen=True)
class Figures:
    """Those of one network.

    Attributes:
        name: its file in conf/model/.
        parameters: numbers that it learns, without auxiliary heads.
        macs: multiply-adds for one image.
        classes: of the data that it was made for, as are the next two.
        channels: 1 or 3.
        image_size: pixels a side.
        year: of its first publication.
        source: arXiv identifier, or author and year.
    """

    name: str
    parameters: int
    macs: int
    classes: int
    channels: int
    image_size: int
    year: int
    source: str


def stored() -> dict[str, Figures]:
    """Those of catalogue.csv: networks of the libraries, and files of conf/model/ that set up another network."""
    kinds: dict[str, Any] = {item.name: item.type for item in fields(Figures)}
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["name"]: Figures(**{key: kind(row[key]) for key, kind in kinds.items()}) for row in rows}


def catalogue() -> dict[str, Figures]:
    """All networks with a count, by name."""
    keys = [item.name for item in fields(Figures)]
    own = {name: Figures(**{key: getattr(entry, key) for key in keys}) for name, entry in NETWORKS.items()}
    return dict(sorted((own | stored()).items()))


def short(count: int, space: str = "") -> str:
    """A count in three digits and a unit: `714M`, `61.1M`, `1.85G`."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if count >= 999.5 * 10 ** (power - 3):
            whole = len(str(round(count, 3 - len(str(count))) // 10**power))
            return f"{count / 10**power:.{max(0, 3 - whole)}f}{space}{unit}"
    return str(count)
