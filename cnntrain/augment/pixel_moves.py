"""Crops of padded images and flips: on a CPU one after the other, elsewhere as one gather."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.augment import geometry, layout
from cnntrain.augment.batch_context import BatchContext
from cnntrain.config.schema.pieces import FlipSettings, HflipSettings, PadCropSettings


class PixelMoves:
    """Pad and crop, mirror left and right, mirror top and bottom, as far as each of them is on."""

    def __init__(self, pad: PadCropSettings | None, hflip: HflipSettings | None, vflip: FlipSettings | None) -> None:
        self.pad, self.hflip, self.vflip = pad, hflip, vflip

    def __call__(self, images: Tensor, context: BatchContext) -> Tensor:
        """uint8 (N, C, H, W) to the same; the draws of each follow those of the one before."""
        if layout.launching_costs(images.device) or not images.is_cpu:
            return self.at_once(images, context)
        if self.pad:
            places = geometry.crop_places(len(images), self.pad.padding, context.host_draws)
            images = geometry.pad_crop(images, self.pad.padding, self.pad.mode, places)
        if self.hflip:
            images = geometry.mirror(images, self.left_right(len(images), context), 3)
        if self.vflip:
            images = geometry.mirror(images, geometry.flips(len(images), self.vflip.p, context.host_draws), 2)
        return images

    def left_right(self, count: int, context: BatchContext) -> Tensor:
        """Which images are mirrored left and right, bool (N,), on the host."""
        assert self.hflip
        if self.hflip.alternate:
            return geometry.alternating_flips(self.hflip.p, context)
        return geometry.flips(count, self.hflip.p, context.host_draws)

    def at_once(self, images: Tensor, context: BatchContext) -> Tensor:
        """The same bytes: the host works out which row and column each pixel comes from."""
        count, channels, height, width = images.shape
        rows, columns = np.arange(height)[None], np.arange(width)[None]
        if self.pad:
            places = geometry.crop_places(count, self.pad.padding, context.host_draws).numpy() - self.pad.padding
            rows, columns = (line + place[:, None] for line, place in zip((rows, columns), places, strict=True))
        if self.hflip:
            columns = _mirror(columns, self.left_right(count, context))
        if self.vflip:
            rows = _mirror(rows, geometry.flips(count, self.vflip.p, context.host_draws))
        black = self.pad is not None and self.pad.mode == "zeros"
        masks = [(line >= 0) & (line < side) for line, side in ((rows, height), (columns, width))] if black else []
        rows, columns = _within(rows, height, black), _within(columns, width, black)
        firsts = (rows + np.arange(0, count * height, height)[:, None]) * width
        firsts, columns = firsts.astype(np.int32), columns.astype(np.int32)
        sent = context.send_all([firsts, columns, *(mask * np.uint8(255) for mask in masks)])
        index = (sent[0][:, :, None] + sent[1][:, None, :]).view(-1)
        pixels = images.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, index)
        moved = pixels.view(count, height, width, channels).permute(0, 3, 1, 2)
        if black:
            moved.bitwise_and_(sent[2][:, None, :, None]).bitwise_and_(sent[3][:, None, None, :])
        return moved.contiguous() if images.is_contiguous() else moved


def _mirror(lines: NDArray[np.int64], mask: Tensor) -> NDArray[np.int64]:
    """Lines (N or 1, L), those in the mask (N,) backwards."""
    return np.where(mask.numpy()[:, None], lines[:, ::-1], lines)


def _within(lines: NDArray[np.int64], side: int, black: bool) -> NDArray[np.int64]:
    """Numbers of pixels of which some lie outside: there any, where it is black, else mirrored at the edge."""
    return np.clip(lines, 0, side - 1) if black else side - 1 - np.abs(side - 1 - np.abs(lines))
