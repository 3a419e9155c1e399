"""What a glance tells of a data set before it trains; `cnntrain check` looks at it whole (inspect/doctor)."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cnntrain.data.decode import BadImage
from cnntrain.data.folder import FolderSplit
from cnntrain.text import WIDEST_NAME, printable, short_path, shorten

SKEW = 5  # times the images of the smallest class, from which on a class is told as large
MOST_FILES, MOST_BYTES = 400, 64 * 2**20  # that are read: in under a second


def skew_words(counts: Sequence[int], classes: Sequence[str]) -> str:
    """`123 images of ants, 10 of bees, 12.3 : 1`; empty where classes are alike in size, or one has no image."""
    least, most = min(counts), max(counts)
    if not least or most < SKEW * least:
        return ""
    large, small = (shorten(classes[counts.index(count)], WIDEST_NAME) for count in (most, least))
    return f"{most:,} images of {large}, {least:,} of {small}, {most / least:.3g} : 1"


def leak_words(splits: Mapping[str, FolderSplit]) -> str:
    """A line on images of val and test that are in train too, byte for byte; empty where none is found.

    Only files of the same size are read, those first that have the fewest of it, and no more than takes a second.
    """
    if (train := splits.get("train")) is None:
        return ""
    order = train.sizes.numpy().argsort(kind="stable")
    sizes = train.sizes.numpy()[order]
    files, room = MOST_FILES, MOST_BYTES
    for split in ("val", "test"):
        if (part := splits.get(split)) is None:
            continue
        wanted: NDArray[np.int64] = part.sizes.numpy()
        first, last = (sizes.searchsorted(wanted, side) for side in ("left", "right"))
        suspects = np.flatnonzero(last > first)
        found = []
        is_whole = True
        for index in suspects[(last - first)[suspects].argsort(kind="stable")].tolist():
            size, twins = int(part.sizes[index]), order[first[index] : last[index]].tolist()
            files, room = files - 1 - len(twins), room - size * (1 + len(twins))
            if min(files, room) < 0:
                is_whole = False
                break
            if _is_among(index, part, twins, train):
                found.append(index)
        if found:
            count = f"{len(found):,} of {len(part.labels):,} {split} images"
            verb = "is" if len(found) == 1 else "are"
            example = printable(short_path(part.paths[found[0]]))
            most = "" if is_whole else "at least "
            return f"data: {most}{count} {verb} in train too, byte for byte ({example}); cnntrain check lists them"
    return ""


def _is_among(index: int, part: FolderSplit, twins: Sequence[int], train: FolderSplit) -> bool:
    """Whether the content of a file of a split is that of one of some files of train."""
    try:
        content = part.paths.read(index)
    except BadImage:
        return False
    for twin in twins:
        try:
            if train.paths.read(twin) == content:
                return True
        except BadImage:
            continue
    return False
