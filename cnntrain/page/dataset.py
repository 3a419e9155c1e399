"""The data set in numbers."""

from collections.abc import Mapping, Sequence

from cnntrain.data.common import Data
from cnntrain.page.markup import Html, breakable, fold, section, table, tag
from cnntrain.page.run import Run
from cnntrain.report.augmentation import class_name
from cnntrain.text import cut

SPLITS = {"train": "training images", "val": "validation images", "test": "test images"}
LONGEST_NAME, MOST_ROWS = 40, 2000


def dataset(run: Run, data: Data | None, images: Mapping[str, Sequence[int]], totals: Mapping[str, int]) -> Html:
    """Where the images come from, how many there are of each split and class, and how they are prepared.

    Args:
        data: of the network that was loaded.
        images: for each split that was read, the images of each class.
        totals: all of its images, of which each may have several classes or none.
    """
    settings = run.settings.data
    counts = {split: run.images(split) for split in SPLITS} | dict(totals)
    classes = list(data.classes) if data else run.classes
    rows: list[tuple[str, object]] = [("data", settings.heading)]
    if settings.has_files:
        rows.append(("folder", breakable(str(settings.root))))
    if classes:
        rows.append(("classes", f"{len(classes):,}"))
    rows += [(name, f"{counts[split]:,}") for split, name in SPLITS.items() if counts[split]]
    if data and data.multi_label:
        rows += [
            (f"labels of a {split} image", f"{sum(part) / totals[split]:.2f} on average")
            for split, part in images.items()
            if totals[split]
        ]
    if least := [count for count in images.get("train", ()) if count]:
        rows.append(("training images of a class", f"{min(least):,} to {max(least):,}"))
    if data:
        scored = f", scored at {data.eval_size} x {data.eval_size}" if data.eval_size != data.image_size else ""
        rows.append(
            ("size", f"{data.channels} x {data.image_size} x {data.image_size} (channels, height, width){scored}")
        )
        rows += [
            (name, " ".join(f"{value:.4g}" for value in values))
            for name, values in (("mean", data.mean), ("std", data.std))
        ]
    if fingerprint := run.environment.get("data_fingerprint"):
        rows.append(("fingerprint", tag("code", cut(str(fingerprint), 16))))
    return section("data", "Data", table(["", ""], rows, words=2), _by_class(classes, images))


def _by_class(classes: Sequence[str], images: Mapping[str, Sequence[int]]) -> Html | None:
    splits = {name: counts for name, counts in images.items() if len(counts) == len(classes)}
    if not classes or not splits:
        return None
    rows = [
        (
            tag("span", cut(class_name(name), LONGEST_NAME), title=name),
            *(f"{counts[place]:,}" for counts in splits.values()),
        )
        for place, name in enumerate(classes[:MOST_ROWS])
    ]
    some = f", the first {len(rows):,}" if len(rows) < len(classes) else ""
    return fold(f"Images by class{some}", table(["class", *splits], rows))
