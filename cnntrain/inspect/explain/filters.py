"""The filters of the first layer as pictures: what a network looks for before anything else."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from cnntrain.inspect.explain.feature_maps import listening
from cnntrain.inspect.explain.subject import NotApplicable, Subject
from cnntrain.plots.sheet import Legend, Rgb, Row, Sheet, Tile

MOST, COLUMNS = 64, 16
SIDE, LARGE_SIDE = 72, 120  # pixels of a tile, where there are many and where there are few
GREYS = ((0, 0, 0), (255, 255, 255))


def first_layer(subject: Subject) -> tuple[str, nn.Conv2d | nn.Linear]:
    """The layer that meets the pixels: the first convolution that runs, else a linear layer of as many inputs.

    Raises:
        NotApplicable: there is neither.
    """
    met: list[tuple[str, nn.Module]] = []
    modules = dict(subject.model.named_modules())
    with listening(subject.model, modules, lambda *heard: met.append(heard[:2])), torch.no_grad():
        subject.model(subject.inputs[:1])
    for name, module in met:
        if isinstance(module, nn.Conv2d):
            return name, module
    for name, module in met:
        if isinstance(module, nn.Linear) and module.in_features == subject.images[0].numel():
            return name, module
    raise NotApplicable("the first layer is neither a convolution nor a linear layer on all pixels")


def weights_of(layer: nn.Conv2d | nn.Linear, image_shape: tuple[int, ...]) -> Tensor:
    """The weights as small images, float32 (filters, channels, H, W) on the CPU."""
    weights = layer.weight.detach().float().cpu()
    return weights.view(-1, *image_shape) if isinstance(layer, nn.Linear) else weights


def filter_tile(weights: Tensor) -> Rgb:
    """One filter (C, H, W) as pixels (H, W, 3): 0 is mid grey, the largest weight black or white.

    Three channels are red, green and blue; any other number is summed.
    """
    if len(weights) != 3:
        weights = weights.sum(0, keepdim=True)
    strength = weights / weights.abs().max().clamp_min(1e-12)
    grey = (127.5 + 127.5 * strength).round().to(torch.uint8)
    return grey.expand(3, *grey.shape[1:]).permute(1, 2, 0).contiguous().numpy()


def filter_tiles(layer: nn.Conv2d, channels: Sequence[int]) -> list[Rgb]:
    """The filters of some channels of a convolution, as tiles."""
    weights = layer.weight.detach().float().cpu()
    return [filter_tile(weights[channel]) for channel in channels]


def picture(subject: Subject, most: int | None) -> Image.Image:
    """The sheet of the first layer's filters, in their order."""
    name, layer = first_layer(subject)
    weights = weights_of(layer, tuple(subject.images.shape[1:]))
    shown = weights[: most or MOST]
    classes = subject.classes if isinstance(layer, nn.Linear) and len(weights) == len(subject.classes) else None
    tiles = [
        Tile(filter_tile(one), (classes[index] if classes else f"filter {index}", f"max {one.abs().max():.2g}"))
        for index, one in enumerate(shown)
    ]
    height, width = weights.shape[2:]
    many = f"the first {len(shown)} of {len(weights):,}" if len(shown) < len(weights) else f"all {len(weights)}"
    if isinstance(layer, nn.Linear):
        what = f"Each tile holds the weights of one unit of {name} (Linear) on the {height}x{width} pixels"
        sign = "the unit asks for the bright strokes and against the dark ones"
    else:
        colors = ", as red, green and blue" if weights.shape[1] == 3 else ""
        what = f"Each tile is one filter of {name} ({height}x{width} weights{colors}) that slides over the image"
        sign = "half bright, half dark finds edges" + (", a coloured spot that colour" if weights.shape[1] == 3 else "")
    notes = [
        f'{what}; {many}, each scaled to its own largest weight ("max").',
        "Grey is 0. Where a tile is bright, bright pixels raise the response; where it is dark, they lower it: "
        f"{sign}. Tiles like snow have learned little.",
    ]
    columns = COLUMNS if len(tiles) > COLUMNS else COLUMNS // 2
    rows = [Row((), tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    side = SIDE if len(tiles) > COLUMNS and max(height, width) <= 2 * SIDE else LARGE_SIDE
    title = f"Filters of the first layer, {name}"
    return Sheet(title, notes, subject.about, rows, side, legend=Legend(GREYS, "-max", "+max")).draw()
