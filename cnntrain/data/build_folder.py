"""A folder of class folders, or a pack of one, to the three splits."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cnntrain.config.advice import advise_table, shell_word
from cnntrain.config.paths import expand_path
from cnntrain.data.build_files import load_splits
from cnntrain.data.common import Data, Request, choose_classes
from cnntrain.data.folder import FolderSplit, align, kinds
from cnntrain.data.layout import folders_in, join
from cnntrain.data.loaders import Loader
from cnntrain.data.pack import Found
from cnntrain.data.sources import find_source
from cnntrain.errors import DataError
from cnntrain.text import printable

LOUD_SHARE = 0.1  # of the files of a class, or of all: whoever loses so many is warned


def image_folder(request: Request) -> tuple[Data, Mapping[str, Loader]]:
    """The data without its training images, and the loaders of all splits that were asked for. See build_data."""
    root = expand_path(request.settings.root)
    found = request.world.once_here("scan", lambda: find_source(request.settings, request.classes, request.say))
    scans = found.scans
    if "train" not in scans and "train" in request.splits:
        raise DataError(f"data.root: {printable(root)} {_without_train(found)}")
    first_scan = scans.get("train", next(iter(scans.values())))
    classes = request.classes or choose_classes([*first_scan.classes, *first_scan.left_out], request)
    if len(classes) < 2:
        raise DataError(
            f"{printable(root)}: {classes[0]!r} is the only class folder; {_advise_below(root / classes[0])}"
        )
    splits = {
        name: align(part, classes, name, allow_missing=request.classes is not None) for name, part in scans.items()
    }
    _note_layout(found, request)
    _note_ignored(scans, request)
    return load_splits(splits, classes, request, found)


def _without_train(found: Found) -> str:
    """What there is in place of train, and what to do."""
    if found.table:
        return f"has no image that {found.table} puts into train; put some there, or leave data.split_file out"
    if found.note:
        return f"holds a pack of {' and '.join(found.scans)} without train; pack a folder that has train/ too"
    names = " and ".join(f"{folder.name}/" for folder in found.layout.folders.values())
    return f"has {names} but no train/; add it, or name one of class folders"


def _advise_below(folder: Path) -> str:
    """What to do about an only class folder: archives often hold all the others in one."""
    if folder.is_dir() and len(folders_in(folder)) > 1:
        return f"did you mean {shell_word('data.root', folder)}?"
    table = advise_table(folder.parent) if folder.is_dir() else ""
    return "it takes two classes or more" + (f"; if a table has them, say {table}" if table else "")


def _note_layout(found: Found, request: Request) -> None:
    """Say which folder is which split, and which is none."""
    layout = found.layout
    if found.note:
        request.notes.append(found.note)
    if not found.table and layout.folders.get("train") != found.source:
        text = ", ".join(f"{folder.name}/ is {split}" for split, folder in layout.folders.items())
        request.notes.append(f"splits: {printable(text)}")
    if layout.other_names:
        names = f"{join(layout.other_names)} {'is' if len(layout.other_names) == 1 else 'are'}"
        request.warnings.append(f"data.root: {names} not used, beside the folders of the splits")


def _note_ignored(scans: dict[str, FolderSplit], request: Request) -> None:
    """Say what was skipped and which class it costs most; loudly, where that is a tenth of a class or of all."""
    skip_counts: Counter[str] = sum((part.skip_counts for part in scans.values()), Counter())
    losses: Counter[str] = sum((part.loss_counts for part in scans.values()), Counter())
    totals = Counter(losses)
    for part in scans.values():
        counts = part.labels.bincount(minlength=len(part.classes))
        totals.update(dict(zip(part.classes, counts.tolist(), strict=True)))
    if not skip_counts:
        return
    line = f"ignored below data.root: {kinds(skip_counts)}"
    worst_class = max(totals, key=lambda name: losses[name] / totals[name])
    if losses[worst_class]:
        line += f"; class {worst_class!r} loses most, {losses[worst_class]:,} of {totals[worst_class]:,} files"
    outside = skip_counts["image outside the class folders"]
    share = max(losses[worst_class] / totals[worst_class], (losses.total() + outside) / (totals.total() + outside))
    (request.warnings if share >= LOUD_SHARE else request.notes).append(line)
