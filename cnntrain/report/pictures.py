"""Pictures for TensorBoard, drawn with Pillow: a grid of captioned images, a confusion matrix as a heat map."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnntrain.report.letters import BACKGROUND, FAINT_INK, INK, RIGHT, WRONG, fit, length, write

SMALLEST_TILE, TILE_GAP, CAPTION, SMALL = 96, 8, 16, 12  # pixels
LARGEST_MAP, LARGEST_CELL, SMALLEST_LABELLED = 1000, 48, 12  # pixels; narrower cells share a name between them
LONGEST_NAME = 20  # characters
SMALLEST_MARGIN = 72  # pixels, for the words in the corner


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


def confusion(matrix: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.uint8]:
    """A heat map (H, W, 3) of counts (K, K): true classes down, predicted classes across, coloured by share of the row.

    Right answers, on the diagonal, are blue, and mistakes red. Counts are written where they fit; where there are many
    classes, every n-th has its name.
    """
    count = len(matrix)
    cell = max(1, min(LARGEST_CELL, LARGEST_MAP // count))
    side = count * cell
    letters = max(10, min(14, cell // 3))
    names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in classes]
    labelled = range(0, count, -(-SMALLEST_LABELLED // cell))
    margin = max(SMALLEST_MARGIN, 12 + int(max(length(name, letters) for name in names)))

    across, down = (Image.new("RGB", (margin, side), BACKGROUND) for _ in range(2))
    for index in labelled:
        middle = index * cell + cell // 2
        write(across, (6, middle), names[index], letters, anchor="lm")
        write(down, (margin - 6, middle), names[index], letters, anchor="rm")

    picture = Image.new("RGB", (margin + side + 12, margin + side + 12), BACKGROUND)
    picture.paste(across.transpose(Image.Transpose.ROTATE_90), (margin, 0))
    picture.paste(down, (0, margin))
    picture.paste(
        Image.fromarray(np.kron(_colours(matrix), np.ones((cell, cell, 1), dtype=np.uint8))), (margin, margin)
    )
    ImageDraw.Draw(picture).rectangle((margin - 1, margin - 1, margin + side, margin + side), outline=INK)
    write(picture, (margin - 6, 6), "predicted", letters, FAINT_INK, "ra")
    write(picture, (6, margin - 6), "true", letters, FAINT_INK, "ls")
    if length(str(matrix.max()), letters) <= cell - 4:
        _write_counts(picture, matrix, cell, margin, letters)
    return np.asarray(picture)


def _shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row divided by its sum; a class without images has zeros."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def _colours(matrix: NDArray[np.int64]) -> NDArray[np.uint8]:
    """RGB (K, K, 3): white at 0, full colour at 1; the square root lets a few mistakes be seen."""
    strength = np.sqrt(_shares(matrix))[..., None]
    right: NDArray[np.bool_] = np.eye(len(matrix), dtype=bool)[..., None]
    full = np.where(right, RIGHT, WRONG)
    return (255 + strength * (full - 255)).round().astype(np.uint8)


def _write_counts(picture: Image.Image, matrix: NDArray[np.int64], cell: int, margin: int, letters: int) -> None:
    shares = _shares(matrix)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        place = (margin + column * cell + cell / 2, margin + row * cell + cell / 2)
        ink = BACKGROUND if shares[row, column] > 0.3 else INK
        write(picture, place, str(matrix[row, column]), letters, ink, "mm")
