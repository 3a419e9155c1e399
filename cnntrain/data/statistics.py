"""Mean and standard deviation per channel, on the 0..1 scale."""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from cnntrain.config.paths import cache_dir
from cnntrain.storage.atomic import read_kept, write_kept

Statistics = tuple[list[float], list[float]]


def compute(images: Tensor) -> Statistics:
    """Statistics of uint8 images (N, C, H, W); a flat channel gets one grey level as its deviation, never zero."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        # A histogram is exact and needs no float copy of the images.
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        centre = float((share * levels).sum())
        mean.append(centre)
        std.append(max(float((share * (levels - centre) ** 2).sum().sqrt()), 1 / 255))
    return mean, std


def cache_file(*parts: object) -> Path:
    """The file of the statistics that belong to `parts`: in the user's cache, never beside the images."""
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    return cache_dir() / "statistics" / f"{key}.json"


def load(file: Path, channels: int) -> Statistics | None:
    """Cached statistics, or None where there are none or they do not fit."""
    try:
        content = json.loads(read_kept(file))
        mean, std = [float(x) for x in content["mean"]], [float(x) for x in content["std"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    are_levels = all(0 <= x <= 1 for x in mean) and all(0 < x <= 1 for x in std)
    return (mean, std) if len(mean) == len(std) == channels and are_levels else None


def save(file: Path, statistics: Statistics) -> None:
    """Cache statistics."""
    write_kept(file, json.dumps({"mean": statistics[0], "std": statistics[1]}))
