"""The pieces of augmentation, each with its numbers; a file of conf/augment/ for each."""

import enum
from dataclasses import dataclass, field
from typing import Any, Optional

from cnntrain.config.schema.limits import number

Fault = tuple[str, Any, str]


def _order_faults(**pairs: list[float]) -> list[Fault]:
    """The pairs that are not two numbers in rising order."""
    return [
        (key, pair, "two numbers, the smaller first")
        for key, pair in pairs.items()
        if len(pair) != 2 or pair[0] > pair[1]
    ]


class Resampling(enum.Enum):
    nearest = "nearest"
    bilinear = "bilinear"


# --- geometry --------------------------------------------------------------------------------------------------------


@dataclass
class ResizedCropSettings:
    """A random part of random shape, resized to the image size (arXiv 1409.4842, section 6)."""

    scale: list[float] = number([0.08, 1.0], gt=0, le=1)  # smallest and largest part of the area
    ratio: list[float] = number([0.75, 1.3333333333333333], gt=0)  # smallest and largest width / height

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        return _order_faults(scale=self.scale, ratio=self.ratio)


@dataclass
class PadCropSettings:
    """Pad each side, then cut the original size at a random place (arXiv 1512.03385, section 4.2)."""

    padding: int = number(4, ge=1)  # pixels on each side
    mode: str = "zeros"  # zeros | reflect

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        return [] if self.mode in ("zeros", "reflect") else [("mode", self.mode, "zeros or reflect")]


@dataclass
class FlipSettings:
    p: float = number(0.5, ge=0, le=1)  # probability of a flip


@dataclass
class HflipSettings(FlipSettings):
    # Each image is mirrored in every other epoch, p saying which begin so (arXiv 2404.00498, section 3.4).
    alternate: bool = False


@dataclass
class AffineSettings:
    """Rotation, translation, scale and shear in one gather, drawn as by torchvision's RandomAffine.

    The pixels are torchvision's with the same number as `fill`. Its default, None, is black too, and equal with
    interpolation=nearest; bilinear it blends the pixels at the edge with black once, and fill=0 does so twice.
    """

    degrees: float = number(0.0, ge=0, le=180)  # rotation within -degrees..degrees
    translate: float = number(0.0, ge=0, le=1)  # shift of either axis within this part of the side
    scale: list[float] = number([1.0, 1.0], gt=0)  # smallest and largest
    shear: float = number(0.0, ge=0, lt=90)  # along x, within -shear..shear degrees
    interpolation: Resampling = Resampling.bilinear
    fill: float = number(0.0, ge=0, le=255)  # grey level of what lies outside
    p: float = number(1.0, ge=0, le=1)

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        faults = _order_faults(scale=self.scale)
        if not any((self.degrees, self.translate, self.shear)) and self.scale == [1, 1]:
            faults.append(("degrees", self.degrees, "above 0, where translate, scale and shear change nothing either"))
        return faults


# --- policies, each a choice of geometric and colour operations per image ------------------------------------------


class Policy(enum.Enum):
    imagenet = "imagenet"
    cifar10 = "cifar10"


@dataclass
class AutoAugmentSettings:
    """A learned list of pairs of operations (arXiv 1805.09501)."""

    policy: Policy = Policy.imagenet
    interpolation: Resampling = Resampling.nearest
    fill: float = number(0.0, ge=0, le=255)


@dataclass
class RandAugmentSettings:
    """n operations in a row, each of magnitude m (arXiv 1909.13719)."""

    n: int = number(2, ge=1)
    m: float = number(9.0, ge=0, le=30)
    spread: float = number(0.0, ge=0)  # standard deviation of the magnitude of each operation
    interpolation: Resampling = Resampling.nearest
    fill: float = number(0.0, ge=0, le=255)


@dataclass
class TrivialAugmentSettings:
    """One operation of random magnitude, the wide ranges (arXiv 2103.10158)."""

    interpolation: Resampling = Resampling.nearest
    fill: float = number(0.0, ge=0, le=255)


@dataclass
class AugMixSettings:
    """A random mixture of chains of operations (arXiv 1912.02781)."""

    severity: int = number(3, ge=1, le=10)
    width: int = number(3, ge=1)  # chains
    depth: Optional[int] = number(None, ge=1)  # operations of a chain; null: 1 to 3 at random
    alpha: float = number(1.0, gt=0)  # of the mixing weights
    all_ops: bool = True  # brightness, contrast, saturation and sharpness too
    # Weight of the Jensen-Shannon loss between the clean image and two mixtures (the paper: 12); 0: none, one mixture.
    jsd: float = number(0.0, ge=0)
    interpolation: Resampling = Resampling.bilinear
    fill: float = number(0.0, ge=0, le=255)


# --- colour ----------------------------------------------------------------------------------------------------------


@dataclass
class ColorJitterSettings:
    """Brightness, contrast, saturation and hue in random order; 0 leaves one out. torchvision's ColorJitter."""

    brightness: float = number(0.0, ge=0)  # factor within 1 - brightness (0 at least) and 1 + brightness
    contrast: float = number(0.0, ge=0)
    saturation: float = number(0.0, ge=0)
    hue: float = number(0.0, ge=0, le=0.5)  # shift within -hue..hue turns of the colour circle
    p: float = number(1.0, ge=0, le=1)

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        if any((self.brightness, self.contrast, self.saturation, self.hue)):
            return []
        return [("brightness", self.brightness, "above 0, where contrast, saturation and hue are 0 too")]


@dataclass
class GrayscaleSettings:
    p: float = number(0.1, ge=0, le=1)


@dataclass
class InvertSettings:
    p: float = number(0.5, ge=0, le=1)


@dataclass
class PosterizeSettings:
    bits: int = number(4, ge=0, le=7)  # kept of the 8 of each channel
    p: float = number(0.5, ge=0, le=1)


@dataclass
class SolarizeSettings:
    threshold: float = number(128.0, ge=0, le=255)  # levels from here up are inverted
    p: float = number(0.5, ge=0, le=1)


@dataclass
class EqualizeSettings:
    p: float = number(0.5, ge=0, le=1)


@dataclass
class AutocontrastSettings:
    p: float = number(0.5, ge=0, le=1)


@dataclass
class SharpnessSettings:
    factor: float = number(2.0, ge=0)  # 0 blurs, 1 changes nothing
    p: float = number(0.5, ge=0, le=1)

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        return [("factor", self.factor, "below 1 to blur or above 1 to sharpen")] if self.factor == 1 else []


@dataclass
class BlurSettings:
    """torchvision's GaussianBlur."""

    kernel_size: int = number(5, ge=3)  # pixels, odd
    sigma: list[float] = number([0.1, 2.0], gt=0)  # smallest and largest spread in pixels
    p: float = number(0.5, ge=0, le=1)

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        odd = [] if self.kernel_size % 2 else [("kernel_size", self.kernel_size, "an odd number")]
        return odd + _order_faults(sigma=self.sigma)


# --- noise and erasing -----------------------------------------------------------------------------------------------


@dataclass
class NoiseSettings:
    """Gaussian noise on every pixel and channel."""

    sigma: float = number(0.05, gt=0)  # standard deviation, on the 0..1 scale
    p: float = number(0.5, ge=0, le=1)


@dataclass
class CutoutSettings:
    """Squares of the mean colour, their centres anywhere in the image (arXiv 1708.04552)."""

    size: float = number(0.5, gt=0, le=1)  # side of a square, as a part of the image's
    holes: int = number(1, ge=1)
    p: float = number(1.0, ge=0, le=1)


class Fill(enum.Enum):
    mean = "mean"
    zeros = "zeros"
    random = "random"


@dataclass
class RandomErasingSettings:
    """A box of random area and shape (arXiv 1708.04896)."""

    scale: list[float] = number([0.02, 0.33], gt=0, le=1)  # smallest and largest part of the area
    ratio: list[float] = number([0.3, 3.3], gt=0)  # smallest and largest height / width
    value: Fill = Fill.mean  # mean colour of the data | zeros | random noise
    p: float = number(0.25, ge=0, le=1)

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        return _order_faults(scale=self.scale, ratio=self.ratio)


@dataclass
class OwnSettings:
    """A function of the user's, called with (images, generator) and `args`; uint8 (N, C, H, W) in and out."""

    name: str = "???"  # my_pkg.aug:noise
    args: dict[str, Any] = field(default_factory=dict)

    def faults(self) -> list[Fault]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        module, _, function = self.name.partition(":")
        return [] if module and function else [("name", self.name, "package.module:function")]


# --- mixing ----------------------------------------------------------------------------------------------------------


@dataclass
class MixupSettings:
    """Weighted sums of two images and of their labels (arXiv 1710.09412)."""

    alpha: float = number(0.2, gt=0)  # of the Beta(alpha, alpha) that the weight is drawn from


@dataclass
class CutmixSettings:
    """A box of one image pasted into another, the labels weighted by area (arXiv 1905.04899)."""

    alpha: float = number(1.0, gt=0)
