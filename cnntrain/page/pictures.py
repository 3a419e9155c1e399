"""Pictures inside the page: images of the data, Grad-CAM, filters and augmentations as data URIs."""

import base64
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnntrain.data.loaders import Loader
from cnntrain.evaluation.image_scores import ImageScore
from cnntrain.evaluation.set_images import SetScore
from cnntrain.inspect.explain import feature_maps, filters, gradcam
from cnntrain.inspect.explain.subject import NotApplicable, Subject
from cnntrain.inspect.preview.sheet import Sample
from cnntrain.page.markup import Html, join, scroll, tag
from cnntrain.plots.sheet import Rgb, rgb
from cnntrain.report.augmentation import class_name
from cnntrain.text import percent, shorten
from cnntrain.training.job import Job, TrainJob

SMALL = 64  # pixels a side up to which an image is stored as it is and shown with sharp squares
LARGE, QUALITY = 176, 80  # pixels a side of larger ones, which are on the page a third of a phone wide, and of JPEG
AT_ONCE = 8  # images that Grad-CAM looks at together
MOST_FILTERS = 64
AUGMENTED = 6  # images that the augmentations are shown on
LONGEST_FILE = 60  # characters


def image(pixels: Rgb, words: str) -> Html:
    """Pixels (H, W, 3) as an element; `words` stand for it where it is not seen."""
    picture, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    is_small = max(picture.size) <= SMALL
    if is_small:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.thumbnail((LARGE, LARGE))
        picture.save(file, "JPEG", quality=QUALITY)
    return _element(file.getvalue(), "png" if is_small else "jpeg", picture.size, words, "pixels" if is_small else None)


def flat_image(pixels: "np.typing.NDArray[np.uint8]", words: str, kind: str) -> Html:
    """Pixels (H, W, 4), with their transparency, as an element of a class of the style sheet."""
    file = io.BytesIO()
    picture = Image.fromarray(pixels, "RGBA")
    picture.save(file, "PNG", optimize=True)
    return _element(file.getvalue(), "png", picture.size, words, kind)


def _element(content: bytes, kind: str, size: tuple[int, int], words: str, class_: str | None) -> Html:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return tag("img", src=source, alt=words, width=size[0], height=size[1], class_=class_)


# --- the worst images -------------------------------------------------------------------------------------------------


def explained(job: Job, loader: Loader, scores: Sequence[ImageScore]) -> Iterator[Html]:
    """Each image with what speaks for the predicted class and for the true one.

    Without feature maps, or a way from them to the answer, the image alone.
    """
    found = _evidence(job, loader, [(score.index, _classes(score)) for score in scores])
    for score, (pixels, heats) in zip(scores, found, strict=True):
        yield _trio(job, score, pixels, heats)


def explained_sets(job: Job, loader: Loader, scores: Sequence[SetScore]) -> Iterator[Html]:
    """Each image that has errors with its labels, and what speaks for the one that is most wrong; see explained."""
    worst = [_most_wrong(score) for score in scores]
    found = _evidence(job, loader, [(score.index, (label,)) for score, (label, *_) in zip(scores, worst, strict=True)])
    for score, (label, probability, what), (pixels, heats) in zip(scores, worst, found, strict=True):
        names = [shorten(class_name(job.data.classes[own]), 40) for own in score.labels]
        name, picture = class_name(job.data.classes[label]), rgb(pixels)
        words = ", ".join(names)
        own = tag("span", "has ", tag("b", words or "no label", class_="good"))
        cells = [tag("div", image(picture, f"an image of {words or 'no label'}"), own)]
        heat = image(_overlay(picture, heats[0]), f"what speaks for {name}") if heats else None
        cells.append(tag("div", heat, _words(what, name, percent(probability), "bad")))
        yield _figure(job, cells, score.file, score.loss, "duo")


def _most_wrong(score: SetScore) -> tuple[int, float, str]:
    """Of the labels of an image that are wrong, the one of the largest loss; its probability, and what is wrong."""
    wrong = [(1 - probability, label, probability, "misses") for label, probability in score.missed[:1]]
    wrong += [(probability, label, probability, "wrongly given") for label, probability in score.extra[:1]]
    return max(wrong)[1:]


def _evidence(
    job: Job, loader: Loader, wanted: Sequence[tuple[int, tuple[int, ...]]]
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The pixels of images and the heat of some classes each, by their places and these; no heat where none is."""
    layer = None
    for start in range(0, len(wanted), AT_ONCE):
        places, classes = zip(*wanted[start : start + AT_ONCE], strict=True)
        images = loader.pick(torch.tensor(places))
        inputs = job.normalize(images)
        try:
            layer = layer or feature_maps.last_map(feature_maps.map_layers(job.model, inputs)).name
            ranks = torch.tensor(classes, device=job.device).T
            heats = [found.heat for found in gradcam.grad_cam(job.model, inputs, layer, ranks)]
        except NotApplicable:
            heats = []
        for place in range(len(places)):
            yield images[place], [heat[place] for heat in heats]


def _classes(score: ImageScore) -> tuple[int, int]:
    return score.prediction, score.label


def _trio(job: Job, score: ImageScore, pixels: Tensor, heats: Sequence[Tensor]) -> Html:
    names = [class_name(job.data.classes[index]) for index in _classes(score)]
    shares = [percent(score.probability), percent(score.label_probability)]
    picture = rgb(pixels)
    whole = tag("div", image(picture, f"an image of {names[1]}"), _words("is", names[1], shares[1], "good"))
    guess = _words(
        "taken for" if score.is_error else "predicted", names[0], shares[0], "bad" if score.is_error else "good"
    )
    if not heats:
        cells = [whole, tag("div", guess)]
    else:
        tiles = [
            image(_overlay(picture, heat), f"what speaks for {name}") for heat, name in zip(heats, names, strict=True)
        ]
        cells = [whole, tag("div", tiles[0], guess)]
        if score.is_error:
            cells.append(tag("div", tiles[1], _words("evidence for", names[1], "" if heats[1].any() else "none", "")))
    return _figure(job, cells, score.file, score.loss)


def _figure(job: Job, cells: Sequence[Html], path: str, loss: float, kind: str = "trio") -> Html:
    """Pictures beside each other, with the file that they are of; `kind` is their class in the style sheet."""
    data = job.settings.data
    root = os.path.dirname(data.root) if os.path.isfile(data.root) else data.root  # of a table, where it lies
    file = path.removeprefix(f"{root}{os.sep}") if data.has_files else path
    return tag(
        "figure", tag("div", *cells, class_=kind),
        tag("figcaption", f"{shorten(file, LONGEST_FILE)}, loss {loss:.3g}", title=path),
    )  # fmt: skip


def _words(what: str, name: str, share: str, kind: str) -> Html:
    return tag("span", f"{what} ", tag("b", shorten(name, 40), class_=kind or None), f" {share}")


def _overlay(picture: Rgb, heat: Tensor) -> Rgb:
    return gradcam.overlay(picture, gradcam.enlarge(heat[None], picture.shape[0])[0])


# --- filters and augmentation -----------------------------------------------------------------------------------------


def first_filters(job: Job) -> tuple[str, Html] | None:
    """How the first layer is read, and its filters; None where it has none that can be shown as images."""
    data = job.data
    blank = torch.zeros(1, data.channels, data.eval_size, data.eval_size, dtype=torch.uint8, device=job.device)
    subject = Subject(job.model, job.normalize, list(data.classes), blank, [None], [""], "")
    try:
        name, layer = filters.first_layer(subject)
    except NotApplicable:
        return None
    weights = filters.weights_of(layer, tuple(blank.shape[1:]))
    shown = weights[:MOST_FILTERS]
    count = f"all {len(weights)}" if len(shown) == len(weights) else f"the first {len(shown)} of {len(weights):,}"
    height, width = weights.shape[2:]
    words = f"{name}: {count} filters of {height}x{width} weights, each scaled to its own largest."
    tiles = [image(filters.filter_tile(one), f"filter {number}") for number, one in enumerate(shown)]
    return words, tag("div", *tiles, class_="filters")


def augmentations(job: TrainJob) -> Html:
    """Some training images on their way to the network, a row for each stage."""
    rows = []
    for strip in Sample(job, AUGMENTED).strips():
        cells = [
            tag("div", image(rgb(pixels), strip.name), *(tag("span", line) for line in captions))
            for pixels, captions in zip(strip.images, strip.captions, strict=True)
        ]
        words = ", ".join(strip.words)
        rows.append(join([tag("h3", strip.tag), tag("p", words, class_="about") if words else None]))
        rows.append(scroll(tag("div", *cells, class_="row"), strip.tag))
    return join(rows)
