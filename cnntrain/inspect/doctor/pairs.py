"""Images that are there twice: the same bytes, or nearly the same picture."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnntrain.inspect.doctor.look import Looks
from cnntrain.inspect.doctor.subject import Subject
from cnntrain.inspect.doctor.twins import Twins

CUT = 0.97  # the part of a picture that another shows, below which it is told as cut


@dataclass(frozen=True)
class Pair:
    """An image and an earlier one, by their numbers in the subject.

    Attributes:
        likeness: up to 1, which the same bytes have.
        how: in words, what was done to the picture.
    """

    image: int
    other: int
    likeness: float
    how: str

    @property
    def is_exact(self) -> bool:
        """Whether both are the same bytes."""
        return self.how == EXACT


EXACT = "the same bytes"


def exact_pairs(looks: Looks) -> list[Pair]:
    """Each image whose bytes an earlier one has, with the first that has them."""
    return [
        Pair(int(looks.rows[place]), int(looks.rows[group[0]]), 1.0, EXACT)
        for group in _groups(looks)
        for place in group[1:].tolist()
    ]


def single_places(looks: Looks) -> NDArray[np.int64]:
    """The places of images with a thumbnail, of exact copies the first: what nearly the same is looked for among."""
    is_single = ~looks.is_flat
    is_single[[*looks.faults]] = False
    for group in _groups(looks):
        is_single[group[1:]] = False
    return np.flatnonzero(is_single)


def _groups(looks: Looks) -> Iterator[NDArray[np.int64]]:
    """The places of images that are the same bytes, in their order."""
    order = looks.checks.argsort(kind="stable")
    checks = looks.checks[order]
    starts = np.flatnonzero(np.concatenate([[True], checks[1:] != checks[:-1]])) if len(order) else order
    ends: NDArray[np.int64] = np.append(starts[1:], len(order))
    for number in np.flatnonzero(ends > starts + 1).tolist():
        group = order[starts[number] : ends[number]]
        if not looks.faults.keys() & set(group.tolist()):
            yield group


def alike_pairs(subject: Subject, rows: NDArray[np.int64], twins: Twins) -> list[Pair]:
    """Each image with the earlier one that it is most like: of each split one of its class, and one of another.

    Args:
        rows: the numbers of the images that the twins are places among.
    """
    best: dict[tuple[int, int, bool], Pair] = {}
    columns = (twins.whole, twins.part, twins.likeness, twins.is_mirrored, twins.share)
    for whole, part, likeness, is_mirrored, share in zip(*(column.tolist() for column in columns), strict=True):
        other, image = sorted((int(rows[whole]), int(rows[part])))
        words = (["mirrored"] if is_mirrored else []) + ([f"cut to {share:.0%}"] if share < CUT else [])
        key = image, int(subject.splits[other]), subject.have_same_label(image, other)
        if key not in best or best[key].likeness < likeness:
            best[key] = Pair(image, other, likeness, " and ".join(words) or "encoded anew")
    return [best[key] for key in sorted(best)]
