"""Shards as the webdataset library writes them, made by tarfile alone, and the data in them."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings
from cnntrain.data.build import build_data, build_eval_data
from cnntrain.errors import DataErrors

Members = Sequence[tuple[str, bytes]]  # in their order; a name may be there twice


def picture(number: int) -> bytes:
    """A flat picture; those with an even number are dark, and no two are the same."""
    content = io.BytesIO()
    grey = np.full((12, 12, 3), 200 * (number % 2) + number % 40, np.uint8)
    grey[:2, :2, 0] = number // 40
    Image.fromarray(grey).save(content, "PNG")
    return content.getvalue()


def write_tar(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(numbers: Sequence[int], labels: Mapping[int, Mapping[str, bytes]] | None = None) -> list[tuple[str, bytes]]:
    """Pictures and their labels, 0 and 1 in turn; or other members beside some of them."""
    members = []
    for number in numbers:
        members.append((f"{number:04d}.png", picture(number)))
        beside = {"cls": str(number % 2).encode()} if labels is None or number not in labels else labels[number]
        members += [(f"{number:04d}.{suffix}", content) for suffix, content in beside.items()]
    return members


def write_shards(folder: Path, shards: int = 4, count: int = 6, name: str = "{:03d}.tar") -> Path:
    """Shards of so many pictures each; the folder."""
    for shard in range(shards):
        write_tar(folder / name.format(shard), samples(range(shard * count, (shard + 1) * count)))
    return folder


def build(root: Path | str, **arguments: Any) -> Any:
    """The data of shards; with `splits` those that a network of the classes `known` is scored on."""
    settings: dict[str, Any] = {"name": "webdataset", "root": str(root), "image_size": 8, "workers": 0, "batch_size": 4}
    settings |= {"mean": [0.5], "std": [0.5]}
    options: dict[str, Any] = {"seed": arguments.pop("seed", 0), "device": torch.device("cpu"), "say": print}
    if "splits" in arguments:
        options |= {"classes": arguments.pop("known"), "splits": arguments.pop("splits")}
        return build_eval_data(DataSettings(**settings | arguments), **options)
    return build_data(DataSettings(**settings | arguments), AugmentSettings(), **options)


def faults(root: Path | str, **arguments: Any) -> list[str]:
    """What is wrong with shards, a line each, without the folder that they lie in."""
    with pytest.raises(DataErrors) as caught:
        build(root, **arguments)
    return [line.replace(f"{root}/", "") for line in caught.value.lines()]


def labelled(folder: Path, *contents: dict[str, bytes]) -> Path:
    """One shard, whose samples have these members beside their picture."""
    write_tar(folder / "0.tar", samples(range(len(contents)), dict(enumerate(contents))))
    return folder


def names(loader: Any) -> list[str]:
    """The images of a split, by shard and key."""
    return ["/".join(Path(loader.name(index)).parts[-2:]) for index in range(len(loader.labels))]


def is_right(loader: Any, dark: int = 0) -> bool:
    """Whether each image has the label that its pixels show; `dark` is that of the dark ones."""
    return all(
        int(one) == (1 - dark if image.float().mean() > 100 else dark)
        for images, labels, *_ in loader.batches()
        for image, one in zip(images, labels, strict=True)
    )
