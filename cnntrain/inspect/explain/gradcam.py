"""Grad-CAM (arXiv 1610.02391): which parts of an image speak for a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cnntrain.evaluation.prediction import Reading
from cnntrain.inspect.explain.feature_maps import Layer, listening
from cnntrain.inspect.explain.subject import NotApplicable, Subject, known_labels
from cnntrain.plots.drawing import RIGHT, WRONG, wrap
from cnntrain.plots.sheet import HEAT, SMALL, Legend, Rgb, Row, Sheet, Tile, color, rgb

SIDE, COLUMNS = 128, 2  # images beside each other
LABELS = 3  # of an image that may have several, or none
PLAIN = Reading()
STRONGEST = 0.65  # share of the heat in the colour of a pixel, where the heat is greatest


@dataclass
class Evidence:
    """What speaks for one class in each image.

    Attributes:
        heat: float32 (N, H, W) as large as the layer's maps, 0 or more, not scaled.
        probabilities: (N,) of that class.
    """

    classes: Tensor
    heat: Tensor
    probabilities: Tensor


def grad_cam(
    model: torch.nn.Module, inputs: Tensor, layer: str, ranks: Tensor, reading: Reading = PLAIN
) -> list[Evidence]:
    """Grad-CAM of several classes for each image.

    The heat of class c is ReLU(sum over k of a_k A_k): A_k is the k-th map of the layer, a_k the mean over places of
    the derivative of the logit of c by A_k.

    Args:
        model: in evaluation mode; neither its weights nor their gradients are touched.
        inputs: float32 (N, C, S, S).
        layer: the name of one that gives feature maps.
        ranks: int64 (M, N): M classes for each image.
        reading: of the logits, for the probabilities.

    Raises:
        NotApplicable: the logits have no derivative by the maps.
    """
    outputs: list[Tensor] = []
    with torch.enable_grad():
        watched = inputs.detach().requires_grad_().clone()  # the weights may be frozen, a layer may work in place
        with listening(model, {layer: model.get_submodule(layer)}, lambda *heard: outputs.append(heard[2])):
            logits = model(watched)
        maps = outputs[-1]
        evidence = []
        for classes in ranks:
            score = logits.gather(1, classes[:, None]).sum()
            slopes = _derivative(score, maps)
            if slopes is None:
                raise NotApplicable(f"the answer has no derivative by the maps of {layer}")
            heat = (slopes.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach().float()
            probabilities = reading.probabilities(logits.detach().float()).gather(1, classes[:, None]).squeeze(1)
            evidence.append(Evidence(classes, heat, probabilities))
    return evidence


def _derivative(score: Tensor, maps: Tensor) -> Tensor | None:
    """d score / d maps; None where the network has no way from the maps to the score that can be derived."""
    if not (score.requires_grad and maps.requires_grad):
        return None
    return torch.autograd.grad(score, maps, retain_graph=True, allow_unused=True)[0]


def enlarge(heat: Tensor, size: int) -> Tensor:
    """Heat (N, H, W) as (N, size, size), bilinear, each divided by its largest value; 0 stays 0."""
    large = F.interpolate(heat[:, None], (size, size), mode="bilinear", align_corners=False).squeeze(1)
    return large / large.amax((1, 2), keepdim=True).clamp_min(1e-12)


def overlay(image: Rgb, heat: Tensor) -> Rgb:
    """Heat (H, W) in 0..1 laid over an image: no heat leaves it grey, much heat colours it."""
    share = heat.cpu().numpy()
    grey = image.mean(2, keepdims=True) * 0.75 + 30
    weight = (0.15 + (STRONGEST - 0.15) * share)[..., None]
    return (grey * (1 - weight) + color(share, HEAT) * weight).round().astype(np.uint8)


def choose_classes(logits: Tensor, labels: Sequence[int | frozenset[int] | None]) -> Tensor:
    """Two classes for each image, int64 (2, N): the predicted one, and the true one, or where these agree (or the true
    one is not known) the second choice."""
    first, second = logits.topk(2, dim=1).indices.T
    known = torch.tensor([label if isinstance(label, int) else -1 for label in labels], device=logits.device)
    return torch.stack([first, torch.where((known >= 0) & (known != first), known, second)])


def choose_labels(
    probabilities: Tensor, reading: Reading, labels: Sequence[int | frozenset[int] | None], count: int
) -> Tensor:
    """`count` classes for each image of a set of labels, int64 (count, N): those that it is given, those of its own
    that it is not, and then the others, each by falling probability."""
    missed = torch.zeros_like(probabilities)
    for row, label in zip(missed, labels, strict=True):
        if isinstance(label, frozenset):
            row[sorted(label)] = 1
    given = reading.decide(probabilities)
    return (probabilities + torch.where(given, 2 + missed.new_zeros(()), missed)).topk(count, dim=1).indices.T


def picture(subject: Subject, layer: Layer, named: Sequence[int] = ()) -> Image.Image:
    """The sheet: each image, the heat for the predicted class, and the heat for the true class or the second choice.

    Of images with sets of labels it is the heat for some of `choose_labels`.

    Args:
        named: classes whose heat is shown in place of those.
    """
    if named or subject.reading.thresholds is not None:
        return _picture_of_labels(subject, layer, named)
    inputs = subject.inputs
    with torch.no_grad():
        logits = subject.model(inputs)
    ranks = choose_classes(logits, subject.labels)
    predicted, other = grad_cam(subject.model, inputs, layer.name, ranks, subject.reading)
    size = subject.images.shape[3]
    cells = []
    for index, (image, label, name) in enumerate(zip(subject.images, subject.labels, subject.names, strict=True)):
        pixels = rgb(image)
        chosen = int(predicted.classes[index])
        is_right = label in (None, chosen)
        ink = None if label is None else RIGHT if is_right else WRONG
        cells.append(Tile(pixels, (name, "" if label is None else "right" if is_right else "wrong"), ink))
        for evidence, what in ((predicted, "predicted"), (other, "second choice" if is_right else "true class")):
            words = f"{what}, {100 * evidence.probabilities[index]:.1f} %"
            none = () if evidence.heat[index].any() else ("no evidence",)
            large = enlarge(evidence.heat[index : index + 1], size)[0]
            cells.append(Tile(overlay(pixels, large), (subject.classes[int(evidence.classes[index])], words, *none)))
    notes = [
        "Of each three tiles: the image (blue frame: predicted right; red: wrong), the heat for the predicted class, "
        "and the heat for the true class where the prediction is wrong, else for the second choice. Each heat has a "
        "scale of its own.",
    ]
    return _sheet(subject, layer, notes, [("image",), ("predicted class",), ("true or second class",)], cells)


def _picture_of_labels(subject: Subject, layer: Layer, named: Sequence[int]) -> Image.Image:
    """The sheet of images with several labels, or none, or of named classes: each image, and the heat for each."""
    inputs, reading, size = subject.inputs, subject.reading, subject.images.shape[3]
    with torch.no_grad():
        probabilities = reading.probabilities(subject.model(inputs).float())
    given = known_labels(reading.decide(probabilities))
    if named:
        ranks = torch.tensor(named, device=inputs.device)[:, None].expand(-1, len(inputs))
    else:
        ranks = choose_labels(probabilities, reading, subject.labels, min(LABELS, len(subject.classes)))
    evidence = grad_cam(subject.model, inputs, layer.name, ranks, reading)
    cells = []
    for index, (image, label, name) in enumerate(zip(subject.images, subject.labels, subject.names, strict=True)):
        said, own = _as_set(given[index]), None if label is None else _as_set(label)
        pixels, lines = rgb(image), wrap(name, SIDE, SMALL)
        if own is not None:
            wrong, missed = len(said - own), len(own - said)
            parts = [f"{count} {word}" for count, word in ((wrong, "wrong"), (missed, "missed")) if count]
            lines.append(", ".join(parts) or "all right")
        ink = None if own is None else RIGHT if own == said else WRONG
        cells.append(Tile(pixels, tuple(lines), ink))
        for found in evidence:
            place = int(found.classes[index])
            words = f"{_verdict(place, said, own)}, {100 * found.probabilities[index]:.1f} %"
            none = () if found.heat[index].any() else ("no evidence",)
            large = enlarge(found.heat[index : index + 1], size)[0]
            cells.append(Tile(overlay(pixels, large), (subject.classes[place], words, *none)))
    order = "labels that it is given, then for those that it lacks, then for the most probable others, three in all"
    heads = [("given, missed or next",)] * len(evidence)
    if named:
        order, heads = "the classes that were named", [(subject.classes[place],) for place in named]
    notes = [
        "Beside each image (blue frame: the network gives it its labels and no other; red: not so) is the heat for "
        f"{order}. Each heat has a scale of its own.",
    ]
    return _sheet(subject, layer, notes, [("image",), *heads], cells)


def _as_set(label: int | frozenset[int]) -> frozenset[int]:
    return label if isinstance(label, frozenset) else frozenset([label])


def _verdict(place: int, said: frozenset[int], own: frozenset[int] | None) -> str:
    """What is told of a class by the labels that an image is given and, where they are known, its own."""
    if own is None:
        return "given" if place in said else "not given"
    if place in said:
        return "right" if place in own else "wrong"
    return "missed" if place in own else "not given"


def _sheet(subject: Subject, layer: Layer, notes: list[str], heads: list[tuple[str]], cells: list[Tile]) -> Image.Image:
    """The tiles of the images, `heads` of each, some images beside each other."""
    count = min(COLUMNS, len(subject.labels))
    across = len(heads) * count
    rows = [Row((), cells[start : start + across]) for start in range(0, len(cells), across)]
    first = (
        "Which parts of the image speak for a class? Bright parts raise its score (its logit). Seen through "
        f"{layer.describe()}, enlarged over the image, so fine borders mean nothing."
    )
    legend = Legend(HEAT, "no evidence", "most evidence in this tile")
    title = "Grad-CAM: where the network sees its evidence"
    return Sheet(title, [first, *notes], subject.about, rows, SIDE, heads * count, legend).draw()
