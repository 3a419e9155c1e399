"""What the policies choose from: operations, ranges of magnitudes and AutoAugment's learned pairs.

Names, ranges and their meaning are torchvision's, so that a recipe written for it gives the same images here.
"""

from dataclasses import dataclass

from cnntrain.config.schema.pieces import Policy

IDENTITY = "Identity"
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS = (IDENTITY, *GEOMETRIC, *BLENDS, "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")


@dataclass(frozen=True)
class Range:
    """The magnitudes of an operation, from the weakest to the strongest; (0, 0) where it has none."""

    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False  # either sign, by chance
    side: int | None = None  # the magnitudes are parts of the image's height (0) or width (1)


Space = dict[str, Range]


def _space(*, shear: float, shift_x: Range, shift_y: Range, rotate: float, bits: Range, blend: float) -> Space:
    """What all policies share."""
    return {
        "ShearX": Range(0, shear, signed=True),
        "ShearY": Range(0, shear, signed=True),
        "TranslateX": shift_x,
        "TranslateY": shift_y,
        "Rotate": Range(0, rotate, signed=True),  # degrees
        **{name: Range(0, blend, signed=True) for name in BLENDS},  # factor - 1
        "Posterize": bits,  # kept
        "Solarize": Range(1, 0),  # parts of the brightest level; what is brighter is inverted
        "AutoContrast": Range(),
        "Equalize": Range(),
    }


def _shifts(most: float, *, pixels: bool = False) -> dict[str, Range]:
    x, y = (None, None) if pixels else (1, 0)
    return {"shift_x": Range(0, most, signed=True, side=x), "shift_y": Range(0, most, signed=True, side=y)}


_PLAIN = _space(shear=0.3, **_shifts(150 / 331), rotate=30, bits=Range(8, 4), blend=0.9)
AUTOAUGMENT = {**_PLAIN, "Invert": Range()}
RANDAUGMENT = {IDENTITY: Range(), **_PLAIN}
TRIVIALAUGMENT = {
    IDENTITY: Range(),
    **_space(shear=0.99, **_shifts(32, pixels=True), rotate=135, bits=Range(8, 2), blend=0.99),
}
AUGMIX = _space(shear=0.3, **_shifts(1 / 3), rotate=30, bits=Range(4, 0), blend=0.9)


# (operation, probability, level of 0 to 9) twice, for one image (arXiv 1805.09501, tables 7 and 9).
Pair = tuple[tuple[str, float, int], tuple[str, float, int]]

_IMAGENET: list[Pair] = [
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
]
_CIFAR10: list[Pair] = [
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
]
PAIRS = {Policy.imagenet: _IMAGENET, Policy.cifar10: _CIFAR10}
