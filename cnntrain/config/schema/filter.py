"""The kernels that `cnntrain filter` knows, each with its own arguments, in plain Python.

Weights are written as a network holds them: the image is correlated with them, not turned around first. So `sobel_x`
answers with positive values where the image becomes brighter to the right, `sobel_y` where it does so downwards.
"""

import enum
import math
import re
from dataclasses import dataclass, fields
from typing import Optional, TypeAlias

from cnntrain.config.schema.limits import number

Weights: TypeAlias = list[list[float]]  # rows of equal length

LARGEST = 101  # rows or columns of a kernel
MOST_PADDING = 1000  # pixels on a side
MOST_VALUES, HIGHEST = 1_000_000, 1e30  # of a signal; their weighted sums stay finite in float64
HEAVIEST = 1_000_000  # of the weights that a user writes; their sums stay finite in float32
SIZE, SIGMA = f"rows and columns, 1 to {LARGEST}", "spread in pixels"
OWN_KERNEL = "kernel=[[0,1,0],[1,-4,1],[0,1,0]]"  # what the messages give as an example
OWN_ROW, OWN_SIGNAL = "kernel=[1/3,1/3,1/3]", "signal=[1,2,4,2,1]"

PaddingMode = enum.Enum("PaddingMode", "zeros reflect replicate circular")


@dataclass
class Kernel:
    """A kernel's own arguments, and what comes of them."""

    finds_edges = False  # results have a sign, and flat areas answer 0 (Gabor: about 0, where size does not cut it off)

    def parameters(self) -> dict[str, float]:
        """The arguments with their values, those left out included."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def matrices(self) -> list[Weights]:
        """The weights; of two matrices, the results are the sides of a right angle."""
        raise NotImplementedError  # the bare class only stands in for an unknown name while its faults are told

    def row(self) -> list[float] | None:
        """The weights for a signal in one dimension; None of a kernel that is of images alone."""
        return None


@dataclass
class Identity(Kernel):
    def matrices(self) -> list[Weights]:
        return [[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]

    def row(self) -> list[float]:
        return [0, 1, 0]


@dataclass
class SobelX(Kernel):
    finds_edges = True

    def matrices(self) -> list[Weights]:
        return [[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]]


@dataclass
class SobelY(Kernel):
    finds_edges = True

    def matrices(self) -> list[Weights]:
        return [[[-1, -2, -1], [0, 0, 0], [1, 2, 1]]]


@dataclass
class Sobel(Kernel):
    """The length of the gradient, sqrt(x² + y²)."""

    finds_edges = True

    def matrices(self) -> list[Weights]:
        return SobelX().matrices() + SobelY().matrices()


@dataclass
class Edge(Kernel):
    """The Laplacian over all eight neighbours: edges of every direction."""

    finds_edges = True

    def matrices(self) -> list[Weights]:
        return [[[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]]


@dataclass
class Sharpen(Kernel):
    """The image plus its difference from its four neighbours."""

    def matrices(self) -> list[Weights]:
        return [[[0, -1, 0], [-1, 5, -1], [0, -1, 0]]]


@dataclass
class Box(Kernel):
    """The mean of size x size pixels."""

    size: int = number(5, ge=1, le=LARGEST, help=SIZE)

    def matrices(self) -> list[Weights]:
        return [[[1 / self.size**2] * self.size for _ in range(self.size)]]

    def row(self) -> list[float]:
        return [1 / self.size] * self.size


@dataclass
class Gaussian(Kernel):
    """A bell of spread sigma (pixels), its weights summing to 1.

    Of size and sigma one follows from the other: size = 2⌈3 sigma⌉ + 1, sigma = 0.15 size + 0.35 (as torchvision has
    it); with neither, sigma is 1.
    """

    size: Optional[int] = number(None, ge=1, le=LARGEST, help=SIZE)
    sigma: Optional[float] = number(None, ge=0.1, le=50, help=SIGMA)

    def parameters(self) -> dict[str, float]:
        sigma = self.sigma or (0.15 * self.size + 0.35 if self.size else 1.0)
        return {"size": self.size or min(2 * math.ceil(3 * sigma) + 1, LARGEST), "sigma": sigma}

    def matrices(self) -> list[Weights]:
        line = self.row()
        return [[[above * across for across in line] for above in line]]

    def row(self) -> list[float]:
        size, sigma = self.parameters().values()
        bell = [math.exp(-((x / sigma) ** 2) / 2) for x in _places(size)]
        return [value / math.fsum(bell) for value in bell]


@dataclass
class Gabor(Kernel):
    """A wave under a bell, exp(-(x'² + gamma² y'²) / 2 sigma²) cos(2 pi x' / wavelength + phase), as in the cells of
    the visual cortex (Daugman 1985, doi:10.1364/JOSAA.2.001160) and in the first layer of trained networks.

    The wave runs along x', which theta turns from the x axis towards y, downwards: at 0 it answers to vertical stripes.
    Weights are divided by the sum of their sizes. What is left out: sigma = 0.56 wavelength, one octave of bandwidth;
    size = 2⌈2 sigma / min(gamma, 1)⌉ + 1.
    """

    finds_edges = True

    theta: float = number(0.0, ge=-360, le=360, help="turn in degrees")
    wavelength: float = number(8.0, ge=2, le=LARGEST, help="pixels of a wave")
    gamma: float = number(0.5, ge=0.1, le=10, help="height of the bell by its width")
    sigma: Optional[float] = number(None, ge=0.1, le=50, help=SIGMA)
    phase: float = number(0.0, ge=-360, le=360, help="shift of the wave in degrees")
    size: Optional[int] = number(None, ge=1, le=LARGEST, help=SIZE)

    def parameters(self) -> dict[str, float]:
        sigma = self.sigma or 0.56 * self.wavelength
        size = self.size or min(2 * math.ceil(2 * sigma / min(self.gamma, 1)) + 1, LARGEST)
        return super().parameters() | {"sigma": sigma, "size": size}

    def matrices(self) -> list[Weights]:
        places = _places(self.parameters()["size"])
        rows = [[self._wave(x, y) for x in places] for y in places]
        total = math.fsum(abs(value) for row in rows for value in row) or 1
        return [[[value / total for value in row] for row in rows]]

    def _wave(self, x: float, y: float) -> float:
        angle, sigma = math.radians(self.theta), self.parameters()["sigma"]
        along = x * math.cos(angle) + y * math.sin(angle)
        beside = y * math.cos(angle) - x * math.sin(angle)
        bell = math.exp(-(along**2 + (self.gamma * beside) ** 2) / (2 * sigma**2))
        return bell * math.cos(2 * math.pi * along / self.wavelength + math.radians(self.phase))


class OwnKernel(Kernel):
    """Weights of the user's; where they sum to 0 or less, an edge finder."""

    def __init__(self, rows: Weights) -> None:
        self.rows = rows
        values = [value for row in rows for value in row]
        self.finds_edges = sum(values) <= 1e-6 * sum(map(abs, values))

    def matrices(self) -> list[Weights]:
        return [self.rows]

    def row(self) -> list[float] | None:
        return self.rows[0] if len(self.rows) == 1 else None


KERNELS: dict[str, type[Kernel]] = {
    "sobel_x": SobelX,
    "sobel_y": SobelY,
    "sobel": Sobel,
    "edge": Edge,
    "sharpen": Sharpen,
    "box": Box,
    "gaussian": Gaussian,
    "gabor": Gabor,
    "identity": Identity,
}


def _places(size: float) -> list[float]:
    """Pixels counted from the middle of the kernel."""
    return [index - (size - 1) / 2 for index in range(int(size))]


def read_matrix(text: str) -> Weights | None:
    """`[[0,1,0],[1,-4,1]]`, or one row as `[1,2,1]`, as rows, fractions such as 1/9 allowed; None for anything else."""
    text = re.sub(r"\s*([\[\],])\s*", r"\1", text.strip())
    if read_row(text):
        text = f"[{text}]"
    if not (text.startswith("[[") and text.endswith("]]")):
        return None
    try:
        rows = [[_fraction(cell) for cell in row.split(",")] for row in text[2:-2].split("],[")]
    except (ValueError, ZeroDivisionError):
        return None
    fits = len({len(row) for row in rows}) == 1 and max(len(rows), len(rows[0])) <= LARGEST
    return rows if fits and all(abs(cell) <= HEAVIEST for row in rows for cell in row) else None


def read_row(text: str) -> list[float] | None:
    """`[1/3, 1/3, 1/3]` as numbers; None for anything else."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        numbers = [_fraction(cell) for cell in text[1:-1].split(",")]
    except (ValueError, ZeroDivisionError):
        return None
    return numbers if all(abs(number) <= HIGHEST for number in numbers) else None


def _fraction(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)
