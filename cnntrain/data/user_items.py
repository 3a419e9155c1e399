"""The items of a data set of the user's: what each may be, and what is said of one that is something else."""

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnntrain.data.build import convert_channels
from cnntrain.data.decode import BadImage, to_pixels
from cnntrain.data.paths import Paths
from cnntrain.errors import CnntrainError, ConfigError
from cnntrain.registry import describe_failure
from cnntrain.text import cut, printable

SECONDS = 5.0  # between two lines of progress
IMAGE = "a Pillow image, a uint8 array (H, W, C) or (H, W), or a tensor (C, H, W) of uint8 or of floats in 0..1"
LABELS = ("targets", "labels", "_labels")  # what torchvision's data sets keep them in
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")  # modes of Pillow's without a colour

Label: TypeAlias = int | Tensor  # the number of a class; of data.multi_label bool (K,)
Look = dict[int, tuple[Tensor, Label]]  # some items by their numbers: uint8 (1 or 3, H, W), and labels


@dataclass
class Part:
    """One split of a data set of the user's: any object with a length, whose items are pairs (image, label).

    Attributes:
        name: of the function that made it, `my_data:build`.
        split: train, val or test.
        items: the object.
        has_sets: each label is a 0 or 1 for each class.
        count: its length.
    """

    name: str
    split: str
    items: Any
    has_sets: bool = False
    count: int = field(init=False)

    def __post_init__(self) -> None:
        if not (hasattr(self.items, "__getitem__") and hasattr(self.items, "__len__")):
            what = f"gave {type(self.items).__name__} back" + ("" if self.split == "train" else f" for {self.split}")
            raise misfit(self.name, what, "return pairs (image, label) that have a length, as a torch Dataset does")
        try:
            self.count = len(self.items)
        except (Exception, SystemExit) as error:  # of the user's code
            what = f"has no length for {self.split} ({describe_failure(error)})"
            raise misfit(self.name, what, "give it one") from error
        if not self.count:
            raise misfit(self.name, f"has no item for {self.split}", "give it some")

    def pair(self, index: int) -> tuple[Any, Any]:
        """An item as the user's code gives it; BadImage where it fails or gives something else."""
        try:
            item = self.items[index]
        except (Exception, SystemExit) as error:
            raise BadImage(f"fails on {self.place(index)} ({describe_failure(error)}); correct it") from error
        if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
            return item[0], item[1]
        raise BadImage(f"gives {_kind(item)} for {self.place(index)}; let it be a pair (image, label)")

    def item(self, index: int) -> tuple[Tensor, Label]:
        """The pixels of an item, uint8 (1 or 3, H, W), and its label; BadImage where it has none."""
        image, label = self.pair(index)
        return self._to_uint8(image, index), self._to_label(label, index)

    def image(self, index: int) -> Tensor:
        """The pixels of an item, uint8 (1 or 3, H, W); BadImage where there are none."""
        return self._to_uint8(self.pair(index)[0], index)

    def label(self, index: int) -> Label:
        """The label of an item; BadImage where it is none."""
        return self._to_label(self.pair(index)[1], index)

    def fault(self, reason: str) -> ConfigError:
        """The fault of an item, by the reason of a BadImage."""
        return ConfigError(f"data.name: {self.name} {reason}")

    def place(self, index: int) -> str:
        """An item, for people."""
        return f"item {index:,} of {self.split}"

    def _to_uint8(self, image: Any, index: int) -> Tensor:
        """What an item has for an image as uint8 (1 or 3, H, W); BadImage where it is none."""
        try:
            return _to_uint8(image)
        except _FloatRangeError as error:
            raise BadImage(
                f"gives floats {error} for {self.place(index)}; let them be 0..1: leave Normalize out, cnntrain does it"
            ) from None
        except BadImage as error:
            what = f"a Pillow image that cannot be read ({error})" if isinstance(image, Image.Image) else str(error)
            raise BadImage(f"gives {what} for {self.place(index)}; let an image be {IMAGE}") from None

    def _to_label(self, value: Any, index: int) -> Label:
        """What an item has for a label; BadImage where it is no whole number, or of data.multi_label no 0s and 1s."""
        if self.has_sets:
            with suppress(Exception):  # a user's object may raise anything
                if (row := as_sets(value)).ndim == 1 and len(row) > 1:
                    return row
        single = value.item() if isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0 else value
        if isinstance(single, int) and not self.has_sets and abs(single) < 1 << 63:  # a bool is one
            return int(single)
        what = f"gives label {cut(printable(repr(value)), 40)} ({type(value).__name__}) for {self.place(index)}"
        rule = "0s and 1s, one for each class" if self.has_sets else "one whole number, from 0"
        raise BadImage(f"{what}; give each image {rule}")


@dataclass(frozen=True)
class Pairs:
    """Images uint8 (N, C, H, W) and labels, int64 (N,) or bool (N, K), that the user has as tensors; pairs of them."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]


def misfit(name: str, what: str, advice: str) -> ConfigError:
    """The fault of a data set that is something else."""
    return ConfigError(f"data.name: {name} {what}; {advice}")


# --- images ----------------------------------------------------------------------------------------------------------


class _FloatRangeError(Exception):
    """Floats that are no image, in words."""


def _to_uint8(image: Any) -> Tensor:
    if isinstance(image, Image.Image):
        return to_pixels(image, 1 if image.mode in GREY else 3).permute(2, 0, 1)
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 4 and image.size:
            return to_pixels(Image.fromarray(image), 3).permute(2, 0, 1)  # transparent parts lie on white
        is_last = image.ndim == 3 and image.shape[2] in (1, 3)
        with suppress(TypeError):  # of a dtype that torch has not
            return _checked(as_tensor(image.transpose(2, 0, 1) if is_last else image), image)
    elif isinstance(image, Tensor):
        return _checked(image.detach().cpu(), image)
    raise BadImage(_kind(image))


def as_tensor(values: Any) -> Tensor:
    """A tensor of an array, which torch may have for its own; TypeError, ValueError or RuntimeError where it cannot."""
    if not isinstance(values, np.ndarray):
        return torch.as_tensor(values)
    values = np.ascontiguousarray(values)
    return torch.from_numpy(values if values.flags.writeable else values.copy())  # of another torch would warn


def as_sets(values: Any) -> Tensor:
    """0s and 1s as bool of the same shape; ValueError where there is anything else."""
    tensor = as_tensor(values)
    if not ((tensor == 0) | (tensor == 1)).all():
        raise ValueError("numbers other than 0 and 1")
    return tensor.bool()


def _checked(pixels: Tensor, given: Any) -> Tensor:
    """uint8 (1 or 3, H, W) of uint8, or of floats in 0..1, (H, W) or (1 or 3, H, W)."""
    pixels = pixels.unsqueeze(0) if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or not pixels.numel():
        raise BadImage(_kind(given))
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # of NaN neither holds
            raise _FloatRangeError(f"from {low:.4g} to {high:.4g}")
        return (pixels.float() * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise BadImage(_kind(given))
    return pixels


def _kind(value: object) -> str:
    """`a float64 array (28, 28)`, or the name of a type."""
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array {value.shape}"
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, (tuple, list, dict)) else ""
    return f"{type(value).__name__}{size}"


class Items(Paths):
    """The items of a part by their numbers, each asked for when it is wanted, in whatever thread wants it.

    Args:
        part: the items.
        mark: what tells the whole part from another one.
    """

    cure_of_many = "correct the data set"

    def __init__(self, part: Part, mark: bytes) -> None:
        names = [b"%d" % index for index in range(part.count)]
        super().__init__(Path(part.name), b"".join(names), np.cumsum([len(name) for name in names], dtype=np.int64))
        self._part, self._mark = part, mark

    def __getitem__(self, index: int) -> Path:
        return Path(self._part.split, str(self._number(index)))

    def _number(self, index: int) -> int:
        return int(self.relative(index))

    @property
    def place(self) -> str:
        """See Paths."""
        return f"{self._part.name}[{self._part.split}]"

    def digest(self) -> bytes:
        """See Paths; sha256 of the labels and of some pixels too."""
        return hashlib.sha256(super().digest() + self._mark).digest()

    def pixels(self, index: int, channels: int) -> Tensor:
        """See Paths."""
        image = self._part.image(self._number(index))
        return convert_channels(image.unsqueeze(0), channels).squeeze(0).permute(1, 2, 0).contiguous()

    def read(self, index: int) -> bytes:
        """An image as a PNG file, for those who want files."""
        content, pixels = io.BytesIO(), self._part.image(self._number(index)).permute(1, 2, 0).numpy()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(content, "PNG", compress_level=1)
        return content.getvalue()

    def fault(self, index: int, reason: str) -> CnntrainError:
        """See Paths."""
        return self._part.fault(f"{reason}, or set data.on_bad_image=skip")


def numbers(count: int, what: str, say: Callable[[str], object]) -> Iterator[int]:
    """0 to `count` - 1, with a line every five seconds."""
    last_line = time.monotonic()
    for index in range(count):
        if time.monotonic() - last_line > SECONDS:
            last_line = time.monotonic()
            say(f"{what}: {index:,} of {count:,} items read")
        yield index


def attribute(items: Any, key: str) -> Any:
    """What a data set says of itself, or what one says that it is a `Subset` of; None where it says nothing.

    Args:
        key: classes, or one of LABELS, of which a Subset has some.
    """
    with suppress(Exception):  # a property is the user's code
        if (value := getattr(items, key, None)) is not None:
            return value
        if hasattr(items, "dataset") and hasattr(items, "indices"):
            value = attribute(items.dataset, key)
            return np.asarray(value)[np.asarray(items.indices)] if key in LABELS and value is not None else value
    return None
