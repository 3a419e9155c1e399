"""Grad-CAM (arXiv 1610.02391): which parts of an image speak for a class."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cnntrain.inspect.explain.feature_maps import Layer, listening
from cnntrain.inspect.explain.subject import NotApplicable, Subject
from cnntrain.plots.drawing import RIGHT, WRONG
from cnntrain.plots.sheet import HEAT, Legend, Rgb, Row, Sheet, Tile, color, rgb

SIDE, COLUMNS = 128, 2  # images beside each other
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


def grad_cam(model: torch.nn.Module, inputs: Tensor, layer: str, ranks: Tensor) -> list[Evidence]:
    """Grad-CAM of several classes for each image.

    The heat of class c is ReLU(sum over k of a_k A_k): A_k is the k-th map of the layer, a_k the mean over places of
    the derivative of the logit of c by A_k.

    Args:
        model: in evaluation mode; neither its weights nor their gradients are touched.
        inputs: float32 (N, C, S, S).
        layer: the name of one that gives feature maps.
        ranks: int64 (M, N): M classes for each image.

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
            probabilities = logits.detach().float().softmax(1).gather(1, classes[:, None]).squeeze(1)
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


def choose_classes(logits: Tensor, labels: list[int | None]) -> Tensor:
    """Two classes for each image, int64 (2, N): the predicted one, and the true one, or where these agree (or the true
    one is not known) the second choice."""
    first, second = logits.topk(2, dim=1).indices.T
    known = torch.tensor([-1 if label is None else label for label in labels], device=logits.device)
    return torch.stack([first, torch.where((known >= 0) & (known != first), known, second)])


def picture(subject: Subject, layer: Layer) -> Image.Image:
    """The sheet: each image, the heat for the predicted class, and the heat for the true class or the second choice."""
    inputs = subject.inputs
    with torch.no_grad():
        logits = subject.model(inputs)
    predicted, other = grad_cam(subject.model, inputs, layer.name, choose_classes(logits, subject.labels))
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
    across = 3 * min(COLUMNS, len(subject.labels))
    rows = [Row((), cells[start : start + across]) for start in range(0, len(cells), across)]
    notes = [
        "Which parts of the image speak for a class? Bright parts raise its score (its logit). Seen through "
        f"{layer.describe()}, enlarged over the image, so fine borders mean nothing.",
        "Of each three tiles: the image (blue frame: predicted right; red: wrong), the heat for the predicted class, "
        "and the heat for the true class where the prediction is wrong, else for the second choice. Each heat has a "
        "scale of its own.",
    ]
    heads = [("image",), ("predicted class",), ("true or second class",)] * (across // 3)
    legend = Legend(HEAT, "no evidence", "most evidence in this tile")
    title = "Grad-CAM: where the network sees its evidence"
    return Sheet(title, notes, subject.about, rows, SIDE, heads, legend).draw()
