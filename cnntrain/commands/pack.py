"""`cnntrain pack data=imagefolder data.root=DIR out=DIR [size=256]`: a folder of photos as one file of smaller ones."""

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnntrain.config.paths import expand_path, need_outside
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import PackArgs
from cnntrain.config.schema.data import DATASETS, DataSettings, Interpolation
from cnntrain.errors import DataError
from cnntrain.storage import run_folder
from cnntrain.text import counted, printable, short_path

if TYPE_CHECKING:
    from cnntrain.data.pack import Found
    from cnntrain.data.pack_writer import Outcome
    from cnntrain.report.run_report import Report

MOST_FAULTS = 5  # bad files that are named


def run(args: PackArgs, config: RunConfig) -> dict[str, Any]:
    """Write the pack, and say how to train on it.

    Returns:
        "file"; "images", "bytes" and "source_bytes" of them; "left_out": the files that are not in it, and why.

    Raises:
        ConfigError: `out` lies in the folder of photos.
        DataError: an image cannot be decoded and may not be left out.
        FileSystemError: the pack cannot be written.
    """
    settings = config.settings.data
    root = _need_folder(args.out, settings)
    from cnntrain.data.build_files import decode_threads
    from cnntrain.data.pack import FILE
    from cnntrain.data.pack_writer import CHUNK, Shrinker, write_pack
    from cnntrain.report.run_report import Report

    found = _find(root, settings)
    shrink = Shrinker(args.size, args.quality, settings.interpolation or Interpolation.bilinear)
    report = Report(None, tensorboard=False)
    report.header(f"pack: {short_path(root)}", _rows(args, found))
    for line in found.warnings:
        report.warn(line)
    if any(part.groups is not None or part.weights is not None for part in found.scans.values()):
        report.warn("groups and weights of the table stay there: a pack holds images and their classes alone")
    is_new = not args.out.exists()
    run_folder.make(args.out)
    try:
        tasks = sum(-(-len(part.labels) // CHUNK) for part in found.scans.values())
        report.validating(tasks, phase="packing")
        outcome = write_pack(
            args.out,
            found,
            shrink,
            workers=decode_threads(settings.workers),
            on_bad_image=settings.on_bad_image,
            advance=report.advance,
        )
        report.end_phase()
        _tell(args.out, min(args.size, found.size or args.size), outcome, report)
    finally:
        report.close()
        if is_new:
            run_folder.remove_empty(args.out)
    return {
        "file": str(args.out / FILE),
        "images": outcome.images,
        "bytes": outcome.size,
        "source_bytes": outcome.source_size,
        "left_out": [{"file": file, "reason": reason} for file, reason in outcome.faults],
    }


def _need_folder(out: Path, settings: DataSettings) -> Path:
    """The folder of photos; ConfigError where `out` lies in it."""
    root = Path(os.path.abspath(expand_path(settings.root)))
    need_outside(out, root)
    return root


def _find(root: Path, settings: DataSettings) -> "Found":
    from cnntrain.data.sources import find_source

    found = find_source(settings, None)
    if settings.is_shards:  # in a pack the images of a class lie together
        by_class = {split: part.take(part.labels.argsort(stable=True)) for split, part in found.scans.items()}
        found.scans.update(by_class)
    found.scans.update({split: part.without_gaps() for split, part in found.scans.items()})
    if empty := [split for split, part in found.scans.items() if not part.classes]:
        raise DataError(f"data.classes: {printable(root)}: none of them is in the {empty[0]} split; leave it out")
    return found


def _rows(args: PackArgs, found: "Found") -> list[tuple[str, str]]:
    """What is packed, and how."""
    from cnntrain.data.folder import kinds
    from cnntrain.data.layout import join

    parts = found.scans
    become = f"short side {args.size} pixels, JPEG quality {args.quality}; smaller ones stay as they are"
    if 0 < found.size <= args.size:
        become = f"what they are, as size={args.size} is no smaller than they were packed"
    skip_counts: Counter[str] = sum((part.skip_counts for part in parts.values()), Counter())
    rows = [
        ("source", found.note),
        ("images", ", ".join(f"{split} {len(part.labels):,}" for split, part in parts.items())),
        ("classes", f"{max(len(part.classes) for part in parts.values()):,}"),
        ("become", become),
        ("not used", join(found.layout.other_names) if found.layout.other_names else ""),
        ("ignored", kinds(skip_counts)),
    ]
    return [(name, value) for name, value in rows if value]


def _tell(out: Path, size: int, outcome: "Outcome", report: "Report") -> None:
    """Say what came of it, and how to train on images of this short side."""
    from cnntrain.data.common import gigabytes
    from cnntrain.data.pack import FILE
    from cnntrain.data.view import EVAL_SHARE

    side = int(size * EVAL_SHARE)  # of images that are not enlarged
    if outcome.faults:
        report.warn(f"left out, {counted(len(outcome.faults), 'image')} cannot be decoded:")
    for file, reason in outcome.faults[:MOST_FAULTS]:
        report.say(f"  {file}: {reason}")
    if len(outcome.faults) > MOST_FAULTS:
        report.say(f"  and {len(outcome.faults) - MOST_FAULTS:,} more")
    sizes = f"{gigabytes(outcome.size)}, of {gigabytes(outcome.source_size)}"
    report.say(f"wrote {printable(short_path(out / FILE))}: {counted(outcome.images, 'image')}, {sizes}", copied=True)
    root = shlex.quote(f"data.root={short_path(out)}")
    usual = DATASETS.entry("imagefolder").image_size
    smaller = f" data.image_size={side}" if usual and side < usual else ""
    report.suggest([f"cnntrain train data=imagefolder {printable(root)}{smaller}"])
