"""What was found, as lines of 80 columns, as JSON and as CSV."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size

from cnntrain.inspect.doctor.findings import Entry, Finding, kind_counts
from cnntrain.inspect.doctor.labels import RELIABLE, LabelCheck
from cnntrain.inspect.doctor.look import SIDE, Looks
from cnntrain.inspect.doctor.subject import Subject
from cnntrain.storage.spreadsheet import as_csv
from cnntrain.text import WIDTH, percent, printable, short_path, shorten, shorten_apart, wrap

HEAD = ("found", "count", "what to do")
WIDEST = 38  # columns of what was found
COLUMNS = ("finding", "split", "class", "file", "other_split", "other_class", "other_file", "likeness", "note")


def lines(subject: Subject, findings: Sequence[Finding]) -> list[tuple[str, bool]]:
    """A line for each finding and, set in, its first images; with each whether it is serious."""
    names = [shorten(finding.what, WIDEST) for finding in findings]
    counts = [f"{finding.count:,}" for finding in findings]
    first, second = (max(map(cell_len, column)) for column in ([HEAD[0], *names], [HEAD[1], *counts]))
    room = WIDTH - first - second - 4
    found = [(f"{set_cell_size(HEAD[0], first)}  {HEAD[1]:>{second}}  {HEAD[2]}", True)]
    for finding, name, count in zip(findings, names, counts, strict=True):
        advice, *rest = wrap(finding.advice, room)
        found.append((f"{set_cell_size(name, first)}  {count:>{second}}  {advice}", finding.is_serious))
        found += [(" " * (first + second + 4) + line.strip(), finding.is_serious) for line in rest]
        found += [(f"  {_example(subject, entry)}", False) for entry in finding.entries[:1]]
    return found


def _example(subject: Subject, entry: Entry) -> str:
    """`train/ant/a.jpg = val/ant/b.jpg (mirrored)`, in a line."""
    note = shorten(f" ({printable(entry.note)})", WIDTH // 2) if entry.note else ""
    files = [entry.image] if entry.pair is None else [entry.image, entry.pair.other]
    names = [printable(short_path(subject.name(index))) for index in files]
    room = WIDTH - 2 - cell_len(note) - 3 * (len(names) - 1)
    return " = ".join(shorten_apart(names, room // len(names))) + note


def facts(subject: Subject, looks: Looks, labels: LabelCheck | None) -> list[tuple[str, str]]:
    """What the images are like: their numbers, sizes and kinds."""
    rows = [("images", ", ".join(f"{split} {count:,}" for split, count in subject.sizes()))]
    if len(looks.rows) < len(subject):
        rows.append(
            ("looked at", f"{len(looks.rows):,} of {len(subject):,}, evenly spaced; copies of others are not seen")
        )
    rows.append(("classes", f"{len(subject.classes):,}"))
    if sizes := size_numbers(looks):
        one = sizes["smallest"] == sizes["largest"]
        words = "{} x {} pixels".format(*sizes["median"])
        if not one:
            words += ", from {} x {} to {} x {}".format(*sizes["smallest"], *sizes["largest"])
            words = f"in the middle {words}"
        rows.append(("sizes", words))
    if sizes and not looks.is_comparable.any():
        rows.append(("copies", f"the same pixels alone: of under {SIDE} a side much looks nearly the same"))
    rows.append(("kinds", ", ".join(f"{kind} {count:,}" for kind, count in kind_counts(looks).items())))
    if labels:
        rows.append(("labels", f"{percent(labels.agreement)} confirmed by {labels.judge}"))
        if labels.findings and labels.agreement < RELIABLE:
            rows.append(("", f"below {RELIABLE:.0%}, most of those that look wrong may be right"))
    return [(name, value) for name, value in rows if value]


def size_numbers(looks: Looks) -> dict[str, list[int]]:
    """Width and height of the smallest, the middle and the largest image by their pixels; empty where there is none."""
    seen = np.flatnonzero(looks.heights)
    if not len(seen):
        return {}
    order = seen[(looks.heights[seen].astype(np.int64) * looks.widths[seen]).argsort(kind="stable")]
    places = {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}
    return {name: [int(looks.widths[place]), int(looks.heights[place])] for name, place in places.items()}


def as_plain(subject: Subject, looks: Looks, findings: Sequence[Finding], labels: LabelCheck | None) -> dict[str, Any]:
    """All that was found, for JSON."""
    return {
        "images": dict(subject.sizes()),
        "looked_at": len(looks.rows),
        "classes": {
            name: {split: counts[place] for split, counts in subject.counts.items()}
            for place, name in enumerate(subject.classes)
        },
        "sizes": size_numbers(looks),
        "kinds": dict(kind_counts(looks)),
        "labels": {"judge": labels.judge, "agreement": labels.agreement} if labels else None,
        "findings": [
            {
                "finding": finding.kind,
                "what": finding.what,
                "count": finding.count,
                "advice": finding.advice,
                "serious": finding.is_serious,
                "images": [dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in _rows(subject, finding)],
            }
            for finding in findings
        ],
    }


def as_json(plain: dict[str, Any]) -> str:
    """The same as text."""
    return json.dumps(plain, indent=2) + "\n"


def as_table(subject: Subject, findings: Sequence[Finding]) -> str:
    """CSV: a row for each image to look at, in the order of the findings."""
    return as_csv([COLUMNS, *(row for finding in findings for row in _rows(subject, finding))])


def _rows(subject: Subject, finding: Finding) -> Iterator[tuple[Any, ...]]:
    for entry in finding.entries:
        image, pair = entry.image, entry.pair
        first = (subject.split(image), subject.label(image), subject.name(image))
        other = (
            (subject.split(pair.other), subject.label(pair.other), subject.name(pair.other)) if pair else (None,) * 3
        )
        yield finding.kind, *first, *other, round(pair.likeness, 4) if pair else None, entry.note
