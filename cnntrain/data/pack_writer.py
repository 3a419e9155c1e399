"""From folders of photos to the one file that data/pack.py reads."""

import hashlib
import json
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from cnntrain.config.schema.data import Interpolation, OnBadImage
from cnntrain.data.decode import BadImage, decode_image
from cnntrain.data.folder import FolderSplit
from cnntrain.data.pack import FILE, LONGEST, MAGIC, TAIL, Found
from cnntrain.data.paths import Paths
from cnntrain.data.view import resize
from cnntrain.errors import DataError, ImageError, RunFolderError
from cnntrain.runtime.threads import work_ahead
from cnntrain.storage.atomic import StreamedFile
from cnntrain.text import printable

CHUNK = 32  # images of one task


@dataclass(frozen=True)
class Shrinker:
    """Makes the short side of a picture `size` pixels where it is longer, as JPEG of `quality`, 4:2:0.

    A picture that is as small already stays as it is, byte for byte, whatever its kind.
    """

    size: int
    quality: int
    interpolation: Interpolation = Interpolation.bilinear

    def __call__(self, content: bytes) -> bytes:
        """The file of the smaller picture, the right way up, in RGB on white, or grey; BadImage where there is none."""
        pixels = decode_image(content, 3)
        height, width, _ = pixels.shape
        short = min(height, width)
        height, width = (max(1, int(self.size * side / short)) for side in (height, width))
        if short <= self.size or max(height, width) > LONGEST:
            return content
        pixels = resize(pixels, height, width, self.interpolation).contiguous()
        is_grey = bool((pixels[..., :1] == pixels[..., 1:]).all())
        colors, parts = ("GRAY", "Gray") if is_grey else ("RGB", "420")
        values = (pixels[..., :1].contiguous() if is_grey else pixels).numpy()
        return bytes(simplejpeg.encode_jpeg(values, self.quality, colors, parts, fastdct=False))


@dataclass
class Outcome:
    """What was packed.

    Attributes:
        images, size, source_size: how many, and their bytes after and before.
        faults: the files that were left out, and why.
    """

    images: int = 0
    size: int = 0
    source_size: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


def write_pack(
    out: Path,
    found: Found,
    shrink: Shrinker,
    *,
    workers: int,
    on_bad_image: OnBadImage,
    advance: Callable[[int], object],
) -> Outcome:
    """Write the pack into the folder `out`, whole or not at all.

    Args:
        found: the images.
        workers: threads; 0 works in the calling one.
        advance: takes the number of images of each task that is done.

    Raises:
        DataError: a bad image that may not be left out, too many of them, or a class that has no other.
        FileSystemError: it cannot be written.
        RunFolderError: another process packs into that folder, or has meanwhile.
    """
    outcome, entries, arrays = Outcome(), {}, []
    most_bad = max(10, sum(len(part.labels) for part in found.scans.values()) // 100)
    with StreamedFile(out / FILE, alone=True) as file:
        if (out / FILE).exists():
            raise RunFolderError(f"{printable(out)}: holds a pack already; choose another with out=DIR")
        file.write(MAGIC)
        for split, part in found.scans.items():
            packed = _Split([0] * len(part.classes))
            with closing(_shrunk(part, shrink, workers, advance)) as contents:
                for index, content in enumerate(contents):
                    if isinstance(content, str):
                        outcome.faults.append((printable(part.paths[index]), content))
                        _judge(outcome.faults, part.paths, on_bad_image, most_bad)
                    else:
                        file.write(content)
                        packed.add(part, index, content)
            outcome.images += len(packed.names)
            outcome.size += sum(packed.sizes)
            outcome.source_size += int(part.sizes.sum())
            folder = part.paths.root
            entries[split] = packed.entry(part, split, "" if folder == found.source else folder.name)
            arrays += packed.arrays()
        plain = {
            "source": str(found.source),
            "size": min(shrink.size, found.size or shrink.size),
            "quality": shrink.quality,
            "splits": entries,
        }
        index_bytes = b"".join([json.dumps(plain).encode(), b"\n", *arrays])
        file.write(index_bytes + TAIL.pack(len(index_bytes), hashlib.sha256(index_bytes).digest(), MAGIC))
    return outcome


@dataclass
class _Split:
    """What the index says of a split; `counts` are of its classes, the lists of its images."""

    counts: list[int]
    names: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)

    def add(self, part: FolderSplit, index: int, content: bytes) -> None:
        """Note an image that has been written."""
        self.counts[part.labels[index]] += 1
        self.names.append(part.paths.relative(index))
        self.sizes.append(len(content))
        self.checks.append(zlib.crc32(content))

    def entry(self, part: FolderSplit, split: str, folder: str) -> dict[str, Any]:
        """Its place in the JSON; DataError where a class has no image."""
        if empty := [name for name, count in zip(part.classes, self.counts, strict=True) if not count]:
            raise DataError(
                f"data.root: {printable(part.paths.root)}: none of the images of class {empty[0]!r} in the {split} "
                "split can be decoded; replace the files"
            )
        return {"folder": folder, "classes": part.classes, "counts": self.counts, "names": sum(map(len, self.names))}

    def arrays(self) -> list[bytes]:
        """What follows the JSON."""
        ends = np.cumsum([len(name) for name in self.names], dtype=np.int64)
        numbers = [np.array(values, "<u4").tobytes() for values in (self.sizes, self.checks)]
        return [ends.astype("<i8").tobytes(), *numbers, *self.names]


def _judge(faults: list[tuple[str, str]], paths: Paths, on_bad_image: OnBadImage, most: int) -> None:
    """Raises DataError where the last fault may not be passed over."""
    file, reason = faults[-1]
    if on_bad_image is OnBadImage.error:
        raise ImageError(f"{file}: {reason}; {paths.cure}, or set data.on_bad_image=skip")
    if len(faults) > most:
        raise ImageError(
            f"data.on_bad_image: more than {most} bad images (10, or 1 % of all, may be left out), the last {file}: "
            f"{reason}; {paths.cure_of_many}"
        )


def _shrunk(
    part: FolderSplit, shrink: Shrinker, workers: int, advance: Callable[[int], object]
) -> Generator[bytes | str, None, None]:
    """The new content of each image of a split in its order, or why there is none; some tasks ahead, by threads."""

    def work(start: int) -> list[bytes | str]:
        return [_shrink(part, index, shrink) for index in range(start, min(start + CHUNK, len(part.labels)))]

    with closing(work_ahead(work, range(0, len(part.labels), CHUNK), workers, "pack")) as tasks:
        for contents in tasks:
            yield from contents
            advance(len(contents))


def _shrink(part: FolderSplit, index: int, shrink: Shrinker) -> bytes | str:
    try:
        return shrink(part.paths.read(index))
    except BadImage as error:
        return str(error)
