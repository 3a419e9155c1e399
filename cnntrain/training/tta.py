"""Test-time augmentation: several views of each image, and the mean of the probabilities that they are given."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cnntrain.data.view import View

SHIFT = 1 / 16  # of the image size: two pixels of 32
LEFT_RIGHT, UP_DOWN = 3, 2  # dimensions that a flip turns over


class Views:
    """What `tta=` asks for, from uint8 batches: places first, each of them in all its flips.

    `hflip` and `vflip` add the mirror images of each place, both together all four. `shift` adds the image moved by a
    sixteenth of its side (one pixel at least) in the four directions (after arXiv 2404.00498, which takes two diagonal
    ones), `crops` the four corners of a picture 1 / 0.875 as large; with `hflip` these are AlexNet's ten crops. Shift
    and crops both name places, so that together they are nine of them and no product. The first view is always the
    image as it is seen without any augmentation.

    Args:
        names: among hflip, vflip, shift, crops.
        image_size: pixels a side of what the network sees, S.
    """

    def __init__(self, names: Sequence[str], image_size: int) -> None:
        self.names, self.size = tuple(names), image_size
        self.wide_size = View(image_size).short_side
        before, after = _around(image_size, self.wide_size)
        step = max(1, round(image_size * SHIFT))
        places = [(0, 0)]
        if "shift" in names:
            places += [(-step, 0), (step, 0), (0, -step), (0, step)]
        if "crops" in names:
            places += [(-before, -before), (-before, after), (after, -before), (after, after)]
        self.places = tuple(dict.fromkeys(places))  # of tiny images, two of them may be one
        self.flips: tuple[tuple[int, ...], ...] = ((),)
        for name, dimension in (("hflip", LEFT_RIGHT), ("vflip", UP_DOWN)):
            if name in names:
                self.flips += tuple((*flip, dimension) for flip in self.flips)
        self.reach = max(max(map(abs, place)) for place in self.places)

    def __len__(self) -> int:
        return len(self.places) * len(self.flips)

    def __str__(self) -> str:
        return f"{', '.join(self.names)}: {len(self)} views" if self.names else ""

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """One view after the other; no more than one is ever in memory.

        Args:
            images: uint8 (N, C, S, S), whose border is mirrored where a view reaches beyond it; or, where there is more
                to be seen, (N, C, S', S') with the image in the middle.

        Yields:
            uint8 (N, C, S, S).
        """
        before, after = _around(self.size, images.shape[2])
        top = max(before, self.reach)
        images = _mirror_border(images, top - before, max(0, self.reach - after))
        for down, right in self.places:
            place = images[:, :, top + down :, top + right :][:, :, : self.size, : self.size]
            for flip in self.flips:
                yield place.flip(flip) if flip else place


def _around(size: int, total: int) -> tuple[int, int]:
    """How much of a picture lies before and after the `size` pixels in its middle."""
    before = round((total - size) / 2)
    return before, total - size - before


def _mirror_border(images: Tensor, before: int, after: int) -> Tensor:
    """More pixels on each side, as if the border were a mirror through the middle of the outermost ones."""
    if before == after == 0:
        return images
    size = images.shape[2]
    places = torch.arange(-before, size + after, device=images.device).abs()
    places = torch.minimum(places, 2 * (size - 1) - places)
    return images.index_select(2, places).index_select(3, places)


def average_views(
    forward: Callable[[Tensor], Tensor], views: Iterable[Tensor], *, multi_label: bool = False
) -> tuple[Tensor, Tensor]:
    """The answer to several views of the same images.

    Args:
        forward: gives float32 logits (N, K) of a view.
        views: one or more.
        multi_label: each class has a probability of its own, the sigmoid of its logit.

    Returns:
        The logits (N, K) of the first view, and what stands for logits (N, K) wherever these are asked for: the
        logarithm of the mean probabilities over all views, or of sigmoids the logits of their means.
    """
    first_logits, *more_logits = (forward(view) for view in views)
    every = (first_logits, *more_logits)
    if multi_label:
        has, lacks = (_log_sum(functional.logsigmoid(sign * logits) for logits in every) for sign in (1, -1))
        return first_logits, has - lacks
    return first_logits, _log_sum(logits.log_softmax(1) for logits in every) - math.log(len(every))


def _log_sum(parts: Iterable[Tensor]) -> Tensor:
    """The logarithm of the sum of probabilities by their logarithms; of tiny ones no sum gives 0."""
    return functools.reduce(torch.logaddexp, parts)
