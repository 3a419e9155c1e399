"""Folders of made-up photos in which faults are planted, for what looks for them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Clouds of colour whose power falls with the frequency as that of photos does; of two seeds nothing is alike."""
    random = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width
    height_of = 1 / np.maximum(np.hypot(down, across), 1) ** 1.1
    shape = (3, height, width // 2 + 1)
    waves = (random.normal(size=shape) + 1j * random.normal(size=shape)) * height_of
    waves[1:] = 0.7 * waves[:1] + 0.5 * waves[1:]  # colours go together
    pixels = np.fft.irfft2(waves, (height, width))
    pixels = 128 + 50 * (pixels - pixels.mean((1, 2), keepdims=True)) / pixels.std((1, 2), keepdims=True)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def as_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def cut(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """A part of an image: left, top, right and lower end as shares of its sides."""
    width, height = image.size
    return image.crop((round(box[0] * width), round(box[1] * height), round(box[2] * width), round(box[3] * height)))


def plant(root: Path, splits: dict[str, dict[str, range]]) -> None:
    """Photos of the seeds by split and class, as JPEG files named after them."""
    for split, classes in splits.items():
        for name, seeds in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for seed in seeds:
                (folder / f"{seed}.jpg").write_bytes(as_jpeg(photo(seed)))
