"""Which augmentation is on, and what its pieces share."""

import enum
from dataclasses import dataclass, field, fields
from typing import Optional

from cnntrain.config.schema.limits import number
from cnntrain.config.schema.pieces import (
    AffineSettings,
    AugMixSettings,
    AutoAugmentSettings,
    AutocontrastSettings,
    BlurSettings,
    ColorJitterSettings,
    CutmixSettings,
    CutoutSettings,
    EqualizeSettings,
    Fault,
    FlipSettings,
    GrayscaleSettings,
    HflipSettings,
    InvertSettings,
    MixupSettings,
    NoiseSettings,
    OwnSettings,
    PadCropSettings,
    PosterizeSettings,
    RandAugmentSettings,
    RandomErasingSettings,
    ResizedCropSettings,
    SharpnessSettings,
    SolarizeSettings,
    TrivialAugmentSettings,
)


class MixMode(enum.Enum):
    batch = "batch"  # one weight for all images of a micro-batch
    pair = "pair"  # one for each two images that are mixed with each other
    element = "element"  # one for each image


@dataclass
class MixSettings:
    """The settings that mixup and cutmix share."""

    p: float = number(1.0, ge=0, le=1)  # probability of mixing at all, drawn as `mode` says
    switch_p: float = number(0.5, ge=0, le=1)  # probability of cutmix where both are on
    mode: MixMode = MixMode.batch  # which images share a weight: all of a micro-batch, two, or none
    off_epoch: Optional[int] = number(None, ge=1)  # epochs after which the images stay unmixed; null: never


@dataclass
class ProgressiveSettings:
    """Small images first, growing to the full size (arXiv 2104.00298, section 4)."""

    start: float = number(0.5, gt=0, lt=1)  # size in the first epoch, as a part of data.image_size
    until: float = number(0.8, gt=0, le=1)  # part of the epochs after which the images have their full size
    multiple: int = number(4, ge=1)  # sizes are multiples of this many pixels
    batch: bool = True  # the smaller the images, the more of them in a micro-batch; the rate follows as it would


@dataclass
class AugmentSettings:
    resized_crop: Optional[ResizedCropSettings] = None
    pad_crop: Optional[PadCropSettings] = None
    hflip: Optional[HflipSettings] = None
    vflip: Optional[FlipSettings] = None
    affine: Optional[AffineSettings] = None
    autoaugment: Optional[AutoAugmentSettings] = None
    randaugment: Optional[RandAugmentSettings] = None
    trivialaugment: Optional[TrivialAugmentSettings] = None
    augmix: Optional[AugMixSettings] = None
    color_jitter: Optional[ColorJitterSettings] = None
    grayscale: Optional[GrayscaleSettings] = None
    invert: Optional[InvertSettings] = None
    posterize: Optional[PosterizeSettings] = None
    solarize: Optional[SolarizeSettings] = None
    equalize: Optional[EqualizeSettings] = None
    autocontrast: Optional[AutocontrastSettings] = None
    sharpness: Optional[SharpnessSettings] = None
    blur: Optional[BlurSettings] = None
    noise: Optional[NoiseSettings] = None
    cutout: Optional[CutoutSettings] = None
    random_erasing: Optional[RandomErasingSettings] = None
    own: Optional[OwnSettings] = None
    mixup: Optional[MixupSettings] = None
    cutmix: Optional[CutmixSettings] = None
    mix: MixSettings = field(default_factory=MixSettings)  # what mixup and cutmix share
    progressive: Optional[ProgressiveSettings] = None

    @property
    def pieces(self) -> list[str]:
        """The names of those that are on, in the order in which they work."""
        return [item.name for item in fields(self) if item.name != "mix" and getattr(self, item.name) is not None]

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with each other."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def views(self) -> int:
        """Versions of each image in a batch: 3 with the Jensen-Shannon loss, else 1."""
        return 3 if self.augmix is not None and self.augmix.jsd else 1

    def faults(self) -> list[Fault]:
        """Broken rules between two pieces, as (key, value, rule)."""
        if self.augmix is not None and self.augmix.jsd and self.mixes:
            return [("augmix.jsd", self.augmix.jsd, "0 with mixup or cutmix, as its loss compares unmixed images")]
        return []
