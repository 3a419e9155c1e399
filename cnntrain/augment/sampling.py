"""Random operations of random magnitude: drawn for each image, then done to a whole batch."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cnntrain.augment import color, layout
from cnntrain.augment.accelerator import perform_rounds
from cnntrain.augment.affine import inverse_matrices
from cnntrain.augment.batch_context import BatchContext
from cnntrain.augment.kernels import KINDS, ImageOperation, affine_kernel, shift_kernel, with_number, without_numbers
from cnntrain.augment.per_image import Floats, Integers, apply_per_image
from cnntrain.augment.spaces import BLENDS, GEOMETRIC, OPERATIONS, Space
from cnntrain.config.schema.pieces import Resampling

Size = tuple[int, int]  # height and width of the images

PLACES = {name: place for place, name in enumerate(OPERATIONS)}


@dataclass(frozen=True)
class Draws:
    """What each of N images goes through in R rounds.

    Attributes:
        operations: int64 (R, N), places in spaces.OPERATIONS.
        magnitudes: float64 (R, N) with their signs, as torchvision counts them.
    """

    operations: Integers
    magnitudes: Floats


class Chooser:
    """Draws operations and signs, and knows the magnitudes.

    Args:
        space: the operations and the ranges of their magnitudes.
        levels: even steps from the weakest magnitude to the strongest.
    """

    def __init__(self, space: Space, levels: int) -> None:
        self.space, self.levels = space, levels
        self.places = np.array([PLACES[name] for name in space])
        self.signed = np.array([name in space and space[name].signed for name in OPERATIONS])
        self.table = lru_cache(maxsize=32)(self._table)  # progressive resizing comes with several image sizes

    def _table(self, height: int, width: int) -> Floats:
        """Magnitudes, float64 (len(OPERATIONS), levels), in steps of float32 as torchvision counts them."""
        table = torch.zeros(len(OPERATIONS), self.levels)
        for name, item in self.space.items():
            unit = 1 if item.side is None else (height, width)[item.side]
            table[PLACES[name]] = torch.linspace(item.weakest * unit, item.strongest * unit, self.levels)
        return table.double().numpy()

    def operations(self, shape: tuple[int, ...], random: np.random.Generator) -> Integers:
        """Places in OPERATIONS of the given shape, all of the space equally likely."""
        return self.places[random.integers(len(self.places), size=shape)]

    def draws(self, operations: Integers, level: Floats, size: Size, random: np.random.Generator) -> Draws:
        """The operations, places in OPERATIONS, at the given levels and with random signs.

        Args:
            operations: int64 (R, N).
            level: float64 (R, N), 0 to levels - 1; a magnitude between two levels lies between theirs.
            size: height and width of the images.
        """
        table = self.table(*size)
        low = np.minimum(level.astype(np.int64), self.levels - 2)
        part = level - low
        magnitudes = table[operations, low] * (1 - part) + table[operations, low + 1] * part
        magnitudes = np.where(operations == PLACES["Posterize"], np.rint(magnitudes), magnitudes)
        flipped = self.signed[operations] & (random.random(operations.shape) < 0.5)
        return Draws(operations, np.where(flipped, -magnitudes, magnitudes))


# A colour operation takes one number, base + unit * magnitude: a factor, bits or a threshold.
_BASE = np.array([1.0 if name in BLENDS else 0.0 for name in OPERATIONS])
_UNIT = np.array([255.0 if name == "Solarize" else 1.0 for name in OPERATIONS])
# The geometric operations are two kernels.
_KIND_OF = {"TranslateX": "Shift", "TranslateY": "Shift", "ShearX": "Affine", "ShearY": "Affine", "Rotate": "Affine"}
_KINDS = np.array([KINDS.index(_KIND_OF.get(name, name)) for name in OPERATIONS])


def perform(images: Tensor, draws: Draws, context: BatchContext, *, interpolation: Resampling, fill: float) -> Tensor:
    """Do to uint8 images (N, C, H, W) what was drawn for them, exactly as torchvision.transforms.v2 would."""
    kinds, (height, width) = _KINDS[draws.operations], images.shape[2:]
    values = _BASE[draws.operations] + _UNIT[draws.operations] * draws.magnitudes
    if layout.launching_costs(images.device):

        def matrices(turn: int, at: Integers) -> Floats:
            return _matrices(draws.operations[turn, at], draws.magnitudes[turn, at], height, width)

        return perform_rounds(images, kinds, values, context, matrices=matrices, interpolation=interpolation, fill=fill)
    numbers = np.empty((*kinds.shape, 7))
    numbers[..., :6] = _matrices(draws.operations, draws.magnitudes, height, width).reshape(*kinds.shape, 6)
    numbers[..., 6] = values
    return apply_per_image(images, _kernels(draws, interpolation, fill), kinds, numbers, context)


def _matrices(operations: Integers, magnitudes: Floats, height: int, width: int) -> Floats:
    """The inverse affine matrices of the geometric operations, float64 (n, 2, 3), of n operations in any shape."""
    of = {name: np.where(operations == PLACES[name], magnitudes, 0.0).ravel() for name in GEOMETRIC}
    matrices = inverse_matrices(
        angle=-(of["Rotate"] % 360),  # torchvision turns the other way here than in its affine
        translate_x=np.trunc(of["TranslateX"]),
        translate_y=np.trunc(of["TranslateY"]),
        scale=np.ones(operations.size),
        shear_x=np.degrees(np.arctan(of["ShearX"])),
        shear_y=np.degrees(np.arctan(of["ShearY"])),
    )
    # A shear leaves the upper left corner where it is, not the centre.
    left, top = -width / 2, -height / 2
    shift = np.array([left, top]) - matrices[:, :, 0] * left - matrices[:, :, 1] * top  # in torchvision's order
    sheared = (of["ShearX"] != 0) | (of["ShearY"] != 0)
    matrices[sheared, :, 2] = shift[sheared]
    return matrices


def _kernels(draws: Draws, interpolation: Resampling, fill: float) -> list[ImageOperation | None]:
    """In the order of KINDS."""
    kernels: dict[str, ImageOperation | None] = {
        "Identity": None,
        "Shift": shift_kernel(fill, most_right=_most(draws, "TranslateX"), most_down=_most(draws, "TranslateY")),
        "Affine": affine_kernel(interpolation, fill),
        "Brightness": with_number(color.brightness),
        "Color": with_number(color.saturation),
        "Contrast": with_number(color.contrast),
        "Sharpness": with_number(color.sharpness),
        "Posterize": with_number(color.posterize),
        "Solarize": with_number(lambda images, thresholds: color.solarize(images, thresholds.float())),
        "AutoContrast": without_numbers(color.autocontrast),
        "Equalize": without_numbers(color.equalize),
        "Invert": without_numbers(color.invert),
    }
    return [kernels.get(name) for name in KINDS]


def _most(draws: Draws, operation: str) -> int:
    """The largest magnitude of an operation, whatever its sign, rounded down."""
    return int(np.abs(draws.magnitudes).max(where=draws.operations == PLACES[operation], initial=0.0))
