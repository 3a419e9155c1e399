"""The parts of the page that come from asking a network that gives each image a set of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnntrain.data.loaders import Loader
from cnntrain.evaluation.label_sets import SetScores
from cnntrain.page import pictures
from cnntrain.page.answers import (
    LONGEST_NAME,
    MOST_CLASSES,
    MOST_ROWS,
    bar,
    merge,
    reliability_chart,
    temperature_advice,
    temperature_words,
)
from cnntrain.page.chart import Chart, Line, grid, percents
from cnntrain.page.markup import Html, code_words, fold, section, table, tag
from cnntrain.report.augmentation import class_name
from cnntrain.text import cut, percent
from cnntrain.training.job import Job

MOST_IMAGES, MOST_PAIRS = 9, 10  # worst images of each kind, and labels that are given in place of others
KINDS = {
    "missed": "Labels that it misses",
    "wrongly_given": "Labels that it gives wrongly",
    "largest_losses": "Largest losses",
}
SOURCES = {
    "checkpoint": "fitted to the validation images, of which it gives the highest F1",
    "val": "fitted to the validation images, of which it gives the highest F1",
    "0.5": "0.5, as none was fitted",
}


def by_label(scores: Mapping[str, Any], train_images: Sequence[int], split: str) -> Html | None:
    """Average precision, and F1 at its threshold, of each label; of many the hardest first, and all of them folded."""
    labels = scores["classes"]
    if not labels:
        return None
    rows = {
        name: _label_row(name, row, train_images[place] if train_images else None)
        for place, (name, row) in enumerate(labels.items())
    }
    train = ["train"] if train_images else []
    heads = ["label", "AP", "F1", "precision", "recall", "threshold", split, *train, "average precision"]
    about = (
        "Average precision (AP) judges the order of the images and needs no threshold. An image is given a label from "
        f"its threshold on: {SOURCES[scores['thresholds']]}."
    )
    if len(labels) <= MOST_CLASSES:
        return section("classes", "Labels", tag("p", about, class_="about"), table(heads, list(rows.values())))
    order = sorted(labels, key=lambda name: (labels[name]["average_precision"] or 0.0, -labels[name]["images"]))
    title = f"The first {MOST_ROWS:,} labels" if len(rows) > MOST_ROWS else f"All {len(rows):,} labels"
    words = f"{about} The {MOST_CLASSES} hardest of {len(labels):,} labels, by their average precision:"
    hardest = table(heads, [rows[name] for name in order[:MOST_CLASSES]])
    every = fold(title, table(heads, list(rows.values())[:MOST_ROWS]))
    return section("classes", "Labels", tag("p", words, class_="about"), hardest, every)


def _label_row(name: str, scores: Mapping[str, Any], train_images: int | None) -> list[object]:
    images, precision = int(scores["images"]), scores["average_precision"]
    return [
        tag("span", cut(class_name(name), LONGEST_NAME), title=name),
        *(percent(value) for value in (precision, scores["f1"], scores["precision"])),
        percent(scores["recall"]) if images else "-",
        f"{scores['threshold']:.2f}",
        f"{images:,}",
        *([] if train_images is None else [f"{train_images:,}"]),
        bar(precision or 0.0),
    ]


def confusion(scores: Mapping[str, Any], split: str) -> Html | None:
    """The labels that are given in the place of others."""
    rows = [
        (*(cut(class_name(pair[key]), LONGEST_NAME) for key in ("true", "predicted")), f"{pair['images']:,}")
        for pair in scores["confused"][:MOST_PAIRS]
    ]
    if not rows:
        return None
    about = f"Of the {split} images, those that miss a label that they have and are given one that they have not."
    heads = ["label that is missed", "label that is wrongly given", "images"]
    return section("confusion", "Confusion", tag("p", about, class_="about"), table(heads, rows, words=2))


def errors(job: Job, loader: Loader, found: SetScores, split: str) -> Html:
    """The worst images of each kind, with those that no kind before it has shown."""
    about = (
        f"Of the {split} images, as the network sees them, with the labels that they have, and beside each what speaks "
        "for the label that is most wrong (Grad-CAM), with its probability: bright parts raise it."
    )
    parts, shown = [tag("p", about, class_="about")], set[int]()
    for kind, images in found.images.worst(3 * MOST_IMAGES).items():
        fresh = [image for image in images if image.index not in shown and image.is_error][:MOST_IMAGES]
        shown |= {image.index for image in fresh}
        if fresh:
            tiles = tag("div", *pictures.explained_sets(job, loader, fresh), class_="tiles")
            parts += [tag("h3", KINDS[kind]), tiles]
    return section("errors", "Where it errs", *parts)


def certainty(scores: Mapping[str, Any], split: str, run: str) -> Html | None:
    """Whether it is as sure of labels as they are there, and what one threshold for all of them gives.

    Args:
        run: the folder of the run, as one types it.
    """
    points = merge([entry for entry in scores["calibration"]["bins"] if entry["images"]])
    rows = scores["by_threshold"]
    reliability = reliability_chart(points, "labels that are there")
    lines = [
        Line(name, kind, [(row["threshold"], row[name]) for row in rows if row[name] is not None])
        for name, kind in (("precision", "train"), ("recall", "val"), ("f1", "one"))
    ]
    thresholds = Chart(
        "What if one threshold were for all labels?",
        [Line("F1" if line.name == "f1" else line.name, line.kind, line.points) for line in lines],
        "threshold",
        percents,
        percents,
        from_zero=True,
        high=1.0,
        x_range=(0.0, 1.0),
        note="Over all labels of all images (micro).",
    )
    charts = [chart for chart in (reliability, thresholds) if len(chart.lines[-1].points) > 1]
    if not charts:
        return None
    words = temperature_words(scores)
    about = tag("p", f"Of the {split} images{words and ', '}{words}.", class_="about")
    advice = temperature_advice(scores, run, "labels")
    return section(
        "certainty",
        "How sure it is",
        about,
        grid(charts),
        tag("p", code_words(advice), class_="note") if advice else None,
    )
