"""The parts of the page that come from asking the network: scores, confusion, classes, how sure it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnntrain.config.schema.scores import MAIN, TITLES, main_score
from cnntrain.evaluation.intervals import wilson
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.page.chart import Chart, Line, grid, percents
from cnntrain.page.markup import Html, code_words, fold, scroll, section, table, tag
from cnntrain.page.pictures import flat_image
from cnntrain.report.augmentation import class_name
from cnntrain.text import cut, number, percent

MOST_CELLS = 20  # classes of a confusion matrix that is a table; a larger one is a picture
MOST_CLASSES, MOST_ROWS = 20, 2000  # in the table of classes, at first sight and unfolded
SHADES = 8
HELP = 0.98  # of the loss that is left with a temperature: less of a gain is not worth a command
LONGEST_HEAD, LONGEST_ROW = 14, 80  # letters of a class above a column, and of all; longer names stand upright
LONGEST_NAME = 40
UPRIGHT_NAME = 24
BLUE, RED = (59, 130, 246), (239, 68, 68)  # seen on white and on black
LEAST_IMAGES, LEAST_SHARE = 20, 0.01  # that a point of the reliability curve stands for; fewer are noise
MOST_SQUARES, SMALLEST_PICTURE = 250, 500  # a side, and pixels a side: fewer squares are seen on a phone too


def scores(splits: Mapping[str, Mapping[str, Any]]) -> Html | None:
    """All measures of all splits, with 95 % intervals.

    Args:
        splits: `val` and `test`, each with its scores, and where they are known `intervals`, `images`, `calibration`.
    """
    known = {name: scores for name, scores in splits.items() if scores}
    if not known:
        return None
    heads = ["", *(Html(SPLIT_WORDS[name] + _images(scores)) for name, scores in known.items())]
    rows: list[list[object]] = []
    for key, words in TITLES.items():
        if any(scores.get(key) is not None for scores in known.values()):
            rows.append([words, *(_score(key, scores) for scores in known.values())])
    errors = [scores.get("calibration", {}).get("ece") for scores in known.values()]
    if any(error is not None for error in errors):
        rows.append(["calibration error (ECE)", *("-" if error is None else percent(error) for error in errors)])
    notes = []
    if any(scores.get("intervals") for scores in known.values()):
        notes.append("In brackets, 95 % intervals: what other images of the same kind could have shown.")
    chosen = (
        "the best epoch" if main_score(next(iter(known.values()))) == MAIN[0] else "the best epoch and the thresholds"
    )
    if "val" in known and "test" in known:
        notes.append(f"Validation chose {chosen}, so its scores flatter a little; the test images chose nothing.")
    elif "val" in known:
        notes.append(f"Validation chose {chosen}, so its scores flatter a little.")
    if words := next(filter(None, map(temperature_words, known.values())), ""):
        notes.append(f"Loss and calibration error are those {words}; it changes no class.")
    return section("scores", "Scores", table(heads, rows), tag("p", " ".join(notes), class_="note"))


def temperature_words(scores: Mapping[str, Any]) -> str:
    """The temperature by which the logits are divided, in words; nothing where none was fitted."""
    used = scores.get("calibration", {}).get("temperature", {}).get("used", 1)
    return "" if used == 1 else f"at temperature {used:.4g}, fitted to the validation images"


def _images(scores: Mapping[str, Any]) -> Html:
    return tag("span", f"{scores['images']:,} images", class_="range") if scores.get("images") else Html("")


def _score(key: str, scores: Mapping[str, Any]) -> object:
    value = scores.get(key)
    if value is None:
        return "-"
    form = number if key == "loss" else percent
    limits = scores.get("intervals", {}).get(key)
    return Html(f"{form(value)} {interval(limits, form)}")


def interval(limits: Sequence[float] | None, form: Any = percent) -> Html:
    """The two ends, smaller than the number that they belong to; nothing where they are not known."""
    if not limits:
        return Html("")
    low, high = (form(round(limit, 9)).removesuffix("%") for limit in limits)
    return tag("span", f"({low} to {high})", class_="range")


# --- confusion --------------------------------------------------------------------------------------------------------


def confusion(
    matrix: NDArray[np.int64], classes: Sequence[str], split: str, pairs: Sequence[Mapping[str, Any]]
) -> Html:
    """The counts of true against predicted classes, and the pairs that are confused most."""
    images = int(matrix.sum())
    about = (
        f"The {images:,} {split} images, true classes down, predicted ones across; shaded by share of the true class."
    )
    names = [class_name(name) for name in classes]
    body = _matrix_table(matrix, names) if len(matrix) <= MOST_CELLS else _matrix_picture(matrix, names)
    rows = [
        (
            cut(class_name(row["true"]), LONGEST_NAME),
            cut(class_name(row["predicted"]), LONGEST_NAME),
            f"{row['images']:,}",
        )
        for row in pairs
    ]
    confused = (
        table(["true class", "taken for", "images"], rows, words=2, caption="The most confused pairs") if rows else None
    )
    if rows and len(matrix) <= MOST_CELLS:
        confused = fold("The most confused pairs", confused)
    return section("confusion", "Confusion", tag("p", about, class_="about"), body, confused)


def _matrix_table(matrix: NDArray[np.int64], names: Sequence[str]) -> Html:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    is_upright = max(map(len, names)) > LONGEST_HEAD or sum(map(len, names)) > LONGEST_ROW
    heads = [
        tag(
            "th", tag("div", cut(name, UPRIGHT_NAME), class_="upright") if is_upright else name, scope="col", title=name
        )
        for name in names
    ]
    body = []
    for row, name in enumerate(names):
        cells = []
        for column in range(len(names)):
            shade = round(SHADES * float(np.sqrt(shares[row, column])))
            kind = f"{'right' if row == column else 'wrong'}{shade}"
            words = f"{name} taken for {names[column]}: {matrix[row, column]:,}"
            cells.append(
                tag("td", f"{matrix[row, column]:,}" if matrix[row, column] else "·", class_=kind, title=words)
            )
        body.append(tag("tr", tag("th", cut(name, LONGEST_NAME), scope="row", title=name), *cells))
    head = tag("thead", tag("tr", tag("td"), *heads))
    return scroll(tag("table", head, tag("tbody", *body), class_="matrix"), "confusion matrix")


def _matrix_picture(matrix: NDArray[np.int64], names: Sequence[str]) -> Html:
    """A square for each pair of classes, or of groups of neighbouring ones; transparent where there are no images."""
    shares = np.sqrt(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
    size = -(-len(matrix) // MOST_SQUARES)
    starts = np.arange(0, len(matrix), size)
    blocks = np.maximum.reduceat(np.maximum.reduceat(shares, starts, axis=0), starts, axis=1)
    np.fill_diagonal(blocks, np.add.reduceat(shares.diagonal(), starts) / np.diff([*starts, len(matrix)]))
    pixels = np.empty((*blocks.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(np.eye(len(blocks), dtype=bool)[..., None], BLUE, RED)
    pixels[..., 3] = (255 * blocks).round()
    scale = -(-SMALLEST_PICTURE // len(blocks))
    enlarged = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    right = percent(float(matrix.trace() / max(1, matrix.sum())))
    words = f"confusion matrix of {len(matrix):,} classes, {right} of the images on the diagonal"
    first, last = (cut(name, LONGEST_NAME) for name in (names[0], names[-1]))
    note = f"From {first}, above and on the left, to {last}. Blue: right; red: taken for another class."
    note += f" Each square is {size} x {size} classes, red by the worst pair in it." if size > 1 else ""
    return tag("figure", flat_image(enlarged, words, "wide pixels"), tag("figcaption", note, class_="note"))


# --- classes ----------------------------------------------------------------------------------------------------------


def by_class(classes: Mapping[str, Mapping[str, float]], train_images: Sequence[int], split: str) -> Html | None:
    """Precision, recall and F1 of each class, with a bar; of many classes the hardest first, and all of them folded."""
    if not classes:
        return None
    rows = {
        name: _class_row(name, scores, train_images[place] if train_images else None)
        for place, (name, scores) in enumerate(classes.items())
    }
    train = ["train"] if train_images else []
    heads = ["class", "recall", "precision", "F1", split, *train, "recall with its 95 % interval"]
    if len(classes) <= MOST_CLASSES:
        body: list[object] = [table(heads, list(rows.values()))]
    else:
        title = f"The first {MOST_ROWS:,} classes" if len(rows) > MOST_ROWS else f"All {len(rows):,} classes"
        order = sorted(classes, key=lambda name: (classes[name]["f1"], -classes[name]["images"]))
        hardest = [rows[name] for name in order[:MOST_CLASSES]]
        body = [
            tag("p", f"The {MOST_CLASSES} hardest of {len(classes):,} classes, by F1:", class_="about"),
            table(heads, hardest),
            fold(title, table(heads, list(rows.values())[:MOST_ROWS])),
        ]
    return section("classes", "Classes", *body)


def _class_row(name: str, scores: Mapping[str, float], train_images: int | None) -> list[object]:
    images, recall = int(scores["images"]), scores["recall"]
    values = [percent(scores["precision"]), percent(scores["f1"]), f"{images:,}"]
    shown = tag("span", cut(class_name(name), LONGEST_NAME), title=name)
    return [
        shown,
        percent(recall) if images else "-",
        *values,
        *([] if train_images is None else [f"{train_images:,}"]),
        bar(recall, images),
    ]


def bar(share: float, images: int = 0) -> Html:
    """A share as a bar, with the interval that so many images leave, if any."""
    parts = [
        tag("rect", width=100, height=10, class_="room"),
        tag("rect", width=f"{100 * share:.1f}", height=10, class_="full"),
    ]
    if images:
        low, high = wilson(share, images)
        parts.append(tag("path", d=f"M{100 * low:.1f} 5H{100 * high:.1f}", class_="reach"))
    return tag("svg", *parts, viewBox="0 0 100 10", preserveAspectRatio="none", class_="bar", aria_hidden="true")


# --- how sure it is ---------------------------------------------------------------------------------------------------


def reliability_chart(points: list[tuple[float, float]], words: str) -> Chart:
    """How often it is right by the probability that it gives; `words` say of what."""
    return Chart(
        "Is it as sure as it is right?",
        [Line("perfect", "ideal", [(0.0, 0.0), (1.0, 1.0)]), Line(words, "one", points)],
        "probability that it gives",
        percents,
        percents,
        from_zero=True,
        high=1.0,
        note="Below the dotted line it is too sure of itself, above it too modest.",
    )


def certainty(scores: Mapping[str, Any], split: str, run: str) -> Html | None:
    """Whether it is as sure as it is right, and what is gained by leaving the doubtful images out.

    Args:
        run: the folder of the run, as one types it.
    """
    coverage = [entry for entry in scores.get("coverage", ()) if entry["accuracy"] is not None]
    points = merge([entry for entry in scores.get("calibration", {}).get("bins", ()) if entry["images"]])
    reliability = reliability_chart(points, "images that are right")
    curve = Chart(
        "What if it may abstain?",
        [Line("right among those answered", "one", _by_coverage(coverage))],
        "images that it answers",
        percents,
        percents,
        note="From the right: more and more of the least certain images are left to people.",
    )
    charts = [*([reliability] if points else []), *([curve] if len(curve.lines[0].points) > 1 else [])]
    if not charts:
        return None
    words = temperature_words(scores)
    about = tag("p", f"Of the {split} images{words and ', '}{words}.", class_="about")
    advice = tag("p", code_words(_advice(scores, run)), class_="note")
    return section("certainty", "How sure it is", about, grid(charts), _thresholds(coverage), advice)


def _advice(scores: Mapping[str, Any], run: str) -> str:
    """How a threshold is set, and a temperature where it would help."""
    words = f"`cnntrain predict {run} images=PHOTOS threshold=0.9` gives no class to images below that probability."
    return f"{temperature_advice(scores, run, 'classes')} {words}".lstrip()


def temperature_advice(scores: Mapping[str, Any], run: str, classes: str) -> str:
    """What a temperature would do, and the command that keeps it; nothing where it would not help."""
    temperature = scores["calibration"]["temperature"]
    fitted, loss = temperature["fitted"], temperature["loss"]
    if temperature["used"] != 1 or not temperature["helps"] or loss > HELP * scores["loss"]:
        return ""
    return (
        f"A temperature of {fitted:.2f} would bring the loss from {number(scores['loss'])} to {number(loss)}, with the "
        f"same {classes} and better probabilities: `cnntrain eval {run} calibrate=true` keeps it."
    )


def merge(bins: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """Mean probability and accuracy of neighbouring bins, joined until each point stands for enough images."""
    least = max(LEAST_IMAGES, sum(entry["images"] for entry in bins) * LEAST_SHARE)
    points, images, probability, right = [], 0.0, 0.0, 0.0
    for entry in bins:
        images += entry["images"]
        probability += entry["images"] * entry["probability"]
        right += entry["images"] * entry["accuracy"]
        if images >= least:
            points.append((probability / images, right / images))
            images, probability, right = 0.0, 0.0, 0.0
    return points


def _by_coverage(rows: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """Accuracy by coverage, rising; of thresholds that leave the same images the first."""
    return sorted({row["coverage"]: row["accuracy"] for row in reversed(rows)}.items())


def _thresholds(rows: Sequence[Mapping[str, float]]) -> Html:
    chosen = [row for row in rows if round(1000 * row["threshold"]) in (0, 500, 700, 800, 900, 950, 990)]
    cells = [(f"{row['threshold']:.2f}", percent(row["coverage"]), percent(row["accuracy"])) for row in chosen]
    return fold("Thresholds", table(["least probability", "images answered", "right among them"], cells))
