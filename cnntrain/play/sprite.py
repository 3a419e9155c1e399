"""Small pictures for the page, as text that an <img> takes."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnntrain.plots.sheet import Rgb

GAP, SIDE = 4, 48  # pixels between tiles, and of a side to which small ones are enlarged

OPAQUE = 255


def picture(pixels: NDArray[np.uint8]) -> str:
    """Pixels, uint8 (H, W, 3) or with transparency (H, W, 4), as the address of a PNG that holds them."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def mosaic(tiles: Sequence[Rgb], columns: int) -> str:
    """Tiles of one size side by side, in rows of some columns; between them one sees the page."""
    times = max(1, SIDE // max(tiles[0].shape[:2]))
    tiles = [tile.repeat(times, 0).repeat(times, 1) for tile in tiles]
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        sheet[top : top + height, left : left + width, :3] = tile
        sheet[top : top + height, left : left + width, 3] = OPAQUE
    return picture(sheet)
