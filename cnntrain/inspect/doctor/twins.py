"""Pictures that are nearly the same: encoded anew, resized, mirrored, or cut out of one another.

A picture is described by the lowest frequencies of its thumbnail (a discrete cosine transform without its mean, as in
the hashes of pHash), each weighted by its height, as photos have the less of a frequency the higher it is. The
descriptions of all pictures are compared with those of all, and of some parts of them, as one product of matrices, in
which a mirror costs nothing: it turns the sign of the odd frequencies. What is alike there is aligned, and judged by
more frequencies.
"""

import functools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.inspect.doctor.frequencies import STEPS, describe, halves_of, transform, unit, weights_of
from cnntrain.runtime.threads import work_ahead

CUT = 8  # steps that the views below cut off: an eighth of a side
DEEPEST = 20  # steps that a cut may have
WHOLE = (0, STEPS)
LEFT, RIGHT, MIDDLE = (0, STEPS - CUT), (CUT, STEPS), (CUT // 2, STEPS - CUT // 2)
# Parts of a picture, (across, down), in which others are looked for; a little more or less is found with them.
VIEWS = ((WHOLE, WHOLE), (MIDDLE, MIDDLE), (LEFT, LEFT), (LEFT, RIGHT), (RIGHT, LEFT), (RIGHT, RIGHT))
COARSE, FINE = 7, 12  # frequencies a side: to look for pictures by, and to judge them by
LIKELY = 0.75  # correlation of the few frequencies, from which on a pair is judged
POSSIBLE = 0.45  # of the many frequencies before they are aligned; planted ones had 0.49 and more
ALIKE = 0.95  # of the many frequencies of two pictures that are the same; planted ones had 0.98, others 0.90 at most
PALE = 4.0  # levels, the standard deviation of a thumbnail that shows too little to be compared
MOST = 16  # pictures that one is judged with, of each view and block
ROWS, COLUMNS = 1024, 1024  # of a block of the product, which fits a cache of the CPU
WIDE = 16  # times the columns on a device that is slow to be asked
JUDGED = 1024  # pairs at a time
ROUNDS = 3  # in which the ends of both sides are moved


@dataclass(frozen=True)
class Twins:
    """Pairs of pictures, by their places; all arrays are (M,).

    Attributes:
        whole, part: int64; `part` shows the same as `whole`, or what is left of it after a cut.
        likeness: float32, the correlation of the aligned pictures, up to 1.
        is_mirrored: bool; one is the other's mirror image.
        share: float32, the area of `whole` that `part` shows.
    """

    whole: NDArray[np.int64]
    part: NDArray[np.int64]
    likeness: NDArray[np.float32]
    is_mirrored: NDArray[np.bool_]
    share: NDArray[np.float32]


def find_twins(
    thumbs: NDArray[np.uint8],
    device: torch.device,
    *,
    workers: int = 0,
    advance: Callable[[int], object] = lambda images: None,
) -> Twins:
    """The pairs among pictures that are nearly the same; each once.

    Args:
        thumbs: uint8 (N, S, S), grey, of the whole pictures.
        device: where the product is taken.
        workers: threads on a CPU; 0 works in the calling one.
        advance: takes the number of pictures of each block that is done; there are `blocks_of(N)`.
    """
    pictures = torch.from_numpy(thumbs)
    contrast = [part.float().flatten(1).std(1, correction=0) for part in pictures.split(ROWS) if len(part)]
    seen = (torch.cat([torch.empty(0), *contrast]) >= PALE).nonzero().flatten()  # the places that are compared
    pictures = pictures[seen]
    search = _Search(pictures, device)
    starts = range(0, max(len(pictures), 1), ROWS)
    found = []
    with closing(work_ahead(search.twins, starts, workers if device.type == "cpu" else 0, "twins")) as blocks:
        for block in blocks:
            found.append(block)
            advance(ROWS)
    whole, part, likeness, mirrored, share = (torch.cat(values) for values in zip(*found, strict=True))
    low, high = torch.minimum(whole, part), torch.maximum(whole, part)
    order = likeness.argsort(descending=True, stable=True)
    keys = (low * len(thumbs) + high)[order]
    _, first = np.unique(keys.numpy(), return_index=True)  # the best of each pair
    best = order[torch.from_numpy(np.sort(first))]
    return Twins(
        seen[whole[best]].numpy(),
        seen[part[best]].numpy(),
        likeness[best].numpy(),
        mirrored[best].numpy(),
        share[best].numpy(),
    )


def blocks_of(count: int) -> int:
    """How often `find_twins` tells how far it is, for so many pictures that are not pale."""
    return max(1, -(-count // ROWS))


# --- pairs that may be ------------------------------------------------------------------------------------------------


@dataclass
class _Pairs:
    """Pairs to be judged: `whole` and `part`, int64 (M,), and the view of `whole` that `part` is like."""

    whole: Tensor
    part: Tensor
    view: Tensor


class _Search:
    """The pictures and what is looked for in them.

    Args:
        thumbs: uint8 (N, S, S).
        device: where the product is taken.
    """

    def __init__(self, thumbs: Tensor, device: torch.device) -> None:
        self.thumbs, self.device = thumbs, device
        whole = torch.cat([describe(part, VIEWS[0], COARSE) for part in thumbs.split(ROWS)])
        self._even, self._odd = (half.to(device) for half in halves_of(whole))
        self._step = COLUMNS if device.type == "cpu" else WIDE * COLUMNS

    def twins(self, start: int) -> tuple[Tensor, ...]:
        """The pairs whose `whole` is among the pictures of a block, see _judge."""
        return _judge(self.thumbs, self._likely(start))

    def _likely(self, start: int) -> _Pairs:
        block = self.thumbs[start : start + ROWS]
        found = [torch.empty(3, 0, dtype=torch.int64)]
        for number, view in enumerate(VIEWS):
            even, odd = (half.to(self.device) for half in halves_of(describe(block, view, COARSE)))
            # Two whole pictures are alike both ways.
            for column in range(start if number == 0 else 0, len(self.thumbs), self._step):
                scores = even @ self._even[column : column + self._step].T
                scores += (odd @ self._odd[column : column + self._step].T).abs_()
                rows, columns = (places.cpu() for places in _high(scores))
                rows, columns = rows + start, columns + column
                others = columns > rows if number == 0 else columns != rows
                rows, columns = rows[others], columns[others]
                found.append(torch.stack([rows, columns, torch.full_like(rows, number)]))
        return _Pairs(*torch.cat(found, 1))


def _high(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the high scores; of very many the best of each row."""
    rows, columns = (scores >= LIKELY).nonzero(as_tuple=True)
    if len(rows) <= MOST * len(scores):
        return rows, columns
    values, best = scores.topk(min(MOST, scores.shape[1]), dim=1)
    rows, places = (values >= LIKELY).nonzero(as_tuple=True)
    return rows, best[rows, places]


# --- pairs that are ---------------------------------------------------------------------------------------------------


def _judge(thumbs: Tensor, pairs: _Pairs) -> tuple[Tensor, ...]:
    """The pairs that are alike once aligned: whole, part, likeness, whether one is mirrored, share; each (M,)."""
    empty = torch.empty(0, dtype=torch.int64)
    found = [(empty, empty, empty.float(), empty.bool(), empty.float())]
    for start in range(0, len(pairs.whole), JUDGED):
        whole, part, view = (values[start : start + JUDGED] for values in (pairs.whole, pairs.part, pairs.view))
        ends = torch.tensor([[*across, *down] for across, down in VIEWS])[view]  # (M, 4)
        target = describe(thumbs[part], VIEWS[0], FINE)
        likeness, is_mirrored = _compare(thumbs[whole].float(), target, ends)
        good = likeness >= POSSIBLE  # most pairs are not, and to align one costs as much as to compare a hundred
        whole, part, is_mirrored = whole[good], part[good], is_mirrored[good]
        target = torch.where(is_mirrored[:, None, None], target[good] * _signs(), target[good])
        likeness, share = _align(thumbs[whole].float(), target, ends[good], likeness[good])
        good = likeness >= ALIKE
        found.append((whole[good], part[good], likeness[good], is_mirrored[good], share[good]))
    return tuple(torch.cat(values) for values in zip(*found, strict=True))


def _signs() -> Tensor:
    """What a mirror makes of the frequencies across."""
    signs = torch.ones(FINE)
    signs[1::2] = -1
    return signs


def _compare(thumbs: Tensor, target: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The likeness of parts of pictures to the targets or their mirror images, and whether it is the mirror; (M,)."""
    bank = _bank(thumbs.shape[2])
    whole = unit(_pick(bank, ends[:, 2:]) @ thumbs @ _pick(bank, ends[:, :2]).mT * weights_of(FINE))
    plain, mirror = (whole * target).sum((1, 2)), (whole * target * _signs()).sum((1, 2))
    return torch.maximum(plain, mirror), mirror > plain


def _align(thumbs: Tensor, target: Tensor, ends: Tensor, likeness: Tensor) -> tuple[Tensor, Tensor]:
    """Move the ends of parts until they are most like the targets; their likeness and share, each (M,).

    Args:
        ends: int64 (M, 4), of the parts across and down, in steps; they are moved in place.
        likeness: of these parts.
    """
    weights, bank = weights_of(FINE), _bank(thumbs.shape[2])
    moves = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))  # of both ends of a side
    for turn in range(2 * ROUNDS):
        down = turn % 2  # across and down in turn
        here, other = (slice(2, 4), slice(0, 2)) if down else (slice(0, 2), slice(2, 4))
        tries = ends[:, None, here] + moves
        tries[..., 0].clamp_(0, DEEPEST)
        tries[..., 1].clamp_(STEPS - DEEPEST, STEPS)
        fixed = _pick(bank, ends[:, other])
        half = fixed @ (thumbs.mT if down else thumbs)  # (M, F, S): the other side is transformed
        values = torch.einsum("mkfs,mgs->mkfg", _pick(bank, tries), half)  # this side first
        values = unit((values if down else values.mT) * weights)
        scores = (values * target[:, None]).sum((2, 3))
        best, place = scores.max(1)
        ends[:, here] = torch.where((best > likeness)[:, None], tries[torch.arange(len(tries)), place], ends[:, here])
        likeness = torch.maximum(best, likeness)
    lengths = (ends[:, 1::2] - ends[:, 0::2]).float() / STEPS
    return likeness, lengths.prod(1)


@functools.cache
def _bank(side: int) -> Tensor:
    """float32 (DEEPEST + 1, DEEPEST + 1, FINE, side): the transforms of all intervals, by their two cuts."""
    cuts = range(DEEPEST + 1)
    rows = [transform(begin, STEPS - end, FINE, side) for begin in cuts for end in cuts]
    return torch.stack(rows).view(DEEPEST + 1, DEEPEST + 1, FINE, side)


def _pick(bank: Tensor, intervals: Tensor) -> Tensor:
    return bank[intervals[..., 0], STEPS - intervals[..., 1]]
