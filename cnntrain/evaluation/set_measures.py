"""What decisions on sets of labels are worth: which labels the images have, and which they are given."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cnntrain.evaluation.classes import Counts
from cnntrain.evaluation.intervals import Interval, of_errors, of_mean, wilson
from cnntrain.training.multi_label import average_precision

STEPS = 100  # of a threshold that all labels share: 0.01 to 0.99


def measure(labels: Tensor, given: Tensor) -> tuple[dict[str, float], dict[str, Interval]]:
    """The scores of decisions, and their intervals of 95 %; one that cannot be told is missing.

    Those of scikit-learn's f1_score(average="macro") and (average="micro"), hamming_loss and accuracy_score; the macro
    mean is over the labels that an image has or is given. `cardinality` and `given_cardinality` are the
    labels that an image has and is given, on average.

    Args:
        labels, given: bool (N, K), on the host.
    """
    images = len(labels)
    hits, both = (labels & given).double(), labels.double() + given.double()
    used = both.sum(0) > 0
    f1, slopes = _ratio(2 * hits.sum(0), both.sum(0)), 2 * hits - both * _ratio(2 * hits.sum(0), both.sum(0))
    macro_slopes = (slopes[:, used] / both.sum(0)[used]).sum(1) / max(1, int(used.sum()))
    micro = float(_ratio(2 * hits.sum(), both.sum()))
    micro_slopes = _ratio((2 * hits - micro * both).sum(1), both.sum())
    wrong = (labels ^ given).double().mean(1)
    scores = {
        "macro_f1": float(f1[used].mean()) if used.any() else 0.0,
        "micro_f1": micro,
        "hamming": float(wrong.mean()),
        "subset_accuracy": float((wrong == 0).double().mean()),
        "cardinality": float(labels.double().sum(1).mean()),
        "given_cardinality": float(given.double().sum(1).mean()),
    }
    limits = {"subset_accuracy": wilson(scores["subset_accuracy"], images)}
    for key, influence in (("macro_f1", macro_slopes), ("micro_f1", micro_slopes)):
        limits |= _interval(key, scores[key], influence)
    if images > 1 and scores["hamming"]:
        low, high = of_mean(scores["hamming"], float(wrong.square().mean()), images)
        limits["hamming"] = Interval(low, min(1.0, high))
    return scores, limits


def measure_order(scores: Tensor, labels: Tensor) -> tuple[float, Tensor, dict[str, Interval]]:
    """The mean average precision, that of each label, float64 (K,), and the interval of the first.

    Args:
        scores: (N, K), the higher the surer; on the host.
        labels: bool (N, K).
    """
    by_label = average_precision(scores, labels)
    known = (~by_label.isnan()).nonzero().flatten().tolist()
    if not known:
        return 0.0, by_label, {}
    influence = torch.zeros(len(labels), dtype=torch.float64)
    for place in known:
        influence += influence_on_precision(scores[:, place], labels[:, place]) / len(known)
    mean = float(by_label[known].mean())
    return mean, by_label, _interval("map", mean, influence)


def influence_on_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """The slope of the average precision by the weight of each image, all of which weigh 1: float64 (N,).

    Args:
        scores, labels: (N,), of one label that some images have.
    """
    values, order = scores.sort(descending=True)
    own = labels[order].double()
    counts = torch.unique_consecutive(values, return_counts=True)[1]
    ends = counts.cumsum(0)  # of images with equal scores; a threshold takes all of them or none
    starts, ends = ((place).repeat_interleave(counts) for place in (ends - counts, ends))
    precision = own.cumsum(0)[ends - 1] / ends
    average = (own * precision).sum() / own.sum()
    # An image is counted by the precision of all that come after it.
    right, all_of_them = (part.flip(0).cumsum(0).flip(0)[starts] for part in (own / ends, own * precision / ends))
    slopes = own * (precision - average + right) - all_of_them
    return torch.empty_like(slopes).index_copy_(0, order, slopes) / own.sum()


def _interval(key: str, score: float, influence: Tensor) -> dict[str, Interval]:
    """About two standard errors either way, within 0 and 1, by the infinitesimal jackknife (Jaeckel 1972, 1806.00550).

    It gives what drawing images anew tells of the score, without drawing them. Nothing is told where no image matters.
    """
    images = len(influence)
    error = float(influence.square().sum().sqrt()) * math.sqrt(images / max(1, images - 1))
    return {key: of_errors(score, error)} if error > 1e-12 else {}


def by_class(names: Sequence[str], labels: Tensor, given: Tensor) -> dict[str, dict[str, Any]]:
    """`images`, `given`, `precision`, `recall` and `f1` of each label, 0 where there is nothing to divide by."""
    hits, images, guesses = (part.sum(0) for part in (labels & given, labels, given))
    columns = {
        "images": images,
        "given": guesses,
        "precision": _ratio(hits, guesses),
        "recall": _ratio(hits, images),
        "f1": _ratio(2 * hits, images + guesses),
    }
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return {name: dict(zip(columns, row, strict=True)) for name, row in zip(names, rows, strict=True)}


def by_threshold(probabilities: Tensor, labels: Tensor) -> list[dict[str, float | None]]:
    """What one threshold for all labels gives, 0.01 to 0.99: micro `precision` (None: of none), `recall`, `f1`,
    and `given`, the labels that an image is given on average.

    Args:
        probabilities: (N, K), of the labels; on the host.
    """
    places = (probabilities * STEPS + 1e-9).long().clamp(0, STEPS).flatten()
    every, own = (torch.bincount(part, minlength=STEPS + 1) for part in (places, places[labels.flatten()]))
    guesses, hits = (counts.flip(0).cumsum(0).flip(0).tolist() for counts in (every, own))
    total = hits[0]
    return [
        {
            "threshold": step / STEPS,
            "precision": hits[step] / guesses[step] if guesses[step] else None,
            "recall": hits[step] / max(1, total),
            "f1": 2 * hits[step] / max(1, guesses[step] + total),
            "given": guesses[step] / max(1, len(labels)),
        }
        for step in range(1, STEPS)
    ]


def count_confused(labels: Tensor, given: Tensor) -> Counts:
    """Of how many images that miss a label (down) another one is wrongly given (across): int64 (K, K)."""
    missed, extra = (part.float() for part in (labels & ~given, given & ~labels))
    return (missed.T @ extra).round().long().numpy()  # exact up to 16 million images


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 where there is nothing to divide by."""
    return part.double() / whole.double().clamp_min(1)
