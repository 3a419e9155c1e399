"""Which images of a whole split excite a filter most, and what of them it saw."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from cnntrain.data.labels import is_sets
from cnntrain.inspect.explain.feature_maps import Layer, listening
from cnntrain.inspect.explain.subject import Subject
from cnntrain.inspect.summary.receptive_field import WHOLE, Field
from cnntrain.inspect.summary.trace import Tracer
from cnntrain.plots.drawing import wrap
from cnntrain.plots.sheet import SMALL, Rgb, Row, Sheet, Tile, rgb
from cnntrain.report.augmentation import label_names

BEST, SIDE = 9, 80  # images of each filter, pixels of a tile
NAME_LINES = 3  # for the labels of an image, at most
FRAME = (255, 90, 0)
PATCH = 0.75  # of the image's side; a larger receptive field is framed in the image instead of cut out


@dataclass
class TopImages:
    """The images that excite each of F filters most, the strongest first.

    Where an activation has a ceiling, as ReLU6 has, many reach it: the larger sum decides, then the earlier image.

    Attributes:
        values: float32 (K, F), the largest value in the filter's map.
        sums: float32 (K, F), over the map.
        images: int64 (K, F), indices into the split.
        places: int64 (K, F, 2), row and column of that value in the map; of several, where most is around it.
    """

    values: Tensor
    sums: Tensor
    images: Tensor
    places: Tensor

    @property
    def tied(self) -> Tensor:
        """bool (F,): the filters whose largest value several images share."""
        return (self.values[:1] == self.values[1:]).any(0)


def most_exciting(
    model: nn.Module, batches: Iterable[Tensor], channels: Mapping[str, Sequence[int]], best: int
) -> dict[str, TopImages]:
    """Run all images once and keep the `best` for each chosen channel of each layer.

    Args:
        batches: float32 (N, C, S, S), in the order of the split.
        channels: by layer; the layers give feature maps.
    """
    strongest: dict[str, TopImages] = {}
    fresh: dict[str, TopImages] = {}  # of the batch in hand: a layer that runs more than once counts as it ends
    seen = 0

    def look(name: str, _: nn.Module, maps: Tensor) -> None:
        picked_maps = maps[:, list(channels[name])].float()
        values, sums = picked_maps.amax((2, 3)), picked_maps.sum((2, 3))
        around = F.avg_pool2d(picked_maps, 3, 1, 1).masked_fill(picked_maps < values[..., None, None], -math.inf)
        places = around.flatten(2).argmax(2)
        rows = torch.stack([places // maps.shape[3], places % maps.shape[3]], 2)
        images = torch.arange(seen, seen + len(values), device=values.device)[:, None].expand_as(values)
        fresh[name] = TopImages(values, sums, images, rows)

    with listening(model, {name: model.get_submodule(name) for name in channels}, look), torch.no_grad():
        for inputs in batches:
            model(inputs)
            strongest = {name: _best(strongest.get(name), new, best) for name, new in fresh.items()}
            seen += len(inputs)
    return strongest


def _best(old: TopImages | None, new: TopImages, best: int) -> TopImages:
    """The best of two, image by image."""
    if old is not None:
        pairs = zip(vars(old).values(), vars(new).values(), strict=True)
        new = TopImages(*(torch.cat(pair) for pair in pairs))
    by_sum = new.sums.sort(dim=0, descending=True, stable=True).indices
    by_value = new.values.gather(0, by_sum).sort(dim=0, descending=True, stable=True).indices
    order = by_sum.gather(0, by_value)[:best]
    places = new.places.gather(0, order[..., None].expand(-1, -1, 2))
    values, sums, images = (part.gather(0, order) for part in (new.values, new.sums, new.images))
    return TopImages(values, sums, images, places)


def receptive_fields(model: nn.Module, inputs: Tensor, names: Iterable[str]) -> dict[str, Field]:
    """What an element of each layer's maps sees of the image; all of it where that cannot be followed.

    Args:
        inputs: float32 (N, C, S, S); one image is run.
    """
    fields: dict[str, Field] = {}

    def note(name: str, _: nn.Module, output: Tensor) -> None:
        strongest = tracer.fields.get(output)
        fields[name] = WHOLE if strongest is None or strongest.lost else strongest

    images = inputs[:1].clone()
    modules = {name: model.get_submodule(name) for name in names}
    with listening(model, modules, note), torch.inference_mode(), Tracer(images, lambda _: None) as tracer:
        model(images)
    return fields


def box_of(field: Field, place: Sequence[int], size: int) -> tuple[int, int, int, int]:
    """The pixels (top, left, bottom, right, the last two exclusive) that one place (row, column) in the maps sees."""
    edges = []
    for axis in (0, 1):
        step = field.step(axis)
        if step is None or math.isinf(field.size[axis]):
            edges.append((0, size))
            continue
        low = field.low[axis] + place[axis] * step
        first = min(max(math.floor(low), 0), size - 1)
        edges.append((first, max(first + 1, min(math.ceil(low + field.size[axis]), size))))
    (top, bottom), (left, right) = edges
    return top, left, bottom, right


# ---- the sheet ----


def patch(image: Tensor, box: tuple[int, int, int, int], framed: bool) -> Rgb:
    """The box (top, left, bottom, right) of an image (C, S, S): cut out, or framed where it lies."""
    top, left, bottom, right = box
    if not framed:
        return rgb(image[:, top:bottom, left:right])
    scale = max(1, round(SIDE / image.shape[2]))
    large = rgb(image).repeat(scale, 0).repeat(scale, 1)
    picture = Image.fromarray(large)
    edges = (left * scale, top * scale, right * scale - 1, bottom * scale - 1)
    ImageDraw.Draw(picture).rectangle(edges, outline=FRAME, width=max(1, 2 * large.shape[0] // SIDE))
    return np.asarray(picture)


def picture(
    subject: Subject,
    layer: Layer,
    channels: Sequence[int],
    excited: TopImages,
    *,
    images: Tensor,
    labels: Tensor,
    split: str,
    field: Field,
    filters: Sequence[Rgb] = (),
) -> Image.Image:
    """The sheet of a layer: a filter a row, its images from the strongest on.

    Args:
        images: uint8 (K * F, C, S, S), those that `excited` names, and their labels, int64 (K * F,)
            or sets, bool (K * F, classes).
        split: how many images of what, in words.
        field: what the layer sees of an image.
        filters: pictures of the filters themselves, where they look at the image.
    """
    size = images.shape[3]
    boxes = [box_of(field, place, size) for place in excited.places.flatten(0, 1).tolist()]
    whole = all(box == (0, 0, size, size) for box in boxes)
    framed = not whole and max(field.size) > PATCH * size
    values, names = excited.values.flatten().tolist(), label_names(labels, subject.classes)
    sums = [
        (f"sum {total:,.0f}" if abs(total) >= 100 else f"sum {total:.3g}",) if tied else ()
        for row in excited.sums
        for total, tied in zip(row, excited.tied, strict=True)
    ]

    def caption(name: str, *numbers: str) -> tuple[str, ...]:
        """The names of several labels may take some lines, and come last."""
        return (*numbers, *wrap(name, SIDE, SMALL)[:NAME_LINES]) if is_sets(labels) else (name, *numbers)

    tiles = [
        Tile(patch(image, box, framed), caption(name, f"value {value:.3g}", *total))
        for image, box, name, value, total in zip(images, boxes, names, values, sums, strict=True)
    ]
    rows = []
    for index, channel in enumerate(channels):
        is_dead = all(bool(part[0, index] == part[-1, index]) for part in (excited.values, excited.sums))
        own = [Tile(filters[index], ("the filter",))] if filters else []
        rows.append(Row([f"map {channel}", *(["all alike"] if is_dead else [])], own + tiles[index :: len(channels)]))
    saw = "what the filter saw when it gave that value: its receptive field, less at a border."
    shared = ", of those that share it the sum over the map" if excited.tied.any() else ""
    own_words = f"its true class and the largest value in the filter's map{shared}"
    if is_sets(labels):
        own_words = f"the largest value in the filter's map{shared} and its labels"
    notes = [
        f"Each row is one filter. Of all {split} images these excite it most, the strongest first; below each, "
        f"{own_words}. What do the tiles of a row have in common?",
        "Each filter of this layer sees the whole image."
        if whole
        else f"The frame in each image is {saw}"
        if framed
        else f"Each tile, cut out of an image, is {saw}",
    ]
    return Sheet(f"What excites {layer.describe()}", notes, subject.about, rows, SIDE).draw()
