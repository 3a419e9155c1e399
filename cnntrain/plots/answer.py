"""The most probable classes of an image as bars, drawn with Pillow."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cnntrain.plots.drawing import BACKGROUND, FAINT_INK, INK, RIGHT, WRONG, fit, write
from cnntrain.plots.sheet import Rgb
from cnntrain.text import percent

TEXT, LINE, BAR = 12, 40, 8  # pixels: the height of letters, from one class to the next, the height of a bar
TRACK = (232, 232, 232)


def answer_tile(answers: Sequence[tuple[str, float, bool]], side: int, given: float | None = None) -> Rgb:
    """The name and probability (0..1) of each class with a bar, blue where it is the true one, on `side` pixels.

    Args:
        given: of sets of labels, the probability from which on a class is said to be there; None: the first one is.
    """
    tile = Image.new("RGB", (side, side), BACKGROUND)
    draw = ImageDraw.Draw(tile)
    for number, (name, probability, is_right) in enumerate(answers):
        top, is_given = number * LINE + 2, number == 0 if given is None else probability >= given
        color = RIGHT if is_right else WRONG if is_given else FAINT_INK
        write(tile, (0, top), fit(name, side - 50, TEXT), TEXT)
        write(tile, (side - 1, top), percent(probability), TEXT, INK, "ra")
        bar = top + TEXT + 5
        draw.rectangle((0, bar, side - 1, bar + BAR), fill=TRACK)
        if width := round(probability * side):
            draw.rectangle((0, bar, width - 1, bar + BAR), fill=color)
    return np.asarray(tile)
