"""What a shard of the webdataset format holds: where each image of it lies, and its label. Nothing is unpacked.

A shard is a tar file whose members of one name and several suffixes make a sample: `0001.jpg` and `0001.cls`. It is
read once, from its beginning to its end; what was found is kept in the user's cache for as long as the file has the
same path, size and time.
"""

import hashlib
import json
import os
import re
import stat
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnntrain.config.paths import cache_dir
from cnntrain.data.archive_entries import DAMAGE, Sips, damage_of, is_plain_file, tar_members
from cnntrain.data.columns import USUAL
from cnntrain.data.labels import LONGEST_LABEL
from cnntrain.data.layout import SUFFIXES, is_clutter
from cnntrain.storage.atomic import open_own, read_kept, write_kept
from cnntrain.text import cut, few, printable

IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
LABELS = ("cls", "class", "label", "json", "txt")  # suffixes of labels; those of one sample must say the same
CAPTION = "txt"  # no label beside another one
PICKLES = ("pyd", "pickle", "pkl", "pth", "pt", "npy", "npz")  # that may run code when they are loaded
KEYS = (*USUAL["label"], "cls", "classid", "labelid", "classindex")  # of an object of JSON, without signs between
SURE_KEYS = ("label", "cls")  # that are a label beside a .cls, too
MOST_LABEL = 1 << 20  # bytes of a label
BUFFER = 1 << 14  # bytes that are read at once: a header, and often the label behind it
VERSION = 1  # of the files in the cache

Label = int | str


class Member(NamedTuple):
    """A file in a shard: its suffix, and where its content lies."""

    suffix: str
    start: int
    size: int


class Fault(NamedTuple):
    """What is wrong with a shard, or with a sample of it.

    Attributes:
        kind: of the samples that are left untold, such as `damaged shards`.
        key: of the sample; empty of the shard.
    """

    kind: str
    key: str
    text: str


@dataclass
class ShardIndex:
    """The images of a shard in the order in which they lie there.

    Attributes:
        names: of the images in the shard.
        starts, sizes: where each begins, and its bytes.
        labels: numbers, or names of classes.
        other: samples without an image and without a label, which are passed over.
    """

    names: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    other: int = 0
    faults: list[Fault] = field(default_factory=list)


def index_shard(path: Path) -> ShardIndex:
    """The index of a shard, out of the cache where it is there."""
    try:
        status = os.stat(path)
    except OSError as error:
        return ShardIndex(faults=[Fault("damaged shards", "", f"cannot be read ({error.strerror}); mend that")])
    if not stat.S_ISREG(status.st_mode):
        return ShardIndex(faults=[Fault("damaged shards", "", "is a folder, pipe or device, not a file; take it away")])
    mark = repr((VERSION, os.fsencode(os.path.abspath(path)), status.st_size, status.st_mtime_ns))
    file = cache_dir() / "shard_indices" / f"{hashlib.sha256(mark.encode()).hexdigest()[:32]}.json"
    if index := _load(file, status.st_size):
        return index
    index = _read(path)
    if not index.faults:
        write_kept(file, json.dumps(asdict(index)))
    return index


def _load(file: Path, size: int) -> ShardIndex | None:
    """An index that an earlier run has kept; None where there is none, or none that a shard of so many bytes has."""
    try:
        index = ShardIndex(**json.loads(read_kept(file)))
        return index if _is_whole(index, size) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _is_whole(index: ShardIndex, size: int) -> bool:
    """Whether an index is such as `_read` makes; or TypeError or ValueError where it is none at all."""
    places = np.array([index.starts, index.sizes])
    if places.dtype != np.int64 or places.shape != (2, len(index.names)) or len(index.names) != len(index.labels):
        return False
    os.fsencode("".join(index.names))
    are_labels = all(type(label) in (int, str) and _as_label(str(label), "") == label for label in set(index.labels))
    is_inside = places.size > 0 and places.min() >= 0 and places.max() <= size and places.sum(0).max() <= size
    return bool(are_labels and is_inside and not index.faults and type(index.other) is int)


def _read(path: Path) -> ShardIndex:
    samples: dict[str, list[Member]] = defaultdict(list)
    index = ShardIndex()
    try:
        with (
            os.fdopen(open_own(path, os.O_RDONLY, follow=True), "rb", buffering=0) as file,
            Sips(file, BUFFER) as stream,
        ):
            for key, member in _members(stream):
                samples[key].append(member)
            for key, members in samples.items():
                _add(index, key, members, file.fileno())
    except DAMAGE as error:
        index.faults.append(Fault("damaged shards", "", "; ".join(damage_of(error, "fetch or write it anew"))))
    else:
        if not index.names and not index.faults:
            advice = "members are called KEY.jpg and KEY.cls there"
            index.faults.append(Fault("shards without images", "", f"holds no images; {advice}"))
    return index


def _members(stream: Sips) -> Iterator[tuple[str, Member]]:
    """The plain files of a tar file with their keys, which all suffixes of a sample share."""
    with tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape") as content:
        for info in tar_members(content, stream):
            parts = [part for part in info.name.split("/") if part not in ("", ".", "..")]
            if not is_plain_file(info) or not parts or any(map(is_clutter, parts)):
                continue
            stem, _, suffix = parts[-1].partition(".")
            if suffix and not (stem.startswith("__") and len(parts) == 1):  # webdataset's own notes
                yield "/".join([*parts[:-1], stem]), Member(suffix, info.offset_data, info.size)


def _add(index: ShardIndex, key: str, members: Sequence[Member], handle: int) -> None:
    """Add a sample to an index, or what is wrong with it."""
    name = printable(key)
    suffixes = [member.suffix.lower() for member in members]
    if twice := {suffix for suffix in suffixes if suffixes.count(suffix) > 1}:
        text = f"holds {few(sorted(twice))} more than once; give each sample a key of its own"
        index.faults.append(Fault("keys with members of one name", name, text))
        return
    images = _of_kinds(members, IMAGES)
    labels = {suffix: member for suffix in LABELS for member in _of_kinds(members, (suffix,))[:1]}
    if not images and not labels:
        index.other += 1
    elif len(images) != 1:
        there = few(sorted(map(printable, suffixes)))
        what = f"holds {len(images)} images" if images else "holds no image that can be read"
        index.faults.append(
            Fault(
                "samples with no image or several", name, f"{what} ({there}); give it one, such as {_short(name)}.jpg"
            )
        )
    else:
        label = _label(labels, suffixes, handle)
        if isinstance(label, _Wrong):
            index.faults.append(Fault("samples with no label or several", name, label.text))
            return
        index.names.append(f"{key}.{images[0].suffix}")
        index.starts.append(images[0].start)
        index.sizes.append(images[0].size)
        index.labels.append(label)


def _of_kinds(members: Sequence[Member], kinds: Sequence[str]) -> list[Member]:
    """The members of these suffixes; where there are none, those whose last suffix is one (`0001.left.jpg`)."""
    whole = [member for member in members if member.suffix.lower() in kinds]
    return whole or [member for member in members if member.suffix.lower().rpartition(".")[2] in kinds]


class _Wrong(NamedTuple):
    """Why there is no label, and what to do."""

    text: str


def _label(members: Mapping[str, Member], suffixes: Sequence[str], handle: int) -> Label | _Wrong:
    """The label of a sample, of the members that may say it."""
    found: dict[str, Label] = {}
    wrong = None
    for suffix, member in members.items():
        if suffix == CAPTION and found:
            continue
        if member.size > MOST_LABEL:
            label: Label | _Wrong = _Wrong(f".{suffix} has {member.size:,} bytes, and is no label; give it one")
        else:
            label = _parse(suffix, os.pread(handle, member.size, member.start), SURE_KEYS if found else KEYS)
        if isinstance(label, _Wrong):
            wrong = wrong or label
        else:
            found[suffix] = label
    if not found:
        return wrong or _Wrong(_without_label(suffixes))
    labels = list(found.values())
    for suffix, label in found.items():
        if type(label) is type(labels[0]) and label != labels[0]:
            first = next(iter(found))
            return _Wrong(f"has the label {labels[0]!r} in .{first} and {label!r} in .{suffix}; leave one of them")
    return labels[0]


def _without_label(suffixes: Sequence[str]) -> str:
    pickles = [suffix for suffix in suffixes if suffix.rpartition(".")[2] in PICKLES]
    text = f"has no label ({few(sorted(map(printable, suffixes)))}); give it one in .cls, .json or .txt"
    return f"{text}: a .{printable(pickles[0])} may run code, and is never loaded" if pickles else text


def _parse(suffix: str, content: bytes, usual_keys: Sequence[str]) -> Label | _Wrong:
    """The label that a member says, an object of JSON under one of the usual keys."""
    text = content.decode("utf-8-sig", "replace").strip()
    if suffix != "json":
        return _as_label(text, suffix)
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return _Wrong(".json is no JSON; write it anew")
    if isinstance(value, dict):
        keys = {re.sub(r"[\W_]+", "", name.lower()): name for name in value}
        key = next((keys[usual] for usual in usual_keys if usual in keys), None)
        if key is None:
            there = cut(few(map(printable, value)), 60) or "none"
            return _Wrong(f".json names no label (its keys: {there}); call it label, or add a .cls")
        value = value[key]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | dict):
        return _Wrong(".json holds several labels; give the sample one")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _as_label("" if value is None else str(value), suffix)


def _as_label(text: str, suffix: str) -> Label | _Wrong:
    """A number, or the name of a class."""
    if re.fullmatch(r"[+-]?\d{1,15}", text):
        return int(text)
    name = printable(text)
    if not text:
        return _Wrong(f".{suffix} is empty; give it a number or the name of a class")
    if len(name) > LONGEST_LABEL:
        return _Wrong(f".{suffix} holds a text of {len(name):,} letters, which is no class; give it one")
    return name


def _short(name: str) -> str:
    return cut(name.rpartition("/")[2], 40)
