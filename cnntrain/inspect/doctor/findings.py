"""What a look at a data set has found, worst first, and what to do about it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from cnntrain.data.labels import near_names, near_words
from cnntrain.data.quick_look import SKEW, skew_words
from cnntrain.inspect.doctor.look import KINDS, Looks
from cnntrain.inspect.doctor.pairs import Pair
from cnntrain.inspect.doctor.subject import Subject
from cnntrain.text import few, printable

LABEL = "label"  # the kind of labels that look wrong, see labels.py
LONGEST = 4  # times as long as wide: of longer pictures training sees the middle alone (data/view.py)
LARGE = 12_000_000  # pixels
COPIES_ADVICE = "keep one of each"


@dataclass(frozen=True)
class Entry:
    """An image of a finding, by its number in the subject; of a pair the other one too."""

    image: int
    pair: Pair | None = None
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: its name in files.
        what: its name for people.
        count: of images, or classes.
        advice: what to do.
        entries: the images; none where it is of classes.
        is_serious: it harms a training or its scores; else it is good to know.
    """

    kind: str
    what: str
    count: int
    advice: str
    entries: list[Entry] = field(default_factory=list)
    is_serious: bool = True

    @property
    def is_of_pairs(self) -> bool:
        """Whether its images are there twice."""
        return any(entry.pair for entry in self.entries)


@dataclass(frozen=True)
class Circumstances:
    """What a config does with the images.

    Attributes:
        size: pixels a side that training sees; None: those of the images.
        draws_val: the validation images come out of train.
        evens_out: classes are weighed by their sizes.
    """

    size: int | None
    draws_val: bool
    evens_out: bool


def find_all(
    subject: Subject, looks: Looks, pairs: Sequence[Pair], config: Circumstances, doubts: Sequence[Finding] = ()
) -> list[Finding]:
    """All findings, those that harm most first; of a pair that is in two of them, both are told.

    Args:
        pairs: exact ones, and those that are alike.
        doubts: of labels, by a trained network.
    """
    return [
        *_damaged(looks),
        *_leaks(subject, pairs),
        *_contradictions(subject, pairs),
        *doubts,
        *_gaps(subject),
        *_near_names(subject),
        *_copies(subject, pairs, config.draws_val),
        *_skew(subject, config.evens_out),
        *_without_label(subject, looks),
        *_odd(looks, config.size),
    ]


def _damaged(looks: Looks) -> Iterator[Finding]:
    entries = [Entry(int(looks.rows[place]), note=reason) for place, reason in looks.faults.items()]
    if entries:
        yield Finding("damaged", "cannot be decoded", len(entries), "mend or remove the files", entries)


def _leaks(subject: Subject, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Images of one split in another; the same bytes first."""

    def key(pair: Pair) -> tuple[bool, int, int]:
        return not pair.is_exact, int(subject.splits[pair.other]), int(subject.splits[pair.image])

    leaks = sorted((pair for pair in pairs if subject.split(pair.image) != subject.split(pair.other)), key=key)
    for (is_alike, _, _), group in groupby(leaks, key):
        found = list(group)
        split, other = subject.split(found[0].image), subject.split(found[0].other)
        how = "nearly the same" if is_alike else "the same bytes"
        kind = "leak_alike" if is_alike else "leak"
        yield _of_pairs(kind, f"in {other} and {split}, {how}", f"remove them from {other} or {split}", found)


def _contradictions(subject: Subject, pairs: Sequence[Pair]) -> Iterator[Finding]:
    found = [pair for pair in pairs if not subject.have_same_label(pair.image, pair.other)]
    where = "of different labels" if subject.has_sets else "in two classes"
    advice = f"keep the one whose {'labels are' if subject.has_sets else 'class is'} right"
    if exact := [pair for pair in found if pair.is_exact]:
        yield _of_pairs("contradiction", f"{where}, the same bytes", advice, exact)
    if alike := [pair for pair in found if not pair.is_exact]:
        yield _of_pairs("contradiction_alike", f"{where}, nearly the same", advice, alike)


def _gaps(subject: Subject) -> Iterator[Finding]:
    for split, counts in subject.counts.items():
        if absent := [name for name, count in zip(subject.classes, counts, strict=True) if not count]:
            names = few([printable(name) for name in absent], 3)
            yield Finding("no_images", f"classes without {split} images", len(absent), f"add some of {names}")


def _near_names(subject: Subject) -> Iterator[Finding]:
    """Classes that look the same, with the images of those that have fewer."""
    totals = [sum(counts) for counts in zip(*subject.counts.values(), strict=True)]
    sizes = dict(zip(subject.classes, totals, strict=True))
    for names in near_names(subject.classes):
        entries = []
        for name in sorted(names, key=sizes.__getitem__)[:-1]:
            is_of = subject.labels == subject.classes.index(name)
            if subject.has_sets:
                is_of = subject.labels[:, subject.classes.index(name)]
            entries += [Entry(row, note=name) for row in np.flatnonzero(is_of).tolist()]
        yield Finding("near_names", "classes that look the same", len(names), near_words(names, sizes), entries)


def _copies(subject: Subject, pairs: Sequence[Pair], draws_val: bool) -> Iterator[Finding]:
    """Copies within a split and a class."""
    for is_exact, kind, how in ((True, "copy", "the same bytes"), (False, "alike", "nearly the same")):
        for split, _ in subject.sizes():
            found = [
                pair
                for pair in pairs
                if pair.is_exact is is_exact
                and subject.split(pair.image) == subject.split(pair.other) == split
                and subject.have_same_label(pair.image, pair.other)
            ]
            if found:
                leaks = draws_val and split == "train"
                advice = f"{COPIES_ADVICE}: val is drawn from train" if leaks else COPIES_ADVICE
                yield _of_pairs(kind, f"twice in {split}, {how}", advice, found)


def _of_pairs(kind: str, what: str, advice: str, pairs: Sequence[Pair]) -> Finding:
    order = sorted(pairs, key=lambda pair: (-pair.likeness, pair.image))
    entries = [Entry(pair.image, pair, "" if pair.is_exact else pair.how) for pair in order]
    return Finding(kind, what, len({pair.image for pair in pairs}), advice, entries)


def _skew(subject: Subject, evens_out: bool) -> Iterator[Finding]:
    counts = subject.counts.get("train")
    if counts and not evens_out and (words := skew_words(counts, [*map(printable, subject.classes)])):
        few_images = sum(max(counts) >= SKEW * count for count in counts)
        key = "loss.pos_weight" if subject.has_sets else "loss.class_weights"
        advice = f"{words.replace(' : ', ':')}; {key}=balanced evens that out"  # a ratio stays on its line
        yield Finding("skew", f"classes of under 1/{SKEW} of the largest", few_images, advice)


def _without_label(subject: Subject, looks: Looks) -> Iterator[Finding]:
    if subject.has_sets and (rows := looks.rows[~subject.labels[looks.rows].any(1)].tolist()):
        advice = "right, if they show none of the classes"
        yield Finding("no_label", "without any label", len(rows), advice, [Entry(row) for row in rows], False)


def _odd(looks: Looks, size: int | None) -> Iterator[Finding]:
    """Images of an odd look or size."""
    short, long = np.minimum(looks.heights, looks.widths), np.maximum(looks.heights, looks.widths)
    is_seen = short > 0

    def finding(kind: str, what: str, advice: str, places: Any, note: Callable[[int], str]) -> Iterator[Finding]:
        entries = [Entry(int(looks.rows[place]), note=note(place)) for place in np.flatnonzero(places).tolist()]
        if entries:
            yield Finding(kind, what, len(entries), advice, entries, is_serious=kind == "flat")

    def pixels(place: int) -> str:
        return f"{looks.widths[place]} x {looks.heights[place]} pixels"

    yield from finding("flat", "of one colour", "remove them, if they show nothing", looks.is_flat, pixels)
    if size:
        small = is_seen & (short < size)
        yield from finding("small", f"below {size} pixels", "they are enlarged, and blurred", small, pixels)
    is_long = is_seen & (long > LONGEST * short)
    yield from finding("strip", f"over {LONGEST} : 1 long", "only their middle is seen", is_long, pixels)
    is_large = looks.heights.astype(np.int64) * looks.widths > LARGE
    words = "cnntrain pack makes them quick to read"
    yield from finding("large", f"over {LARGE // 1_000_000} megapixels", words, is_large, pixels)


def kind_counts(looks: Looks) -> Mapping[str, int]:
    """How many images keep their pixels in which way, most first."""
    is_seen = looks.heights > 0
    counts = np.bincount(looks.kinds[is_seen], minlength=len(KINDS)).tolist()
    return {name: count for count, name in sorted(zip(counts, KINDS, strict=True), reverse=True) if count}
