"""An image, the kernel that was laid over it, and the result, side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnntrain.plots.drawing import BACKGROUND, FAINT_INK, INK, RIGHT, WRONG, length, write

USUAL_SIDE, LONGEST_SIDE = 480, 1000  # pixels; smaller images are enlarged, larger ones reduced
KERNEL_SIDE, SMALLEST_WRITTEN = 160, 24  # pixels of a kernel, and of a cell that has its number in it
GAP, LINE, TEXT = 20, 20, 14  # pixels
SMALLEST_RULED = 8  # pixels of a cell with lines around it
FRAME = (200, 200, 200)


def beside(
    original: NDArray[np.uint8],
    kernels: Sequence[list[list[float]]],
    result: NDArray[np.uint8],
    captions: Sequence[Sequence[str]],
) -> NDArray[np.uint8]:
    """An RGB picture (H, W, 3) of three columns, each with its caption below.

    Images that are small are enlarged, each pixel a square; large ones are reduced, which the caption says.

    Args:
        original: uint8 (H, W, 3); result: uint8 (H', W', 1 or 3).
        kernels: one or more of rows of weights, drawn below each other: positive weights blue, negative ones red.
        captions: lines for the original, the kernel and the result.
    """
    first, side, note = _at_a_good_size(original, USUAL_SIDE)
    last, _, last_note = _at_a_good_size(result, side)
    tiles = [first, _stack([_draw_kernel(kernel) for kernel in kernels]), last]
    lines = [[*captions[0], *note], captions[1], [*captions[2], *last_note]]
    widths = [
        max(tile.width, *(int(length(line, TEXT)) + 1 for line in text))
        for tile, text in zip(tiles, lines, strict=True)
    ]
    height = max(tile.height for tile in tiles)
    size = (sum(widths) + GAP * (len(tiles) + 1), height + 2 * GAP + LINE * max(map(len, lines)))
    picture = Image.new("RGB", size, BACKGROUND)
    pen, place = ImageDraw.Draw(picture), GAP
    for tile, text, width in zip(tiles, lines, widths, strict=True):
        left, top = place + (width - tile.width) // 2, GAP + (height - tile.height) // 2
        picture.paste(tile, (left, top))
        pen.rectangle((left - 1, top - 1, left + tile.width, top + tile.height), outline=FRAME)
        for number, line in enumerate(text):
            at = (place + width // 2, GAP + height + LINE * (number + 1))
            write(picture, at, line, TEXT, FAINT_INK if number else INK, "ms")
        place += width + GAP
    return np.asarray(picture)


def _at_a_good_size(pixels: NDArray[np.uint8], side: int) -> tuple[Image.Image, int, list[str]]:
    """The image with its longer side near `side`, that side, and a note where it was reduced."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3))))
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        share = LONGEST_SIDE / longest
        small = image.resize((max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.BOX)
        return small, LONGEST_SIDE, [f"shown at {100 * share:.0f} %"]
    scale = max(1, round(side / longest))
    return image.resize((width * scale, height * scale), Image.Resampling.NEAREST), longest * scale, []


def _draw_kernel(weights: list[list[float]]) -> Image.Image:
    kernel = np.array(weights, dtype=np.float64)
    rows, columns = kernel.shape
    cell = max(1, KERNEL_SIDE // max(rows, columns))
    strength = np.abs(kernel / (np.abs(kernel).max() or 1))[..., None]
    full = np.where(kernel[..., None] > 0, RIGHT, WRONG)
    colors = (255 + strength * (full - 255)).round().astype(np.uint8)
    picture = Image.fromarray(np.kron(colors, np.ones((cell, cell, 1), dtype=np.uint8)))
    pen = ImageDraw.Draw(picture)
    if cell >= SMALLEST_RULED:
        for place in range(cell, max(rows, columns) * cell, cell):
            pen.line((place, 0, place, picture.height), fill=FRAME)
            pen.line((0, place, picture.width, place), fill=FRAME)
    words = [[f"{value:.2g}" for value in row] for row in weights]
    if cell < SMALLEST_WRITTEN or max(length(word, TEXT) for row in words for word in row) > cell - 4:
        return picture
    for row, column in np.ndindex(rows, columns):
        ink = BACKGROUND if strength[row, column] > 0.5 else INK
        at = (column * cell + cell / 2, row * cell + cell / 2)
        write(picture, at, words[row][column], TEXT, ink, "mm")
    return picture


def _stack(tiles: Sequence[Image.Image]) -> Image.Image:
    """The images below each other."""
    width = max(tile.width for tile in tiles)
    picture = Image.new("RGB", (width, sum(tile.height for tile in tiles) + GAP * (len(tiles) - 1)), BACKGROUND)
    top = 0
    for tile in tiles:
        picture.paste(tile, ((width - tile.width) // 2, top))
        top += tile.height + GAP
    return picture
