"""Feature maps: what each filter of a layer answers, place by place, to some images."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from cnntrain.inspect.explain.feature_maps import Layer
from cnntrain.inspect.explain.subject import Subject
from cnntrain.plots.sheet import HEAT, SIGNED, Legend, Rgb, Row, Sheet, Tile, color, rgb

MOST, SIDE = 16, 80


def choose_channels(maps: Tensor, most: int) -> list[int]:
    """The channels of maps (N, channels, H, W) that vary most from place to place within the images, in their order."""
    if maps.shape[1] <= most:
        return list(range(maps.shape[1]))
    spread = maps.float().flatten(2).std(2).mean(0).nan_to_num()
    return sorted(spread.sort(dim=0, descending=True, stable=True).indices[:most].tolist())


def map_tile(values: Tensor, largest: float, signed: bool) -> Rgb:
    """One map (H, W) as pixels: 0..largest as heat; signed, -largest..largest as blue over white to red."""
    shares = values.float().cpu().numpy() / (largest or 1.0)
    return color(shares / 2 + 0.5, SIGNED) if signed else color(shares, HEAT)


def picture(subject: Subject, layer: Layer, maps: Tensor, channels: Sequence[int]) -> Image.Image:
    """The sheet of a layer's maps (N, channels, H, W) of all images: an image a row, a map a column."""
    chosen = maps[:, list(channels)]
    largest = chosen.abs().amax((0, 2, 3)).tolist()
    signed = bool((chosen < 0).any())
    rows = [
        Row(
            (),
            [Tile(rgb(image), (name,))]
            + [Tile(map_tile(values, most, signed)) for values, most in zip(own, largest, strict=True)]
        )
        for image, name, own in zip(subject.images, subject.names, chosen, strict=True)
    ]  # fmt: skip
    some = (
        f"the {len(channels)} of {layer.channels:,} that vary most from place to place"
        if len(channels) < layer.channels
        else "all"
    )
    meaning = (
        "Red: the filter's pattern is there; blue: its opposite; white: neither."
        if signed
        else "Bright: the filter has found its pattern there; dark: it has not."
    )
    notes = [
        f"Each column is one map ({some}), the answer of one filter to the image on the left, at every place.",
        f'{meaning} All images share the scale of a column, up to its largest value ("max").',
    ]
    legend = Legend(SIGNED, "-max", "+max") if signed else Legend(HEAT, "0", "max")
    maxima = ((f"map {channel}", f"max {most:.2g}") for channel, most in zip(channels, largest, strict=True))
    title = f"Feature maps of {layer.describe()}"
    return Sheet(title, notes, subject.about, rows, SIDE, [("image",), *maxima], legend).draw()
