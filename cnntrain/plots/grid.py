"""A grid of captioned images for TensorBoard, drawn with Pillow."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnntrain.plots.drawing import BACKGROUND, fit, write

SMALLEST_TILE, TILE_GAP, CAPTION, SMALL = 96, 8, 16, 12  # pixels


def grid(images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
    """An RGB picture (H, W, 3) of images (N, C, S, S), uint8, C 1 or 3, each above its caption; small ones enlarged.

    A caption may have several lines.
    """
    count, _, height, width = images.shape
    lines = [caption.split("\n") for caption in captions]
    scale = max(1, -(-SMALLEST_TILE // min(height, width)))
    tile_width, tile_height = width * scale + TILE_GAP, height * scale + TILE_GAP + CAPTION * max(map(len, lines))
    columns = min(count, 8)
    picture = Image.new(
        "RGB", (columns * tile_width + TILE_GAP, -(-count // columns) * tile_height + TILE_GAP), BACKGROUND
    )
    for index, (image, caption) in enumerate(zip(images, lines, strict=True)):
        left, top = TILE_GAP + index % columns * tile_width, TILE_GAP + index // columns * tile_height
        rgb = np.broadcast_to(image, (3, height, width)).transpose(1, 2, 0)
        tile = Image.fromarray(np.ascontiguousarray(rgb))
        picture.paste(tile.resize((width * scale, height * scale), Image.Resampling.NEAREST), (left, top))
        for number, line in enumerate(caption):
            place = (left, top + height * scale + 1 + number * CAPTION)
            write(picture, place, fit(line, width * scale, SMALL), SMALL)
    return np.asarray(picture)
