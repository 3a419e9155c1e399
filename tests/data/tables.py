"""Images in one pile, and tables of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import ColumnSettings, DataSettings
from cnntrain.data.build import build_data, build_eval_data

CLASSES = ("cat", "dog")


def pile(folder: Path, count: int = 8, suffix: str = ".png") -> list[str]:
    """The names of flat pictures 0.png, 1.png, ...; those with an even number are dark, as if of cats."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}{suffix}" for number in range(count)]
    for number, name in enumerate(names):
        grey = np.full((12, 12, 3), 200 * (number % 2) + number % 40, np.uint8)
        Image.fromarray(grey).save(folder / name)
    return names


def label(number: int) -> str:
    return CLASSES[number % 2]


def write(path: Path, header: str, *rows: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in (header, *rows)))
    return path


def labelled(folder: Path, count: int = 8, header: str = "file,label") -> Path:
    """A pile in `folder` and its table, labels.csv."""
    return write(folder / "labels.csv", header, *(f"{name},{label(i)}" for i, name in enumerate(pile(folder, count))))


def build(table: Path, **arguments: Any) -> Any:
    """The data of a table; with `splits` those that a network of the classes `known` is scored on."""
    settings: dict[str, Any] = {"name": "table", "root": str(table), "image_size": 8, "workers": 0, "batch_size": 4}
    settings |= {"mean": [0.5], "std": [0.5]}
    options: dict[str, Any] = {"seed": arguments.pop("seed", 0), "device": torch.device("cpu"), "say": print}
    if "splits" in arguments:
        options |= {"classes": arguments.pop("known"), "splits": arguments.pop("splits")}
    if "columns" in arguments:
        arguments["columns"] = ColumnSettings(**arguments["columns"])
    chosen = DataSettings(**settings | arguments)
    if "splits" in options:
        return build_eval_data(chosen, **options)
    return build_data(chosen, AugmentSettings(), **options)


def names(loader: Any) -> list[str]:
    """The files of a split, without their folders."""
    return [Path(loader.name(index)).name for index in range(len(loader.labels))]


def is_right(loader: Any, classes: list[str]) -> bool:
    """Whether each image has the label that its pixels show."""
    return all(
        classes[int(one)] == CLASSES[int(image.float().mean() > 100)]
        for images, labels, *_ in loader.batches()
        for image, one in zip(images, labels, strict=True)
    )
