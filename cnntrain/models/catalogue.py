"""The catalogue: what each network of conf/model/ costs, counted once and stored, so that it is told without torch.

Counts are for 1,000 classes and three channels at the image size of the paper; for networks born on MNIST or CIFAR
(settings.nets.NATIVE) for the classes, channels and size of that data set.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".csv")
COLUMNS: dict[str, Any] = {
    "name": str,
    "parameters": int,
    "macs": int,
    "image_size": int,
    "year": int,
    "source": str,
}


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        name: its file in conf/model/.
        parameters: numbers that it learns, without auxiliary heads.
        macs: multiply-adds for one image.
        image_size: pixels a side.
        year: of its first publication.
        source: arXiv identifier, or author and year.
    """

    name: str
    parameters: int
    macs: int
    image_size: int
    year: int
    source: str


def catalogue() -> dict[str, Entry]:
    """All networks with a stored count, by name."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["name"]: Entry(*(kind(row[key]) for key, kind in COLUMNS.items())) for row in rows}


def short(count: int, space: str = "") -> str:
    """A count in three digits and a unit: `714M`, `61.1M`, `1.85G`."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if count >= 999.5 * 10 ** (power - 3):
            whole = len(str(round(count, 3 - len(str(count))) // 10**power))
            return f"{count / 10**power:.{max(0, 3 - whole)}f}{space}{unit}"
    return str(count)
